"""Kill worker processes: while they read a picture, between two pictures, and with the driver.

A picture that is a named pipe blocks its worker until a test writes to the pipe.
"""

import multiprocessing
import os
import signal

import pytest

from service.bulk import pool, worker
from service.bulk.inputs import Part
from service.bulk.job import Task
from tests.bulk.conftest import (
    PART_SIZE,
    PARTS,
    TIMEOUT,
    check_many,
    end,
    kill,
    parts_of,
    processes,
    rows_of,
    run_bulk,
    start_bulk,
    workers,
)
from tests.conftest import ENVIRONMENT, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def process():
    started = pool.Process()
    yield started
    started.kill()


@pytest.fixture
def begin(process, one_part, files_of_artifact):
    """A function that lets the process begin a part with the given files."""

    def start(kind, *files):
        job, task = one_part(Part(kind, [str(file) for file in files]))
        process.set_up(job, files_of_artifact)
        process.begin(task)
        return job

    return start


@pytest.fixture
def pipe(tmp_path):
    """A function that makes a picture that blocks its worker."""

    def make(name):
        os.mkfifo(tmp_path / name)
        return tmp_path / name

    return make


def receive(process):
    assert process.connection.poll(TIMEOUT), f"no result after {TIMEOUT} s"
    return process.receive()


def kill_worker():
    (child,) = multiprocessing.active_children()
    child.kill()


def kill_at(process, number):
    """Kill the process while it reads a picture, and check that another replaces it."""
    wait_until(lambda: process.position.value == number)
    kill_worker()
    assert receive(process) is None


def unblock(process, number, file):
    wait_until(lambda: process.position.value == number)
    os.close(os.open(file, os.O_WRONLY))


def errors(out):
    return [row["error"] for row in rows_of(out)]


def test_a_part_whose_process_is_killed_is_made_again(process, begin, pipe, png_files, tmp_path):
    blocking = pipe("blocking.png")
    begin("files", png_files[0], blocking, png_files[1])
    kill_at(process, 1)
    unblock(process, 1, blocking)
    assert receive(process)[:2] == (3, 1)
    first, second, third = errors(tmp_path / "out")
    assert (first, third) == (None, None)
    assert second.startswith("The file cannot be read: ")


def test_a_picture_that_kills_twice_becomes_a_row_with_an_error(
    process, begin, pipe, png_files, tmp_path
):
    first, second = pipe("first.png"), pipe("second.png")
    begin("files", png_files[0], first, png_files[1], second)
    kill_at(process, 1)
    kill_at(process, 1)
    unblock(process, 1, first)
    kill_at(process, 3)
    unblock(process, 1, first)
    kill_at(process, 3)
    unblock(process, 1, first)
    unblock(process, 3, second)
    assert receive(process)[:2] == (4, 2)
    assert errors(tmp_path / "out") == [None, worker.KILLED, None, worker.KILLED]


def test_an_archive_that_kills_its_readers_becomes_a_row_with_an_error(
    process, begin, pipe, tmp_path
):
    archive = pipe("archive.tar")
    begin("tar", archive)
    for _ in range(3):
        kill_at(process, 0)
    assert receive(process)[:2] == (1, 1)
    ((row),) = rows_of(tmp_path / "out")
    assert (row["path"], row["error"]) == (str(archive), worker.CUT_OFF)


def test_a_process_that_is_killed_between_two_parts_is_replaced(
    process, begin, png_files, tmp_path
):
    kill_worker()
    begin("files", *png_files[:3])
    assert receive(process) is None
    assert receive(process)[:2] == (3, 0)
    kill_worker()
    # The output of the part exists already.
    assert process.make(Task(0, 0, 0))[:2] == (3, 0)


def test_deaths_without_a_picture_end_the_job(process, begin, png_files):
    job = begin("files", *png_files[:3])
    kill_worker()
    while (result := receive(process)) is None:
        kill_worker()
    assert result.failure == (
        f"cannot make {job.output(0)}: its process ended 4 times, the last time by SIGKILL "
        "(out of memory?)"
    )


def test_deaths_at_several_pictures_end_the_job(process, begin, pipe):
    pipes = [pipe(f"{number}.png") for number in range(4)]
    begin("files", *pipes)
    for number in range(3):
        kill_at(process, number)
        for passed in range(number + 1):
            unblock(process, passed, pipes[passed])
    wait_until(lambda: process.position.value == 3)
    kill_worker()
    assert "its process ended 4 times" in receive(process).failure


def test_a_process_that_cannot_load_the_artifact_reports_the_reason(process, one_part, png_files):
    job, task = one_part(Part("files", [str(png_files[0])]))
    process.set_up(job, {})
    assert process.make(task).failure == (
        f"cannot load the artifact: the received files are not the artifact {job.version}"
    )


def test_killed_workers_lose_or_duplicate_no_row(repository, many, predictions, tmp_path):
    process = start_bulk(
        repository.path, ENVIRONMENT, many, f"--out={tmp_path}", f"--part-size={PART_SIZE}"
    )
    for done in range(10, PARTS - 20, 40):
        wait_until(lambda: len(parts_of(tmp_path)) > done)  # noqa: B023  # called within the loop
        # The other worker may still be starting, and a part fails if its worker dies repeatedly.
        oldest = workers(process.pid)[0]
        os.kill(oldest, signal.SIGKILL)
    end(process)
    check_many(tmp_path, many, predictions)


def test_a_killed_job_leaves_no_process_and_continues_without_repeating_parts(
    repository, many, predictions, tmp_path
):
    command = [many, f"--out={tmp_path}", f"--part-size={PART_SIZE}"]
    process = start_bulk(repository.path, ENVIRONMENT, *command)
    try:
        wait_until(lambda: len(parts_of(tmp_path)) > 3)
        process.kill()
        process.wait()
        wait_until(lambda: not processes(process.pid))
        assert not process.stdout.read()
    finally:
        kill(process.pid)
        process.stdout.close()
    done = {part: part.stat() for part in parts_of(tmp_path)}
    assert len(done) < PARTS
    output = run_bulk(repository.path, ENVIRONMENT, *command)
    assert output.startswith(f"{len(done)} of {PARTS} parts are done")
    for part, stat in done.items():
        now = part.stat()
        assert (now.st_ino, now.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    check_many(tmp_path, many, predictions)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("send", [os.kill, os.killpg])
@pytest.mark.parametrize("parts", [0, 3], ids=["at the start", "in the middle"])
def test_a_signal_ends_the_job_at_once(repository, many, tmp_path, number, send, parts):
    out = tmp_path / "out"
    process = start_bulk(
        repository.path, ENVIRONMENT, many, f"--out={out}", f"--part-size={PART_SIZE}"
    )
    wait_until(lambda: workers(process.pid) and len(parts_of(out)) >= parts)
    send(process.pid, number)
    output = end(process, status=1)
    assert output == "bulk: interrupted; run the same command again to continue\n"
    assert len(parts_of(out)) < PARTS


def test_a_driver_that_is_killed_at_the_start_leaves_no_process(repository, many, tmp_path):
    process = start_bulk(repository.path, ENVIRONMENT, many, f"--out={tmp_path}")
    try:
        wait_until(lambda: workers(process.pid))
        process.kill()
        process.wait()
        wait_until(lambda: not processes(process.pid))
    finally:
        kill(process.pid)
        process.stdout.close()
