"""Everything that the guide for contributors names exists."""

import re
import subprocess

import pytest

from tests.conftest import PROJECT

GUIDE = (PROJECT / ".github/CONTRIBUTING.md").read_text()
TREE = re.compile(r"(?m)^( *)([.\w][\w./]*)  +\S")


def paths():
    """All paths in the tree of the repository, in which two spaces are one level."""
    [tree] = re.findall(r"(?s)```\n(dvc.yaml .*?)```", GUIDE)
    found: list[str] = []
    parents: list[str] = []
    for indentation, name in TREE.findall(tree):
        parents[len(indentation) // 2 :] = [name]
        found.append("".join(parents))
    return found


@pytest.mark.parametrize("path", paths())
def test_the_tree_names_what_is_there(path):
    assert (PROJECT / path).is_dir() if path.endswith("/") else (PROJECT / path).is_file()


def test_the_tree_names_every_folder_of_code():
    code = [
        file for top in ("service", "stages", "tests") for file in (PROJECT / top).rglob("*.py")
    ]
    assert {f"{file.parent.relative_to(PROJECT)}/" for file in code} <= set(paths())


def test_the_tree_names_every_folder_of_data():
    tracked = subprocess.run(
        ["git", "ls-files", "data", "tests"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    folders = {
        "/".join(file.split("/")[:2]) + "/" for file in tracked.split() if file.count("/") > 1
    }
    outputs = {f"{path}/" for path in ("data/evaluation", "data/pictures", "data/training")}
    assert folders - outputs <= set(paths())


def test_every_command_is_a_target_of_the_makefile():
    [targets] = re.findall(r"(?m)^\.PHONY: (.*)", (PROJECT / "Makefile").read_text())
    assert set(re.findall(r"(?:`|\$ )make ([a-z-]+)", GUIDE)) <= set(targets.split())
