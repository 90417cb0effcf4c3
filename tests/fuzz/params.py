"""Any file is read as params.yaml, or refused as a ParamsError.

python -m tests.fuzz.params /tmp/params -max_total_time=600
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

from tests import fuzz

with atheris.instrument_imports(include=["stages", "ruamel", "yaml"]):
    from stages import params

WORDS = (
    *("&a", "*a", "<<: ", "!!int ", "!!float ", "!!binary ", "!!timestamp ", "!!set", "- ", "? "),
    *("[", "]", "{", "}", "2001-02-30", "0x", "0b", "1:60", "1e9", ".inf", ".nan", "~", "|", ">"),
)


def target(content: bytes) -> None:
    FILE.write_bytes(content)
    with suppress(params.ParamsError):
        params.load(FILE)


def seeds() -> Iterator[bytes]:
    """The project's file, and that without its comments."""
    text = (fuzz.PROJECT / "params.yaml").read_text()
    yield text.encode()
    yield "".join(f"{line}\n" for line in text.splitlines() if "#" not in line).encode()


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        FILE = Path(folder) / "params.yaml"
        fuzz.run(target, seeds(), WORDS)
