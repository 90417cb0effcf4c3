import pytest
from pyarrow.fs import FileType

from service.bulk import storage
from service.bulk.storage import Entry


def test_names_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("a/../b/") == str(tmp_path / "b")
    assert storage.absolute("s3://bucket/a/") == "s3://bucket/a"


def test_entries_are_sorted_and_without_hidden_files(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("c.png", "a.png", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "b")
    assert storage.entries(str(tmp_path)) == [
        Entry(f"{tmp_path}/a.png", is_folder=False),
        Entry(f"{tmp_path}/b", is_folder=True),
        Entry(f"{tmp_path}/c.png", is_folder=False),
        Entry(f"{tmp_path}/link", is_folder=False),
    ]


@pytest.mark.server
def test_entries_of_a_bucket_are_those_of_a_folder(endpoint, monkeypatch):
    for name, value in endpoint.items():
        monkeypatch.setenv(name, value)
    for name in ("places/b/c.png", "places/a.png", "places/.hidden"):
        with storage.written_whole(f"s3://bucket/{name}") as stream:
            stream.write(b"x")
    assert storage.entries("s3://bucket/places") == [
        Entry("s3://bucket/places/a.png", is_folder=False),
        Entry("s3://bucket/places/b", is_folder=True),
    ]
    assert storage.kind("s3://bucket/places/a.png") == FileType.File


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    name = f"{tmp_path}/file"
    with pytest.raises(KeyboardInterrupt), storage.written_whole(name):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with storage.written_whole(name) as stream:
        stream.write(b"whole")
        assert storage.kind(name) == FileType.NotFound
    assert (tmp_path / "file").read_bytes() == b"whole"
