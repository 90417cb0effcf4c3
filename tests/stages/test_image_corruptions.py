import numpy as np
import pytest

from stages.common import image_corruptions
from stages.common.image_corruptions import CORRUPTIONS, _refined, _refined_corner, corrupted

COUNT = 64
BAR = np.zeros((COUNT, 28, 28), np.uint8)
BAR[:, 6:22, 12:16] = 255
SQUARE = np.zeros_like(BAR)
SQUARE[:, 8:20, 8:20] = 255
BLACK, GRAY, WHITE = (np.full_like(BAR, level) for level in (0, 85, 255))

FIXED = {"scale", "brightness", "stripe", "canny_edges"}  # these use no random numbers


def apply(name, images):
    return CORRUPTIONS[name](images, np.random.default_rng(7))


def ink(images):
    """The sum of the gray levels of each image."""
    return images.sum((1, 2), dtype=np.int64)


def test_corruptions_are_the_fifteen_of_mnist_c():
    assert " ".join(CORRUPTIONS) == (
        "shot_noise impulse_noise glass_blur motion_blur shear scale rotate brightness translate "
        "stripe fog spatter dotted_line zigzag canny_edges"
    )


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_corruption_changes_every_image_and_not_its_input(name):
    before = BAR.copy()
    images = apply(name, before)
    assert images.shape == BAR.shape
    assert images.dtype == np.uint8
    assert (images != BAR).any((1, 2)).all()
    np.testing.assert_array_equal(before, BAR)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_random_corruptions_differ_between_equal_images(name):
    images = apply(name, BAR)
    is_equal = [(image == images[0]).all() for image in images]
    assert all(is_equal) == (name in FIXED)


def test_equal_images_give_equal_results_also_in_several_batches(monkeypatch):
    monkeypatch.setattr(image_corruptions, "BATCH", 24)
    results = corrupted(BAR)
    again = corrupted(BAR)
    assert list(results) == list(CORRUPTIONS)
    for name, images in results.items():
        assert images.shape == BAR.shape
        np.testing.assert_array_equal(images, again[name])
        if name not in FIXED:
            assert (images[:24] != images[24:48]).any()


def test_shot_noise_counts_at_most_three_photons():
    assert set(np.unique(apply("shot_noise", WHITE))) == {0, 85, 170, 255}
    assert apply("shot_noise", BLACK).max() == 0
    # The mean of a Poisson distribution with mean 1 that is cut at 3 is 0.977.
    assert apply("shot_noise", GRAY).mean() == pytest.approx(0.977 * 85, rel=0.02)


def test_impulse_noise_makes_as_many_pixels_white_as_black():
    images = apply("impulse_noise", GRAY)
    assert (images == 255).mean() == pytest.approx(0.085, abs=0.005)
    assert (images == 0).mean() == pytest.approx(0.085, abs=0.005)
    assert (images == 85).mean() == pytest.approx(0.83, abs=0.01)


def test_glass_blur_moves_ink_by_few_pixels():
    images = apply("glass_blur", BAR)
    assert ink(images) == pytest.approx(ink(BAR), rel=0.02)
    assert images[:, :, 12:16].min() < 128  # holes in the bar
    assert images[:, :, 11].max() > 128  # ink beside it
    assert ink(images[:, :, 9:19]).sum() > 0.98 * ink(images).sum()


def test_glass_blur_of_one_color_changes_nothing():
    np.testing.assert_array_equal(apply("glass_blur", WHITE), WHITE)


def test_motion_blur_smears_a_point_to_one_side():
    point = np.zeros_like(BAR)
    point[:, 14, 24] = 255
    images = apply("motion_blur", point)
    assert images[:, :, 25:].max() == 0
    assert ink(images) == pytest.approx(255, abs=6)  # 21 pixels are rounded
    rows, columns = np.meshgrid(np.arange(28), np.arange(28), indexing="ij")
    assert (np.abs(rows - 14) <= 24 - columns)[images.max(0) > 0].all()  # at most 45 degrees
    assert images[:, :14].max() > 10 < images[:, 15:].max()  # in both directions
    assert images[:, 14, 24] == pytest.approx(60)  # the first weight is 0.236


def test_shear_keeps_the_center_and_moves_the_top():
    images = apply("shear", BAR)
    # A row of the result is sin(0.4) pixels aside, and 1 / cos(0.4) rows from the center are one.
    assert ink(images) == pytest.approx(ink(BAR) / np.cos(0.4), rel=0.01)
    np.testing.assert_array_equal(images[:, 13:15, 13:15], 255)
    middle = (images[:, 7] * np.arange(28.0)).sum(1) / images[:, 7].sum(1, dtype=int)
    assert np.abs(middle - 13.5) == pytest.approx(6.5 * np.sin(0.4), abs=0.1)
    assert len(np.unique(middle > 13.5)) == 2  # to both sides


def test_scale_makes_the_digit_smaller_around_the_center():
    images = apply("scale", SQUARE)
    assert ink(images) == pytest.approx(0.49 * ink(SQUARE), rel=0.1)
    np.testing.assert_array_equal(images[0], images[0, ::-1, ::-1])


def test_rotate_turns_around_the_center_in_both_directions():
    images = apply("rotate", BAR)
    assert ink(images) == pytest.approx(ink(BAR), rel=0.01)
    below, column = images[:, 20], np.arange(28.0)
    middle = (below * column).sum(1) / below.sum(1, dtype=int)
    assert np.abs(middle - 13.5) == pytest.approx(6.5 * np.tan(0.4), abs=0.4)
    assert len(np.unique(middle > 13.5)) == 2


def test_brightness_makes_the_background_gray():
    assert (apply("brightness", BLACK) == 128).all()
    assert apply("brightness", GRAY).max() == 212
    assert (apply("brightness", WHITE) == 255).all()


def test_translate_shifts_by_three_pixels_along_both_axes():
    shifts = [(down, right) for down in (-3, 3) for right in (-3, 3)]
    expected = [np.roll(BAR[0], shift, (0, 1)) for shift in shifts]
    images = apply("translate", BAR)
    found = [[(image == one).all() for one in expected].index(True) for image in images]
    assert set(found) == {0, 1, 2, 3}
    assert (apply("translate", WHITE) == 0).sum() == COUNT * (28**2 - 25**2)  # black comes in


def test_stripe_inverts_the_sides():
    images = apply("stripe", BAR)
    np.testing.assert_array_equal(images[:, :, 7:21], BAR[:, :, 7:21])
    assert images[:, :, :7].min() == images[:, :, 21:].min() == 255


def test_fog_divides_the_contrast_by_four():
    bright, dark = BAR.copy(), BAR // 255 * 55
    bright[:, 0, 0] = dark[:, 0, 0] = 255  # the images have the same brightest pixel
    difference = apply("fog", bright).astype(int) - apply("fog", dark)
    assert np.abs(difference[:, 6:22, 12:16] - 200 / 4).max() <= 1
    assert difference[:, :, :12].max() == 0


def test_fog_is_smooth_and_different_in_each_image():
    point = np.zeros((1000, 28, 28), np.uint8)
    point[:, 0, 0] = 255
    images = apply("fog", point)[:, 1:].astype(int)
    assert images.mean() == pytest.approx(3 / 4 * 127.5, rel=0.05)
    assert images.max() == pytest.approx(3 / 4 * 255, rel=0.03)
    assert np.abs(np.diff(images)).max() < 20
    assert images.mean((1, 2)).std() > 20


def test_corner_of_a_fractal_equals_that_of_the_whole():
    random = np.random.default_rng(7)
    heights = random.random((5, 16, 16), np.float32)
    whole = _refined(_refined(heights, 0, random), 0, random)
    np.testing.assert_array_equal(_refined_corner(heights, (0, 0), random), whole[:, :28, :28])


def test_fractal_adds_random_numbers_up_to_the_amplitude():
    heights = _refined(np.full((100, 8, 8), 5, np.float32), 3, np.random.default_rng(7))
    assert (heights[:, ::2, ::2] == 5).all()
    assert heights[:, 1::2, 1::2].min() == pytest.approx(2, abs=0.02)
    assert heights[:, 1::2, 1::2].max() == pytest.approx(8, abs=0.02)


def test_spatter_covers_parts_with_gray():
    on_black, on_white = apply("spatter", BLACK), apply("spatter", WHITE)
    assert on_black.max() == on_white.min() == 63
    assert 0.1 < (on_black > 0).mean() < 0.4
    np.testing.assert_array_equal(on_black > 0, on_white < 255)


def test_dotted_line_has_dots_of_two_columns():
    images = apply("dotted_line", BLACK)
    columns = images.max(1)
    has_dot = (np.arange(28) // 2 % 2 == 1) & (np.arange(28) < 27)
    assert (columns[:, ~has_dot] == 0).all()
    assert (columns[:, has_dot] >= 192).all()  # the line is at most half a pixel from a pixel
    # The dots are on a straight line.
    rows = (images * np.arange(28.0)[:, None]).sum(1)[:, has_dot] / images.sum(1)[:, has_dot]
    inside = ((rows > 2) & (rows < 25)).all(1)
    fit = np.polynomial.Polynomial.fit
    assert inside.any()
    for line in rows[inside]:
        assert fit(np.flatnonzero(has_dot), line, 1)(np.flatnonzero(has_dot)) == pytest.approx(
            line, abs=0.3
        )


def test_zigzag_turns_every_four_columns():
    images = apply("zigzag", BLACK)
    ends = images.max(1)
    assert ends[:, :2].max() == ends[:, 26:].max() == 0
    rows = (images * np.arange(28.0)[:, None]).sum(1)[:, 3:24] / images.sum(1)[:, 3:24].clip(1)
    inside = ((rows > 4) & (rows < 23)).all(1)
    assert inside.sum() > 10
    rising = np.diff(rows[inside], axis=1) > 0
    turns = (rising[:, 1:] != rising[:, :-1]).sum(1)
    assert set(turns) <= {4, 5, 6}


def test_canny_edges_are_outlines():
    images = apply("canny_edges", SQUARE)
    assert set(np.unique(images)) == {0, 255}
    assert images[:, 10:18, 10:18].max() == 0  # inside
    outside = images.copy()
    outside[:, 6:22, 6:22] = 0
    assert outside.max() == 0
    assert 1 <= (images[0, 13, :14] > 0).sum() <= 2


def test_faint_edges_are_found_only_beside_strong_ones():
    faint = SQUARE // 255 * 15
    assert apply("canny_edges", faint).max() == 0
    assert apply("canny_edges", SQUARE // 255 * 30).max() == 255
    faint[:, 2:12, 8:20] = np.linspace(30, 15, 10)[:, None]  # brighter at the top
    assert apply("canny_edges", faint)[:, 16].max() == 255
