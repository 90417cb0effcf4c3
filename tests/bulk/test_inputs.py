import io
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from service.api.limits import Limits
from service.bulk import inputs
from tests.bulk.conftest import parts, pictures, tar_of


def test_it_takes_as_large_a_picture_as_the_service(tmp_path):
    assert Limits.body == inputs.MAX_BYTES
    (tmp_path / "large.png").write_bytes(bytes(inputs.MAX_BYTES + 1))
    with tarfile.open(tmp_path / "large.tar", "w") as archive:
        archive.add(tmp_path / "large.png")
    for _, content in pictures(tmp_path):
        assert str(content) == "The file is too large; the most is 16,777,216 bytes."


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.png", ["1.png"]),
        ("*", ["1.png", "a/2.png", "a/b/3.png", "a/b/4.jpg", "c/5.png"]),
        ("[ac]", ["a/2.png", "a/b/3.png", "a/b/4.jpg", "c/5.png"]),
        ("*/?.png", ["a/2.png", "c/5.png"]),
        ("**", ["1.png", "a/2.png", "a/b/3.png", "a/b/4.jpg", "c/5.png"]),
        ("**/*.png", ["1.png", "a/2.png", "a/b/3.png", "c/5.png"]),
        ("a/**/b/*", ["a/b/3.png", "a/b/4.jpg"]),
        ("", ["1.png", "a/2.png", "a/b/3.png", "a/b/4.jpg", "c/5.png"]),
    ],
)
def test_folders_and_globs(tmp_path, pattern, found):
    for name in ("1.png", "a/2.png", "a/b/3.png", "a/b/4.jpg", "c/5.png", ".h/6.png", "a/.7.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    listed = parts(tmp_path / pattern, size=2)
    assert [len(part.names) for part in listed] == [
        min(2, len(found) - n) for n in range(0, len(found), 2)
    ]
    names = [name for part in listed for name in part.names]
    assert sorted(os.path.relpath(name, tmp_path) for name in names) == found


def test_a_file_that_is_gone_is_a_row(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "folder").symlink_to(tmp_path)
    reasons = {Path(name).name: str(content) for name, content in pictures(tmp_path)}
    assert reasons["link.png"] == "The file cannot be read: No such file or directory."
    assert reasons["folder"].startswith("The file cannot be read: ")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_that_is_cut_off_gives_what_is_whole_and_an_error(png_files, tmp_path, mode):
    files = png_files[:5]
    content = tar_of(files, mode)
    # Up to the mark of its end, which is of zeros: without all that follows nothing is lost.
    end = len(content.rstrip(b"\0")) if mode == "w" else len(content) - 64
    for cut in [*range(0, end, 111), 512, 1024]:
        (tmp_path / "cut.tar").write_bytes(content[:cut])
        *found, (name, error) = pictures(tmp_path / "cut.tar")
        assert name == str(tmp_path / "cut.tar")
        assert str(error).startswith("The archive is damaged or cut off: ")
        assert found == [
            (f"{name}/{file.name}", file.read_bytes())
            for file, _ in zip(files, found, strict=False)
        ]


def test_an_archive_that_is_damaged_inside_says_so(png_files, tmp_path):
    content = bytearray(tar_of(png_files[:5]))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        offset = archive.getmembers()[2].offset
    content[offset + 148 : offset + 156] = b"damaged!"  # the checksum of a header
    (tmp_path / "damaged.tar").write_bytes(content)
    found = pictures(tmp_path / "damaged.tar")
    assert [name.rpartition("/")[2] for name, _ in found] == ["0.png", "1.png", "damaged.tar"]


def test_parquet_with_a_damaged_row_group_gives_the_others(png_files, tmp_path):
    file = tmp_path / "rows.parquet"
    contents = [picture.read_bytes() for picture in png_files[:9]]
    table = pa.table({"id": list(range(9)), "picture": contents, "name": list("abcdefghi")})
    parquet.write_table(table, file, row_group_size=3, compression="gzip", use_dictionary=False)
    column = parquet.read_metadata(file).row_group(1).column(1)
    content = bytearray(file.read_bytes())
    content[column.data_page_offset : column.data_page_offset + 40] = bytes(40)
    file.write_bytes(content)
    found = dict(pictures(file))
    good = [0, 1, 2, 6, 7, 8]
    assert [found.pop(f"{file}/{table['name'][n]}") for n in good] == [contents[n] for n in good]
    ((name, error),) = found.items()
    assert name == f"{file}/3"
    assert str(error).startswith("The rows 3 to 5 cannot be read: ")


def test_the_column_of_parquet_can_be_named(png_files, tmp_path):
    file = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"digit": [png_files[0].read_bytes()], "other": [1]}), file)
    assert pictures(file, column="digit") == [(f"{file}/0", png_files[0].read_bytes())]
    for column in (None, "other", "none"):
        ((name, error),) = pictures(file, column=column)
        assert name == str(file)
        assert "it has no column of bytes named " in str(error)


def test_parquet_that_is_none_is_a_row(tmp_path):
    (tmp_path / "text.parquet").write_text("no such thing")
    ((name, error),) = pictures(tmp_path)
    assert name == str(tmp_path / "text.parquet")
    assert str(error).startswith("The Parquet file cannot be read: ")
