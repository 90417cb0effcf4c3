"""Digits that are not MNIST's: their forms, their digests, and how they are divided."""

import hashlib
import subprocess

import numpy as np
import pytest
from PIL import Image

from stages import handwriting
from stages.common import idx
from stages.common.runner import StageError
from tests.conftest import PROJECT, load_slice

IMAGES, LABELS = load_slice("testing")
COUNT = 60


def write_folder(folder, images, labels):
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{number}.png")


def parts_of(path, held_back=0.5, known=()):
    return handwriting.split(handwriting.read(path), held_back, set(known))


def sorted_images(parts):
    return sorted(image.tobytes() for images, _ in parts.values() for image in images)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    file = tmp_path_factory.mktemp("source") / "digits.npz"
    np.savez(file, images=IMAGES[:COUNT], labels=LABELS[:COUNT])
    return file


def test_a_folder_and_an_array_of_the_same_digits_are_equal(arrays, tmp_path):
    write_folder(tmp_path, IMAGES[:COUNT], LABELS[:COUNT])
    assert sorted_images(parts_of(tmp_path)) == sorted_images(parts_of(arrays))
    assert len(sorted_images(parts_of(arrays))) == COUNT


def test_the_digest_of_a_folder_is_that_of_sha256sum(tmp_path):
    write_folder(tmp_path, IMAGES[:COUNT], LABELS[:COUNT])
    listed = subprocess.run(
        ["/bin/sh", "-c", "sha256sum */* | LC_ALL=C sort -k 2"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    ).stdout
    assert handwriting.read(tmp_path).sha256 == hashlib.sha256(listed).hexdigest()


def test_each_digit_keeps_its_label(arrays):
    labels = {image.tobytes(): label for image, label in zip(IMAGES, LABELS, strict=True)}
    for images, found in parts_of(arrays).values():
        assert [labels[image.tobytes()] for image in images] == found.tolist()


@pytest.mark.parametrize(
    ("held_back", "expected"), [(0.0, 0), (0.5, COUNT / 2), (0.9, 0.9 * COUNT)]
)
def test_a_fraction_is_held_back(arrays, held_back, expected):
    _, labels = parts_of(arrays, held_back)["testing"]
    assert abs(len(labels) - expected) < 15


def test_a_digit_stays_in_its_part_when_others_are_added(arrays, tmp_path):
    file = tmp_path / "more.npz"
    np.savez(file, images=IMAGES[: 2 * COUNT], labels=LABELS[: 2 * COUNT])
    more = {image.tobytes() for image in parts_of(file)["testing"][0]}
    assert {image.tobytes() for image in parts_of(arrays)["testing"][0]} <= more


def test_the_digits_of_a_writer_stay_together(tmp_path):
    file, writers = tmp_path / "digits.npz", np.arange(COUNT) // 10
    np.savez(file, images=IMAGES[:COUNT], labels=LABELS[:COUNT], writers=writers)
    by_image = {image.tobytes(): writer for image, writer in zip(IMAGES, writers, strict=False)}
    parts = parts_of(file)
    training, testing = ({by_image[i.tobytes()] for i in parts[p][0]} for p in idx.FILES)
    assert training
    assert testing
    assert not training & testing


def test_known_digits_and_duplicates_are_left_out(tmp_path):
    file = tmp_path / "digits.npz"
    np.savez(file, images=IMAGES[[0, 1, 1, 2]], labels=LABELS[[0, 1, 1, 2]])
    found = sorted_images(parts_of(file, known=[IMAGES[0].tobytes()]))
    assert found == sorted(image.tobytes() for image in IMAGES[[1, 2]])


def test_a_picture_without_a_digit_counts_only_in_testing(tmp_path):
    file = tmp_path / "digits.npz"
    blank = np.zeros((40, 30, 30), np.uint8)
    blank += np.arange(40, dtype=np.uint8)[:, np.newaxis, np.newaxis]  # 40 levels of gray
    np.savez(file, images=blank, labels=np.zeros(40, int))
    parts = parts_of(file)
    assert not len(parts["training"][1])
    assert 5 < len(parts["testing"][1]) < 35
    assert not parts["testing"][0].any()


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": IMAGES[:3]}, "is not a .npz file with"),
        ({"images": IMAGES[:3], "labels": LABELS[:2]}, r"labels \(2,\)"),
        ({"images": IMAGES[:3] / 255, "labels": LABELS[:3]}, "float64"),
        ({"images": IMAGES[:3], "labels": np.array([1, 2, 10])}, "not from 0 to 9"),
        ({"images": IMAGES[:3], "labels": np.array(["1", "2", None])}, "is not a .npz file with"),
    ],
)
def test_other_arrays_are_rejected(tmp_path, arrays, reason):
    file = tmp_path / "digits.npz"
    np.savez(file, **arrays)
    with pytest.raises(StageError, match=reason):
        handwriting.read(file)


def test_other_files_and_folders_are_rejected(tmp_path):
    with pytest.raises(StageError, match=r"has no files of the form <label>/<name>\.png"):
        handwriting.read(tmp_path)
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(StageError, match=r"is not a \.npz file with"):
        handwriting.read(tmp_path / "text.npz")


@pytest.mark.parametrize("name", ["semeion", "optdigits"])
def test_the_sources_of_the_project_are_complete(name):
    source = handwriting.read(PROJECT / f"data/sources/{name}.npz")
    assert len(source.labels) == {"semeion": 1593, "optdigits": 1797}[name]
    assert set(source.labels) == set(range(10))
