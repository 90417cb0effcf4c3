"""`python -m service.bulk`: on one machine, and on a Ray cluster of which a node dies.

The cluster is of processes on loopback: a head without cores, and nodes of one core.
"""

import io
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import numpy as np
import pyarrow as pa
import pytest
import requests
from pyarrow import parquet
from pyarrow.fs import FileSystem

from service import images, pin, recognizer
from service.bulk import inputs, job, worker
from service.bulk.inputs import Part
from service.bulk.job import Job
from service.limits import Limits
from tests.conftest import ENVIRONMENT, free_port

TIMEOUT = 120  # seconds
COPIES = 24  # of the 500 images, so that there is a middle of the job to kill something in
PART_SIZE = 50
BROKEN = {
    "empty.png": b"",
    "text.png": b"no picture",
    "blank.gif": bytes.fromhex(
        "47494638376101000100800000ffffff0000002c000000000100010000020144003b"
    ),
}


@pytest.fixture(scope="module")
def many(png_files, tmp_path_factory):
    """A folder of thousands of pictures."""
    folder = tmp_path_factory.mktemp("many")
    for copy in range(COPIES):
        (folder / str(copy)).mkdir()
        for file in png_files:
            (folder / str(copy) / file.name).hardlink_to(file)
    return folder


@pytest.fixture(scope="module")
def endpoint():
    """An empty bucket named `bucket` in a server that speaks S3; the environment to reach it."""
    port = free_port()
    with TemporaryFile() as output:
        process = subprocess.Popen(
            ["moto_server", f"--port={port}"], env=ENVIRONMENT, stdout=output, stderr=output
        )
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: reached(f"{url}/moto-api/"))
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


@pytest.fixture(scope="module")
def cluster(endpoint):
    """What starts a node, and the environment in which a job runs on the cluster."""
    port = free_port()
    environment = {
        **ENVIRONMENT,
        **endpoint,
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Of the head: it takes a node for dead after two seconds.
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "3",
    }
    with ExitStack() as nodes, TemporaryDirectory(prefix="ray-") as folder:

        def start(*options):
            return nodes.enter_context(running_node(environment, *options))

        start(
            *("--head", f"--port={port}", f"--ray-client-server-port={free_port()}"),
            *("--num-cpus=0", "--include-dashboard=false", f"--temp-dir={folder}"),
        )
        start(f"--address=127.0.0.1:{port}", "--num-cpus=1")
        yield environment, start


@contextmanager
def running_node(environment, *options):
    """A node of Ray: the id of its first process, which is that of its session."""
    with TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [
                *("ray", "start", "--block", "--node-ip-address=127.0.0.1"),
                *("--object-store-memory=80000000", *options),
            ],
            # Nodes must not find the program by the folder that they were started in.
            cwd="/",
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

        def said():
            output.seek(0)
            return output.read()

        try:
            wait_for(lambda: process.poll() is not None or "Ray runtime started" in said())
            assert process.poll() is None, said()
            yield process.pid
        finally:
            kill(process.pid)
            process.wait(TIMEOUT)


def reached(url):
    try:
        return requests.get(url, timeout=TIMEOUT).ok
    except requests.ConnectionError:
        return False


def wait_for(condition):
    deadline = time.monotonic() + TIMEOUT
    while not (found := condition()):
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.01)
    return found


def kill(session):
    """Every process of a session, at once."""
    subprocess.run(["pkill", "--signal=KILL", f"--session={session}"], check=False)


def processes(session):
    """The commands of a session's processes; zombies do not count."""
    command = ["ps", "--sid", str(session), "-o", "stat=,args="]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return [line for line in said.splitlines() if not line.startswith("Z")]


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


def run_bulk(folder, environment, *arguments, status=0):
    """Run a job to its end; return what it said."""
    process = start_bulk(folder, environment, *arguments)
    try:
        said, _ = process.communicate(timeout=TIMEOUT)
    finally:
        kill(process.pid)
    assert process.returncode == status, said
    return said


def parts_of(out):
    return list(out.glob("part-*"))


def rows_of(out):
    return parquet.read_table(out).to_pylist()


def check_many(rows, many, predictions):
    """Each picture of `many` has exactly one row, with the right label."""
    found = {row["path"]: row["label"] for row in rows}
    assert len(rows) == len(found)
    assert found == {
        str(many / str(copy) / f"{number}.png"): label
        for copy in range(COPIES)
        for number, label in enumerate(predictions)
    }


def tar_of(files, mode="w"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for file in files:
            archive.add(file, file.name)
    return stream.getvalue()


def parts(*names, size=1000):
    return list(inputs.parts([str(name) for name in names], size))


def pictures(*names, column=None):
    return [picture for part in parts(*names) for picture in inputs.pictures(part, column)]


def test_every_kind_of_input_gives_its_rows(
    cluster, repository, png_files, version, tmp_path, endpoint, monkeypatch
):
    environment, _ = cluster
    folder = tmp_path / "in"
    (folder / "deep/er").mkdir(parents=True)
    contents = {}  # by the paths that the output should have
    for file in png_files[:7]:
        shutil.copy(file, folder / "deep/er")
        contents[f"{folder}/deep/er/{file.name}"] = file.read_bytes()
    for name, content in BROKEN.items():
        (folder / name).write_bytes(content)
        contents[f"{folder}/{name}"] = content
    (folder / ".hidden.png").write_bytes(b"")
    for name, mode in (("plain.tar", "w"), ("packed.tar.gz", "w:gz")):
        (folder / name).write_bytes(tar_of(png_files[7:12], mode))
        contents |= {f"{folder}/{name}/{file.name}": file.read_bytes() for file in png_files[7:12]}
    held = [{"bytes": file.read_bytes(), "path": file.name} for file in png_files[12:20]]
    parquet.write_table(pa.table({"image": held}), folder / "held.parquet", row_group_size=3)
    contents |= {f"{folder}/held.parquet/{row['path']}": row["bytes"] for row in held}
    for name, value in endpoint.items():
        monkeypatch.setenv(name, value)
    bucket, _ = FileSystem.from_uri("s3://bucket")
    for file in png_files[20:25]:
        with bucket.open_output_stream(f"bucket/in/{file.name}") as stream:
            stream.write(file.read_bytes())
        contents[f"s3://bucket/in/{file.name}"] = file.read_bytes()

    command = [folder, "s3://bucket/in", "--out=s3://bucket/out/job", "--part-size=4"]
    said = run_bulk(repository.path, environment, *command)
    rows = parquet.read_table("bucket/out/job", filesystem=bucket).to_pylist()
    assert f"{len(contents)} pictures, {len(BROKEN)} of them with an error" in said
    again = run_bulk(repository.path, environment, *command)
    assert re.match(r"(\d+) of \1 parts are done", again), again

    assert Counter(row["path"] for row in rows) == Counter(contents.keys())
    engine = recognizer.load(pin.read(repository.path / "dvc.lock").folder, "litert")
    for row in rows:
        expected = {"label": None, "probabilities": None, "error": None, "version": version}
        try:
            image = images.decode(contents[row.pop("path")])
            labels, probabilities = engine.recognize(image[None])
            expected |= {"label": labels[0], "probabilities": probabilities[0].tolist()}
        except images.ImageError as error:
            expected["error"] = str(error)
        assert row == expected


def test_when_a_node_dies_no_row_is_lost_or_doubled(
    cluster, repository, many, predictions, tmp_path
):
    environment, start = cluster
    victim = start(f"--address={environment['RAY_ADDRESS']}", "--num-cpus=1")
    process = start_bulk(
        repository.path, environment, many, f"--out={tmp_path}", f"--part-size={PART_SIZE}"
    )
    try:
        wait_for(
            lambda: (
                len(parts_of(tmp_path)) > 20
                and any("MapWorker" in line for line in processes(victim))
            )
        )
        kill(victim)
        done = len(parts_of(tmp_path))
        said, _ = process.communicate(timeout=TIMEOUT)
    finally:
        kill(process.pid)
    assert process.returncode == 0, said
    assert done < COPIES * len(predictions) / PART_SIZE
    check_many(rows_of(tmp_path), many, predictions)
    assert not list(tmp_path.glob("_part-*"))


def test_a_job_that_was_interrupted_goes_on(cluster, repository, many, predictions, tmp_path):
    environment, _ = cluster
    command = [many, f"--out={tmp_path}", f"--part-size={PART_SIZE}"]
    process = start_bulk(repository.path, environment, *command)
    try:
        wait_for(lambda: len(parts_of(tmp_path)) > 3)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=TIMEOUT)
    finally:
        kill(process.pid)
    assert process.returncode == 1
    assert "bulk: interrupted; the same command goes on" in said
    assert "Traceback" not in said
    run_bulk(repository.path, environment, *command)
    check_many(rows_of(tmp_path), many, predictions)


def test_a_job_that_was_killed_goes_on_and_does_nothing_twice(
    cluster, repository, many, predictions, tmp_path
):
    environment, _ = cluster
    out = tmp_path / "out"
    command = [many, f"--out={out}", f"--part-size={PART_SIZE}"]
    alone = {**ENVIRONMENT, "HOME": str(tmp_path)}  # where Ray keeps its token
    process = start_bulk(repository.path, alone, *command)  # on this machine
    try:
        wait_for(lambda: len(parts_of(out)) > 3)
        process.kill()
        process.wait(TIMEOUT)
        # Its workers end with it; agents of Ray, which do nothing, some time later.
        wait_for(lambda: not any("MapWorker" in line for line in processes(process.pid)))
    finally:
        kill(process.pid)
        process.stdout.close()
    done = {part: part.stat() for part in parts_of(out)}
    assert len(done) < COPIES * len(predictions) / PART_SIZE
    said = run_bulk(repository.path, environment, *command)  # on the cluster
    assert said.startswith(
        f"{len(done)} of {COPIES * len(predictions) // PART_SIZE} parts are done"
    )
    for part, stat in done.items():
        now = part.stat()
        assert (now.st_ino, now.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    check_many(rows_of(out), many, predictions)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "0" * 32}, "another version: " + "0" * 32),
        ({"inputs": ["/other"]}, "another inputs"),
        ({"part_size": 7}, "another part size: 7, and not 2000"),
        ({"column": "png"}, "another column: png, and not None"),
    ],
)
def test_a_folder_with_another_job_is_refused(
    repository, png_files, version, tmp_path, change, reason, monkeypatch
):
    picture = str(png_files[0])
    first = {"inputs": [picture], "part_size": 2000, "column": None, "version": version}
    monkeypatch.setattr(inputs, "parts", lambda *_: iter([Part("files", [picture])]))
    Job(out=str(tmp_path), **{**first, **change}).start()
    before = sorted(tmp_path.iterdir())
    said = run_bulk(repository.path, ENVIRONMENT, picture, f"--out={tmp_path}", status=1)
    assert said.startswith(f"bulk: {tmp_path} has a job with {reason}"), said
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["missing", "none/*.png", "empty", "s3:/", "nothing://bucket"])
def test_an_input_that_stands_for_no_file_is_refused(repository, tmp_path, name):
    (tmp_path / "empty").mkdir()
    name = name if ":" in name else tmp_path / name
    out = tmp_path / "out"
    said = run_bulk(repository.path, ENVIRONMENT, name, f"--out={out}", status=1)
    assert said.startswith("bulk: ")
    assert said.count("\n") == 1
    assert not list(out.iterdir())


def test_a_folder_with_other_files_is_left_alone(repository, png_files, tmp_path):
    (tmp_path / "mine").touch()
    said = run_bulk(repository.path, ENVIRONMENT, png_files[0], f"--out={tmp_path}", status=1)
    assert said.startswith(f"bulk: {tmp_path} is not empty, and no job was started there")


def test_the_output_is_in_no_input(repository, tmp_path):
    said = run_bulk(repository.path, ENVIRONMENT, tmp_path, f"--out={tmp_path}/deep/out", status=1)
    assert said.startswith(f"bulk: {tmp_path}/deep/out is inside the input {tmp_path}")
    assert not list(tmp_path.iterdir())


def test_a_cluster_that_is_not_there_is_said_at_once(repository, png_files, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    environment = ENVIRONMENT | {"RAY_ADDRESS": address}
    out = tmp_path / "out"
    said = run_bulk(repository.path, environment, png_files[0], f"--out={out}", status=1)
    assert said.startswith(f"bulk: Ray at {address} cannot be used: ")
    assert said.count("\n") == 1
    assert not parts_of(out)


def test_an_artifact_that_is_not_the_pinned_one_is_refused(scratch, png_files, tmp_path):
    with (scratch.path / "data/model/saved_model.pb").open("ab") as file:
        file.write(b"x")
    out = tmp_path / "out"
    said = run_bulk(scratch.path, ENVIRONMENT, png_files[0], f"--out={out}", status=1)
    assert "is not the pinned artifact" in said
    assert not out.exists()


def test_a_worker_takes_no_other_artifact(version):
    with pytest.raises(pin.PinError):
        worker.Worker(Job("/out", [], 1, None, version), {"saved_model.pb": b"x"})


def test_it_takes_as_large_a_picture_as_the_service(tmp_path):
    assert Limits.body == inputs.MAX_BYTES
    (tmp_path / "large.png").write_bytes(bytes(inputs.MAX_BYTES + 1))
    with tarfile.open(tmp_path / "large.tar", "w") as archive:
        archive.add(tmp_path / "large.png")
    for _, content in pictures(tmp_path):
        assert str(content) == "The file is too large; the most is 16,777,216 bytes."


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.png", ["1.png"]),
        ("*", ["1.png", "a/2.png", "a/b/3.png", "a/b/4.jpg", "c/5.png"]),
        ("[ac]", ["a/2.png", "a/b/3.png", "a/b/4.jpg", "c/5.png"]),
        ("*/?.png", ["a/2.png", "c/5.png"]),
        ("**", ["1.png", "a/2.png", "a/b/3.png", "a/b/4.jpg", "c/5.png"]),
        ("**/*.png", ["1.png", "a/2.png", "a/b/3.png", "c/5.png"]),
        ("a/**/b/*", ["a/b/3.png", "a/b/4.jpg"]),
        ("", ["1.png", "a/2.png", "a/b/3.png", "a/b/4.jpg", "c/5.png"]),
    ],
)
def test_folders_and_globs(tmp_path, pattern, found):
    for name in ("1.png", "a/2.png", "a/b/3.png", "a/b/4.jpg", "c/5.png", ".h/6.png", "a/.7.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    listed = parts(tmp_path / pattern, size=2)
    assert [len(part.names) for part in listed] == [
        min(2, len(found) - n) for n in range(0, len(found), 2)
    ]
    names = [name for part in listed for name in part.names]
    assert sorted(os.path.relpath(name, tmp_path) for name in names) == found


def test_a_file_that_is_gone_is_a_row(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "folder").symlink_to(tmp_path)
    reasons = {Path(name).name: str(content) for name, content in pictures(tmp_path)}
    assert reasons["link.png"] == "The file cannot be read: No such file or directory."
    assert reasons["folder"].startswith("The file cannot be read: ")


def test_any_name_of_a_file_is_a_row(png_files, repository, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    name = os.fsencode(folder) + b"/\xff\n%20.png"
    Path(os.fsdecode(name)).hardlink_to(png_files[0])
    written = Job(str(tmp_path / "out"), [str(folder)], 1, None, "0")
    written.start()
    ((_, start, end),) = written.parts()
    engine = recognizer.load(pin.read(repository.path / "dvc.lock").folder, "litert")
    found = inputs.pictures(written.part(start, end), None)
    (batch,) = worker.answers(found, engine, "0")
    (row,) = batch.to_pylist()
    assert row["path"] == f"{folder}/\\udcff\n%20.png"
    assert row["error"] is None


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_that_is_cut_off_gives_what_is_whole_and_an_error(png_files, tmp_path, mode):
    files = png_files[:5]
    content = tar_of(files, mode)
    # Up to the mark of its end, which is of zeros: without all that follows nothing is lost.
    end = len(content.rstrip(b"\0")) if mode == "w" else len(content) - 64
    for cut in [*range(0, end, 111), 512, 1024]:
        (tmp_path / "cut.tar").write_bytes(content[:cut])
        *found, (name, error) = pictures(tmp_path / "cut.tar")
        assert name == str(tmp_path / "cut.tar")
        assert str(error).startswith("The archive is damaged or cut off: ")
        assert found == [
            (f"{name}/{file.name}", file.read_bytes())
            for file, _ in zip(files, found, strict=False)
        ]


def test_an_archive_that_is_damaged_inside_says_so(png_files, tmp_path):
    content = bytearray(tar_of(png_files[:5]))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        offset = archive.getmembers()[2].offset
    content[offset + 148 : offset + 156] = b"damaged!"  # the checksum of a header
    (tmp_path / "damaged.tar").write_bytes(content)
    found = pictures(tmp_path / "damaged.tar")
    assert [name.rpartition("/")[2] for name, _ in found] == ["0.png", "1.png", "damaged.tar"]


def test_parquet_with_a_damaged_row_group_gives_the_others(png_files, tmp_path):
    file = tmp_path / "rows.parquet"
    contents = [picture.read_bytes() for picture in png_files[:9]]
    table = pa.table({"id": list(range(9)), "picture": contents, "name": list("abcdefghi")})
    parquet.write_table(table, file, row_group_size=3, compression="gzip", use_dictionary=False)
    column = parquet.read_metadata(file).row_group(1).column(1)
    content = bytearray(file.read_bytes())
    content[column.data_page_offset : column.data_page_offset + 40] = bytes(40)
    file.write_bytes(content)
    found = dict(pictures(file))
    good = [0, 1, 2, 6, 7, 8]
    assert [found.pop(f"{file}/{table['name'][n]}") for n in good] == [contents[n] for n in good]
    ((name, error),) = found.items()
    assert name == f"{file}/3"
    assert str(error).startswith("The rows 3 to 5 cannot be read: ")


def test_the_column_of_parquet_can_be_named(png_files, tmp_path):
    file = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"digit": [png_files[0].read_bytes()], "other": [1]}), file)
    assert pictures(file, column="digit") == [(f"{file}/0", png_files[0].read_bytes())]
    for column in (None, "other", "none"):
        ((name, error),) = pictures(file, column=column)
        assert name == str(file)
        assert "it has no column of bytes named " in str(error)


def test_parquet_that_is_none_is_a_row(tmp_path):
    (tmp_path / "text.parquet").write_text("no such thing")
    ((name, error),) = pictures(tmp_path)
    assert name == str(tmp_path / "text.parquet")
    assert str(error).startswith("The Parquet file cannot be read: ")


def test_a_part_is_made_once(repository, png_files, version, tmp_path):
    folder = pin.read(repository.path / "dvc.lock").folder
    artifact = {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }
    (tmp_path / "broken.png").touch()
    names = [str(png_files[0]), str(tmp_path / "broken.png")]
    made = Job(str(tmp_path / "out"), names, 2, None, version)
    made.start()
    ((number, start, end),) = made.parts()
    batch = {"number": np.array([number]), "start": np.array([start]), "end": np.array([end])}
    results = [worker.Worker(made, artifact)(batch) for _ in range(2)]
    for result in results:
        assert [result["rows"].tolist(), result["errors"].tolist()] == [[2], [1]]
    assert job.counts(made.output(0)) == (2, 1)
    assert len(rows_of(tmp_path / "out")) == 2
