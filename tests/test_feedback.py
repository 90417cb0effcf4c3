"""The folder of the corrections: its files, its limits, its start, and several workers at it."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from array import array
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import count

import cv2
import numpy as np
import pytest
import requests

from service.feedback import (
    ATTEMPTS,
    LOCK,
    NEW,
    Correction,
    FeedbackError,
    FullError,
    Inbox,
    TooManyError,
    is_loopback,
)
from tests.conftest import ENVIRONMENT, PROJECT, in_process, running_server, start
from tests.test_disk import fill, mount

PNG = b"\x89PNG\r\n\x1a\n"  # the folder does not decode pictures
SEVEN = Correction(7, 1, 0.61, "0" * 32)
FOUR = Correction(4, 1, 0.61, "0" * 32)


def named(content):
    return hashlib.sha256(content).hexdigest()


def corrections(folder):
    """Return the path of each file of a correction, and check that there are no partial ones."""
    assert not (folder / NEW).exists()
    files = [file for file in sorted(folder.glob("*/*")) if file.is_file()]
    assert all(file.stem == next(iter(named_in(file))) for file in files)
    return [str(file.relative_to(folder)) for file in files]


def named_in(file):
    """Yield the SHA-256 that the content of a file has or names."""
    content = file.read_bytes()
    yield json.loads(content)["sha256"] if file.suffix == ".json" else named(content)


@pytest.mark.parametrize(
    ("content", "extension"),
    [
        (PNG, "png"),
        (b"\xff\xd8\xff\xe0", "jpg"),
        (b"BM", "bmp"),
        (b"GIF89a", "gif"),
        (b"RIFF\0\0\0\0WEBP", "webp"),
    ],
)
def test_a_correction_is_the_picture_as_it_came_and_its_facts(tmp_path, content, extension):
    before = datetime.now(UTC) - timedelta(seconds=1)
    sha256 = Inbox(tmp_path / "new/inbox").keep(content, SEVEN)
    folder = tmp_path / "new/inbox"
    assert sha256 == named(content)
    assert corrections(folder) == sorted([f"7/{sha256}.{extension}", f"7/{sha256}.json"])
    facts = json.loads((folder / f"7/{sha256}.json").read_text())
    assert before < datetime.fromisoformat(facts.pop("time")) <= datetime.now(UTC)
    assert facts == {
        "sha256": sha256,
        "label": 7,
        "answered": 1,
        "confidence": 0.61,
        "version": "0" * 32,
    }


def test_the_later_label_of_a_picture_replaces_the_earlier_one(tmp_path):
    inbox = Inbox(tmp_path)
    for correction in (SEVEN, SEVEN, FOUR):
        sha256 = inbox.keep(PNG, correction)
    assert corrections(tmp_path) == [f"4/{sha256}.json", f"4/{sha256}.png"]


def test_the_number_and_the_bytes_are_limited_but_a_label_may_still_change(tmp_path):
    inbox = Inbox(tmp_path / "few", max_files=1)
    inbox.keep(PNG, SEVEN)
    with pytest.raises(FullError, match="at most 1 corrections"):
        inbox.keep(PNG + b"2", SEVEN)
    inbox.keep(PNG, FOUR)
    assert len(corrections(tmp_path / "few")) == 2
    size = sum(file.stat().st_size for file in (tmp_path / "few").glob("4/*"))
    small = Inbox(tmp_path / "small", max_bytes=2 * size)
    small.keep(PNG, SEVEN)
    with pytest.raises(FullError, match=f"may take {2 * size:,} bytes"):
        small.keep(PNG + b"2", SEVEN)  # one byte more than the first one
    assert len(corrections(tmp_path / "small")) == 2
    shutil.rmtree(tmp_path / "small/7")  # somebody has reviewed it
    small.keep(PNG + b"2", SEVEN)


def test_the_limits_count_what_workers_replace_and_others_remove(tmp_path):
    workers = [Inbox(tmp_path, max_files=3) for _ in range(2)]
    for number in range(12):
        label = Correction(number % 10, 1, 0.61, "0" * 32)
        workers[number % 2].keep(PNG + bytes([number % 3]), label)
    assert len(corrections(tmp_path)) == 6
    for worker in workers:
        with pytest.raises(FullError):
            worker.keep(PNG, SEVEN)
    reviewed = next(tmp_path.glob("*/*.json"))
    for file in reviewed.parent.glob(f"{reviewed.stem}.*"):
        file.unlink()
    os.utime(reviewed.parent, (1, 1))  # as if that was later than the last correction
    workers[0].keep(PNG, SEVEN)
    with pytest.raises(FullError):
        workers[1].keep(PNG + b"4", SEVEN)


def test_so_many_attempts_a_minute_are_admitted(tmp_path):
    """Also after a restart, and if the clock was set back."""
    for _ in range(2):
        Inbox(tmp_path, per_minute=2).admit()
    with pytest.raises(TooManyError, match="takes 2 corrections a minute") as caught:
        Inbox(tmp_path, per_minute=2).admit()
    assert 1 <= caught.value.seconds <= 60
    for shift in (-60, 3600):
        times = array("d", [time.time() + shift] * 2)
        (tmp_path / ATTEMPTS).write_bytes(times.tobytes())
        Inbox(tmp_path, per_minute=2).admit()
        assert len((tmp_path / ATTEMPTS).read_bytes()) == times.itemsize


def test_the_start_removes_what_a_service_that_was_killed_has_left(tmp_path):
    inbox = Inbox(tmp_path)
    sha256 = inbox.keep(PNG, SEVEN)
    first = [file.rename(tmp_path / file.name) for file in (tmp_path / "7").iterdir()]
    inbox.keep(PNG, FOUR)
    later = corrections(tmp_path)
    for file in first:  # killed before it removed the earlier label
        file.rename(tmp_path / "7" / file.name)
        os.utime(tmp_path / "7" / file.name, (1, 1))
    (tmp_path / f"7/{named(b'BM')}.bmp").write_bytes(b"BM")  # killed before it wrote the facts
    (tmp_path / NEW).write_bytes(b"half")
    Inbox(tmp_path)
    assert corrections(tmp_path) == later == [f"4/{sha256}.json", f"4/{sha256}.png"]


def test_the_start_removes_nothing_from_a_folder_that_was_no_inbox(tmp_path):
    other = tmp_path / f"7/{named(PNG)}.png"
    other.parent.mkdir()
    other.write_bytes(PNG)
    Inbox(tmp_path)
    assert other.exists()


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FeedbackError, match=r"cannot keep corrections in .*/file \(File exists\)"):
        Inbox(tmp_path / "file")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_addresses(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "localhost.example.com", ""])
def test_other_addresses(host):
    assert not is_loopback(host)


@pytest.fixture
def small_disk(tmp_path):
    """Yield an empty folder on a separate disk of 1 MiB."""
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("free", [0, 4, 8])  # KiB: for nothing, for the attempt, for the picture
def test_a_full_disk_keeps_no_half_of_a_correction_and_recognition_goes_on(
    small_disk, artifact, png_files, free
):
    inbox = Inbox(small_disk / "inbox")
    client = in_process(artifact, inbox=inbox)
    files = {"image": ("7.png", png_files[0].read_bytes())}
    fill(small_disk / "filler", free)
    answer = client.post("/feedback", files=files, data={"label": "7"})
    assert answer.status_code == 507
    assert answer.json() == {
        "error": "The disk of the service is full, so it keeps no corrections."
    }
    assert corrections(small_disk / "inbox") == []
    assert client.post("/recognize", files=files).status_code == 200
    Inbox(small_disk / "inbox")  # the service starts, too
    (small_disk / "filler").unlink()
    assert client.post("/feedback", files=files, data={"label": "7"}).status_code == 200


def test_an_error_of_the_disk_is_no_full_disk(tmp_path):
    inbox = Inbox(tmp_path)
    (tmp_path / "7").touch()
    with pytest.raises(OSError, match=os.strerror(errno.ENOTDIR)):
        inbox.keep(PNG, SEVEN)


@pytest.mark.server
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            ["--host=0.0.0.0", "--feedback={folder}/inbox"],
            "--feedback lets everybody who reaches 0.0.0.0 write to this machine; require a token "
            "with --token-file, or listen on --host 127.0.0.1",
        ),
        (
            ["--feedback={folder}/file"],
            "cannot keep corrections in {folder}/file (File exists); name a folder that the "
            "service may write to with --feedback",
        ),
    ],
)
def test_the_service_does_not_start_where_it_may_not_collect(tmp_path, options, reason):
    (tmp_path / "file").touch()
    done = start(PROJECT, *(option.format(folder=tmp_path) for option in options))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"service: {reason.format(folder=tmp_path)}\n"


PER_MINUTE = 40
MAX_FILES = 8


@contextmanager
def held(folder):
    """Hold the lock of the workers, as if the disk took long."""
    with (folder / LOCK).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.server
def test_two_workers_keep_each_correction_once_and_stay_within_the_limits(
    artifact, png_files, tmp_path
):
    lock, inbox = artifact.path / "dvc.lock", tmp_path / "inbox"
    options = [f"--feedback-max-files={MAX_FILES}", f"--feedback-per-minute={PER_MINUTE}"]
    pictures = [file.read_bytes() for file in png_files[:12]]

    with (
        running_server(
            PROJECT, "--workers=2", f"--lock={lock}", f"--feedback={inbox}", *options
        ) as server,
        ThreadPoolExecutor(PER_MINUTE) as clients,
    ):

        def send(picture, label):
            files, fields = {"image": ("0.png", picture)}, {"label": str(label)}
            return requests.post(f"{server.url}/feedback", fields, files=files, timeout=60)

        def send_all(items):
            return [each.result() for each in [clients.submit(send, *item) for item in items]]

        different = send_all((picture, 3) for picture in pictures)
        statuses = Counter(answer.status_code for answer in different)
        assert statuses == {200: MAX_FILES, 507: len(pictures) - MAX_FILES}
        kept = {answer.json()["sha256"] for answer in different if answer.status_code == 200}
        names = [f"3/{name}.{extension}" for name in kept for extension in ("json", "png")]
        assert corrections(inbox) == sorted(names)

        same = next(picture for picture in pictures if named(picture) in kept)
        assert {answer.status_code for answer in send_all((same, n) for n in range(10))} == {200}
        assert len(corrections(inbox)) == 2 * MAX_FILES
        assert len(list(inbox.glob(f"*/{named(same)}.json"))) == 1

        # While the disk is busy, all others are refused at once, and digits are recognized.
        with held(inbox):
            admitted = PER_MINUTE - 12 - 10
            waiting = [clients.submit(send, same, 5) for _ in range(admitted)]
            while (inbox / ATTEMPTS).stat().st_size < 8 * PER_MINUTE:
                assert not any(each.done() for each in waiting)
            refused = [send(same, 6) for _ in range(20)]
            for picture in pictures:
                files = {"image": ("0.png", picture)}
                assert requests.post(f"{server.url}/recognize", files=files, timeout=60).ok
            assert not any(each.done() for each in waiting)
        assert {answer.status_code for answer in refused} == {429}
        assert all(1 <= int(answer.headers["Retry-After"]) <= 60 for answer in refused)
        assert {each.result().status_code for each in waiting} == {200}
        assert (inbox / f"5/{named(same)}.json").exists()

        text = requests.get(f"{server.url}/metrics", timeout=60).text
        counts = [line.split() for line in text.splitlines() if line.startswith("mnist_feedback_t")]
        assert {name.partition('"')[2][:-2]: int(float(count)) for name, count in counts} == {
            "kept": MAX_FILES + 10 + admitted,
            "full": len(pictures) - MAX_FILES,
            "too_many": 20,
            "refused": 0,
            "failed": 0,
        }


CLIENTS = 2
SUFFIXES = (".bmp", ".json")
LARGE = 1 << 20  # bytes: a file that has reached this size is a picture, and not yet whole


def large_picture():
    """Return a picture of a 1 of 9 MB, so that writing it takes long."""
    image = np.full((3000, 3000), 255, np.uint8)
    image[500:2500, 1400:1600] = 0
    return cv2.imencode(".bmp", image)[1].tobytes()


def grows(file):
    with suppress(FileNotFoundError):
        return file.stat().st_size >= LARGE
    return False


@pytest.mark.slow
@pytest.mark.server
def test_a_kill_in_the_middle_of_a_write_leaves_whole_corrections_or_none(
    artifact, tmp_path, monkeypatch
):
    monkeypatch.setitem(ENVIRONMENT, "TMPDIR", str(tmp_path))  # where the kill leaves files
    lock, inbox = artifact.path / "dvc.lock", tmp_path / "inbox"
    options = ["--workers=2", f"--lock={lock}", f"--feedback={inbox}"]
    options += ["--feedback-per-minute=1000", "--feedback-max-bytes=600000000"]
    picture, numbers, kept = large_picture(), count(), set()

    def send(server):
        content = picture + str(next(numbers)).encode()  # decoders ignore what follows the pixels
        files, fields = {"image": ("1.bmp", content)}, {"label": "1"}
        answer = requests.post(f"{server.url}/feedback", fields, files=files, timeout=60)
        assert answer.status_code == 200, answer.text
        kept.add(answer.json()["sha256"])

    def send_until_the_kill(server):
        with suppress(requests.ConnectionError):
            while True:
                send(server)

    # A write may end before the kill arrives, so there may be another attempt.
    while not grows(inbox / NEW):
        with running_server(PROJECT, *options) as server, ThreadPoolExecutor(CLIENTS) as clients:
            # The main process first, because it replaces a worker that dies.
            processes, before = [server.process.pid, *server.workers()], len(kept)
            storm = [clients.submit(send_until_the_kill, server) for _ in range(CLIENTS)]
            while len(kept) < before + 3 or not grows(inbox / NEW):
                assert not any(each.done() for each in storm)
            for process in processes:
                os.kill(process, signal.SIGKILL)
            server.process.wait()
        for each in storm:
            each.result()

    files = [file for file in inbox.glob("*/*") if file.is_file()]
    assert all(file.stem == next(iter(named_in(file))) for file in files)
    pictures, facts = ({file.stem for file in files if file.suffix == end} for end in SUFFIXES)
    assert kept <= facts <= pictures
    assert len(pictures - facts) <= 1  # the one that the kill interrupted, if its picture was whole
    with running_server(PROJECT, *options) as server:
        assert len(corrections(inbox)) == 2 * len(facts)
        assert {file.stem for file in inbox.glob("1/*.bmp")} == facts
        send(server)
        assert len(corrections(inbox)) == 2 * len(facts) + 2
