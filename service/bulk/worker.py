"""What recognises parts: one process a core, with the model in memory."""

import hashlib
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from pyarrow import parquet
from pyarrow.fs import FileType

from service import images, pin, recognizer
from service.bulk import inputs, job, places
from service.bulk.inputs import Picture
from service.bulk.job import SCHEMA, Job
from service.images import ImageError
from service.recognizer import Recognizer

ROWS = 8192  # at a time in memory, and in a row group


class Worker:
    """Recognises parts of a job."""

    def __init__(self, job: Job, artifact: dict[str, bytes]) -> None:
        """Load the artifact.

        Args:
            artifact: its files, by their paths.

        Raises:
            PinError: it is not the job's.
        """
        cv2.setNumThreads(1)
        self._job = job
        hashes = {
            path: hashlib.md5(content, usedforsecurity=False).hexdigest()
            for path, content in artifact.items()
        }
        if pin.directory_hash(hashes) != job.version:
            raise pin.PinError(f"what arrived is not the artifact {job.version}")
        with TemporaryDirectory(prefix="mnist-bulk-") as folder:
            for path, content in artifact.items():
                file = Path(folder) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            self._recognizer = recognizer.load(Path(folder), "litert")

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Make the outputs of some parts.

        Args:
            batch: the number of each part, and from where to where it is in the list.

        Returns:
            How many rows and errors each has, how long it took, and why it could not be made,
            as a disk that is full; what is raised, Ray wraps up until nobody can read it.
        """
        columns = (batch[name] for name in ("number", "start", "end"))
        made = [self._tried(*map(int, row)) for row in zip(*columns, strict=True)]
        names = ("rows", "errors", "seconds", "failure")
        return {name: np.array(of) for name, of in zip(names, zip(*made, strict=True), strict=True)}

    def _tried(self, number: int, start: int, end: int) -> tuple[int, int, float, str]:
        began = time.monotonic()
        try:
            rows, errors = self._make(number, start, end)
        except (OSError, ValueError) as error:
            return 0, 0, 0.0, f"{self._job.output(number)} cannot be made: {error}"
        return rows, errors, time.monotonic() - began, ""

    def _make(self, number: int, start: int, end: int) -> tuple[int, int]:
        output = self._job.output(number)
        if places.kind(output) == FileType.File:  # before the worker died that was to tell of it
            return job.counts(output)
        part = self._job.part(start, end)
        rows = errors = 0
        with (
            places.written_whole(output) as stream,
            parquet.ParquetWriter(stream, SCHEMA, compression="zstd") as writer,
        ):
            found = inputs.pictures(part, self._job.column)
            for batch in answers(found, self._recognizer, self._job.version):
                writer.write_batch(batch)
                rows += len(batch)
                errors += len(batch) - batch.column("error").null_count
        return rows, errors


def answers(
    pictures: Iterator[Picture], recognizer: Recognizer, version: str
) -> Iterator[pa.RecordBatch]:
    """Recognise pictures: the rows of the output, some thousands at a time."""
    decoded = ((name, _decoded(content)) for name, content in pictures)
    while rows := list(islice(decoded, ROWS)):
        good = np.array([isinstance(image, np.ndarray) for _, image in rows])
        seen = [image for _, image in rows if isinstance(image, np.ndarray)]
        labels = np.zeros(len(rows), np.int64)
        probabilities = np.zeros((len(rows), 10), np.float32)
        if seen:
            labels[good], probabilities[good] = recognizer.recognize(np.stack(seen))
        columns: list[Any] = [
            [_text(name) for name, _ in rows],
            pa.array(labels, mask=~good),
            pa.FixedSizeListArray.from_arrays(probabilities.ravel(), 10, mask=pa.array(~good)),
            [None if isinstance(said, np.ndarray) else _text(said) for _, said in rows],
            pa.repeat(version, len(rows)),
        ]
        yield pa.record_batch(columns, SCHEMA)


def _decoded(content: bytes | ImageError) -> np.ndarray | str:
    """The image, or the sentence that says why there is none."""
    if isinstance(content, ImageError):
        return str(content)
    try:
        return images.decode(content)
    except ImageError as error:
        return str(error)
    except Exception as error:  # one of millions of pictures is never the end of the job
        return f"The image cannot be decoded ({type(error).__name__}: {error})."


def _text(name: str) -> str:
    """Any name of a file, of which Parquet takes UTF-8 only."""
    return name.encode("utf-8", "backslashreplace").decode()
