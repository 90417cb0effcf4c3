"""Run jobs on a real Ray cluster on loopback: a head without cores, and nodes with one core."""

import os
import signal

from tests.bulk.conftest import (
    CLUSTER,
    PART_SIZE,
    PARTS,
    TIMEOUT,
    check_many,
    end,
    kill,
    parts_of,
    processes,
    run_bulk,
    start_bulk,
    workers,
)
from tests.conftest import ENVIRONMENT, free_port, wait_until

pytestmark = CLUSTER


def test_an_unreachable_cluster_is_reported_at_once(repository, png_files, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    environment = ENVIRONMENT | {"RAY_ADDRESS": address}
    out = tmp_path / "out"
    output = run_bulk(repository.path, environment, png_files[0], f"--out={out}", status=1)
    assert output.startswith(f"bulk: cannot connect to Ray at {address}: ")
    assert output.count("\n") == 1
    assert not parts_of(out)


def test_a_node_that_dies_loses_or_duplicates_no_row(
    cluster, node, repository, many, predictions, tmp_path
):
    process = start_bulk(
        repository.path, cluster, many, f"--out={tmp_path}", f"--part-size={PART_SIZE}"
    )
    try:
        wait_until(lambda: len(parts_of(tmp_path)) > 20 and workers(node))
        kill(node)
        done = len(parts_of(tmp_path))
        output, _ = process.communicate(timeout=TIMEOUT)
    finally:
        kill(process.pid)
    assert process.returncode == 0, output
    assert done < PARTS
    check_many(tmp_path, many, predictions)


def test_killed_worker_processes_lose_or_duplicate_no_row(
    cluster, node, repository, many, predictions, tmp_path
):
    process = start_bulk(
        repository.path, cluster, many, f"--out={tmp_path}", f"--part-size={PART_SIZE}"
    )
    for done in (10, 60):
        wait_until(lambda: len(parts_of(tmp_path)) > done)  # noqa: B023  # called within the loop
        os.kill(wait_until(lambda: workers(node))[0], signal.SIGKILL)
    end(process)
    check_many(tmp_path, many, predictions)


def test_a_killed_driver_leaves_no_worker_process(cluster, node, repository, many, tmp_path):
    process = start_bulk(
        repository.path, cluster, many, f"--out={tmp_path}", f"--part-size={PART_SIZE}"
    )
    try:
        wait_until(lambda: len(parts_of(tmp_path)) > 3 and workers(node))
        process.kill()
        process.wait(TIMEOUT)
        wait_until(lambda: not workers(node))
    finally:
        kill(process.pid)
        process.stdout.close()
    assert len(parts_of(tmp_path)) < PARTS


def test_a_killed_job_continues_without_repeating_parts(
    cluster, repository, many, predictions, tmp_path
):
    out = tmp_path / "out"
    command = [many, f"--out={out}", f"--part-size={PART_SIZE}"]
    process = start_bulk(repository.path, ENVIRONMENT, *command)  # on this machine
    try:
        wait_until(lambda: len(parts_of(out)) > 3)
        process.kill()
        process.wait(TIMEOUT)
        wait_until(lambda: not processes(process.pid))
    finally:
        kill(process.pid)
        process.stdout.close()
    done = {part: part.stat() for part in parts_of(out)}
    assert len(done) < PARTS
    output = run_bulk(repository.path, cluster, *command)  # on the cluster
    # Ray may first report the node that another test killed.
    assert f"{len(done)} of {PARTS} parts are done" in output
    for part, stat in done.items():
        now = part.stat()
        assert (now.st_ino, now.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    check_many(out, many, predictions)
