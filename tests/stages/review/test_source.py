"""The accepted pictures: their files, DVC, params.yaml, and how one is removed again."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from stages import handwriting
from stages.commands.review import source
from stages.commands.review.session import Session
from stages.common import params
from stages.common.runner import StageError
from tests.conftest import ENVIRONMENT, output_of
from tests.stages.review.conftest import LABELS, VERSION, numbers_of, png, send

NUMBERS = [*numbers_of("training", 3), *numbers_of("testing", 1)]


def accept(inbox, numbers=NUMBERS):
    """Accept test images of the slice, and return their SHA-256 and the summary."""
    hashes = [send(inbox, png(number), int(LABELS[number])) for number in numbers]
    session = Session(inbox)
    assert session.accept(hashes, None) == ""
    return hashes, session.finish()


def entry():
    """The source in params.yaml, or None."""
    found = [one for one in params.load().data.handwriting if one.name == "feedback"]
    return found[0] if found else None


def test_the_stage_reads_what_was_accepted_and_dvc_has_it(project, inbox):
    before = (project / "params.yaml").read_text()
    hashes, summary = accept(inbox)
    assert summary.startswith("4 pictures are accepted: 3 for training, 1 held back for testing")
    assert summary.endswith("Run `dvc repro` to train with them.")
    read = handwriting.read(Path(entry().path))
    assert (read.sha256, sorted(read.writers)) == (entry().sha256, sorted(hashes))
    assert sorted(read.labels) == sorted(int(LABELS[number]) for number in NUMBERS)
    lines = (project / "params.yaml").read_text().splitlines(keepends=True)
    assert "".join(line for line in lines if "name: feedback" not in line) == before
    git = ["git", "ls-files", "--others", "--exclude-standard", "data/feedback*", "data/sources"]
    assert subprocess.check_output(git, text=True).split() == [
        "data/feedback.jsonl",
        "data/sources/.gitignore",
        "data/sources/feedback.dvc",
    ]
    assert output_of("dvc", "status", cwd=project) == "Data and pipelines are up to date.\n"

    # One command takes one out again, and it never comes back.
    facts = [json.loads(line) for line in Path("data/feedback.jsonl").read_text().splitlines()]
    assert [fact["sha256"] for fact in facts] == sorted(hashes)
    assert {(fact["version"], fact["decision"]) for fact in facts} == {(VERSION, "accepted")}
    assert all(fact["reviewed"] > fact["time"] > "2026" for fact in facts)
    assert source.remove(hashes[:1]).startswith("3 pictures are accepted: 2 for training")
    read = handwriting.read(Path(entry().path))
    assert (read.sha256, sorted(read.writers)) == (entry().sha256, sorted(hashes[1:]))
    send(inbox, png(NUMBERS[0]), 3)
    assert Session(inbox).state()["corrections"] == []
    with pytest.raises(StageError, match="is not the SHA-256 of an accepted picture"):
        source.remove(hashes[:1])

    # Without the last one, everything is as before.
    assert source.remove(hashes[1:]) == "No picture is accepted."
    assert (project / "params.yaml").read_text() == before
    assert list((project / "data/sources").iterdir()) == []


def test_params_get_no_source_that_a_stage_could_not_use(project, inbox):
    before = (project / "params.yaml").read_text()
    _, summary = accept(inbox, numbers_of("training", 2))
    assert "2 for training, 0 held back" in summary
    assert "Accept more" in summary
    assert (project / "params.yaml").read_text() == before
    accept(inbox, numbers_of("testing", 1))
    assert entry() is not None


def test_the_fraction_and_the_license_of_the_user_stay(project, inbox):
    accept(inbox)
    file = project / "params.yaml"
    text = file.read_text().replace(
        "held_back: 0.2, license: private", "held_back: 0.9, license: CC0"
    )
    file.write_text(text)
    more = numbers_of("training", 4)[3:] + numbers_of("testing", 2)[1:]
    accept(inbox, more)
    assert (entry().held_back, entry().license) == (0.9, "CC0")
    assert entry().sha256 == handwriting.read(Path(entry().path)).sha256


def test_pictures_that_differ_from_the_facts_are_an_error(project, inbox):
    [first, *_], _ = accept(inbox)
    [file] = source.FOLDER.glob(f"*/{first}.png")
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(StageError, match=r"1 pictures of data/feedback\.jsonl are missing"):
        source.load()
    checkout = ["dvc", "checkout", "--quiet", "--force", "data/sources/feedback"]
    subprocess.run(checkout, env=ENVIRONMENT, check=True)
    reviews = source.load()
    file.unlink()
    file.write_bytes(content + b" ")
    with pytest.raises(StageError, match="1 pictures in data/sources/feedback have changed"):
        source.publish(reviews)
    file.write_bytes(content)
    file.with_name("mine.png").write_bytes(content)
    with pytest.raises(StageError, match="has 1 pictures that were not reviewed"):
        source.load()


def test_a_damaged_file_of_facts_is_an_error(project):
    source.FACTS.write_text("<<<<<<< HEAD\n")
    with pytest.raises(StageError, match=r"line 1 of data/feedback\.jsonl is not valid"):
        source.load()


@pytest.mark.parametrize("folder", ["idx", "handwriting"])
def test_without_the_digits_of_the_tests_there_is_no_review(project, inbox, folder):
    shutil.rmtree(project / "data" / folder)
    with pytest.raises(StageError, match=rf"data/{folder}.* is missing.*dvc repro handwriting"):
        Session(inbox)


def test_two_reviews_do_not_run_at_once(project):
    with (
        source.locked(),
        pytest.raises(StageError, match="another review is running"),
        source.locked(),
    ):
        pass
