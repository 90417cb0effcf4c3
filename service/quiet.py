"""TensorFlow, imported without its start-up noise: `from service.quiet import tf`, before Keras.

It logs to standard error before its own log level is in force.
"""

import os

from service.silence import silence

# Warnings off, errors on; but off among many workers, that say in a sentence that one is lost.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if "TF_CONFIG" in os.environ else "2")

with silence():
    import tensorflow as tf

__all__ = ["tf"]
