"""Keep corrections of the service's answers in a folder, for a person to review.

One correction is two files: the picture as it came, `<label>/<sha256>.<extension>`, and its facts,
`<label>/<sha256>.json`. The facts come last, so a correction exists when its facts exist.

All workers write to the folder, one at a time. Each attempt is counted before its picture is
decoded, so that corrections take only a bounded part of the time, however many arrive.
"""

import errno
import fcntl
import hashlib
import ipaddress
import json
import math
import os
import re
import time
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import NamedTuple

# How the files of each format begin that `recognition.images` decodes.
EXTENSIONS = {b"\x89PNG": "png", b"\xff\xd8": "jpg", b"BM": "bmp", b"GIF8": "gif", b"RIFF": "webp"}
PICTURE = re.compile(rf"[0-9a-f]{{64}}\.({'|'.join(EXTENSIONS.values())})")
# Files of the service beside the folders of the labels.
LOCK = ".lock"  # a worker that writes holds its lock; it contains the usage of each folder
USAGES = 10 * 3 * 8  # bytes of the usage of ten folders
ATTEMPTS = ".attempts"  # the times of the latest attempts, as doubles
NEW = ".new"  # what is being written
MINUTE = 60  # seconds


class FeedbackError(Exception):
    """The folder is unusable; the text is the sentence that the user reads."""


class FullError(Exception):
    """The folder takes no more corrections; the text is the sentence that the sender reads."""


class TooManyError(Exception):
    """There were too many attempts in the last minute."""

    def __init__(self, per_minute: int, seconds: int) -> None:
        super().__init__(
            f"The service takes {per_minute:,} corrections a minute; try again in "
            f"{seconds} seconds."
        )
        self.seconds = seconds


@dataclass(frozen=True)
class Correction:
    """What a person says about a picture, and what the service says."""

    label: int  # the person's
    answered: int  # the service's
    confidence: float
    version: str  # of the artifact that answered


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine reach an address to listen on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Usage(NamedTuple):
    """What is in the folder of a label."""

    changed: int = 0  # its modification time in nanoseconds, or 0 if it does not exist
    corrections: int = 0
    size: int = 0  # of all files, in bytes


class Inbox:
    """The folder of the corrections, as each worker sees it."""

    def __init__(
        self,
        folder: Path,
        max_files: int = 10_000,
        max_bytes: int = 1 << 28,
        per_minute: int = 60,
    ) -> None:
        """Create the folder if necessary, and remove what a service that was killed has left.

        Args:
            folder: The folder.
            max_files: The maximum number of corrections in it.
            max_bytes: The maximum size of all its files.
            per_minute: The maximum number of attempts in a minute, over all workers.

        Raises:
            FeedbackError: The service cannot write to the folder.
        """
        self._folder = folder
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._per_minute = per_minute
        try:
            folder.mkdir(parents=True, exist_ok=True)
            is_inbox = (folder / LOCK).exists()
            with self._locked(LOCK):
                (folder / NEW).touch()  # takes no space, so a full disk does not stop the service
                (folder / NEW).unlink()
                if is_inbox:  # and not another folder of pictures, named by mistake
                    self._clean_up()
        except OSError as error:
            raise FeedbackError(
                f"cannot keep corrections in {folder} ({error.strerror}); name a folder that the "
                "service may write to with --feedback"
            ) from error

    def admit(self) -> None:
        """Count an attempt to leave a correction.

        This takes some microseconds and does not wait for the disk, so the event loop may do it.

        Raises:
            TooManyError: There were too many attempts in the last minute.
            FullError: The disk is full.
        """
        with _full_disk_reported(), self._locked(ATTEMPTS) as file:
            now = time.time()
            times = array("d", os.pread(file, os.fstat(file).st_size // 8 * 8, 0))
            latest = array("d", (each for each in times if now - MINUTE < each <= now))
            if len(latest) >= self._per_minute:
                wait = latest[-self._per_minute] + MINUTE - now
                raise TooManyError(self._per_minute, math.ceil(wait))
            latest.append(now)
            os.pwrite(file, latest.tobytes(), 0)
            os.ftruncate(file, 8 * len(latest))

    def keep(self, picture: bytes, correction: Correction) -> str:
        """Write a correction, whole or not at all. It replaces an earlier one of the same picture.

        Args:
            picture: The file, which `recognition.images` can decode.
            correction: What is known about it.

        Returns:
            The SHA-256 of the picture.

        Raises:
            FullError: The number or the size of the corrections has reached its limit, or the disk
                is full.
        """
        name = hashlib.sha256(picture).hexdigest()
        extension = next(each for start, each in EXTENSIONS.items() if picture.startswith(start))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        facts = json.dumps({"sha256": name, **vars(correction), "time": now}).encode()
        files = (f"{name}.json", f"{name}.{extension}")
        with _full_disk_reported(), self._locked(LOCK) as lock:
            usages = self._read_usages(lock)
            earlier = [label for label in range(10) if self._file(label, files[0]).exists()]
            if not earlier:
                self._check_room(usages, len(picture) + len(facts))
            before = {label: self._total(label, files) for label in {correction.label, *earlier}}
            try:
                self._write(correction.label, files, picture, facts)
                for label in earlier:
                    if label != correction.label:
                        self._remove(label, files)
            finally:
                for label, old in before.items():
                    new = self._total(label, files)
                    usages[label] = _Usage(
                        self._changed(label),
                        usages[label].corrections + new[0] - old[0],
                        usages[label].size + new[1] - old[1],
                    )
                self._write_usages(lock, usages)
        return name

    @contextmanager
    def _locked(self, name: str) -> Iterator[int]:
        """Open a file of the service, and hold its lock. The lock ends with the process."""
        file = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)

    def _file(self, label: int, name: str) -> Path:
        return self._folder / str(label) / name

    def _entries(self, label: int) -> Iterator[os.DirEntry[str]]:
        with suppress(FileNotFoundError), os.scandir(self._folder / str(label)) as entries:
            yield from entries

    def _changed(self, label: int) -> int:
        try:
            return (self._folder / str(label)).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def _read_usages(self, lock: int) -> list[_Usage]:
        """Return the usage of the ten folders. Only those are counted that others have changed."""
        known = os.pread(lock, USAGES, 0)
        numbers = array("q", known if len(known) == USAGES else bytes(USAGES))
        usages = [_Usage(*numbers[3 * label :][:3]) for label in range(10)]
        for label, usage in enumerate(usages):
            if (changed := self._changed(label)) != usage.changed:
                usages[label] = _Usage(changed, *_total(self._entries(label)))
        return usages

    def _total(self, label: int, names: tuple[str, str]) -> tuple[int, int]:
        return _total(self._file(label, name) for name in names)

    def _write_usages(self, lock: int, usages: list[_Usage]) -> None:
        # If the disk is full, the next worker counts the files.
        with suppress(OSError):
            os.pwrite(lock, array("q", chain(*usages)).tobytes(), 0)

    def _check_room(self, usages: list[_Usage], size: int) -> None:
        if sum(usage.corrections for usage in usages) >= self._max_files:
            raise FullError(
                f"The service keeps at most {self._max_files:,} corrections; somebody has to "
                "review them first."
            )
        if sum(usage.size for usage in usages) + size > self._max_bytes:
            raise FullError(
                f"The corrections may take {self._max_bytes:,} bytes; somebody has to review "
                "them first."
            )

    def _write(self, label: int, names: tuple[str, str], picture: bytes, facts: bytes) -> None:
        facts_file, file = (self._file(label, name) for name in names)
        file.parent.mkdir(exist_ok=True)
        is_new = not file.exists()
        try:
            if is_new:
                self._write_whole(file, picture)
            self._write_whole(facts_file, facts)
        except OSError:
            (self._folder / NEW).unlink(missing_ok=True)
            if is_new:
                file.unlink(missing_ok=True)
            raise
        _sync(file.parent)

    def _write_whole(self, file: Path, content: bytes) -> None:
        new = self._folder / NEW
        with new.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(file)

    def _remove(self, label: int, names: tuple[str, str]) -> None:
        for name in names:
            self._file(label, name).unlink(missing_ok=True)

    def _clean_up(self) -> None:
        """Remove pictures without facts, and all but the latest of several corrections of one."""
        labels = defaultdict(list)
        for label in range(10):
            for file in self._entries(label):
                if PICTURE.fullmatch(file.name):
                    labels[file.name].append(label)
        for picture, found in labels.items():
            facts = f"{picture.partition('.')[0]}.json"
            times = {
                label: self._file(label, facts).stat().st_mtime_ns
                for label in found
                if self._file(label, facts).exists()
            }
            last = max(times, default=None, key=times.__getitem__)
            for label in found:
                if label != last:
                    self._remove(label, (facts, picture))


def _total(files: Iterable["os.DirEntry[str] | Path"]) -> tuple[int, int]:
    """Return how many corrections files are, and their size in bytes."""
    corrections = size = 0
    for file in files:
        with suppress(FileNotFoundError):  # a person reviews them meanwhile
            size += file.stat().st_size
            corrections += file.name.endswith(".json")
    return corrections, size


@contextmanager
def _full_disk_reported() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise FullError("The disk of the service is full, so it keeps no corrections.") from error


def _sync(folder: Path) -> None:
    """Write the names in a folder to the disk."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
