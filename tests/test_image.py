"""service/Dockerfile: `make image` builds it, and a container runs it.

buildah builds the image without reaching a registry: mmdebstrap makes a small Debian with Python,
which gets the name that the Dockerfile pulls. runc runs the image with a read-only root, as
service/README.md starts it. The packages come from an index on this machine.
"""

import io
import json
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import pytest
import requests
from PIL import Image as Picture

import service
from tests.conftest import (
    ENVIRONMENT,
    PROJECT,
    START_TIMEOUT,
    Repository,
    Server,
    download_wheels,
    free_port,
    keep,
    log_of,
    manifest_sha256,
    output_of,
    package_index,
    program,
    wait_until_ready,
    write_manifest,
)

pytestmark = pytest.mark.slow

DOCKERFILE = PROJECT / "service/Dockerfile"
[BASE] = set(re.findall(r"(?m)^FROM (\S+)", DOCKERFILE.read_text()))
MAX_SIZE = 400e6  # bytes of all layers
OFFICIAL_BASE = 125e6  # bytes of BASE as Docker publishes it, which is larger than ours
# What the Dockerfile runs, and the libraries of C++ that the packages need.
PACKAGES = "base-files,coreutils,dash,findutils,libstdc++6,python3-venv,sed"
# pip needs some. In Debian, a script of their package makes them, and no script runs here.
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
COMPILERS = {"as", "cc", "c++", "clang", "cpp", "g++", "gcc", "go", "ld", "rustc", "tcc"}
UNWANTED = {"dvc", "keras", "pip", "pyarrow", "ray", "setuptools", "tensorflow", "uv"}
UNCHECKED = b"\1\0\0\0"  # the flags of a compiled module that Python never compiles again
ESCAPES = """
import os, pathlib, tempfile
for path in "/", "/opt/mnist", "/opt/mnist/service", "/srv/model", "/var/tmp", "/tmp":
    try:
        tempfile.TemporaryFile(dir=path)
        print("can write to", path)
    except OSError:
        pass
print(os.getuid(), os.getgid(), pathlib.Path("/proc/1/cmdline").read_text().split("\\0")[1:3])
"""


@dataclass(frozen=True)
class Buildah:
    """buildah with a storage of its own."""

    program: str
    settings: dict[str, str]  # environment variables

    def run(self, *arguments: str, status: int = 0, cwd: Path = PROJECT) -> str:
        """Run buildah, and return its output."""
        return output_of(
            self.program, *arguments, cwd=cwd, env=ENVIRONMENT | self.settings, status=status
        )


@dataclass(frozen=True)
class Image:
    """An image that `make image` has built."""

    config: dict[str, object]
    inspected: str  # all that buildah knows about it
    sizes: list[int]  # bytes of each layer
    root: Path  # its files
    printed: str  # the output of the build


@pytest.fixture(scope="module")
def buildah(tmp_path_factory):
    path, builder = tmp_path_factory.mktemp("buildah"), program("buildah", "buildah")
    if os.geteuid():
        pytest.skip("needs root")
    storage = path / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{path}/images"\nrunroot = "{path}/run"\n'
    )
    settings = {"CONTAINERS_STORAGE_CONF": str(storage), "BUILDAH_ISOLATION": "chroot"}
    yield Buildah(builder, settings)
    shutil.rmtree(path)  # more than a gigabyte


@pytest.fixture(scope="module")
def index(buildah, pytestconfig, tmp_path_factory):
    """Make the base image, and yield the URL of a package index for its Python."""
    make_debian, release = program("mmdebstrap", "mmdebstrap"), Path("/etc/os-release")
    if "ID=debian" not in release.read_text().splitlines():
        pytest.skip("needs Debian, whose packages make the base image")
    [suite] = re.findall(r"(?m)^VERSION_CODENAME=(\w+)", release.read_text())

    def make(path: Path) -> None:
        path.mkdir()
        certificates = f"copy-in {CERTIFICATES} {Path(CERTIFICATES).parent}"
        options = ("--variant=extract", f"--include={PACKAGES}", f"--extract-hook={certificates}")
        command = (make_debian, "--mode=root", *options, suite, str(path / "base.tar"))
        output_of(*command, cwd=path)

    kept = keep(pytestconfig.cache.mkdir("base"), [release, Path(__file__)], make)
    container = buildah.run("from", "scratch").strip()
    buildah.run("add", container, str(kept / "base.tar"), "/")
    root = Path(buildah.run("mount", container).strip())
    python = (root / "usr/bin/python3").readlink().name.removeprefix("python")
    buildah.run("commit", "--rm", container, BASE)
    wheels = download_wheels(pytestconfig, python)
    with package_index(wheels, tmp_path_factory.mktemp("index")) as url:
        yield url


def checkout(folder, artifact):
    """Make a fresh checkout of a user with a strict umask, with the small artifact."""
    shutil.copytree(artifact.path / "data", folder / "data")
    ignored = shutil.ignore_patterns("__pycache__")  # the build would write them again
    shutil.copytree(PROJECT / "service", folder / "service", ignore=ignored)
    shutil.copy(artifact.path / "dvc.lock", folder)
    for name in ("Makefile", "pyproject.toml", "requirements.txt"):
        shutil.copy(PROJECT / name, folder)
    (folder / "service/__pycache__").mkdir()
    (folder / "service/__pycache__/stale.pyc").write_bytes(b"")
    repository = Repository(folder)
    repository.run("git", "init", "--quiet")
    repository.run("git", "add", "--all")
    repository.run("git", "commit", "--quiet", "--message=A checkout")
    repository.run("chmod", "--recursive", "go=", ".")
    return repository


@pytest.fixture(scope="module")
def image(buildah, index, artifact, tmp_path_factory):
    folder = checkout(tmp_path_factory.mktemp("checkout"), artifact).path
    printed = output_of(
        *("make", "--assume-old=.venv/.installed-service", "image", "BUILDER=buildah"),
        cwd=folder,
        env=ENVIRONMENT | buildah.settings | {"PIP_INDEX_URL": index},
    )
    inspected = buildah.run("inspect", "--type=image", "mnist")
    facts = json.loads(inspected)
    sizes = [layer["size"] for layer in json.loads(facts["Manifest"])["layers"]]
    container = buildah.run("from", "mnist").strip()
    root = Path(buildah.run("mount", container).strip())
    return Image(facts["Docker"]["config"], inspected, sizes, root, printed)


def change_a_byte(artifact):
    file = artifact / "variables/variables.index"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_the_build_verifies_the_artifact(image, artifact):
    assert f"litert can load /srv/model {artifact.version} (SHA-256 {artifact.sha256})" in (
        image.printed
    )


def test_a_changed_artifact_fails_the_build(buildah, index, artifact, tmp_path):
    folder = checkout(tmp_path / "checkout", artifact).path
    change_a_byte(folder / "data/model")
    arguments = (f"--build-arg=PIN={artifact.sha256}", f"--build-arg=PIP_INDEX_URL={index}")
    printed = buildah.run(
        *("build", "--file=service/Dockerfile", *arguments, "."), status=1, cwd=folder
    )
    assert "service: /srv/model is not the pinned artifact: expected the SHA-256" in printed


def test_the_image_says_what_it_is_and_how_to_run_it(image, artifact, index):
    labels = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in image.config["Labels"].items()
    }
    assert (labels["title"], labels["licenses"]) == ("mnist", "MIT")
    assert labels["version"] == service.__version__
    assert re.fullmatch("[0-9a-f]{40}", labels["revision"])
    assert image.config["User"] == "10001:10001"
    assert "MNIST_DRAIN=5" in image.config["Env"]
    assert f"MNIST_PIN={artifact.sha256}" in image.config["Env"]
    assert image.config["Healthcheck"]["Test"][0] == "CMD"
    assert index not in image.inspected


def test_the_image_is_small(image):
    assert sum(image.sizes) <= MAX_SIZE
    assert sum(image.sizes[1:]) <= MAX_SIZE - OFFICIAL_BASE


def test_the_image_has_only_what_the_service_needs(image):
    commands = {file.name for folder in image.root.glob("**/bin") for file in folder.iterdir()}
    assert {"sh", "python3"} <= commands
    assert commands & COMPILERS == set()
    [packages] = image.root.glob("opt/mnist/.venv/lib/python3*/site-packages")
    installed = {file.name.split("-")[0].lower() for file in packages.iterdir()}
    assert {"flask", "cv2", "ai_edge_litert"} <= installed
    assert installed & UNWANTED == set()
    program_files = image.root / "opt/mnist"
    assert {file.name for file in program_files.iterdir()} == {".venv", "service"}
    assert not (program_files / "service/bulk").exists()
    assert list(program_files.rglob("stale.pyc")) == []


def test_python_compiles_no_module_at_the_start(image):
    modules = [*image.root.glob("opt/mnist/service/**/*.py")]
    assert len(modules) > 30
    for module in modules:
        [compiled] = module.parent.glob(f"__pycache__/{module.stem}.*.pyc")
        assert compiled.read_bytes()[4:8] == UNCHECKED


@dataclass(frozen=True)
class Container(Server):
    """A running container."""

    name: str
    runc: list[str]

    def execute(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in the container."""
        in_container = [*self.runc, "exec", *command]
        return subprocess.run(in_container, capture_output=True, text=True, check=False)


@contextmanager
def started(image, folder, *arguments, mounts=(), **settings):
    """Start a container as `docker run --read-only --tmpfs /tmp --cap-drop ALL` does.

    Args:
        image: The image.
        folder: An empty folder.
        arguments: Options of the service.
        mounts: Pairs of a folder and its place in the container, where it is read-only.
        settings: Environment variables.
    """
    runc, port, container = program("runc", "runc"), free_port(), f"mnist-test-{os.getpid()}"
    subprocess.run([runc, "spec"], cwd=folder, check=True)
    spec = json.loads((folder / "config.json").read_text())
    variables = dict(variable.split("=", 1) for variable in image.config["Env"])
    variables |= {"MNIST_PORT": port, "MNIST_WORKERS": 1, **settings}
    user, group = map(int, image.config["User"].split(":"))
    spec["root"] = {"path": str(image.root), "readonly": True}
    spec["process"] |= {
        "terminal": False,
        "user": {"uid": user, "gid": group},
        "args": [*image.config["Entrypoint"], *arguments],
        "env": [f"{name}={value}" for name, value in variables.items()],
        "cwd": image.config["WorkingDir"],
        "capabilities": {},
        "noNewPrivileges": True,
    }
    # Without a network of its own, the container needs no bridge.
    spec["linux"]["namespaces"].remove({"type": "network"})
    options = ["nosuid", "nodev", "noexec"]
    tmpfs = {"destination": "/tmp", "type": "tmpfs", "options": options}  # noqa: S108
    binds = [
        {"destination": place, "type": "bind", "source": str(source), "options": ["rbind", "ro"]}
        for source, place in mounts
    ]
    spec["mounts"] += [tmpfs, *binds]
    (folder / "config.json").write_text(json.dumps(spec))
    command = [runc, f"--root={folder / 'state'}"]
    with TemporaryFile() as output:
        process = subprocess.Popen(
            [*command, "run", f"--bundle={folder}", container], stdout=output, stderr=output
        )
        try:
            yield Container(f"http://127.0.0.1:{port}", process, output, container, command)
        finally:
            subprocess.run([*command, "delete", "--force", container], check=False)
            process.wait(START_TIMEOUT)


def pictures(file):
    """A picture in each format that the service reads."""
    yield file.read_bytes()
    for form in ("JPEG", "BMP", "GIF", "WEBP"):
        buffer = io.BytesIO()
        Picture.open(file).convert("RGB").resize((280, 280)).save(buffer, form)
        yield buffer.getvalue()


def test_a_container_recognizes_digits_until_it_is_stopped(image, artifact, png_files, tmp_path):
    def get(path):
        return requests.get(f"{container.url}{path}", timeout=START_TIMEOUT).status_code

    def recognize(content, query=""):
        url = f"{container.url}/recognize{query}"
        answer = requests.post(url, files={"image": content}, timeout=START_TIMEOUT)
        assert answer.status_code == 200, answer.text
        return answer.json()["labels"]

    with started(image, tmp_path, MNIST_DRAIN=600) as container:
        wait_until_ready(container)
        for file, label in zip(png_files[:20], artifact.predictions, strict=False):
            assert recognize(file.read_bytes()) == [label]
        for content in pictures(png_files[0]):
            assert len(recognize(content)) == 1
        assert len(recognize(png_files[0].read_bytes(), "?why=true")) == 1
        pages = ("/", "/docs/", "/model/", "/metrics", "/readyz", "/openapi.json")
        assert [get(page) for page in pages] == [200] * len(pages)

        python = image.config["Entrypoint"][0]
        escaped = container.execute(container.name, python, "-c", ESCAPES)
        assert escaped.stdout == "can write to /tmp\n10001 10001 ['-m', 'service']\n"
        check = image.config["Healthcheck"]["Test"][1:]
        assert container.execute(container.name, *check).returncode == 0
        elsewhere = f"--env=MNIST_PORT={free_port()}"
        assert container.execute(elsewhere, container.name, *check).returncode != 0

        container.process.terminate()  # runc passes the signal on
        while get("/readyz") == 200:
            pass
        assert recognize(png_files[0].read_bytes()) == [artifact.predictions[0]]
        container.process.terminate()
        assert container.process.wait(START_TIMEOUT) == 0


def ended(container):
    """Wait until a container ends by itself, and return its status and its output."""
    status = container.process.wait(START_TIMEOUT)
    return status, log_of(container.output)


def test_a_mounted_artifact_is_verified_at_the_start(image, artifact, tmp_path):
    shutil.copytree(artifact.path / "data", tmp_path / "data")
    change_a_byte(tmp_path / "data/model")
    write_manifest(tmp_path)
    mount = (tmp_path / "data/model", "/srv/model")
    new = manifest_sha256(tmp_path)
    for folder in ("refused", "accepted"):
        (tmp_path / folder).mkdir()
    with started(image, tmp_path / "refused", mounts=[mount]) as container:
        status, output = ended(container)
        assert status == 1
        assert output.startswith(
            f"service: /srv/model is not the pinned artifact: expected the SHA-256 "
            f"{artifact.sha256}, found {new}"
        )
    with started(
        image, tmp_path / "accepted", "--check", mounts=[mount], MNIST_PIN=new
    ) as container:
        status, output = ended(container)
        assert (status, f"(SHA-256 {new})" in output) == (0, True)
