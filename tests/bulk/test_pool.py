"""Worker processes that are killed: in the middle of a picture, between two, and with the driver.

A picture that is a pipe holds up its worker until something is written to the pipe.
"""

import multiprocessing
import os
import random
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
    wait_for,
    workers,
)
from tests.conftest import ENVIRONMENT

pytestmark = pytest.mark.slow


@pytest.fixture
def process():
    started = pool.Process()
    yield started
    started.kill()


@pytest.fixture
def begin(process, one_part, files_of_artifact):
    """What lets the process begin a part of files."""

    def start(kind, *files):
        job, task = one_part(Part(kind, [str(file) for file in files]))
        process.set_up(job, files_of_artifact)
        process.begin(task)
        return job

    return start


@pytest.fixture
def pipe(tmp_path):
    """What makes a picture that holds up its worker."""

    def make(name):
        os.mkfifo(tmp_path / name)
        return tmp_path / name

    return make


def received(process):
    assert process.connection.poll(TIMEOUT), "it takes too long"
    return process.receive()


def kill_worker():
    (child,) = multiprocessing.active_children()
    child.kill()


def kill_at(process, number):
    """Kill the process while it is at a picture; another takes its place."""
    wait_for(lambda: process.position.value == number)
    kill_worker()
    assert received(process) is None


def let_pass(process, number, file):
    wait_for(lambda: process.position.value == number)
    os.close(os.open(file, os.O_WRONLY))


def errors(out):
    return [row["error"] for row in rows_of(out)]


def test_a_part_whose_process_is_killed_is_made_again(process, begin, pipe, png_files, tmp_path):
    held_up = pipe("held_up.png")
    begin("files", png_files[0], held_up, png_files[1])
    kill_at(process, 1)
    let_pass(process, 1, held_up)
    assert received(process)[:2] == (3, 1)
    first, second, third = errors(tmp_path / "out")
    assert (first, third) == (None, None)
    assert second.startswith("The file cannot be read: ")


def test_a_picture_that_kills_twice_is_a_row_with_an_error(
    process, begin, pipe, png_files, tmp_path
):
    first, second = pipe("first.png"), pipe("second.png")
    begin("files", png_files[0], first, png_files[1], second)
    kill_at(process, 1)
    kill_at(process, 1)
    let_pass(process, 1, first)
    kill_at(process, 3)
    let_pass(process, 1, first)
    kill_at(process, 3)
    let_pass(process, 1, first)
    let_pass(process, 3, second)
    assert received(process)[:2] == (4, 2)
    assert errors(tmp_path / "out") == [None, worker.KILLED, None, worker.KILLED]


def test_an_archive_that_kills_whoever_reads_it_is_a_row_with_an_error(
    process, begin, pipe, tmp_path
):
    archive = pipe("archive.tar")
    begin("tar", archive)
    for _ in range(3):
        kill_at(process, 0)
    assert received(process)[:2] == (1, 1)
    ((row),) = rows_of(tmp_path / "out")
    assert (row["path"], row["error"]) == (str(archive), worker.CUT_OFF)


def test_a_process_that_is_killed_between_two_parts_is_replaced(
    process, begin, png_files, tmp_path
):
    kill_worker()
    begin("files", *png_files[:3])
    assert received(process) is None
    assert received(process)[:2] == (3, 0)
    kill_worker()
    # The part is there already.
    assert process.make(Task(0, 0, 0))[:2] == (3, 0)


def test_deaths_at_no_picture_end_the_job(process, begin, png_files):
    job = begin("files", *png_files[:3])
    kill_worker()
    while (result := received(process)) is None:
        kill_worker()
    assert result.failure == (
        f"{job.output(0)} cannot be made: its process was ended 4 times, the last time by SIGKILL "
        "(is memory short?)"
    )


def test_deaths_at_one_picture_after_another_end_the_job(process, begin, pipe):
    pipes = [pipe(f"{number}.png") for number in range(4)]
    begin("files", *pipes)
    for number in range(3):
        kill_at(process, number)
        for passed in range(number + 1):
            let_pass(process, passed, pipes[passed])
    wait_for(lambda: process.position.value == 3)
    kill_worker()
    assert "its process was ended 4 times" in received(process).failure


def test_a_process_that_cannot_load_the_artifact_says_why(process, one_part, png_files):
    job, task = one_part(Part("files", [str(png_files[0])]))
    process.set_up(job, {})
    assert process.make(task).failure == (
        f"the artifact cannot be loaded: what arrived is not the artifact {job.version}"
    )


def test_when_workers_are_killed_no_row_is_lost_or_doubled(repository, many, predictions, tmp_path):
    process = start_bulk(
        repository.path, ENVIRONMENT, many, f"--out={tmp_path}", f"--part-size={PART_SIZE}"
    )
    chance = random.Random(0)
    for done in range(10, PARTS - 20, 40):
        wait_for(lambda: len(parts_of(tmp_path)) > done)  # noqa: B023  # it is called at once
        os.kill(chance.choice(workers(process.pid)), signal.SIGKILL)
    end(process)
    check_many(tmp_path, many, predictions)


def test_a_job_that_was_killed_leaves_no_process_and_does_nothing_twice(
    repository, many, predictions, tmp_path
):
    command = [many, f"--out={tmp_path}", f"--part-size={PART_SIZE}"]
    process = start_bulk(repository.path, ENVIRONMENT, *command)
    try:
        wait_for(lambda: len(parts_of(tmp_path)) > 3)
        process.kill()
        process.wait()
        wait_for(lambda: not processes(process.pid))
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
    wait_for(lambda: workers(process.pid) and len(parts_of(out)) >= parts)
    send(process.pid, number)
    output = end(process, status=1)
    assert output == "bulk: interrupted; the same command goes on with what is missing\n"
    assert len(parts_of(out)) < PARTS


def test_a_driver_that_is_killed_at_the_start_leaves_no_process(repository, many, tmp_path):
    process = start_bulk(repository.path, ENVIRONMENT, many, f"--out={tmp_path}")
    try:
        wait_for(lambda: workers(process.pid))
        process.kill()
        process.wait()
        wait_for(lambda: not processes(process.pid))
    finally:
        kill(process.pid)
        process.stdout.close()
