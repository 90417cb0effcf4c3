"""The inbox is untrusted: only valid corrections are read, and each other file is one sentence."""

import io
import json
import os

import pytest
from PIL import Image

from stages.commands.review import inbox as inbox_module
from stages.common.runner import StageError
from tests.stages.review.conftest import LABELS, TESTING, VERSION, png, send


def read(inbox, reviewed=()):
    return inbox_module.read(inbox, reviewed)


def hashes(corrections):
    return [correction.facts.sha256 for correction in corrections]


def test_the_least_confident_comes_first_and_no_digit_before_it(inbox):
    sure = send(inbox, png(0), 7, confidence=0.9)
    unsure = send(inbox, png(1), 2, confidence=0.2)
    none = send(inbox, png(2), 1, answered=None, confidence=None)
    corrections, problems = read(inbox)
    assert (hashes(corrections), problems) == ([none, unsure, sure], [])
    assert corrections[1].image == TESTING[1].tobytes()
    assert corrections[1].facts.version == VERSION
    assert corrections[1].content() == png(1)


def test_a_reviewed_picture_never_appears_again(inbox):
    old, new = send(inbox, png(0), 7), send(inbox, png(1), 2)
    assert hashes(read(inbox, {old})[0]) == [new]


def test_a_picture_without_a_digit_is_a_correction_without_an_image(inbox):
    buffer = io.BytesIO()
    Image.new("L", (50, 40), 255).save(buffer, "WEBP")
    send(inbox, buffer.getvalue(), 3, "webp", answered=None, confidence=None, version=None)
    [correction], problems = read(inbox)
    assert (correction.image, correction.extension, problems) == (None, "webp", [])


def test_the_later_of_two_labels_counts(inbox):
    send(inbox, png(0), 1, time="2026-11-29T09:10:11+00:00")
    send(inbox, png(0), 7, time="2026-11-29T10:20:11+01:30")
    send(inbox, png(0), 2, time="2026-11-29T08:10:11+00:00")
    [correction], problems = read(inbox)
    assert (correction.facts.label, problems) == (1, [])


def test_a_correction_exists_when_its_facts_do(inbox):
    sha256 = send(inbox, png(0), 7)
    (inbox / f"7/{sha256}.json").rename(inbox / "7/.partial.json")
    (inbox / ".tmp").mkdir()
    assert read(inbox) == ([], [])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"label": 10}, "'label': Input should be less than or equal to 9"),
        ({"label": "7"}, "'label': Input should be a valid integer"),
        ({"label": 3}, "is in the folder of another label than its own, 3"),
        ({"answered": -1}, "'answered': Input should be greater than or equal to 0"),
        ({"confidence": float("nan")}, "'confidence'"),
        ({"confidence": 2}, "'confidence': Input should be less than or equal to 1"),
        ({"sha256": "0" * 64}, "has the facts of another picture"),
        ({"version": "<script>"}, "'version': String should match pattern"),
        ({"time": "2026-11-29T09:10:11"}, "'time': Input should have timezone info"),
        ({"time": "yesterday\n\x1b[2J"}, "'time': Input should be a valid datetime"),
        ({"more": "x" * 5000}, "has a file of more than 4,096 bytes"),
    ],
)
def test_wrong_facts_are_one_sentence(inbox, changes, reason):
    sha256 = send(inbox, png(0), 7)
    file = inbox / f"7/{sha256}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    corrections, [sentence] = read(inbox)
    assert corrections == []
    assert sentence.startswith(f"'7/{sha256}.json' ")
    assert reason in sentence
    assert sentence.isprintable()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 4000, b"1" * 4000])
def test_broken_json_is_one_sentence(inbox, content):
    sha256 = send(inbox, png(0), 7)
    (inbox / f"7/{sha256}.json").write_bytes(content)
    corrections, [sentence] = read(inbox)
    assert corrections == []
    assert "has no valid facts" in sentence


def replace_by_link(file):
    target = file.with_name("target")
    file.rename(target)
    file.symlink_to(target)


def replace_by_pipe(file):
    file.unlink()
    os.mkfifo(file)


def replace_by_folder(file):
    file.unlink()
    file.mkdir()


def grow(file):
    with file.open("r+b") as stream:
        stream.truncate(inbox_module.MAX_PICTURE + 1)  # a sparse file


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda file: file.unlink(), "has no picture beside it"),
        (lambda file: file.write_bytes(png(1)), "has a picture with another SHA-256"),
        (replace_by_link, "is or has a symbolic link"),
        (replace_by_pipe, "is not a regular file"),
        (replace_by_folder, "cannot be read: Is a directory"),
        (grow, "has a file of more than 16,777,216 bytes"),
    ],
)
def test_a_wrong_picture_is_one_sentence(inbox, spoil, reason):
    sha256 = send(inbox, png(0), 7)
    spoil(inbox / f"7/{sha256}.png")
    corrections, [sentence] = read(inbox)
    assert corrections == []
    assert sentence.startswith(f"'7/{sha256}.json' {reason}")


def test_a_linked_file_of_facts_and_a_picture_that_is_none_are_one_sentence_each(inbox):
    sha256 = send(inbox, png(0), 7)
    replace_by_link(inbox / f"7/{sha256}.json")
    send(inbox, b"GIF89a is not enough", 3)
    corrections, sentences = read(inbox)
    assert corrections == []
    assert "cannot be decoded" in sentences[0]
    assert "is or has a symbolic link" in sentences[1]


def test_folders_other_than_the_ten_labels_are_one_sentence_each(inbox, tmp_path):
    send(tmp_path, png(0), 7)
    (inbox / "7").symlink_to(tmp_path / "7")
    (inbox / "12").mkdir()
    (inbox / "3").touch()
    (inbox / "\x1b[2J\udcff").mkdir()
    corrections, sentences = read(inbox)
    assert corrections == []
    assert [sentence.partition(" ")[0] for sentence in sentences] == [
        r"'\x1b[2J\udcff'",
        "'12'",
        "'3'",
        "'7'",
    ]
    assert all(sentence.isprintable() for sentence in sentences)


def test_a_missing_inbox_is_an_error(inbox):
    with pytest.raises(StageError, match=r"is not a folder; name the one that"):
        read(inbox / "missing")


def test_reviewed_corrections_leave_the_inbox_and_no_others(inbox):
    old, new = send(inbox, png(0), int(LABELS[0])), send(inbox, png(1), int(LABELS[1]))
    send(inbox, png(0), 3)  # the same picture with another label
    inbox_module.clear(inbox, {old})
    left = sorted(file.name for file in inbox.rglob("*.*"))
    assert left == [f"{new}.json", f"{new}.png"]
