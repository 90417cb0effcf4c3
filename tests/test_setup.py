"""The Makefile: each command installs the right extras, and only packages of requirements.txt.

The slow tests install the service for real. They download a folder of wheels once, from the index
that pip is configured for; pytest's cache keeps it. All their other work stays on this machine.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from tests.conftest import ENVIRONMENT, PROJECT, download_wheels, output_of, package_index

PROGRAM = ("Makefile", "pyproject.toml", "requirements.txt", "dvc.lock")
INHERITED = ("MAKE", "MFLAGS", "PIP_", "UV_")  # prefixes of variables that `make` must not inherit
NOT_LOCKED = {"gpu", "bench", "fuzz"}  # extras that no command of the Makefile installs


@pytest.fixture
def folder(tmp_path):
    """A fresh checkout."""
    path = tmp_path / "checkout"
    shutil.copytree(PROJECT / "service", path / "service")
    for name in PROGRAM:
        shutil.copy(PROJECT / name, path)
    return path


@pytest.fixture
def with_model(folder):
    """A fresh checkout with a model that is not the one that dvc.lock pins."""
    (folder / "data/model").mkdir(parents=True)
    shutil.copy(PROJECT / "data/model.sha256", folder / "data")
    return folder


def make(folder, *arguments, status=0, **settings):
    """Run make without a home directory, caches, `INHERITED` variables or internet access.

    Returns:
        The output of make.
    """
    environment = {
        **{name: ENVIRONMENT[name] for name in ENVIRONMENT if not name.startswith(INHERITED)},
        "HOME": str(folder.parent / "home"),
        "PIP_CONFIG_FILE": os.devnull,
        "PYTHON": sys.executable,
        "ALL_PROXY": "http://127.0.0.1:9",  # no program listens on this port
        "NO_PROXY": "127.0.0.1",
        **settings,
    }
    command = ("make", *arguments, "UV_COMPILE_BYTECODE=0")  # compiling would take most of the time
    return output_of(*command, cwd=folder, env=environment, status=status)


def extras_of(folder, *command):
    return set(re.findall(r"--extra (\S+)", make(folder, "--dry-run", *command)))


def all_extras():
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return set(declared["optional-dependencies"]) - NOT_LOCKED


def test_make_alone_lists_every_command(folder):
    [targets] = re.findall(r"(?m)^\.PHONY: (.*)", (folder / "Makefile").read_text())
    listed = re.findall(r"(?m)^make (\S+) +\S", make(folder))
    assert listed == targets.split()


@pytest.mark.parametrize("command", ["repro", "verify"])
def test_the_pipeline_needs_no_service_and_no_tests(folder, command):
    assert extras_of(folder, command) == {"pipeline", "cpu"}


def test_a_review_needs_only_the_pipeline_and_an_inbox(folder):
    assert extras_of(folder, "review", "INBOX=inbox") == {"pipeline", "cpu"}
    assert "make review INBOX=DIR" in make(folder, "--dry-run", "review", status=2)


def test_serving_needs_only_the_service(with_model):
    assert extras_of(with_model, "serve") == {"service"}


@pytest.mark.parametrize("command", ["test", "lint", "bench", "audit", "licenses"])
def test_checks_need_everything(folder, command):
    assert extras_of(folder, command) == all_extras()


def test_everything_that_a_command_installs_is_locked(folder):
    assert extras_of(folder, "lock") == all_extras()


def test_the_lock_file_depends_on_no_index_and_no_folder():
    lock = (PROJECT / "requirements.txt").read_text()
    assert not re.findall(r"\S*://\S*|--(?!hash=)\S+|(?<!\S)[/~]\S*", lock)


def test_serving_without_a_model_names_the_remedy_and_installs_no_package(folder):
    printed = make(folder, "serve", status=2)
    assert "run `make repro` to make it, or `dvc pull data/model` to fetch it" in printed
    assert len(printed.splitlines()) == 1
    assert not (folder / ".venv").exists()


# Tests with real installations


@pytest.fixture(scope="module")
def wheels(pytestconfig):
    """Names and a folder of the wheels of uv and of the service's packages, checked by hash."""
    path = download_wheels(pytestconfig, f"{sys.version_info.major}.{sys.version_info.minor}")
    return set(re.findall(r"(?m)^([a-z0-9-]+==\S+)", (path / "needed.txt").read_text())), path


@pytest.fixture
def offline(wheels):
    """The settings with which pip installs from a folder."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels[1])}


@pytest.fixture
def index(wheels, tmp_path):
    """The URL of a package index on this machine."""
    with package_index(wheels[1], tmp_path / "index") as url:
        yield url


def installed(folder):
    """Return names and versions of installed packages, except those of a new environment."""
    freeze = [folder / ".venv/bin/pip", "freeze", "--exclude=setuptools"]
    done = subprocess.run(freeze, capture_output=True, text=True, check=True)
    lines = (line.split("==") for line in done.stdout.splitlines())
    return {f"{re.sub('[-_.]+', '-', name).lower()}=={version}" for name, version in lines}


@pytest.mark.slow
def test_a_folder_of_wheels_suffices_to_serve(with_model, wheels, offline):
    printed = make(with_model, "serve", status=2, **offline)
    assert "service: data/model is not the pinned artifact" in printed
    assert installed(with_model) == wheels[0]


@pytest.mark.slow
def test_another_index_suffices_to_serve(with_model, wheels, index):
    make(with_model, "serve", status=2, PIP_INDEX_URL=index)
    assert installed(with_model) == wheels[0]


@pytest.mark.slow
def test_a_second_run_installs_no_package(with_model, offline):
    make(with_model, "serve", status=2, **offline)
    printed = make(with_model, "serve", status=2, **offline)
    assert printed.startswith("python -m service\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda entry: "", "no trusted hash was provided for: `werkzeug`"),
        (lambda entry: re.sub("sha256:.{64}", f"sha256:{'0' * 64}", entry), "Hash mismatch"),
    ],
    ids=["unlocked", "wrong hash"],
)
def test_an_unlocked_package_is_refused(with_model, offline, edit, reason):
    lock = with_model / "requirements.txt"
    entry = re.compile(r"(?m)^werkzeug==.*(?:\n +--hash.*)+\n")
    lock.write_text(entry.sub(lambda match: edit(match[0]), lock.read_text()))
    printed = make(with_model, "serve", status=2, **offline)
    assert reason in " ".join(printed.split())  # uv breaks lines
    assert not any(line.startswith(("flask", "werkzeug")) for line in installed(with_model))
