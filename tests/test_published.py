import pytest

from service import published
from service.published import State

OLD, NEW = State("1" * 32, "END", "it is damaged"), State("2" * 32, "AVAILABLE", folder="/there")


def test_what_is_written_is_read_and_replaces_what_was_there(tmp_path):
    published.write(tmp_path, [OLD])
    published.write(tmp_path, [OLD, NEW])
    assert published.read(tmp_path) == [OLD, NEW]
    assert [file.name for file in tmp_path.iterdir()] == [published.FILE]


def test_the_available_one_is_served():
    assert published.available([OLD, NEW]) == NEW


def test_a_failed_write_leaves_what_was_there(tmp_path):
    published.write(tmp_path, [NEW])
    (tmp_path / f"{published.FILE}.new").mkdir()
    with pytest.raises(IsADirectoryError):
        published.write(tmp_path, [OLD])
    assert published.read(tmp_path) == [NEW]
