"""Fixtures and helpers for the tests of bulk recognition: jobs, clusters and many pictures."""

import io
import secrets
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from tempfile import TemporaryDirectory, TemporaryFile

import pytest
import requests
from pyarrow import parquet

from service.bulk import inputs
from service.bulk.job import Job
from service.recognition import pin
from tests.conftest import ENVIRONMENT, free_port, log_of, wait_until

TIMEOUT = 120  # seconds
# The cluster is expensive, so one test process runs all tests that use it.
CLUSTER = [pytest.mark.slow, pytest.mark.xdist_group("ray")]
COPIES = 24  # copies of the 500 images, so that a job is long enough to kill a process in it
PART_SIZE = 50
PARTS = COPIES * 500 // PART_SIZE
BROKEN = {
    "empty.png": b"",
    "text.png": b"not a picture",
    "blank.gif": bytes.fromhex(
        "47494638376101000100800000ffffff0000002c000000000100010000020144003b"
    ),
}


@pytest.fixture(scope="session")
def many(png_files, tmp_path_factory):
    """A folder of thousands of pictures."""
    folder = tmp_path_factory.mktemp("many")
    for copy in range(COPIES):
        (folder / str(copy)).mkdir()
        for file in png_files:
            (folder / str(copy) / file.name).hardlink_to(file)
    return folder


@pytest.fixture(scope="session")
def files_of_artifact(repository):
    """The content of the artifact's files, by relative path."""
    folder = pin.read(repository.path / "dvc.lock").folder
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def one_part(version, sha256, tmp_path, monkeypatch):
    """A function that starts a job with one part, and returns the job and the task."""

    def start(part):
        monkeypatch.setattr(inputs, "parts", lambda *_: iter([part]))
        started = Job(str(tmp_path / "out"), part.names, 1000, None, version, sha256)
        started.start()
        (task,) = started.tasks()
        return started, task

    return start


@pytest.fixture(scope="session")
def endpoint():
    """The environment to reach an S3 server that has an empty bucket named `bucket`."""
    port = free_port()
    with TemporaryFile() as output:
        process = subprocess.Popen(
            ["moto_server", f"--port={port}"], env=ENVIRONMENT, stdout=output, stderr=output
        )
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: answers(f"{url}/moto-api/"))
            requests.put(f"{url}/bucket", timeout=TIMEOUT).raise_for_status()
            yield {
                "AWS_ENDPOINT_URL": url,
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        finally:
            process.terminate()
            process.wait(TIMEOUT)


@pytest.fixture(scope="package")  # an idle cluster uses a fifth of a core
def cluster(endpoint):
    """The environment in which a job runs on a cluster."""
    port = free_port()
    environment = {
        **ENVIRONMENT,
        **endpoint,
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        # With these settings, the head considers a node dead after two seconds.
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "3",
    }
    with (
        TemporaryDirectory(prefix="ray-") as folder,
        running_node(
            environment,
            *("--head", f"--port={port}", f"--ray-client-server-port={free_port()}"),
            *("--num-cpus=0", "--include-dashboard=false", f"--temp-dir={folder}"),
        ),
        running_worker_node(environment),
    ):
        yield environment


@pytest.fixture
def node(cluster):
    """Another node of the cluster, for one test: the id of its first process."""
    with running_worker_node(cluster) as process:
        yield process


def running_worker_node(environment):
    address = environment["RAY_ADDRESS"]
    return running_node(environment, f"--address={address}", "--num-cpus=1")


@contextmanager
def running_node(environment, *options):
    """Run a node of Ray. Yield the id of its first process, which is also the session id."""
    with TemporaryFile() as output:
        process = subprocess.Popen(
            [
                *("ray", "start", "--block", "--node-ip-address=127.0.0.1"),
                *("--object-store-memory=80000000", *options),
            ],
            # Nodes must not be able to import the program from their working directory.
            cwd="/",
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

        try:
            wait_until(
                lambda: process.poll() is not None or "Ray runtime started" in log_of(output)
            )
            assert process.poll() is None, log_of(output)
            yield process.pid
        finally:
            kill(process.pid)
            process.wait(TIMEOUT)


@pytest.fixture(params=["pool", pytest.param("cluster", marks=CLUSTER)])
def environment(request, endpoint):
    """The environment in which a job runs: once on this machine, and once on the cluster."""
    if request.param == "cluster":
        return request.getfixturevalue("cluster")
    return {**ENVIRONMENT, **endpoint}


def answers(url):
    try:
        return requests.get(url, timeout=TIMEOUT).ok
    except requests.ConnectionError:
        return False


def kill(session):
    """Kill every process of a session at once."""
    subprocess.run(["pkill", "--signal=KILL", f"--session={session}"], check=False)


def processes(session):
    """Return the commands of a session's processes by process id, oldest first, without zombies."""
    command = ["ps", "-ww", "--sid", str(session), "--sort=start_time", "-o", "pid=,stat=,args="]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    rows = (line.split(maxsplit=2) for line in output.splitlines())
    return {int(pid): args for pid, stat, args in rows if not stat.startswith("Z")}


def workers(session):
    """Return the ids of the worker processes of a session, oldest first."""
    return [pid for pid, args in processes(session).items() if "spawn_main" in args]


def start_bulk(folder, environment, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "service.bulk", *map(str, arguments)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(process, status=0):
    """Wait until a job ends by itself, and return its output."""
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
        # The resource tracker of multiprocessing ends a moment after the driver.
        wait_until(lambda: not processes(process.pid))
    finally:
        kill(process.pid)
    assert process.returncode == status, output
    assert "Traceback" not in output
    return output


def run_bulk(folder, environment, *arguments, status=0):
    """Run a job to its end, and return its output."""
    return end(start_bulk(folder, environment, *arguments), status)


def parts_of(out):
    return list(out.glob("part-*"))


def rows_of(out):
    return parquet.read_table(out).to_pylist()


def check_many(out, many, predictions):
    """Check that each picture of `many` has exactly one row, with the right label."""
    rows = rows_of(out)
    labels = {row["path"]: row["label"] for row in rows}
    assert len(rows) == len(labels)
    assert labels == {
        str(many / str(copy) / f"{number}.png"): label
        for copy in range(COPIES)
        for number, label in enumerate(predictions)
    }
    assert not list(out.glob("_part-*"))


def tar_of(files, mode="w"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for file in files:
            archive.add(file, file.name)
    return stream.getvalue()


def parts(*names, size=1000, least=1):
    return list(inputs.parts([str(name) for name in names], size, least))


def pictures(*names, column=None):
    return [picture for part in parts(*names) for picture in inputs.read_pictures(part, column)]
