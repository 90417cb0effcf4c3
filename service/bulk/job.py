"""Store a job in its output folder: its definition, its list of parts, and the finished parts."""

import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import pyarrow as pa
from pyarrow import parquet
from pyarrow.fs import FileSelector, FileType

from service.bulk import BulkError, inputs, storage
from service.bulk.inputs import Part

JOB, LIST, PART = "_job.json", "_parts.jsonl", "part-{:07d}.parquet"
LEAST_PARTS = 32  # parts of a small job, to use all cores; a part costs half a millisecond
SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "label": pa.int64(),
        "probabilities": pa.list_(pa.float32(), 10),
        "error": pa.string(),
        "version": pa.string(),
    }
)


class Task(NamedTuple):
    """A part to make."""

    number: int
    start: int  # first byte of the part's line in the list of parts
    end: int  # last byte of that line, exclusive


class Result(NamedTuple):
    """The outcome of making a part."""

    rows: int = 0
    errors: int = 0  # number of rows with an error
    seconds: float = 0
    failure: str = ""  # reason why the part could not be made, for example a full disk


@dataclass(frozen=True)
class Job:
    """The definition of a job. A folder contains the output of one job."""

    out: str
    inputs: list[str]
    part_size: int
    column: str | None
    version: str
    sha256: str  # the SHA-256 of the artifact's manifest; empty if it is pinned by MD5 only

    def start(self) -> bool:
        """Write the list of parts, unless an earlier run has written it.

        Returns:
            Whether an earlier run has written it.

        Raises:
            BulkError: The folder contains the output of another job or other files, or it is inside
                an input, or an input matches no file.
        """
        for name in self.inputs:
            if f"{self.out}/".startswith(f"{name}/"):
                raise BulkError(f"{self.out} is inside the input {name}; choose another --out")
        system, path = storage.locate(self.out)
        system.create_dir(path)
        try:
            with system.open_input_stream(f"{path}/{JOB}") as stream:
                existing = json.loads(stream.read())
        except FileNotFoundError:
            if storage.entries(self.out):
                raise BulkError(
                    f"{self.out} is not empty, and no job was started there; choose another --out"
                ) from None
        else:
            for name, value in self._identity().items():
                if existing.get(name) != value:
                    raise BulkError(
                        f"{self.out} has a job with another {name.replace('_', ' ')}: "
                        f"{existing.get(name)}, and not {value}; choose another --out, or remove it"
                    )
            return True
        with storage.written_whole(f"{self.out}/{LIST}") as stream:
            for part in inputs.parts(self.inputs, self.part_size, LEAST_PARTS):
                stream.write(f"{json.dumps(asdict(part))}\n".encode())
        with storage.written_whole(f"{self.out}/{JOB}") as stream:
            stream.write(json.dumps(self._identity(), indent=1).encode())
        return False

    def _identity(self) -> dict[str, object]:
        fields = asdict(self)
        del fields["out"]  # a user may move the folder
        return fields

    def tasks(self) -> Iterator[Task]:
        """Yield all parts, finished or not."""
        system, path = storage.locate(f"{self.out}/{LIST}")
        with system.open_input_stream(path) as stream:
            start = 0
            for number, line in enumerate(io.BufferedReader(stream, 1 << 20)):
                yield Task(number, start, start + len(line))
                start += len(line)

    def part(self, task: Task) -> Part:
        """Read a part from the list of parts."""
        system, path = storage.locate(f"{self.out}/{LIST}")
        with system.open_input_file(path) as stream:
            return Part(**json.loads(stream.read_at(task.end - task.start, task.start)))

    def output(self, number: int) -> str:
        """Return the name of the output file of a part."""
        return f"{self.out}/{PART.format(number)}"

    def done(self) -> set[str]:
        """Return the names of the output files that exist."""
        names = (entry.name for entry in storage.entries(self.out))
        return {name for name in names if name.rpartition("/")[2].startswith("part-")}

    def clear(self) -> None:
        """Remove the incomplete files that killed processes have left."""
        system, path = storage.locate(self.out)
        for info in system.get_file_info(FileSelector(path)):
            if info.type == FileType.File and info.base_name.startswith("_part-"):
                system.delete_file(info.path)


def counts(output: str) -> tuple[int, int]:
    """Return the number of rows of an output file, and the number of rows with an error."""
    system, path = storage.locate(output)
    with system.open_input_file(path) as stream:
        table = parquet.read_table(stream, columns=["error"])
    return len(table), len(table) - table["error"].null_count
