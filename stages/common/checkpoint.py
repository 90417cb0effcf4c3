"""The checkpoint from which an interrupted training resumes: its state after the last whole epoch.

DVC removes the outputs of a stage before a run, so the checkpoint is in the scratch folder. Only
the chief reads and writes the file; the other workers receive the state from the chief.
"""

import io
import json
import zipfile
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from stages.common import distribute, params
from stages.common.outputs import SCRATCH, write_atomically

FILE = SCRATCH / "checkpoint/state.npz"

Figures = dict[str, float]


def key(chosen: params.Params, data: Iterable[np.ndarray]) -> np.ndarray:
    """Hash everything that the result of a training depends on.

    A run may resume from a checkpoint only if both have the same key. The key covers the
    parameters, the data, the code, and the versions of TensorFlow and Keras.

    Args:
        chosen: All parameters, of which the key covers `threads`, `network` and `train`.
        data: The arrays that the run reads.

    Returns:
        The SHA-256 digest as int64 (4,).
    """
    digest = sha256(
        f"{chosen.threads} {chosen.network!r} {chosen.train!r} {tf.__version__} "
        f"{keras.__version__}".encode()
    )
    for array in data:
        digest.update(array.tobytes())
    for file in sorted(Path(__file__).parent.parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return np.frombuffer(digest.digest(), np.int64)


def save(key: np.ndarray, variables: list[keras.Variable], history: list[Figures]) -> None:
    """Replace the checkpoint atomically.

    Args:
        key: The key of this run, int64 (4,).
        variables: The variables to save.
        history: The figures of each finished epoch, in order.
    """
    buffer = io.BytesIO()
    values = [variable.numpy() for variable in variables]
    np.savez(buffer, *values, key=key, history=json.dumps(history))
    write_atomically(FILE, buffer.getvalue())


def restore(
    key: np.ndarray, variables: list[keras.Variable], strategy: tf.distribute.Strategy
) -> tuple[int, list[Figures]]:
    """Restore the variables of all workers from the chief's checkpoint, if its key matches.

    Without a readable checkpoint that has this key, the variables keep their values.

    Args:
        key: The key of this run, int64 (4,).
        variables: The variables to assign, in the order in which `save` received them.
        strategy: The distribution strategy of this run.

    Returns:
        The number of finished epochs, and the figures of each. Only the chief gets the figures;
        the list of the other workers is empty.
    """
    history: list[Figures] = []
    values = variables
    if distribute.is_chief(strategy):
        history, values = _read(key) or (history, values)
    done = int(distribute.from_chief(strategy, np.array(len(history))))
    if done:
        if history:
            tqdm.write(f"resuming after epoch {done}: the previous run was interrupted")
        for variable, value in zip(variables, values, strict=True):
            variable.assign(distribute.from_chief(strategy, np.asarray(value)))
    return done, history


def remove() -> None:
    """Remove the checkpoint after a successful run."""
    FILE.unlink(missing_ok=True)


def _read(key: np.ndarray) -> tuple[list[Figures], list[np.ndarray]] | None:
    try:
        with np.load(FILE) as saved:
            if not np.array_equal(saved["key"], key):
                return None
            values = [saved[f"arr_{number}"] for number in range(len(saved.files) - 2)]
            return json.loads(str(saved["history"])), values
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # the file is missing or damaged
