"""Keep the log messages of libraries out of standard error."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from tempfile import TemporaryFile
from typing import Any


def call(module: str, function: str, *arguments: Any) -> Any:
    """Import a module without its log messages, and call a function of it.

    TensorFlow 2.21 logs at import that it uses oneDNN, whatever the log level is. Keras
    and TensorFlow make half a million objects at import, and keep them. The garbage collector would
    search them again and again, which takes a sixth of the time.
    """
    gc.disable()
    try:
        with hidden_standard_error():
            imported = import_module(module)
    finally:
        gc.enable()
    return getattr(imported, function)(*arguments)


@contextmanager
def hidden_standard_error() -> Iterator[None]:
    """Hide standard error, unless an exception is raised: then show what was hidden.

    This is for libraries that write to the file descriptor itself and have no setting for it. It
    hides what all threads write. If the process is killed, the hidden text is lost.
    """
    sys.stderr.flush()
    with TemporaryFile() as log:
        stderr = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        except BaseException:
            log.seek(0)
            os.write(stderr, log.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
