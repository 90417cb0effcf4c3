"""Where an interrupted training goes on: its state after the last whole epoch.

It is beside the scratch of the stages, and not among the outputs, which DVC removes before a run.
The chief alone reads and writes it; the others get the state from the chief.
"""

import json
import zipfile
from hashlib import sha256
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from stages.common import distribute, params
from stages.common.idx import Split
from stages.common.runner import SCRATCH

FILE = SCRATCH / "checkpoint.npz"

Figures = dict[str, float]


def key(chosen: params.Params, training: Split) -> np.ndarray:
    """What the result depends on, as int64 (4,): equal for runs that may go on from one another.

    These are the parameters, the data, the code and the libraries.
    """
    digest = sha256(
        f"{chosen.network!r} {chosen.train!r} {tf.__version__} {keras.__version__}".encode()
    )
    for array in training:
        digest.update(array.tobytes())
    for file in sorted(Path(__file__).parent.parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return np.frombuffer(digest.digest(), np.int64)


def save(key: np.ndarray, variables: list[keras.Variable], history: list[Figures]) -> None:
    """Write the state, whole or not at all, in place of the one before."""
    partial = FILE.with_suffix(".partial")
    with partial.open("wb") as file:
        values = [variable.numpy() for variable in variables]
        np.savez(file, *values, key=key, history=json.dumps(history))
    partial.replace(FILE)


def restore(
    key: np.ndarray, variables: list[keras.Variable], strategy: tf.distribute.Strategy
) -> tuple[int, list[Figures]]:
    """Give the variables of every worker the chief's saved state, if it is of a run with this key.

    Returns:
        The number of epochs that are done, and for the chief what was told after each.
    """
    history: list[Figures] = []
    values = variables
    if distribute.is_chief(strategy):
        history, values = _read(key) or (history, values)
    done = int(distribute.from_chief(strategy, np.array(len(history))))
    if done:
        if history:
            tqdm.write(f"resuming after epoch {done}, where the run before was interrupted")
        for variable, value in zip(variables, values, strict=True):
            variable.assign(distribute.from_chief(strategy, np.asarray(value)))
    return done, history


def remove() -> None:
    """Forget the state, once the run has ended well."""
    FILE.unlink(missing_ok=True)


def _read(key: np.ndarray) -> tuple[list[Figures], list[np.ndarray]] | None:
    try:
        with np.load(FILE) as saved:
            if not np.array_equal(saved["key"], key):
                return None
            values = [saved[f"arr_{number}"] for number in range(len(saved.files) - 2)]
            return json.loads(str(saved["history"])), values
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # there is none, or its disk damaged it
