"""Tests of the mirrors. test_download.py tests whole downloads."""

import gzip

import pytest

from stages.common import mirrors
from stages.common.mirrors import MirrorError, TransientError
from stages.common.runner import StageError


def test_try_in_order_stops_at_the_first_success():
    tried: list[str] = []

    def attempt(mirror):
        tried.append(mirror)
        if mirror == "a":
            raise MirrorError("is closed")

    mirrors.try_in_order(["a", "b", "c"], attempt, "no mirror")
    assert tried == ["a", "b"]


def test_error_lists_the_reason_of_every_mirror():
    def attempt(mirror):
        raise MirrorError(f"{mirror} is closed")

    with pytest.raises(StageError, match=r"no mirror\n  a: a is closed\n  b: b is closed"):
        mirrors.try_in_order(["a", "b"], attempt, "no mirror")


@pytest.mark.parametrize(("error", "pauses"), [(MirrorError, []), (TransientError, [0.5, 1.0])])
def test_only_transient_errors_are_retried(error, pauses):
    paused: list[float] = []

    def attempt():
        raise error("broken")

    retried = mirrors.retrying(attempt)
    retried.retry.sleep = paused.append
    with pytest.raises(error):
        retried()
    assert paused == pauses


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_gunzip_accepts_chunks_of_any_size(size):
    packed = gzip.compress(b"content" * 100)
    chunks = [packed[start : start + size] for start in range(0, len(packed), size)]
    if size == 1:  # the first chunk is too short for the two magic bytes of gzip
        assert b"".join(mirrors.gunzip(chunks)) == packed
    else:
        assert b"".join(mirrors.gunzip(chunks)) == b"content" * 100


def test_gunzip_passes_other_streams_through():
    assert list(mirrors.gunzip([b"plain", b"", b" text"])) == [b"plain", b" text"]


def test_incomplete_or_damaged_gzip_is_a_transient_error():
    packed = gzip.compress(b"content" * 100)
    for bad in (packed[:-1], packed[:20] + b"\0\0" + packed[22:]):
        with pytest.raises(TransientError):
            list(mirrors.gunzip([bad]))


def test_gather_rejects_a_stream_that_is_too_long(monkeypatch):
    monkeypatch.setattr(mirrors, "MAX_BYTES", 10)
    assert mirrors.gather([b"12345", b"67890"]) == b"1234567890"
    with pytest.raises(MirrorError, match="more than 10 bytes"):
        mirrors.gather(iter(lambda: b"x", None))


def test_missing_file_is_reported(tmp_path):
    with pytest.raises(MirrorError, match=r"missing cannot be read \(No such file or directory\)"):
        mirrors.gather(mirrors.from_file(tmp_path / "missing"))
