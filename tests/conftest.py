"""Real parts, made once: a DVC repository on a slice of MNIST, and a server over its artifact.

tests/mnist/ holds the first 2,000 training and the first 500 test images of MNIST,
tests/fashion_mnist/ the first 600 and 200 of Fashion-MNIST (MIT licence, Zalando SE).

A run of the pipeline takes a minute, so pytest's cache keeps its outputs: the next session with the
same code, parameters, data and packages copies them. Remove them with `pytest --cache-clear`.
"""

import gzip
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import pytest
import requests
import yaml
from filelock import FileLock
from hypothesis import settings

from stages import idx

PROJECT = Path(__file__).parent.parent
MNIST = Path(__file__).parent / "mnist"
FASHION = Path(__file__).parent / "fashion_mnist"
PROGRAM = [
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvc/plots",
    ".dvcignore",
    "dvc.yaml",
    "stages",
    "service",
]
OUTPUTS = [".dvc/cache", "data", "dvc.lock"]  # of `dvc repro`
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@example.com",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@example.com",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "PYTHONDONTWRITEBYTECODE": "1",
}
START_TIMEOUT = 60  # seconds
MARKERS = {"repository": "pipeline", "cluster": "slow"}  # of tests that use these fixtures
RESERVED: list[socket.socket] = []  # see `free_port`

# Hypothesis would fail an example that takes 200 ms, as any may on a busy machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

Params = dict[str, Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures that they use, directly or through others."""
    for item in items:
        for fixture in MARKERS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKERS[fixture])


@dataclass(frozen=True)
class Repository:
    """A git and DVC repository that holds the program."""

    path: Path

    def run(self, *command: str, status: int | None = 0) -> str:
        """Run a command there; return what it printed. `status` None takes any exit status."""
        done = subprocess.run(
            command,
            cwd=self.path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        assert status is None or done.returncode == status, done.stdout
        return done.stdout

    def edit_params(self, edit: Callable[[Params], None]) -> None:
        file = self.path / "params.yaml"
        content = yaml.safe_load(file.read_text())
        edit(content)
        file.write_text(yaml.safe_dump(content, sort_keys=False))

    def clone(self, path: Path) -> "Repository":
        """A copy with its own history, DVC cache and data."""
        shutil.copytree(self.path, path, symlinks=True)
        return Repository(path)


def slice_params(params: Params) -> None:
    """Turn the project's params into those of a run of seconds on the slice."""
    take_from(params, MNIST)
    params["data"]["png"]["mirrors"] = ["render"]
    params["train"].update(epochs=3, validation=200)
    params["train"]["cnn"].update(batch_size=50, averaging=0.95)
    params["evaluate"]["rejected_labels"] = [3, 5]
    params["pictures"]["images"] = 20
    params["export"]["min_accuracy"] = {"cnn": 0.85, "mlp": 0.5}


def take_from(params: Params, folder: Path) -> None:
    """Let the IDX files be those of `folder`."""
    params["data"]["idx"]["mirrors"] = [str(folder)]
    params["data"]["idx"]["sha256"] = {
        name: hashlib.sha256(gzip.decompress((folder / f"{name}.gz").read_bytes())).hexdigest()
        for name in idx.NAMES
    }


def make_repository(path: Path) -> Repository:
    """Put the program, and params for the slice, into a folder, and commit them."""
    for name in PROGRAM:
        if (PROJECT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(PROJECT / name, path / name, ignore=ignored)
        else:
            (path / name).parent.mkdir(exist_ok=True)
            shutil.copy(PROJECT / name, path / name)
    shutil.copy(PROJECT / "params.yaml", path)
    made = Repository(path)
    made.edit_params(slice_params)
    made.run("git", "init", "--quiet", "--initial-branch=main")
    made.run("git", "add", "--all")
    made.run("git", "commit", "--quiet", "--message=The program")
    return made


def reproduce(repository: Repository, cache: Path) -> None:
    """Run the pipeline, or copy the outputs of an equal run from a folder that keeps the last."""
    kept = cache / fingerprint(repository)
    with FileLock(cache / "lock"):
        if kept.exists():
            copy_outputs(kept, repository.path)
            return
        repository.run("dvc", "repro")
        for old in filter(Path.is_dir, cache.iterdir()):
            shutil.rmtree(old)
        copy_outputs(repository.path, cache / "partial")
        (cache / "partial").rename(kept)


def fingerprint(repository: Repository) -> str:
    """A hash of all that determines the outputs of `dvc repro`."""
    stages = yaml.safe_load((repository.path / "dvc.yaml").read_text())["stages"].values()
    code = {path for stage in stages for path in stage["deps"] if path.endswith(".py")}
    files = [repository.path / name for name in sorted(code | {"dvc.yaml", "params.yaml"})]
    packages = sorted(path.name for path in Path(np.__file__).parent.parent.glob("*.dist-info"))
    processor = np.show_config(mode="dicts")["SIMD Extensions"]
    digest = hashlib.sha256(repr((sys.version, packages, processor)).encode())
    for file in [*files, *sorted(MNIST.iterdir())]:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def copy_outputs(source: Path, target: Path) -> None:
    for name in OUTPUTS:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
        else:
            shutil.copy2(source / name, target / name)


@pytest.fixture(scope="session")
def repository(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The program on the slice, reproduced and committed. Tests must leave it as it is."""
    made = make_repository(tmp_path_factory.mktemp("repository"))
    reproduce(made, pytestconfig.cache.mkdir("repository"))
    made.run("git", "add", "--all")
    made.run("git", "commit", "--quiet", "--message=The first run")
    return made


@pytest.fixture
def scratch(repository: Repository, tmp_path: Path) -> Repository:
    """A copy of `repository` to do anything with."""
    return repository.clone(tmp_path / "scratch")


@pytest.fixture(scope="session")
def testing(repository: Repository) -> idx.Split:
    """The 500 test images of the slice, and their labels."""
    return idx.load(repository.path / "data/idx", "testing")


@pytest.fixture(scope="session")
def predictions(repository: Repository) -> np.ndarray:
    """What evaluation answered for the test images of the slice."""
    table = repository.path / "data/evaluation/predictions.csv"
    return np.loadtxt(table, int, delimiter=",", skiprows=1)[:, 1]


@pytest.fixture(scope="session")
def version(repository: Repository) -> str:
    """The artifact's MD5, read from dvc.lock by other means than the service's."""
    lock = yaml.safe_load((repository.path / "dvc.lock").read_text())
    outputs = {output["path"]: output for output in lock["stages"]["export"]["outs"]}
    return outputs["data/model"]["md5"].removesuffix(".dir")


@pytest.fixture(scope="session")
def png_files(repository: Repository, testing: idx.Split) -> list[Path]:
    """The same images as PNG files, in order."""
    folder = repository.path / "data/png/testing"
    return [folder / str(label) / f"{number}.png" for number, label in enumerate(testing[1])]


@dataclass(frozen=True)
class Server:
    """`python -m service`, running and ready."""

    url: str
    process: "subprocess.Popen[bytes]"
    output: IO[str]

    def stop(self, timeout: float = START_TIMEOUT) -> str:
        """Ask it to end, and return all that it wrote."""
        self.process.terminate()
        self.process.wait(timeout)
        self.output.seek(0)
        return self.output.read()

    def worker(self) -> int:
        """The process id of its only worker."""
        children = ["pgrep", "-P", str(self.process.pid)]
        return int(subprocess.run(children, capture_output=True, check=True).stdout)


def start(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run a service that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "service", "--port=1", *options],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def free_port() -> int:
    """A port of 127.0.0.1 that the kernel gives to nobody else before the tests end.

    The socket stays bound and does not listen, so that a server that sets SO_REUSEADDR or
    SO_REUSEPORT can bind to the same port. Linux allows that.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", 0))
    RESERVED.append(reserved)
    return int(reserved.getsockname()[1])


@contextmanager
def running_server(folder: Path, *options: str) -> Iterator[Server]:
    """Start the service in `folder` on a free port; stop it at the end."""
    port = free_port()
    with TemporaryFile("w+") as output:  # not a pipe, which would fill up
        process = subprocess.Popen(
            [sys.executable, "-m", "service", f"--port={port}", *options],
            cwd=folder,
            env=ENVIRONMENT,
            stdout=output,
            stderr=output,
        )
        server = Server(f"http://127.0.0.1:{port}", process, output)
        try:
            _wait_until_ready(server)
            yield server
        finally:
            try:
                server.stop()
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def _wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            requests.get(f"{server.url}/healthz", timeout=START_TIMEOUT).raise_for_status()
            return
        except requests.ConnectionError:
            assert server.process.poll() is None, server.stop()
            assert time.monotonic() < deadline, "the service does not answer"
            time.sleep(0.05)


@pytest.fixture(scope="session")
def server(repository: Repository) -> Iterator[Server]:
    """The service over the artifact of `repository`."""
    with running_server(repository.path, "--workers=1") as started:
        yield started
