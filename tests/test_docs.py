"""The documents: generated parts are fresh, links lead somewhere, everything public is named."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests import docs
from tests.conftest import PROJECT

TEXT = "\n".join(file.read_text() for file in docs.DOCUMENTS)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CELL_END = re.compile(r"(?<!\\)\|")
FENCE = re.compile(r"^```.*?^```", re.M | re.S)


def tracked(*patterns: str) -> list[Path]:
    """Files in git, or about to be; without patterns, all."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    done = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True)
    return [PROJECT / name for name in done.stdout.splitlines() if (PROJECT / name).exists()]


FILES = tracked()
PATHS = {path for file in FILES for path in (file, *file.parents)}
MARKDOWN = {str(file.relative_to(PROJECT)): file for file in FILES if file.suffix == ".md"}


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", document.read_text()), re.M)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in words}


def keys(params: object, path: str = "") -> Iterator[str]:
    """The full name of each parameter. A mapping whose keys are data counts as one."""
    if isinstance(params, dict) and path not in {"data.idx.sha256", "export.min_accuracy"}:
        for name, value in params.items():
            yield from keys(value, f"{path}.{name}" if path else name)
    else:
        yield path


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (PROJECT / "Makefile").read_text(), re.M))


def test_the_generated_parts_are_fresh(tmp_path):
    """If the working tree has figures of an uncommitted run, the test checks the commit instead."""
    folder = PROJECT
    figures = ["git", "diff", "--quiet", "HEAD", "--", "data", "dvc.lock"]
    if subprocess.run(figures, cwd=PROJECT, check=False).returncode:
        folder = tmp_path / "commit"
        clone = ["git", "clone", "--quiet", "--shared", ".", str(folder)]
        subprocess.run(clone, cwd=PROJECT, check=True)
    check = [sys.executable, "-m", "tests.docs", "--check"]
    done = subprocess.run(check, cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nRun `make docs`."


def test_every_row_of_a_table_has_the_cells_of_its_header():
    tables = re.findall(r"(?:^\|.*\|\n)+", TEXT, re.M)
    wrong = [
        row
        for header, *rows in (table.splitlines() for table in tables)
        for row in rows
        if len(CELL_END.findall(row)) != len(CELL_END.findall(header))
    ]
    assert tables
    assert wrong == []


@pytest.mark.parametrize("module", ["service", "service.bulk", "stages.commands.review"])
def test_every_option_is_documented(module):
    names = {
        option
        for action in docs.parser_of(module)._actions
        for option in action.option_strings
        if option.startswith("--") and option != "--help"
    }
    assert {name for name in names if f"`{name}`" not in TEXT} == set()


def test_every_make_target_is_documented_and_no_other():
    named = set(re.findall(r"(?:`|\$ )make ([a-z-]+)", TEXT))
    assert named == targets()


def test_every_route_is_documented():
    paths = json.loads((PROJECT / "service/api/openapi.json").read_text())["paths"]
    assert [path for path in paths if f" {path}`" not in TEXT] == []


def test_every_parameter_is_documented():
    """A recipe of `train.mlp` has the keys of `train.cnn`."""
    names = set(keys(yaml.safe_load((PROJECT / "params.yaml").read_text())))
    documented = {name.replace("train.mlp", "train.cnn") for name in names}
    assert {name for name in documented if f"`{name}`" not in TEXT} == set()


@pytest.mark.parametrize("name", MARKDOWN)
def test_every_link_leads_somewhere(name):
    document = MARKDOWN[name]
    wrong = []
    for link in LINK.findall(FENCE.sub("", document.read_text())):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (document.parent / path).resolve() if path else document
        if target not in PATHS or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def test_every_file_and_module_that_is_named_exists():
    files = re.findall(r"`((?:service|stages|tests|\.ci|\.github)/[\w./-]+)`", TEXT)
    modules = re.findall(r"python -m ((?:service|stages|tests)[\w.]*)", TEXT)
    for name in modules:
        path = name.replace(".", "/")
        files.append(f"{path}/__main__.py" if (PROJECT / path).is_dir() else f"{path}.py")
    assert [name for name in files if PROJECT / name.rstrip("/") not in PATHS] == []


def test_the_front_page_is_short():
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 150
