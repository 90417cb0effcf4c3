"""One entry of params.yaml changes, and every other byte stays."""

import pytest
import yaml

from stages.commands.review import params_file
from stages.common import params
from stages.common.runner import StageError
from tests.conftest import PROJECT

TEXT = (PROJECT / "params.yaml").read_text()
ENTRY = {
    "name": "feedback",
    "path": "data/sources/feedback",
    "held_back": 0.2,
    "license": "private",
    "sha256": "ab" * 32,
}
FLOW = "data:\n  handwriting: [{name: a, sha256: b}]  # why\n  more: 1\n"
EMPTY = "data:\n  handwriting: []  # why\n  more: 1\n"
BLOCK = """data:
  handwriting:
    # the first
    - name: a
      sha256: b  # of a
    # the end

  more: 1
"""


def test_the_project_gets_one_more_line_and_loses_it_again():
    added = params_file.update(TEXT, "feedback", ENTRY)
    [line] = set(added.splitlines()) - set(TEXT.splitlines())
    assert line == (
        "    {name: feedback, path: data/sources/feedback, held_back: 0.2, license: private, "
        f"sha256: {'ab' * 32}}},"
    )
    assert params_file.update(added, "feedback", ENTRY) == added
    assert params_file.update(added, "feedback", None) == TEXT


def test_an_update_changes_only_the_digest():
    added = params_file.update(TEXT, "feedback", ENTRY)
    updated = params_file.update(added, "feedback", ENTRY | {"sha256": "cd" * 32})
    assert updated == added.replace("ab" * 32, "cd" * 32)


@pytest.mark.parametrize("text", [FLOW, EMPTY, BLOCK])
def test_every_form_of_the_list_keeps_its_comments(text):
    added = params_file.update(text, "feedback", ENTRY)
    sources = yaml.safe_load(text)["data"]["handwriting"]
    assert yaml.safe_load(added)["data"] == {"handwriting": [*sources, ENTRY], "more": 1}
    updated = params_file.update(added, "feedback", ENTRY | {"sha256": "cd" * 32})
    assert updated == added.replace("ab" * 32, "cd" * 32)
    removed = params_file.update(updated, "feedback", None)
    assert yaml.safe_load(removed) == yaml.safe_load(text)
    for result in (added, removed):
        assert [line for line in text.splitlines() if line.lstrip().startswith("#")] == [
            line for line in result.splitlines() if line.lstrip().startswith("#")
        ]
        assert "# why" in result or "# of a" in result


def test_a_source_that_is_not_there_need_not_be_removed():
    assert params_file.update(TEXT, "feedback", None) == TEXT


def test_a_form_that_cannot_be_edited_is_an_error_and_not_a_damaged_file():
    text = "data:\n  handwriting: [{name: feedback, sha256: a}, {name: b, sha256: c}]\n"
    with pytest.raises(StageError, match="make its entry feedback by hand: none"):
        params_file.update(text, "feedback", None)


def test_the_result_is_valid(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(params_file.update(TEXT, "feedback", ENTRY))
    assert params.load(file).data.handwriting[-1].model_dump() == ENTRY
