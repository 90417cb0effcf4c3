"""What the main process tells its workers: which artifacts there are, and which to serve."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

PERIOD = 1  # seconds from one look to the next, in the main process and in the workers
FILE = "published.json"


@dataclass(frozen=True)
class State:
    """How far an artifact has come, in the words of TensorFlow Serving."""

    version: str
    state: str  # LOADING, AVAILABLE or END
    error: str = ""  # why it ended without having been served
    folder: str = ""  # of its verified copy, while it is AVAILABLE


def write(private: Path, states: list[State]) -> None:
    """Tell the workers, in a folder that only this service can write to; whole, or not at all."""
    new = private / f"{FILE}.new"
    new.write_text(json.dumps([asdict(state) for state in states]))
    new.replace(private / FILE)


def read(private: Path) -> list[State]:
    return [State(**state) for state in json.loads((private / FILE).read_text())]


def available(states: list[State]) -> State:
    """The one to serve."""
    return next(state for state in states if state.state == "AVAILABLE")
