"""Shared fixtures: a DVC repository with a slice of MNIST, and a server with its artifact.

tests/mnist/ contains the first 2,000 training images and the first 500 test images of MNIST.
tests/fashion_mnist/ contains the first 600 and 200 of Fashion-MNIST (MIT license, Zalando SE).
tests/fonts/ contains one training font and one test font of `non_digits` (see its LICENSE).

A run of the pipeline takes a minute, so pytest's cache keeps its outputs. The next session with the
same code, parameters, data and packages copies them. Remove them with `pytest --cache-clear`.
"""

import gc
import gzip
import hashlib
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryFile
from threading import Thread
from typing import IO, Any, cast

import numpy as np
import pytest
import requests
import urllib3
import yaml
from filelock import FileLock
from flask import Flask
from hypothesis import settings
from requests.adapters import HTTPAdapter

from service.api import app
from service.api.limits import Limits
from service.options import parse_options
from service.recognition import pin
from service.served_model import Model
from stages import png
from stages.common import idx

PROJECT = Path(__file__).parent.parent
MNIST = Path(__file__).parent / "mnist"
FONTS = Path(__file__).parent / "fonts"
FASHION = Path(__file__).parent / "fashion_mnist"
PROGRAM = [
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvc/plots",
    ".dvcignore",
    "data/sources",
    "dvc.yaml",
    "stages",
    "service",
]
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
WAIT_TIMEOUT = 300  # seconds; a busy machine is slow
# The markers of tests that use these fixtures.
MARKERS = {"repository": "pipeline", "server": "server", "cluster": "slow"}
RESERVED: list[socket.socket] = []  # see `free_port`

# Hypothesis fails an example that takes 200 ms, which may happen on a busy machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

Params = dict[str, Any]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of cores, and for `auto` one more, because tests wait for servers."""
    return (os.cpu_count() or 1) + (config.option.numprocesses == "auto")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Disable the garbage collector while pytest imports the test files.

    Libraries make many objects at import, and keep them. The collector would search these again and
    again, and take a third of the time. After the import, it ignores all objects that exist.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures that they use, directly or through others.

    Tests of the pipeline take the longest, so they come first: at the end, the test processes then
    share many short tests, and none waits for another.
    """
    for item in items:
        for fixture in MARKERS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKERS[fixture])
    items.sort(key=lambda item: item.get_closest_marker("pipeline") is None)


def program(name: str, package: str) -> str:
    """Return the path of a program. If it is missing, skip the test, or fail it if CI is set."""
    path = shutil.which(name, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if path is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)(f"needs {name} (Debian: {package})")
    return path


def output_of(
    *command: str, cwd: Path, env: Mapping[str, str] = ENVIRONMENT, status: int | None = 0
) -> str:
    """Run a command, and return its output.

    Args:
        command: The program and its arguments.
        cwd: The folder to run it in.
        env: Its environment variables.
        status: The expected exit status, or None to accept any.
    """
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    assert status is None or done.returncode == status, done.stdout
    return done.stdout


@dataclass(frozen=True)
class Repository:
    """A git and DVC repository that contains the program."""

    path: Path

    def run(self, *command: str, status: int | None = 0) -> str:
        """Run a command in the repository; see `output_of`."""
        return output_of(*command, cwd=self.path, status=status)

    def edit_params(self, edit: Callable[[Params], None]) -> None:
        """Let a function change the content of params.yaml."""
        file = self.path / "params.yaml"
        content = yaml.safe_load(file.read_text())
        edit(content)
        file.write_text(yaml.safe_dump(content, sort_keys=False))

    def clone(self, path: Path) -> "Repository":
        """Return a copy with its own history, DVC cache and data."""
        shutil.copytree(self.path, path, symlinks=True)
        return Repository(path)


def slice_params(params: Params) -> None:
    """Change the project's params so that a run on the slice takes seconds."""
    take_from(params, MNIST)
    params["data"]["png"]["mirrors"] = ["render"]
    params["data"]["fonts"]["mirrors"] = [str(FONTS)]
    for split in ("training", "testing"):
        fonts = params["data"]["fonts"][split]
        fonts[:] = [font for font in fonts if (FONTS / font["file"]).exists()]
    params["data"]["drawn_digits"]["training"] = 60
    params["data"]["non_digits"].update(training=60, testing=40)
    params["data"]["handwriting"] = params["data"]["handwriting"][:1]
    params["network"]["cnn"]["filters"] = [16, 32, 64, 128]
    params["train"].update(epochs=3, validation_size=200)
    params["train"]["cnn"].update(batch_size=50, ema_decay=0.95)
    params["train"]["cnn"]["photometric"]["fraction"] = 0.0  # its graph takes seconds to build
    params["evaluate"]["rejected_labels"] = [3, 5]
    params["pictures"]["images"] = 5
    params["export"]["min_accuracy"] = {"cnn": 0.85, "mlp": 0.5}
    params["export"].update(max_loss=0.1, significance=0.0)  # few test images: a coarse measure


def shorten(folder: Path, sources: list[Params]) -> None:
    """Keep only the first digits of each source of handwriting, because decoding takes seconds."""
    for source in sources:
        file = folder / source["path"]
        with np.load(file) as arrays:
            first = {name: array[:100] for name, array in arrays.items()}
        np.savez(file, **first)
        source["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()


def take_from(params: Params, folder: Path) -> None:
    """Use the IDX files of `folder`."""
    params["data"]["idx"]["mirrors"] = [str(folder)]
    params["data"]["idx"]["sha256"] = {
        name: hashlib.sha256(gzip.decompress((folder / f"{name}.gz").read_bytes())).hexdigest()
        for name in idx.NAMES
    }


def make_repository(path: Path) -> Repository:
    """Copy the program and the params for the slice to a folder, and commit them."""
    for name in PROGRAM:
        if (PROJECT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(PROJECT / name, path / name, ignore=ignored)
        else:
            (path / name).parent.mkdir(exist_ok=True)
            shutil.copy(PROJECT / name, path / name)
    shutil.copy(PROJECT / "params.yaml", path)
    new = Repository(path)
    new.edit_params(slice_params)
    new.edit_params(lambda params: shorten(path, params["data"]["handwriting"]))
    new.run("git", "init", "--quiet", "--initial-branch=main")
    new.run("git", "add", "--all")
    new.run("git", "commit", "--quiet", "--message=The program")
    return new


def keep(cache: Path, inputs: Iterable[Path], make: Callable[[Path], None]) -> Path:
    """Return the folder that `make` fills, or that an earlier session filled from equal inputs.

    Args:
        cache: A folder in pytest's cache for these outputs alone. Outputs of other inputs are
            removed from it.
        inputs: The files that determine the outputs, besides the packages and the processor.
        make: A function that fills a new folder.
    """
    kept = cache / fingerprint(inputs)
    with FileLock(cache / "lock"):
        if not kept.exists():
            for old in filter(Path.is_dir, cache.iterdir()):
                shutil.rmtree(old)
            partial = cache / "partial"
            make(partial)
            partial.rename(kept)
    return kept


def fingerprint(inputs: Iterable[Path]) -> str:
    """Return a hash of the files, the installed packages and the processor's instruction sets."""
    packages = sorted(path.name for path in Path(np.__file__).parent.parent.glob("*.dist-info"))
    processor = np.show_config(mode="dicts")["SIMD Extensions"]
    digest = hashlib.sha256(repr((sys.version, packages, processor)).encode())
    for file in inputs:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def inputs_of(pipeline: Path) -> list[Path]:
    """Return the files that `dvc repro` reads in a folder: code, parameters and the slice."""
    stages = yaml.safe_load((pipeline / "dvc.yaml").read_text())["stages"].values()
    code = {path for stage in stages for path in stage["deps"] if path.endswith(".py")}
    names = sorted(code | {"dvc.yaml", "params.yaml"})
    return [*(pipeline / name for name in names), *sorted(MNIST.iterdir())]


def reproduce(repository: Repository, cache: Path, *stages: str) -> None:
    """Run the pipeline, or copy the outputs of an equal run from the cache, and commit the outputs.

    Args:
        repository: The repository.
        cache: A folder in pytest's cache.
        stages: The last stages to run. By default, all stages run.
    """

    def make(partial: Path) -> None:
        repository.clone(partial).run("dvc", "repro", *stages)

    kept = keep(cache, inputs_of(repository.path), make)
    for name in ("data", ".dvc/cache"):
        shutil.rmtree(repository.path / name, ignore_errors=True)
        shutil.copytree(kept / name, repository.path / name)
    shutil.copy(kept / "dvc.lock", repository.path)
    repository.run("git", "add", "--all")
    repository.run("git", "commit", "--quiet", "--message=A run of the pipeline")


@pytest.fixture(scope="session")
def repository(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository with the slice and a committed run of the pipeline. Tests must not change it."""
    new = make_repository(tmp_path_factory.mktemp("repository"))
    reproduce(new, pytestconfig.cache.mkdir("repository"))
    return new


@pytest.fixture
def scratch(repository: Repository, tmp_path: Path) -> Repository:
    """A copy of `repository` that a test may change."""
    return repository.clone(tmp_path / "scratch")


def load_slice(split: str) -> idx.Split:
    """Return the images and labels of a split of the slice, without the pipeline."""
    files = [MNIST / f"{name}.gz" for name in idx.FILES[split]]
    images, labels = (idx.parse(gzip.decompress(file.read_bytes())) for file in files)
    return images, labels


@pytest.fixture(scope="session")
def testing() -> idx.Split:
    """The 500 test images of the slice, and their labels."""
    return load_slice("testing")


@pytest.fixture(scope="session")
def predictions(repository: Repository) -> np.ndarray:
    """The labels that evaluation predicted for the test images of the slice, int64 (500,)."""
    return predictions_of(repository)


def predictions_of(repository: Repository) -> np.ndarray:
    """Return the labels that evaluation predicted for the test images of the slice."""
    table = repository.path / "data/evaluation/predictions.csv"
    return np.loadtxt(table, int, delimiter=",", skiprows=1)[:, 1]


@pytest.fixture(scope="session")
def version(repository: Repository) -> str:
    """The version of the artifact of `repository`."""
    return pinned_version(repository.path)


def pinned_version(folder: Path) -> str:
    """Return the artifact's MD5 from dvc.lock, without the service's code."""
    lock = yaml.safe_load((folder / "dvc.lock").read_text())
    outputs = {output["path"]: output for output in lock["stages"]["export"]["outs"]}
    return outputs["data/model"]["md5"].removesuffix(".dir")


@pytest.fixture(scope="session")
def sha256(repository: Repository) -> str:
    """The SHA-256 of the manifest of `repository`."""
    return manifest_sha256(repository.path)


def manifest_sha256(folder: Path) -> str:
    """Return the SHA-256 of the artifact's manifest, without the service's code."""
    return hashlib.sha256((folder / "data/model.sha256").read_bytes()).hexdigest()


def pin_artifact(folder: Path) -> None:
    """Write the manifest of an artifact, and a dvc.lock that pins both, without the other code."""
    write_manifest(folder)
    md5s = {name: hashlib.md5(content).hexdigest() for name, content in contents_of(folder).items()}
    manifest = (folder / "data/model.sha256").read_bytes()
    pin_outputs(
        folder,
        {
            "data/model": f"{pin.directory_hash(md5s)}.dir",
            "data/model.sha256": hashlib.md5(manifest).hexdigest(),
        },
    )


def write_manifest(folder: Path) -> None:
    """Write the manifest of the artifact in a folder."""
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  data/model/{name}\n"
        for name, content in sorted(contents_of(folder).items())
    ]
    (folder / "data/model.sha256").write_text("".join(lines))


def contents_of(folder: Path) -> dict[str, bytes]:
    """Return the content of each file of the artifact in a folder, by its path."""
    artifact = folder / "data/model"
    return {
        file.relative_to(artifact).as_posix(): file.read_bytes()
        for file in artifact.rglob("*")
        if file.is_file()
    }


def pin_outputs(folder: Path, md5s: dict[str, str]) -> None:
    """Write a dvc.lock that pins outputs by their MD5."""
    outputs = [{"path": path, "hash": "md5", "md5": md5} for path, md5 in md5s.items()]
    lock = {"schema": "2.0", "stages": {"export": {"outs": outputs}}}
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))


def pin_by_md5_only(folder: Path) -> None:
    """Remove the manifest from dvc.lock."""
    pin_outputs(folder, {"data/model": f"{pinned_version(folder)}.dir"})


@pytest.fixture(scope="session")
def png_files(testing: idx.Split, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The PNG files of the test images of the slice, as the pipeline renders them, in order."""
    folder = tmp_path_factory.mktemp("png")
    png.render({"testing": testing}, folder)
    return [
        folder / "testing" / str(label) / f"{number}.png" for number, label in enumerate(testing[1])
    ]


@dataclass(frozen=True)
class Server:
    """`python -m service`, running and ready."""

    url: str
    process: "subprocess.Popen[bytes]"
    output: IO[bytes]

    def stop(self, timeout: float = START_TIMEOUT) -> str:
        """Stop the service, and return its output."""
        self.process.terminate()
        self.process.wait(timeout)
        return log_of(self.output)

    def worker(self) -> int:
        """Return the process id of the only worker."""
        [worker] = self.workers()
        return worker

    def workers(self) -> set[int]:
        """Return the process ids of the workers."""
        children = ["pgrep", "-P", str(self.process.pid)]
        # pgrep fails if there is no worker.
        found = subprocess.run(children, capture_output=True, text=True, check=False).stdout
        return {int(worker) for worker in found.split()}


def log_of(output: IO[bytes]) -> str:
    """Return what processes have written to a file so far.

    They share the offset of this open file. `seek` would move it, and the next line would overwrite
    an earlier one.
    """
    return os.pread(output.fileno(), os.fstat(output.fileno()).st_size, 0).decode()


def start(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run a service that should end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "service", f"--port={free_port()}", *options],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Namespace]:
    """A function that returns the options of a command line and of environment variables."""

    def parse(*arguments: str, **variables: str) -> Namespace:
        monkeypatch.setattr(sys, "argv", ["service", *arguments])
        for name in [name for name in os.environ if name.startswith("MNIST_")]:
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return parse_options()

    return parse


def free_port() -> int:
    """Return a port that is free on all addresses, and reserve it until the tests end.

    The socket stays bound and does not listen, so that a server that sets SO_REUSEADDR or
    SO_REUSEPORT can bind to the same port. Linux allows that.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("", 0))
    RESERVED.append(reserved)
    return int(reserved.getsockname()[1])


@contextmanager
def running_server(
    folder: Path, *options: str, port: int | None = None, certificate: Path | None = None
) -> Iterator[Server]:
    """Start the service, wait until it answers, and stop it at the end.

    Args:
        folder: The folder to start it in.
        options: Its options.
        port: Its port, or None for a free one.
        certificate: The file of its TLS certificate, or None if it speaks plain HTTP.
    """
    port = port or free_port()
    with TemporaryFile() as output:  # a pipe would fill up
        process = subprocess.Popen(
            [sys.executable, "-m", "service", f"--port={port}", *options],
            cwd=folder,
            env=ENVIRONMENT,
            stdout=output,
            stderr=output,
        )
        scheme = "https" if certificate else "http"
        server = Server(f"{scheme}://127.0.0.1:{port}", process, output)
        try:
            wait_until_ready(server, certificate)
            yield server
        finally:
            try:
                server.stop()
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def wait_until_ready(server: Server, certificate: Path | None = None) -> None:
    """Wait until a service answers, and fail if it ends."""

    def answers() -> bool:
        assert server.process.poll() is None, server.stop()
        with suppress(requests.ConnectionError):
            verify = str(certificate) if certificate else True
            answer = requests.get(f"{server.url}/healthz", timeout=START_TIMEOUT, verify=verify)
            answer.raise_for_status()
            return True
        return False

    wait_until(answers, "the service does not answer")


def is_open(port: int) -> bool:
    """Return whether a process of this host accepts connections on a port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], Any], problem: str = "the condition does not hold") -> Any:
    """Wait until a condition holds, and return its value; if it never does, name the problem."""
    deadline = time.monotonic() + WAIT_TIMEOUT
    while not (value := condition()):
        assert time.monotonic() < deadline, problem
        time.sleep(0.02)
    return value


def download_wheels(config: pytest.Config, python: str) -> Path:
    """Return a folder with the wheels of uv and of the service's packages, checked by hash.

    The file needed.txt in it lists them.

    Args:
        config: The configuration of pytest, whose cache keeps the folder.
        python: The version of Python that the wheels are for, such as 3.13.
    """
    lock = PROJECT / "requirements.txt"

    def make(path: Path) -> None:
        path.mkdir()
        compile_lock = [
            *("uv", "pip", "compile", "--quiet", "--generate-hashes", "--no-annotate"),
            *(f"--python-version={python}", f"--constraints={lock}", "--extra=service"),
            "pyproject.toml",
        ]
        compiled = subprocess.run(
            compile_lock, cwd=PROJECT, env=ENVIRONMENT, check=True, capture_output=True, text=True
        ).stdout
        [uv] = re.findall(r"(?m)^uv==.*(?:\n +--hash.*)+", lock.read_text())
        needed = path / "needed.txt"
        needed.write_text(f"{compiled}\n{uv}\n")
        download = ("download", "--no-deps", "--require-hashes", "--only-binary=:all:")
        options = (f"--python-version={python}", "--dest", path, "--requirement", needed)
        subprocess.run([sys.executable, "-m", "pip", *download, *options], check=True)

    return keep(config.cache.mkdir(f"wheels-{python}"), [PROJECT / "pyproject.toml", lock], make)


@contextmanager
def answering(server: HTTPServer) -> Iterator[str]:
    """Run a server in a thread, and yield its URL."""
    # The interval in which the server looks for its end is half a second by default.
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    with server:
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def package_index(wheels: Path, folder: Path) -> Iterator[str]:
    """Serve wheels as a package index, and yield its URL.

    Args:
        wheels: The folder of the wheels.
        folder: An empty folder.
    """
    for wheel in wheels.glob("*.whl"):
        project = folder / "simple" / wheel.name.split("-")[0].replace("_", "-").lower()
        project.mkdir(parents=True, exist_ok=True)
        (project / wheel.name).symlink_to(wheel)
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with answering(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as url:
        yield f"{url}/simple"


@pytest.fixture(scope="session")
def server(repository: Repository) -> Iterator[Server]:
    """The running service with the artifact of `repository`."""
    with running_server(repository.path, "--workers=1") as started:
        yield started


@dataclass(frozen=True)
class Artifact:
    """A folder with dvc.lock, data/model and its manifest that `tests.artifact` has made."""

    path: Path
    version: str
    sha256: str  # the SHA-256 of the manifest
    predictions: np.ndarray  # Keras's labels for the test images of the slice, int64 (500,)


@pytest.fixture(scope="session")
def artifact(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A small artifact, for tests that do not need the pipeline's artifact."""

    def make(partial: Path) -> None:
        command = [sys.executable, "-m", "tests.artifact", str(partial)]
        subprocess.run(command, cwd=PROJECT, env=ENVIRONMENT, check=True)

    inputs = [*inputs_of(PROJECT), PROJECT / "tests/artifact.py"]
    kept = keep(pytestconfig.cache.mkdir("artifact"), inputs, make)
    path = tmp_path_factory.mktemp("artifact")
    shutil.copytree(kept, path, dirs_exist_ok=True)
    predictions = np.load(path / "predictions.npy")
    return Artifact(path, pinned_version(path), manifest_sha256(path), predictions)


@dataclass(frozen=True)
class Client:
    """A client that sends each request as if on a new connection."""

    url: str
    adapter: HTTPAdapter

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request, with the options of `requests.request`."""
        with requests.Session() as session:
            session.mount(self.url, self.adapter)
            return session.request(method, f"{self.url}{path}", **{"timeout": 60} | options)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.request("POST", path, **options)


class InProcess(HTTPAdapter):
    """An adapter with which `requests` calls an application without a server."""

    def __init__(self, application: Flask) -> None:
        super().__init__()
        self._client = application.test_client()

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]
        headers = {
            name: value.decode("latin-1") if isinstance(value, bytes) else value
            for name, value in request.headers.items()
        }
        body = request.body
        if headers.pop("Transfer-Encoding", None):
            body = b"".join(cast(Iterable[bytes], body))  # the server also reads the whole body
        response = self._client.open(
            request.path_url, method=request.method, headers=headers, data=body
        )
        content, fields = io.BytesIO(response.data), urllib3.HTTPHeaderDict(response.headers)
        raw = urllib3.HTTPResponse(content, fields, response.status_code, preload_content=False)
        return self.build_response(request, raw)


def in_process(artifact: Artifact, **options: Any) -> Client:
    """Return a client of an application that serves the artifact.

    Args:
        artifact: The artifact.
        options: Options of `app.create`.
    """
    model = Model(artifact.path / pin.ARTIFACT, artifact.version, artifact.sha256, "litert")
    application = app.create(model, **{"limits": Limits()} | options)
    return Client("http://localhost", InProcess(application))


TRANSPORTS = ["in process", pytest.param("server", marks=pytest.mark.server)]


@pytest.fixture(scope="session", params=TRANSPORTS)
def client(request: pytest.FixtureRequest, artifact: Artifact) -> Iterator[Client]:
    """A client: once of the application alone, and once of the whole service."""
    if request.param == "in process":
        yield in_process(artifact)
        return
    with client_of_server(artifact) as server_client:
        yield server_client


@contextmanager
def client_of_server(artifact: Artifact, *options: str) -> Iterator[Client]:
    """Start the whole service with the artifact, and yield a client of it."""
    lock = artifact.path / "dvc.lock"
    with running_server(PROJECT, "--workers=1", f"--lock={lock}", *options) as started:
        yield Client(started.url, HTTPAdapter())
