"""Recognize the pictures of a part in a worker process, and write the results as Parquet."""

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

from service.bulk import inputs, storage
from service.bulk.inputs import Part
from service.bulk.job import SCHEMA, Job, Result, Task, counts
from service.bulk.pool import NO_PICTURE, SKIPPED_AFTER
from service.recognition import engines, images, manifest, pin
from service.recognition.engines import Recognizer
from service.recognition.images import ImageError

if TYPE_CHECKING:
    from ctypes import c_longlong

ROWS = 8192  # rows in memory at a time, and rows of a row group
KILLED = "The picture cannot be decoded: two processes that tried were killed."
CUT_OFF = "The rest of the file cannot be read: three processes that tried were killed."

# The name of a picture, and its image, uint8 (28, 28), or the sentence that explains the error.
Decoded = tuple[str, np.ndarray | str]


def serve(channel: Connection, position: "c_longlong") -> None:
    """Make the parts that a `pool.Process` sends, until the connection closes."""
    with suppress(EOFError, ConnectionError):
        job, artifact = channel.recv()
        try:
            worker = Worker(job, artifact, position)
        except (OSError, pin.PinError) as error:
            channel.send(Result(failure=f"cannot load the artifact: {error}"))
            return
        while True:
            channel.send(worker.make(*channel.recv()))


class Worker:
    """Recognizes the pictures of parts of a job."""

    def __init__(self, job: Job, artifact: dict[str, bytes], position: "c_longlong") -> None:
        """Load the artifact.

        Args:
            job: The job.
            artifact: The content of the artifact's files, by relative path.
            position: An integer in shared memory. The worker sets it to the index in the part of
                the picture that it is reading or decoding, and to NO_PICTURE in between.

        Raises:
            PinError: The artifact is not the one of the job.
            OSError: The artifact cannot be written to a temporary folder.
        """
        cv2.setNumThreads(1)
        self._job = job
        self._position = position
        _check(job, artifact)
        with TemporaryDirectory(prefix="mnist-bulk-") as folder:
            for path, content in artifact.items():
                file = Path(folder) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            self._recognizer = engines.load(Path(folder), "litert")

    def make(self, task: Task, deaths: Mapping[int, int]) -> Result:
        """Make the output of a part, unless it exists.

        Args:
            task: The part.
            deaths: The number of workers that each picture of the part has killed, by its index.
        """
        start = time.monotonic()
        output = self._job.output(task.number)
        try:
            if storage.kind(output) == FileType.File:  # a worker died before it sent the result
                rows, errors = counts(output)
            else:
                rows, errors = self._write(output, self._job.part(task), deaths)
        except Exception as error:  # for example a full disk; a new process would not help
            reason = f"{type(error).__name__}: {error}"
            return Result(failure=f"cannot make {output}: {reason}")
        return Result(rows, errors, time.monotonic() - start)

    def _write(self, output: str, part: Part, deaths: Mapping[int, int]) -> tuple[int, int]:
        rows = errors = 0
        with (
            storage.written_whole(output) as stream,
            parquet.ParquetWriter(stream, SCHEMA, compression="zstd") as writer,
        ):
            decoded = self._decoded(part, deaths)
            for batch in record_batches(decoded, self._recognizer, self._job.version):
                writer.write_batch(batch)
                rows += len(batch)
                errors += len(batch) - batch.column("error").null_count
        return rows, errors

    def _decoded(self, part: Part, deaths: Mapping[int, int]) -> Iterator[Decoded]:
        """Read and decode the pictures of a part, except those that kill workers."""
        pictures = inputs.read_pictures(part, self._job.column)
        for number in count():
            if part.kind != "files" and deaths.get(number, 0) > SKIPPED_AFTER:
                yield part.names[0], CUT_OFF  # reading the picture kills, even without decoding it
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


def _check(job: Job, artifact: dict[str, bytes]) -> None:
    """Raise PinError unless the files are the artifact of the job."""
    md5s = {
        path: hashlib.md5(content, usedforsecurity=False).hexdigest()
        for path, content in artifact.items()
    }
    sha256s = {path: hashlib.sha256(content).hexdigest() for path, content in artifact.items()}
    listed = hashlib.sha256(manifest.render(sha256s, pin.ARTIFACT)).hexdigest()
    if pin.directory_hash(md5s) != job.version or job.sha256 not in ("", listed):
        raise pin.PinError(f"the received files are not the artifact {job.version}")


def record_batches(
    pictures: Iterator[Decoded], recognizer: Recognizer, version: str
) -> Iterator[pa.RecordBatch]:
    """Recognize pictures, and yield the rows of the output in batches of at most `ROWS`."""
    while rows := list(islice(pictures, ROWS)):
        valid = np.array([isinstance(image, np.ndarray) for _, image in rows])
        images_ = [image for _, image in rows if isinstance(image, np.ndarray)]
        labels = np.zeros(len(rows), np.int64)
        probabilities = np.zeros((len(rows), 10), np.float32)
        if images_:
            labels[valid], probabilities[valid] = recognizer.recognize(np.stack(images_))
        yield _batch(
            _strings([_text(name) for name, _ in rows]),
            valid,
            labels,
            probabilities,
            _strings(
                [None if isinstance(image, np.ndarray) else _text(image) for _, image in rows]
            ),
            _strings([version] * len(rows)),
        )


def _batch(
    paths: pa.Array,
    valid: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    errors: pa.Array,
    versions: pa.Array,
) -> pa.RecordBatch:
    """Build rows of the output. Invalid rows have neither a label nor probabilities.

    The columns are built from buffers, because `pa.array` of pyarrow 26 imports pandas if it is
    installed, which takes a second (https://github.com/apache/arrow/issues/34994).

    Args:
        paths: Strings (N,).
        valid: Whether each picture was recognized, bool (N,).
        labels: int64 (N,).
        probabilities: float32 (N, 10).
        errors: Strings (N,), null for valid rows.
        versions: Strings (N,).
    """
    validity = pa.py_buffer(np.packbits(valid, bitorder="little"))
    label_type, probabilities_type = (SCHEMA.field(n).type for n in ("label", "probabilities"))
    values = pa.Array.from_buffers(
        pa.float32(), probabilities.size, [None, pa.py_buffer(probabilities)]
    )
    columns = [
        paths,
        pa.Array.from_buffers(label_type, len(valid), [validity, pa.py_buffer(labels)]),
        pa.Array.from_buffers(probabilities_type, len(valid), [validity], children=[values]),
        errors,
        versions,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _strings(values: list[str | None]) -> pa.Array:
    builder = pa.lib.StringBuilder()
    builder.append_values(values)
    return builder.finish()


def _image(content: bytes | ImageError) -> np.ndarray | str:
    """Return the image of a picture, uint8 (28, 28), or the sentence that explains the error."""
    if isinstance(content, ImageError):
        return str(content)
    try:
        return images.decode(content)
    except ImageError as error:
        return str(error)
    except Exception as error:  # a defect in a decoder must not end a job of millions of pictures
        return f"The picture cannot be decoded ({type(error).__name__}: {error})."


def _text(name: str) -> str:
    """Return a file name with bytes that are not UTF-8 escaped, because Parquet needs UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()
