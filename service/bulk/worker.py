"""What a worker process does: it recognises the pictures of a part and writes them as Parquet."""

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import count, islice
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pyarrow as pa
from pyarrow import parquet
from pyarrow.fs import FileType

from service.bulk import inputs, job, storage
from service.bulk.inputs import Part
from service.bulk.job import SCHEMA, Job, Result, Task
from service.bulk.pool import NO_PICTURE, SKIPPED_AFTER
from service.recognition import engines, images, pin
from service.recognition.engines import Recognizer
from service.recognition.images import ImageError

if TYPE_CHECKING:
    from ctypes import c_longlong

ROWS = 8192  # at a time in memory, and in a row group
KILLED = "The image cannot be decoded: the process that tried was killed twice."
CUT_OFF = "The file cannot be read to its end: the process that tried was killed three times."

# The name of a picture, and its image, uint8 (28, 28), or the sentence that says why there is none.
Decoded = tuple[str, np.ndarray | str]


def serve(channel: Connection, position: "c_longlong") -> None:
    """Make the parts that a `pool.Process` sends, one after another, until it is gone."""
    with suppress(EOFError, ConnectionError):
        job, artifact = channel.recv()
        try:
            worker = Worker(job, artifact, position)
        except (OSError, pin.PinError) as error:
            channel.send(Result(failure=f"the artifact cannot be loaded: {error}"))
            return
        while True:
            channel.send(worker.make(*channel.recv()))


class Worker:
    """Recognises parts of a job."""

    def __init__(self, job: Job, artifact: dict[str, bytes], position: "c_longlong") -> None:
        """Load the artifact.

        Args:
            artifact: its files, by their paths.
            position: in shared memory; the worker sets it to the number of the picture, in its
                part, that it reads and decodes, and else to NO_PICTURE.

        Raises:
            PinError: it is not the job's.
            OSError: it cannot be written to a temporary folder.
        """
        cv2.setNumThreads(1)
        self._job = job
        self._position = position
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
            self._recognizer = engines.load(Path(folder), "litert")

    def make(self, task: Task, deaths: Mapping[int, int]) -> Result:
        """Make the output of a part, unless it is there.

        Args:
            deaths: how many workers each picture of the part, by its number, has killed.
        """
        began = time.monotonic()
        output = self._job.output(task.number)
        try:
            if storage.kind(output) == FileType.File:  # its worker died before it could say so
                rows, errors = job.counts(output)
            else:
                rows, errors = self._write(output, self._job.part(task), deaths)
        except Exception as error:  # a disk that is full, say; a new process would not help
            reason = f"{type(error).__name__}: {error}"
            return Result(failure=f"{output} cannot be made: {reason}")
        return Result(rows, errors, time.monotonic() - began)

    def _write(self, output: str, part: Part, deaths: Mapping[int, int]) -> tuple[int, int]:
        rows = errors = 0
        with (
            storage.written_whole(output) as stream,
            parquet.ParquetWriter(stream, SCHEMA, compression="zstd") as writer,
        ):
            decoded = self._decoded(part, deaths)
            for batch in answers(decoded, self._recognizer, self._job.version):
                writer.write_batch(batch)
                rows += len(batch)
                errors += len(batch) - batch.column("error").null_count
        return rows, errors

    def _decoded(self, part: Part, deaths: Mapping[int, int]) -> Iterator[Decoded]:
        """Read and decode the pictures of a part, but for those that kill workers."""
        pictures = inputs.pictures(part, self._job.column)
        for number in count():
            if part.kind != "files" and deaths.get(number, 0) > SKIPPED_AFTER:
                yield part.names[0], CUT_OFF  # to skip the decoder did not help
                return
            self._position.value = number
            picture = next(pictures, None)
            if picture is None:
                break
            name, content = picture
            image = KILLED if deaths.get(number, 0) >= SKIPPED_AFTER else _image(content)
            self._position.value = NO_PICTURE
            yield name, image
        self._position.value = NO_PICTURE


def answers(
    pictures: Iterator[Decoded], recognizer: Recognizer, version: str
) -> Iterator[pa.RecordBatch]:
    """Recognise pictures: the rows of the output, some thousands at a time."""
    while rows := list(islice(pictures, ROWS)):
        good = np.array([isinstance(image, np.ndarray) for _, image in rows])
        seen = [image for _, image in rows if isinstance(image, np.ndarray)]
        labels = np.zeros(len(rows), np.int64)
        probabilities = np.zeros((len(rows), 10), np.float32)
        if seen:
            labels[good], probabilities[good] = recognizer.recognize(np.stack(seen))
        yield _batch(
            _strings([_text(name) for name, _ in rows]),
            good,
            labels,
            probabilities,
            _strings(
                [None if isinstance(image, np.ndarray) else _text(image) for _, image in rows]
            ),
            _strings([version] * len(rows)),
        )


def _batch(
    paths: pa.Array,
    good: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    errors: pa.Array,
    versions: pa.Array,
) -> pa.RecordBatch:
    """Rows of the output; those that are not good have neither label nor probabilities.

    Made of buffers: `pa.array` imports pandas if it is installed, which takes a second.
    """
    valid = pa.py_buffer(np.packbits(good, bitorder="little"))
    of_label, of_probabilities = (SCHEMA.field(n).type for n in ("label", "probabilities"))
    values = pa.Array.from_buffers(
        pa.float32(), probabilities.size, [None, pa.py_buffer(probabilities)]
    )
    columns = [
        paths,
        pa.Array.from_buffers(of_label, len(good), [valid, pa.py_buffer(labels)]),
        pa.Array.from_buffers(of_probabilities, len(good), [valid], children=[values]),
        errors,
        versions,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _strings(values: list[str | None]) -> pa.Array:
    builder = pa.lib.StringBuilder()
    builder.append_values(values)
    return builder.finish()


def _image(content: bytes | ImageError) -> np.ndarray | str:
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
