import numpy as np
import pytest

from stages.common.image_corruptions import corrupted

IMAGES = np.zeros((20, 28, 28), np.uint8)
IMAGES[:, 6:22, 12:16] = 255


@pytest.mark.parametrize("name", ["noise", "blur", "contrast", "lines"])
def test_each_corruption_changes_every_image_reproducibly(name):
    images = corrupted(IMAGES)[name]
    assert images.shape == IMAGES.shape
    assert images.dtype == np.uint8
    assert all((a != b).any() for a, b in zip(images, IMAGES, strict=True))
    np.testing.assert_array_equal(images, corrupted(IMAGES)[name])


def test_noise_and_lines_differ_between_images():
    images = corrupted(IMAGES)
    assert (images["noise"][0] != images["noise"][1]).any()
    assert (images["lines"][0] != images["lines"][1]).any()


def test_contrast_keeps_the_mean():
    images = corrupted(IMAGES)["contrast"][0].astype(int)
    assert images.max() - images.min() == pytest.approx(0.3 * 255, abs=1)
    assert images.mean() == pytest.approx(IMAGES[0].mean(), abs=1)


def test_blur_keeps_the_ink():
    images = corrupted(IMAGES)["blur"]
    assert images[0].sum() == pytest.approx(IMAGES[0].sum(), rel=0.02)
    assert images.max() < 255
