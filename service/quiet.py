"""TensorFlow, imported without its start-up noise: `from service.quiet import tf`, before Keras.

It logs to standard error before its own log level is in force.
"""

import os

from service.silence import silence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings off, errors on

with silence():
    import tensorflow as tf

__all__ = ["tf"]
