import numpy as np
import pytest

from stages.common.image_corruptions import corrupted

IMAGES = np.zeros((20, 28, 28), np.uint8)
IMAGES[:, 6:22, 12:16] = 255


@pytest.mark.parametrize("name", ["noise", "blur", "contrast", "lines"])
def test_every_image_is_changed_and_alike_each_time(name):
    bad = corrupted(IMAGES)[name]
    assert bad.shape == IMAGES.shape
    assert bad.dtype == np.uint8
    assert all((a != b).any() for a, b in zip(bad, IMAGES, strict=True))
    np.testing.assert_array_equal(bad, corrupted(IMAGES)[name])


def test_noise_and_lines_differ_from_image_to_image():
    bad = corrupted(IMAGES)
    assert (bad["noise"][0] != bad["noise"][1]).any()
    assert (bad["lines"][0] != bad["lines"][1]).any()


def test_contrast_is_lowered_around_the_mean():
    bad = corrupted(IMAGES)["contrast"][0].astype(int)
    assert bad.max() - bad.min() == pytest.approx(0.3 * 255, abs=1)
    assert bad.mean() == pytest.approx(IMAGES[0].mean(), abs=1)


def test_blur_keeps_the_ink():
    bad = corrupted(IMAGES)["blur"]
    assert bad[0].sum() == pytest.approx(IMAGES[0].sum(), rel=0.02)
    assert bad.max() < 255
