"""TensorFlow, imported without its start-up noise: `from service.quiet import tf`, before Keras.

TensorFlow logs to standard error before its own log level is in force, so for the length of the
import that file descriptor points nowhere.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings off, errors on

sys.stderr.flush()
_stderr = os.dup(2)
_nowhere = os.open(os.devnull, os.O_WRONLY)
try:
    os.dup2(_nowhere, 2)
    import tensorflow as tf
finally:
    os.dup2(_stderr, 2)
    os.close(_stderr)
    os.close(_nowhere)

__all__ = ["tf"]
