"""Preprocessing extracts the digits of realistic pictures of the slice's 500 test images."""

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from service.recognition import preprocessing, segmentation
from service.recognition.images import NoInkError, decode
from stages import pictures

RANDOM = np.random.default_rng(0)
PAGE = (300, 200)  # pixels
FASHION = Path(__file__).parents[1] / "fashion_mnist"


def png(picture):
    return pictures.encoded(picture)


def scaled(image, side=100):
    return Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", sorted({*pictures.TUNED, *pictures.HELD_OUT}))
def test_variations_give_nearly_the_original_image(testing, name):
    variation = (pictures.TUNED | pictures.HELD_OUT)[name]
    contents = pictures.files(testing[0][:40], variation)
    decoded = [pictures.preprocessed(content).astype(float) for content in contents]
    assert sum(image.any() for image in decoded) >= 36
    correlations = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1]
        for a, b in zip(decoded, testing[0], strict=False)
        if a.any()
    ]
    assert np.median(correlations) > 0.7


def test_a_digit_is_centered_by_its_mass_and_fits_the_box(testing):
    for image in testing[0][:50]:
        decoded = decode(png(scaled(255 - image, 200))).astype(float)
        rows, columns = np.nonzero(decoded)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20, 21)
        center = [
            float((indices * decoded[rows, columns]).sum() / decoded.sum())
            for indices in (rows, columns)
        ]
        assert np.abs(np.array(center) - 13.5).max() <= 1


def test_both_polarities_give_the_same_image(testing):
    for image in testing[0][:20]:
        dark, light = (decode(png(scaled(each, 120))) for each in (255 - image, image))
        assert np.abs(dark.astype(int) - light).max() <= 2


def test_is_mnist_recognizes_all_test_images(testing):
    assert all(map(preprocessing.is_mnist, testing[0]))
    assert not any(preprocessing.is_mnist(255 - image) for image in testing[0])


@pytest.mark.parametrize("split", ["train", "t10k"])
def test_is_mnist_recognizes_other_data_sets_of_this_form(split):
    content = gzip.decompress((FASHION / f"{split}-images-idx3-ubyte.gz").read_bytes())
    images = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)
    assert all(map(preprocessing.is_mnist, images))


def test_is_mnist_requires_a_black_border_and_a_light_digit_in_place(testing):
    for image in testing[0][:50]:
        on_gray = 40 + image // 255 * 215
        framed = image.copy()
        framed[[0, -1]] = framed[:, [0, -1]] = 255
        small = np.zeros_like(image)
        small[2:14, 2:14] = np.asarray(scaled(image, 12))
        others = on_gray, framed, small, image // 2
        assert not any(map(preprocessing.is_mnist, others))


def test_a_faint_image_becomes_as_light_as_others(testing):
    correlations = []
    for image in testing[0][:50]:
        decoded = decode(png(Image.fromarray(image // 3))).astype(float)
        assert decoded.max() > 200
        correlations.append(np.corrcoef(decoded.ravel(), image.ravel())[0, 1])
    assert np.median(correlations) > 0.7


def test_ink_that_fills_the_picture_is_kept():
    """A binary 0 whose sides are the sides of the picture."""
    picture = Image.new("L", (32, 32))
    ImageDraw.Draw(picture).ellipse((0, 0, 31, 31), 0, 255, 6)
    for each in (picture, Image.eval(picture, lambda gray: 255 - gray)):
        image = decode(png(each))
        assert (image[14, [4, 23]] > 200).all()
        assert (image[[4, 23], 14] > 200).all()
        assert image[14, 14] == 0


@pytest.mark.parametrize(("margin", "width"), [(0, 6), (3, 3)])
def test_a_box_around_a_digit_is_not_ink(testing, margin, width):
    for image in testing[0][:20]:
        page = Image.new("L", (120, 120), 255)
        page.paste(scaled(255 - image, 84), (18, 18))
        bare = decode(png(page)).astype(float)
        box = margin, margin, 119 - margin, 119 - margin
        ImageDraw.Draw(page).rectangle(box, None, 0, width)
        boxed = decode(png(page)).astype(float)
        assert np.corrcoef(bare.ravel(), boxed.ravel())[0, 1] > 0.7  # may move by a pixel


def test_lines_across_the_shorter_side_of_a_picture_are_erased(testing):
    page = Image.new("L", (400, 100), 255)
    for number, image in enumerate(testing[0][:3]):
        page.paste(scaled(255 - image, 80), (100 * number + 50, 10))
    ImageDraw.Draw(page).line((20, 0, 20, 99), 0, 2)
    ink = preprocessing.find_ink(preprocessing.resized(np.asarray(page), 640))
    line = slice(28, 38)
    assert (ink[:, line] > 0.5).sum() > 300
    assert (preprocessing.without_lines(ink)[:, line] > 0.5).sum() < 10


def test_a_stroke_across_the_whole_picture_is_ink():
    """The stem of a 1 is as straight and long as a printed line."""
    page = Image.new("L", (60, 120), 255)
    draw = ImageDraw.Draw(page)
    draw.line((30, 2, 30, 118), 0, 7)
    draw.line((15, 30, 30, 5), 0, 7)
    rows, _ = np.nonzero(decode(png(page)))
    assert np.ptp(rows) >= 18


FOUR = [(0.55, 1), (0.55, 0), (0.1, 0.7), (0.75, 0.7)]
ONE = [(0.2, 0.47), (0.56, 0), (0.53, 1)]


@pytest.mark.parametrize("points", [FOUR, ONE], ids=["4", "1 with an upstroke"])
@pytest.mark.parametrize("pen", [6, 14, 24])
def test_a_straight_stem_is_as_much_ink_in_a_large_digit_as_in_a_small_one(points, pen):
    images = []
    for side in (120, 220):
        page = Image.new("L", (280, 280), 255)
        line = [(30 + side * x, 30 + side * y) for x, y in points]
        ImageDraw.Draw(page).line(line, 0, pen * side // 220, "curve")
        images.append(decode(png(page)).ravel().astype(float))
    assert np.corrcoef(images)[0, 1] > 0.75


def test_a_bold_digit_that_fills_the_picture_is_the_ink(testing):
    correlations = []
    for image in testing[0][:100]:
        bold = scaled(image).filter(ImageFilter.MaxFilter(9))
        cut = bold.crop(bold.point(lambda gray: gray > 128 and 255).getbbox())
        wide = ImageOps.expand(cut, 40)
        expected = decode(png(wide)).ravel().astype(float)
        for picture in (cut, ImageOps.invert(cut)):
            decoded = decode(png(picture)).ravel().astype(float)
            correlations.append(np.corrcoef(expected, decoded)[0, 1])
    assert np.mean(np.array(correlations) > 0.8) >= 0.9


BLANK = {
    "black, of MNIST's size": Image.new("L", (28, 28)),
    "white, of MNIST's size": Image.new("L", (28, 28), 255),
    "gray": Image.new("L", PAGE, 77),
    "one pixel": Image.new("L", (1, 1), 77),
    "a line of pixels": Image.new("L", (500, 1), 77),
    "transparent": Image.new("RGBA", PAGE, (0, 0, 0, 0)),
    "a gradient": Image.linear_gradient("L"),
    "faint noise": Image.fromarray(RANDOM.normal(128, 5, PAGE).astype(np.uint8)),
    "noise": Image.fromarray(RANDOM.normal(128, 30, PAGE).clip(0, 255).astype(np.uint8)),
}


@pytest.mark.parametrize("picture", BLANK.values(), ids=BLANK)
def test_a_picture_without_ink_is_rejected(picture):
    for function in (decode, segmentation.decode):
        with pytest.raises(NoInkError, match="No digit was found"):
            function(png(picture))


def test_a_page_may_have_any_shape(testing):
    for size in ((1000, 60), (60, 1000), (56, 56), (2000, 2000)):
        page = Image.new("L", size, 255)
        page.paste(scaled(255 - testing[0][0], max(50, max(size) // 10)), (5, 5))
        assert decode(png(page)).shape == (28, 28)


def test_decode_applies_the_exif_orientation(testing):
    upright = Image.fromarray(255 - testing[0][0]).resize((112, 112))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotated by 90 degrees
    buffer = io.BytesIO()
    upright.rotate(90).save(buffer, "PNG", exif=exif)
    np.testing.assert_array_equal(decode(buffer.getvalue()), decode(png(upright)))
