"""Tests that push the model to DVC remotes, and pull and serve it on a machine that never trained.

Without sshd (Debian: openssh-server), the tests of the SSH remote are skipped, or fail in CI.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import requests

from service.recognition import pin
from tests.conftest import Repository, free_port, is_open, program, running_server, wait_until

MODEL = "data/model"


@dataclass(frozen=True)
class SSH:
    """The files and the port of an SSH server with one user and one storage folder."""

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
    def running(self, *, max_kib: int | None = None) -> Iterator[None]:
        """Run sshd. The kernel kills a session that writes a file of more than `max_kib` KiB."""
        limit = "" if max_kib is None else f"ulimit -f {2 * max_kib} && "  # blocks of 512 bytes
        command = [self.program, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        make_privilege_separation_directory()
        with (
            (self.folder / "log").open("w+") as log,
            subprocess.Popen(["sh", "-c", f'{limit}exec "$@"', "sh", *command], stderr=log) as sshd,
        ):
            try:
                wait_until(lambda: sshd.poll() is not None or is_open(self.port))
                assert sshd.poll() is None, (self.folder / "log").read_text()
                yield
            finally:
                sshd.terminate()


def make_privilege_separation_directory() -> None:
    """Make the folder that sshd needs under root, as Debian's service does at its start.

    Tests in other processes may use the folder at the same time, so no test removes it.
    """
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)


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
        StrictModes no  # a parent folder is writable for everyone
        Subsystem sftp internal-sftp
        UsePAM no
    """)
    server = SSH(sshd, folder, port)
    server.storage.mkdir()
    return server


@pytest.fixture
def trained(scratch: Repository, ssh: SSH) -> Repository:
    """Return the repository of a machine that trained the model, with an SSH remote."""
    add_remote(scratch, f"ssh://127.0.0.1:{ssh.port}{ssh.storage}")
    scratch.run("dvc", "remote", "modify", "--local", "storage", "keyfile", str(ssh.key))
    return scratch


def add_remote(repository: Repository, url: str, *, verify: bool = True) -> None:
    """Add a remote as the documentation describes, optionally without `verify`, and commit it."""
    repository.run("dvc", "remote", "add", "--default", "storage", url)
    if verify:
        repository.run("dvc", "remote", "modify", "storage", "verify", "true")
    repository.run("git", "commit", "--quiet", "--all", "--message=A remote")


def clone(repository: Repository, path: Path, *options: str) -> Repository:
    """Clone the repository with git, as another machine does, and copy the SSH key's settings."""
    repository.run("git", "clone", "--quiet", *options, ".", str(path))
    local_config = repository.path / ".dvc/config.local"
    if local_config.exists():
        shutil.copy(local_config, path / ".dvc")
    return Repository(path)


def assert_pinned(repository: Repository, version: str) -> None:
    pinned = pin.read(repository.path / "dvc.lock")
    assert pinned.version == version
    with TemporaryDirectory() as folder:
        pin.copy(pinned, Path(folder) / "copy")


def start_error(repository: Repository) -> str:
    """Start the service, which must fail, and return its output."""
    output = repository.run(sys.executable, "-m", "service", f"--port={free_port()}", status=1)
    assert "Serving" not in output
    return output


def test_machine_that_never_trained_serves_the_pinned_model(
    trained, ssh, tmp_path, png_files, predictions, version
):
    with ssh.running():
        trained.run("dvc", "push")
        other = clone(trained, tmp_path / "other")
        other.run("dvc", "pull", MODEL)
    assert not (other.path / "data/network").exists()
    with running_server(other.path, "--workers=1") as server:
        files = {"image": png_files[0].read_bytes()}
        response = requests.post(f"{server.url}/recognize", files=files, timeout=30)
    assert response.json()["labels"] == [predictions[0]]
    assert response.headers["X-Model-Version"] == version


def test_second_push_completes_an_interrupted_push(trained, ssh, tmp_path, version):
    with ssh.running(max_kib=100):
        output = trained.run("dvc", "push", MODEL, status=1)
    assert "failed to push data to the cloud" in output
    # The push began. DVC removes an incomplete file if it can reconnect in time.
    stored = [file.stat().st_size for file in ssh.storage.rglob("*") if file.is_file()]
    assert max(stored) <= 100 * 1024
    other = clone(trained, tmp_path / "other")
    with ssh.running():
        output = other.run("dvc", "pull", MODEL, status=1)
        assert "failed to pull data from the cloud" in output
        assert f"expected the artifact {version}" in start_error(other)

        trained.run("dvc", "push", MODEL)
        other.run("dvc", "pull", MODEL)
    assert_pinned(other, version)


def damage(storage: Path, model: Path) -> None:
    """Flip one bit of the model's saved_model.pb in a remote."""
    content = (model / "saved_model.pb").read_bytes()
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 1
    [stored] = [
        file for file in storage.rglob("*") if file.is_file() and file.read_bytes() == content
    ]
    stored.chmod(0o644)
    stored.write_bytes(damaged)


def repair(storage: Path, trained: Repository) -> None:
    """Empty the remote and push again, because DVC does not replace files that exist there."""
    shutil.rmtree(storage)
    trained.run("dvc", "push", MODEL)


def test_pull_rejects_a_damaged_object_if_the_remote_has_verify(scratch, tmp_path, version):
    storage = tmp_path / "storage"
    add_remote(scratch, str(storage))
    scratch.run("dvc", "push", MODEL)
    damage(storage, scratch.path / MODEL)
    other = clone(scratch, tmp_path / "other")
    assert "failed to pull data from the cloud" in other.run("dvc", "pull", MODEL, status=1)
    assert not (other.path / MODEL).exists()
    assert f"expected the artifact {version}" in start_error(other)

    repair(storage, scratch)
    other.run("dvc", "pull", MODEL)
    assert_pinned(other, version)


def test_service_rejects_a_damaged_object_that_a_pull_accepts(scratch, tmp_path, version):
    storage = tmp_path / "storage"
    add_remote(scratch, str(storage), verify=False)
    scratch.run("dvc", "push", MODEL)
    damage(storage, scratch.path / MODEL)
    other = clone(scratch, tmp_path / "other")
    other.run("dvc", "pull", MODEL)
    assert f"{MODEL} is not the pinned artifact: expected {version}, found" in start_error(other)

    repair(storage, scratch)
    shutil.rmtree(other.path / ".dvc/cache")  # DVC does not check its cache again
    shutil.rmtree(other.path / MODEL)
    other.run("dvc", "pull", MODEL)
    assert_pinned(other, version)


def test_artifacts_get_fetches_a_version_by_its_tag(scratch, tmp_path, version):
    storage = tmp_path / "storage"
    add_remote(scratch, str(storage))
    scratch.run("dvc", "push", MODEL)
    scratch.run("git", "tag", "--annotate", "--message=The first", "mnist@v1.0.0")
    lock = scratch.path / "dvc.lock"
    lock.write_text(lock.read_text().replace(version, "0" * 32))
    scratch.run("git", "commit", "--quiet", "--all", "--message=Another model")

    other = clone(scratch, tmp_path / "other", "--branch=mnist@v1.0.0")
    url = f"file://{scratch.path}"  # with a plain path, DVC would use the cache there
    get = ["dvc", "artifacts", "get", url, "mnist", f"--out={MODEL}", "--force"]
    output = other.run(*get, "--rev=v2.0.0", status=1)
    assert "Unable to find artifact 'mnist @ v2.0.0'" in output
    other.run(*get, "--rev=v1.0.0")
    assert_pinned(other, version)

    damage(storage, scratch.path / MODEL)
    other.run(*get, "--rev=v1.0.0")  # DVC verifies `pull`, but not `artifacts get`
    assert f"{MODEL} is not the pinned artifact: expected {version}, found" in start_error(other)
