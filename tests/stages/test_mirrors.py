"""Where files come from; whole downloads are in test_download.py."""

import gzip

import pytest

from stages.common import mirrors
from stages.common.mirrors import MirrorError, TransientError
from stages.common.runner import StageError


def test_the_first_mirror_that_answers_ends_the_search():
    tried: list[str] = []

    def attempt(mirror):
        tried.append(mirror)
        if mirror == "a":
            raise MirrorError("is closed")

    mirrors.try_in_order(["a", "b", "c"], attempt, "no mirror")
    assert tried == ["a", "b"]


def test_all_reasons_are_given_when_every_mirror_fails():
    def attempt(mirror):
        raise MirrorError(f"{mirror} is closed")

    with pytest.raises(StageError, match=r"no mirror\n  a: a is closed\n  b: b is closed"):
        mirrors.try_in_order(["a", "b"], attempt, "no mirror")


@pytest.mark.parametrize(("error", "pauses"), [(MirrorError, []), (TransientError, [0.5, 1.0])])
def test_only_what_may_pass_is_tried_again(error, pauses):
    paused: list[float] = []

    def attempt():
        raise error("broken")

    retried = mirrors.retrying(attempt)
    retried.retry.sleep = paused.append
    with pytest.raises(error):
        retried()
    assert paused == pauses


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_gzip_is_unpacked_in_whatever_chunks_it_comes(size):
    packed = gzip.compress(b"content" * 100)
    chunks = [packed[start : start + size] for start in range(0, len(packed), size)]
    if size == 1:  # too little to see that it is gzip
        assert b"".join(mirrors.gunzip(chunks)) == packed
    else:
        assert b"".join(mirrors.gunzip(chunks)) == b"content" * 100


def test_what_is_no_gzip_passes_as_it_is():
    assert list(mirrors.gunzip([b"plain", b"", b" text"])) == [b"plain", b" text"]


def test_gzip_that_is_cut_off_or_damaged_may_pass():
    packed = gzip.compress(b"content" * 100)
    for bad in (packed[:-1], packed[:20] + b"\0\0" + packed[22:]):
        with pytest.raises(TransientError):
            list(mirrors.gunzip([bad]))


def test_a_stream_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(mirrors, "MAX_BYTES", 10)
    seen: list[bytes] = []
    assert mirrors.gather([b"12345", b"67890"], seen.append) == b"1234567890"
    assert seen == [b"12345", b"67890"]
    with pytest.raises(MirrorError, match="more than 10 bytes"):
        mirrors.gather(iter(lambda: b"x", None))


def test_a_file_that_is_not_there_is_a_reason(tmp_path):
    with pytest.raises(MirrorError, match=r"none cannot be read \(No such file or directory\)"):
        mirrors.gather(mirrors.from_file(tmp_path / "none"))
