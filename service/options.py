"""The options of `python -m service`, from the command line and from environment variables."""

import argparse
import os
import re
from functools import partial
from pathlib import Path

from service import environment, log
from service.api.limits import Limits
from service.recognition import engines, pin

# For an option, the options that have no effect beside it.
REPLACED = {"uds": {"host", "port"}, "artifact": {"lock"}, "pin": {"lock"}}


def parse_options() -> argparse.Namespace:
    """Return the options of this process. A wrong one ends the process with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve handwritten-digit recognition from exactly the artifact that dvc.lock "
        "pins. The service verifies the artifact before it loads it. If the files differ from the "
        "pinned hashes, the service reports the difference and exits with status 1.",
        epilog="The environment variable in brackets sets the same as the option. An option on the "
        "command line wins.",
        allow_abbrev=False,
        formatter_class=environment.HelpFormatter,
    )
    _add_address(parser)
    _add_process(parser)
    _add_requests(parser)
    _add_feedback(parser)
    _add_model(parser)
    _add_shadow(parser)
    options = environment.parse(parser, REPLACED)
    if (options.tls_certificate is None) != (options.tls_key is None):
        parser.error("--tls-certificate and --tls-key need each other")
    if (options.artifact is None) != (options.pin is None):
        parser.error("--artifact and --pin need each other")
    if options.artifact and options.watch:
        parser.error("--watch follows a lock file, but --pin names one artifact; remove --watch")
    if options.artifact and options.shadow:
        parser.error(
            "--shadow tries the next artifact of a lock file, but --pin names one artifact; remove "
            "--shadow"
        )
    return options


def _add_address(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where the service listens")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on")
    group.add_argument("--port", type=_number(1, 65535), default=8080, help="port to listen on")
    group.add_argument(
        "--uds", type=Path, help="path of a Unix socket to listen on, instead of --host and --port"
    )
    group.add_argument(
        "--tls-certificate", type=Path, help="file with the certificate chain, to speak TLS (PEM)"
    )
    group.add_argument(
        "--tls-key", type=Path, help="file with the private key of the certificate (PEM)"
    )


def _add_process(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it runs")
    group.add_argument(
        "--workers",
        type=_number(1, 1024),
        default=os.cpu_count() or 1,
        help="number of worker processes, one per core by default; each loads the model",
    )
    group.add_argument(
        "--drain",
        type=_number(0, 3600),
        default=0,
        help="seconds to go on answering after SIGTERM or SIGINT, while /readyz answers 503; a "
        "second signal ends them",
    )
    group.add_argument(
        "--log-format",
        choices=log.FORMATS,
        default="text",
        help="format of the log, which has one line per request",
    )
    group.add_argument(
        "--check",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="only check the options and the artifact, load it once, and exit",
    )


def _add_requests(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which requests it answers")
    group.add_argument(
        "--token-file",
        type=Path,
        help="file that contains a token; requests except health checks and pages must send it as "
        "`Authorization: Bearer`",
    )
    group.add_argument(
        "--cors-origin",
        type=_origin,
        help="origin whose pages may send requests from a browser, such as https://example.com, or "
        "* for all",
    )
    group.add_argument(
        "--queue",
        type=_number(1, 65536),
        default=Limits.queue,
        help="maximum number of waiting requests in each worker; further requests get 503",
    )
    group.add_argument(
        "--timeout",
        type=_number(1, 3600),
        default=Limits.seconds,
        help="seconds to receive a request, and again to answer it",
    )
    group.add_argument(
        "--max-body",
        type=_number(1024, 1 << 30),
        default=Limits.body,
        help="maximum size of a request body in bytes",
    )
    group.add_argument(
        "--max-images",
        type=_number(1, 1_000_000),
        default=Limits.images,
        help="maximum number of images in a request",
    )
    group.add_argument(
        "--max-pixels",
        type=_number(28 * 28, 80_000_000),
        default=Limits.pixels,
        help="maximum number of pixels in a picture",
    )


def _add_feedback(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which corrections it collects")
    group.add_argument(
        "--feedback",
        type=Path,
        help="folder that collects corrections of answers (POST /feedback); needs --token-file, "
        "unless the service listens on loopback or a Unix socket",
    )
    group.add_argument(
        "--feedback-max-files",
        type=_number(1, 1_000_000),
        default=10_000,
        help="maximum number of corrections in the folder; further ones get 507",
    )
    group.add_argument(
        "--feedback-max-bytes",
        type=_number(1024, 1 << 40),
        default=1 << 28,
        help="maximum size of all corrections in bytes; further ones get 507",
    )
    group.add_argument(
        "--feedback-per-minute",
        type=_number(1, 1000),
        default=60,
        help="maximum number of corrections in a minute over all workers; further ones get 429",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which model it serves")
    group.add_argument(
        "--lock",
        type=Path,
        default=Path("dvc.lock"),
        help="lock file; the artifact is data/model in the same folder",
    )
    group.add_argument(
        "--watch",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="load a new artifact as soon as the lock file pins it; otherwise only on SIGHUP",
    )
    group.add_argument(
        "--allow-md5-only",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="accept a lock file that pins the artifact by MD5 only, without data/model.sha256; an "
        "attacker can make two artifacts with one MD5",
    )
    group.add_argument(
        "--artifact",
        type=Path,
        help="folder of an artifact to serve without a lock file; needs --pin",
    )
    group.add_argument(
        "--pin",
        type=_sha256,
        help="SHA-256 that the manifest of --artifact must have, as /healthz names it",
    )
    group.add_argument(
        "--engine",
        choices=engines.ENGINES,
        default="litert",
        help="inference library; litert is faster and smaller, tensorflow is a separate install",
    )


def _add_shadow(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what a new model must pass before it takes over")
    group.add_argument(
        "--shadow",
        type=_number(0, 1_000_000),
        default=0,
        help="number of live images; the service compares a new model with the one in service on "
        "copies of them before it takes over, unseen by clients; 0 lets it take over at once",
    )
    group.add_argument(
        "--shadow-max-disagreement",
        type=_decimal(0, 1),
        default=0.05,
        help="maximum fraction of these images for which the two models predict different labels",
    )
    group.add_argument(
        "--shadow-max-confidence-loss",
        type=_decimal(0, 1),
        default=0.02,
        help="maximum loss of mean confidence; 0.02 allows 0.97 instead of 0.99",
    )
    group.add_argument(
        "--shadow-max-slowdown",
        type=_decimal(0.01, 1000),
        default=1.5,
        help="maximum ratio of the new model's median time for an image to that of the one in "
        "service",
    )


def _number(least: int, most: int) -> "partial[int]":
    return partial(_parse_number, least, most)


def _parse_number(least: int, most: int, text: str) -> int:
    if not (text.isdecimal() and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
    return int(text)


def _decimal(least: float, most: float) -> "partial[float]":
    return partial(_parse_decimal, least, most)


def _parse_decimal(least: float, most: float, text: str) -> float:
    if not (re.fullmatch(r"\d+(\.\d*)?|\.\d+", text) and least <= float(text) <= most):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
    return float(text)


def _origin(text: str) -> str:
    # As browsers write it: in lower case and ASCII, and without the default port.
    is_origin = re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[a-z0-9._:\[\]-]+", text)
    if not is_origin or re.fullmatch(r"http://.*:80|https://.*:443", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not * or an origin such as https://example.com, in lower case and ASCII, "
            "without a path and without the default port"
        )
    return text


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a SHA-256 of 64 hexadecimal digits, as `sha256sum {pin.MANIFEST}` "
            "prints"
        )
    return text
