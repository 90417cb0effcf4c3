"""The model on a machine that never trained: pushed, pulled and served, through real remotes.

Where there is no sshd (Debian: openssh-server), what needs it is skipped, but not in CI.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import requests

from service.recognition import pin
from tests.conftest import START_TIMEOUT, Repository, free_port, program, running_server

MODEL = "data/model"


@dataclass(frozen=True)
class SSH:
    """What an SSH server with one user and one folder needs, in a folder of its own."""

    program: str
    folder: Path
    port: int

    @property
    def key(self) -> Path:
        return self.folder / "user"

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    @contextmanager
    def running(self, *, largest: int | None = None) -> Iterator[None]:
        """Run sshd. A session that writes a file of more than `largest` KiB is killed by that."""
        limit = "" if largest is None else f"ulimit -f {2 * largest} && "  # blocks of 512 bytes
        serve = [self.program, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with (
            privilege_separation_directory(),
            (self.folder / "log").open("w+") as log,
            subprocess.Popen(["sh", "-c", f'{limit}exec "$@"', "sh", *serve], stderr=log) as sshd,
        ):
            try:
                deadline = time.monotonic() + START_TIMEOUT
                while not is_open(self.port):
                    assert sshd.poll() is None, (self.folder / "log").read_text()
                    assert time.monotonic() < deadline, "sshd does not answer"
                    time.sleep(0.02)
                yield
            finally:
                sshd.terminate()


@contextmanager
def privilege_separation_directory() -> Iterator[None]:
    """What sshd demands under root, and Debian's service makes when it starts."""
    directory = Path("/run/sshd")
    if os.geteuid() != 0 or directory.exists():
        yield
        return
    directory.mkdir(mode=0o755)
    try:
        yield
    finally:
        directory.rmdir()


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def ssh(tmp_path: Path) -> SSH:
    sshd = program("sshd", "openssh-server")
    folder = tmp_path / "ssh"
    folder.mkdir()
    for name in ("host", "user"):
        generate = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(generate, check=True)
    port = free_port()
    (folder / "sshd_config").write_text(f"""
        ListenAddress 127.0.0.1:{port}
        HostKey {folder / "host"}
        AuthorizedKeysFile {folder / "user.pub"}
        PasswordAuthentication no
        PidFile none
        StrictModes no  # the folder is in one that everyone may write to
        Subsystem sftp internal-sftp
        UsePAM no
    """)
    made = SSH(sshd, folder, port)
    made.storage.mkdir()
    return made


@pytest.fixture
def trained(scratch: Repository, ssh: SSH) -> Repository:
    """The repository of a machine that trained, with an SSH remote."""
    add_remote(scratch, f"ssh://127.0.0.1:{ssh.port}{ssh.storage}")
    scratch.run("dvc", "remote", "modify", "--local", "storage", "keyfile", str(ssh.key))
    return scratch


def add_remote(repository: Repository, url: str, *, verify: bool = True) -> None:
    """Add a remote and commit it, as the README says, or without `verify`."""
    repository.run("dvc", "remote", "add", "--default", "storage", url)
    if verify:
        repository.run("dvc", "remote", "modify", "storage", "verify", "true")
    repository.run("git", "commit", "--quiet", "--all", "--message=A remote")


def clone(repository: Repository, path: Path, *options: str) -> Repository:
    """What another machine has: what is in git, and its key."""
    repository.run("git", "clone", "--quiet", *options, ".", str(path))
    private = repository.path / ".dvc/config.local"
    if private.exists():
        shutil.copy(private, path / ".dvc")
    return Repository(path)


def assert_pinned(repository: Repository, version: str) -> None:
    pinned = pin.read(repository.path / "dvc.lock")
    assert pinned.version == version
    with TemporaryDirectory() as folder:
        pin.copy(pinned, Path(folder) / "copy")


def refusal(repository: Repository) -> str:
    """What the service says that does not serve."""
    said = repository.run(sys.executable, "-m", "service", f"--port={free_port()}", status=1)
    assert "Serving" not in said
    return said


def test_a_machine_that_never_trained_serves_the_pinned_model(
    trained, ssh, tmp_path, png_files, predictions, version
):
    with ssh.running():
        trained.run("dvc", "push")
        other = clone(trained, tmp_path / "other")
        other.run("dvc", "pull", MODEL)
    assert not (other.path / "data/network").exists()
    with running_server(other.path, "--workers=1") as server:
        files = {"image": png_files[0].read_bytes()}
        answer = requests.post(f"{server.url}/recognize", files=files, timeout=30)
    assert answer.json()["labels"] == [predictions[0]]
    assert answer.headers["X-Model-Version"] == version


def test_a_push_that_is_cut_gives_no_model_and_another_one_completes_it(
    trained, ssh, tmp_path, version
):
    with ssh.running(largest=100):
        said = trained.run("dvc", "push", MODEL, status=1)
    assert "failed to push data to the cloud" in said
    arrived = [file for file in ssh.storage.rglob("*") if file.is_file()]
    assert max(file.stat().st_size for file in arrived) == 100 * 1024  # a part of a file
    other = clone(trained, tmp_path / "other")
    with ssh.running():
        said = other.run("dvc", "pull", MODEL, status=1)
        assert "failed to pull data from the cloud" in said
        assert f"expected the artifact {version}" in refusal(other)

        trained.run("dvc", "push", MODEL)
        other.run("dvc", "pull", MODEL)
    assert_pinned(other, version)


def damage(storage: Path, model: Path) -> None:
    """Change a byte of what a remote holds of a file of the model."""
    content = (model / "saved_model.pb").read_bytes()
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 1
    [stored] = [
        file for file in storage.rglob("*") if file.is_file() and file.read_bytes() == content
    ]
    stored.chmod(0o644)
    stored.write_bytes(damaged)


def repair(storage: Path, trained: Repository) -> None:
    """Fill the remote afresh: DVC sends nothing that it has sent before and that has the name."""
    shutil.rmtree(storage)
    trained.run("dvc", "push", MODEL)


def test_a_damaged_object_is_refused_by_the_pull_if_the_remote_is_to_be_verified(
    scratch, tmp_path, version
):
    storage = tmp_path / "storage"
    add_remote(scratch, str(storage))
    scratch.run("dvc", "push", MODEL)
    damage(storage, scratch.path / MODEL)
    other = clone(scratch, tmp_path / "other")
    assert "failed to pull data from the cloud" in other.run("dvc", "pull", MODEL, status=1)
    assert not (other.path / MODEL).exists()
    assert f"expected the artifact {version}" in refusal(other)

    repair(storage, scratch)
    other.run("dvc", "pull", MODEL)
    assert_pinned(other, version)


def test_a_damaged_object_that_the_pull_lets_through_is_refused_by_the_service(
    scratch, tmp_path, version
):
    storage = tmp_path / "storage"
    add_remote(scratch, str(storage), verify=False)
    scratch.run("dvc", "push", MODEL)
    damage(storage, scratch.path / MODEL)
    other = clone(scratch, tmp_path / "other")
    other.run("dvc", "pull", MODEL)
    assert f"{MODEL} is not the pinned artifact: expected {version}, found" in refusal(other)

    repair(storage, scratch)
    shutil.rmtree(other.path / ".dvc/cache")  # which DVC does not check again
    shutil.rmtree(other.path / MODEL)
    other.run("dvc", "pull", MODEL)
    assert_pinned(other, version)


def test_a_version_is_had_by_its_tag(scratch, tmp_path, version):
    storage = tmp_path / "storage"
    add_remote(scratch, str(storage))
    scratch.run("dvc", "push", MODEL)
    scratch.run("git", "tag", "--annotate", "--message=The first", "mnist@v1.0.0")
    lock = scratch.path / "dvc.lock"
    lock.write_text(lock.read_text().replace(version, "0" * 32))
    scratch.run("git", "commit", "--quiet", "--all", "--message=Another model")

    other = clone(scratch, tmp_path / "other", "--branch=mnist@v1.0.0")
    url = f"file://{scratch.path}"  # by its path, DVC would take what is in its cache
    get = ["dvc", "artifacts", "get", url, "mnist", f"--out={MODEL}", "--force"]
    said = other.run(*get, "--rev=v2.0.0", status=1)
    assert "Unable to find artifact 'mnist @ v2.0.0'" in said
    other.run(*get, "--rev=v1.0.0")
    assert_pinned(other, version)

    damage(storage, scratch.path / MODEL)
    other.run(*get, "--rev=v1.0.0")  # DVC verifies a pull, but not this
    assert f"{MODEL} is not the pinned artifact: expected {version}, found" in refusal(other)
