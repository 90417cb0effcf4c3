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


def test_a_picture_may_be_as_large_as_a_request_to_the_service(tmp_path):
    assert Limits.body == inputs.MAX_BYTES
    (tmp_path / "large.png").write_bytes(bytes(inputs.MAX_BYTES + 1))
    with tarfile.open(tmp_path / "large.tar", "w") as archive:
        archive.add(tmp_path / "large.png")
    for _, content in pictures(tmp_path):
        assert str(content) == "The file is too large; the limit is 16,777,216 bytes."


@pytest.mark.parametrize(
    ("pattern", "expected"),
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
def test_folders_and_globs(tmp_path, pattern, expected):
    for name in ("1.png", "a/2.png", "a/b/3.png", "a/b/4.jpg", "c/5.png", ".h/6.png", "a/.7.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    listed = parts(tmp_path / pattern, size=2)
    assert [len(part.names) for part in listed] == [
        min(2, len(expected) - n) for n in range(0, len(expected), 2)
    ]
    names = [name for part in listed for name in part.names]
    assert sorted(os.path.relpath(name, tmp_path) for name in names) == expected


def test_a_missing_file_becomes_an_error(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "folder").symlink_to(tmp_path)
    reasons = {Path(name).name: str(content) for name, content in pictures(tmp_path)}
    assert reasons["link.png"] == "The file cannot be read: No such file or directory."
    assert reasons["folder"].startswith("The file cannot be read: ")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_truncated_archive_yields_its_complete_files_and_an_error(png_files, tmp_path, mode):
    files = png_files[:5]
    content = tar_of(files, mode)
    # Cut before the end of the archive's data. An uncompressed archive ends in zeros, which may be
    # lost without harm.
    end = len(content.rstrip(b"\0")) if mode == "w" else len(content) - 64
    for cut in [*range(0, end, 111), 512, 1024]:
        (tmp_path / "cut.tar").write_bytes(content[:cut])
        *complete, (name, error) = pictures(tmp_path / "cut.tar")
        assert name == str(tmp_path / "cut.tar")
        assert str(error).startswith("The archive is damaged or cut off: ")
        assert complete == [
            (f"{name}/{file.name}", file.read_bytes())
            for file, _ in zip(files, complete, strict=False)
        ]


def test_a_damaged_header_inside_an_archive_becomes_an_error(png_files, tmp_path):
    content = bytearray(tar_of(png_files[:5]))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        offset = archive.getmembers()[2].offset
    content[offset + 148 : offset + 156] = b"damaged!"  # the checksum of a header
    (tmp_path / "damaged.tar").write_bytes(content)
    names = [name.rpartition("/")[2] for name, _ in pictures(tmp_path / "damaged.tar")]
    assert names == ["0.png", "1.png", "damaged.tar"]


def test_parquet_with_a_damaged_row_group_yields_the_other_row_groups(png_files, tmp_path):
    file = tmp_path / "rows.parquet"
    contents = [picture.read_bytes() for picture in png_files[:9]]
    table = pa.table({"id": list(range(9)), "picture": contents, "name": list("abcdefghi")})
    parquet.write_table(table, file, row_group_size=3, compression="gzip", use_dictionary=False)
    column = parquet.read_metadata(file).row_group(1).column(1)
    content = bytearray(file.read_bytes())
    content[column.data_page_offset : column.data_page_offset + 40] = bytes(40)
    file.write_bytes(content)
    rows = dict(pictures(file))
    intact = [0, 1, 2, 6, 7, 8]
    assert [rows.pop(f"{file}/{table['name'][n]}") for n in intact] == [contents[n] for n in intact]
    ((name, error),) = rows.items()
    assert name == f"{file}/3"
    assert str(error).startswith("The rows 3 to 5 cannot be read: ")


def test_an_option_names_the_column_of_parquet(png_files, tmp_path):
    file = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"digit": [png_files[0].read_bytes()], "other": [1]}), file)
    assert pictures(file, column="digit") == [(f"{file}/0", png_files[0].read_bytes())]
    for column in (None, "other", "none"):
        ((name, error),) = pictures(file, column=column)
        assert name == str(file)
        assert "it has no column of bytes named " in str(error)


def test_a_file_that_is_not_parquet_becomes_an_error(tmp_path):
    (tmp_path / "text.parquet").write_text("text")
    ((name, error),) = pictures(tmp_path)
    assert name == str(tmp_path / "text.parquet")
    assert str(error).startswith("The Parquet file cannot be read: ")
