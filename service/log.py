"""Write what the service reports besides its access log, as text or as JSON.

Messages below the level WARNING go to standard output, and all others to standard error.
"""

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO

FORMATS = ("text", "json")

logger = logging.getLogger(__name__)


class _JsonHandler(logging.StreamHandler[TextIO]):
    """Writes each message as a line of JSON, together with its traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(json.dumps(_fields(record)), file=self.stream, flush=True)
        except Exception:  # as in `logging`: the log must not break what it reports on
            self.handleError(record)


def _fields(record: logging.LogRecord) -> dict[str, str]:
    fields = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "message": record.getMessage(),
    }
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    # Parsers of JSON refuse the surrogates by which Python represents bytes that are not UTF-8.
    return {name: text.encode(errors="backslashreplace").decode() for name, text in fields.items()}


def configure(form: str) -> None:
    """Format all log messages of this process and its children, also those of libraries.

    Args:
        form: `text` or `json`.
    """
    logging.raiseExceptions = False  # keep serving even if the reader of the log is gone
    handler = _JsonHandler if form == "json" else logging.StreamHandler
    news, problems = handler(sys.stdout), handler(sys.stderr)
    news.addFilter(lambda record: record.levelno < logging.WARNING)
    problems.setLevel(logging.WARNING)
    if form == "text":
        problems.setFormatter(logging.Formatter("service: %(message)s"))
    logging.basicConfig(handlers=[news, problems], format="%(message)s", force=True)
    logging.captureWarnings(form == "json")
    logging.getLogger("service").setLevel(logging.INFO)
    if form == "json":  # Python itself writes the traceback of an uncaught exception as text
        sys.excepthook = _uncaught
        threading.excepthook = lambda args: _uncaught(*args[:3])
        sys.unraisablehook = lambda args: _uncaught(
            args.exc_type, args.exc_value, args.exc_traceback
        )


def _uncaught(
    kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None
) -> None:
    logger.critical("An exception was not caught", exc_info=(kind, error or kind(), traceback))
