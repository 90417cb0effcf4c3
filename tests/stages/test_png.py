import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from stages.common.mirrors import MirrorError
from stages.png import compare, render


@pytest.fixture(scope="module")
def split():
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    return {"testing": (images, np.array([7, 2, 1, 0, 7], np.uint8))}


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def archive(split, change=None, mode="w:gz"):
    """Return an archive like the published ones, after `change` has edited its files by name."""
    images, labels = split["testing"]
    files = {
        f"mnist_png/testing/{label}/{number}.png": png(image)
        for number, (image, label) in enumerate(zip(images, labels, strict=True))
    }
    files["mnist_png/training/5/0.png"] = b"content of a split that the comparison ignores"
    if change:
        change(files)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_compare_accepts_equal_images(split):
    compare(archive(split), split)
    compare(archive(split, mode="w"), split)


def test_render_names_files_by_label_and_id(split, tmp_path):
    render(split, tmp_path)
    images, labels = split["testing"]
    assert len(list(tmp_path.rglob("*.png"))) == len(labels)
    for number, label in enumerate(labels):
        with Image.open(tmp_path / f"testing/{label}/{number}.png") as drawn:
            assert drawn.mode == "L"
            np.testing.assert_array_equal(np.asarray(drawn), images[number])


def one_pixel(files):
    image = np.asarray(Image.open(io.BytesIO(files["mnist_png/testing/1/2.png"]))).copy()
    image[14, 14] ^= 1
    files["mnist_png/testing/1/2.png"] = png(image)


def wrong_label(files):
    files["mnist_png/testing/3/1.png"] = files.pop("mnist_png/testing/2/1.png")


def one_extra(files):
    files["mnist_png/testing/7/5.png"] = files["mnist_png/testing/7/4.png"]


def one_missing(files):
    del files["mnist_png/testing/0/3.png"]


def not_a_png(files):
    files["mnist_png/testing/7/0.png"] = b"<html>"


def other_size(files):
    files["mnist_png/testing/7/0.png"] = png(np.zeros((14, 56), np.uint8))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (one_pixel, "testing/1/2.png differs from image 2"),
        (wrong_label, "testing/3/1.png has no counterpart"),
        (one_extra, "testing/7/5.png has no counterpart"),
        (one_missing, "testing/0/3.png is missing"),
        (not_a_png, "testing/7/0.png is not a readable PNG"),
        (other_size, "testing/7/0.png differs"),
    ],
)
def test_compare_reports_the_first_difference(split, change, reason):
    with pytest.raises(MirrorError) as error:
        compare(archive(split, change), split)
    assert reason in str(error.value)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x1f\x8b\x08\x00damaged"])
def test_compare_rejects_other_content(split, content):
    with pytest.raises(MirrorError, match="not a readable tar archive"):
        compare(content, split)


def test_compare_rejects_an_incomplete_archive(split):
    with pytest.raises(MirrorError):
        compare(archive(split)[:-300], split)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_compare_accepts_or_rejects_an_archive_with_a_flipped_bit(split, mode):
    content = bytearray(archive(split, mode=mode))
    rejected = 0
    for place in range(0, len(content), max(1, len(content) // 1000)):
        content[place] ^= 1
        try:
            compare(bytes(content), split)
        except MirrorError:
            rejected += 1
        content[place] ^= 1
    assert rejected > 100


def test_compare_writes_no_file(split, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def escape(files):
        files["../escaped.png"] = b"out"
        files[f"{tmp_path}/absolute.png"] = b"out"

    compare(archive(split, escape), split)
    assert list(tmp_path.parent.rglob("*escaped*")) == list(tmp_path.iterdir()) == []
