"""Preprocessing extracts the digits of realistic pictures of the slice's 500 test images."""

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from service.recognition import preprocessing, segmentation
from service.recognition.images import NoInkError, decode
from stages import pictures

RANDOM = np.random.default_rng(0)
PAGE = (300, 200)  # pixels
FASHION = Path(__file__).parents[1] / "fashion_mnist"


def png(picture):
    return pictures.encoded(picture)


def likeness(page, other):
    """Return the correlation of the images of two pictures, in which the digit may move a pixel."""
    first, second = (decode(png(each)).astype(float).ravel() for each in (page, other))
    return np.corrcoef(first, second)[0, 1]


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
        bare = page.copy()
        box = margin, margin, 119 - margin, 119 - margin
        ImageDraw.Draw(page).rectangle(box, None, 0, width)
        assert likeness(bare, page) > 0.7


@pytest.mark.parametrize("angle", [0, 2, -6])
def test_a_box_with_gaps_is_not_ink(testing, angle):
    for image in testing[0][:20]:
        bare = ImageOps.expand(scaled(255 - image, 120), 40, 255)
        box = Image.new("L", (200, 200), 255)
        draw = ImageDraw.Draw(box)
        draw.rectangle((20, 20, 179, 179), None, 0, 3)
        draw.rectangle((85, 0, 105, 30), 255)
        draw.rectangle((0, 60, 30, 75), 255)
        draw.rectangle((120, 170, 135, 199), 255)
        page = ImageChops.darker(bare, box.rotate(angle, fillcolor=255))
        assert likeness(bare, page) > 0.7


@pytest.mark.parametrize(("angle", "side"), [(-14, 120), (-6, 120), (2, 120), (8, 60)])
def test_ruled_lines_of_a_turned_picture_are_not_ink(testing, angle, side):
    for image in testing[0][:20]:
        bare = ImageOps.expand(scaled(255 - image, side), (200 - side) // 2, 255)
        lines = Image.new("L", (400, 400), 255)
        for row in range(25, 400, 50):
            ImageDraw.Draw(lines).line((0, row, 399, row), 90, 2)
        lines = lines.rotate(angle, Image.Resampling.BICUBIC).crop((100, 100, 300, 300))
        page = ImageChops.darker(bare, lines)
        assert likeness(bare, page) > 0.7


def test_a_long_base_of_a_2_is_ink():
    page = Image.new("L", (260, 140), 255)
    draw = ImageDraw.Draw(page)
    draw.line([(20, 40), (40, 15), (65, 35), (15, 120), (245, 120)], 0, 6, "curve")
    image = decode(png(page))
    assert image.any(0).sum() >= 19  # pixels: the base, and not the rest alone


@pytest.mark.parametrize(("paper", "pen", "table"), [(235, 40, 100), (70, 220, 235)])
@pytest.mark.parametrize("angle", [0, 15])
def test_what_surrounds_a_sheet_is_not_ink(testing, paper, pen, table, angle):
    for image in testing[0][:20]:
        digit = scaled(image, 100)
        sheet = Image.new("L", (200, 160), paper)
        sheet.paste(pen, (50, 30), digit)
        turned = sheet.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=paper)
        page = Image.new("L", (300, 260), table)
        mask = Image.new("L", sheet.size, 255).rotate(angle, expand=True)
        page.paste(sheet.rotate(angle, Image.Resampling.BICUBIC, expand=True), (20, 20), mask)
        assert likeness(turned, page) > 0.7


@pytest.mark.parametrize("shadow", [(0, 0, 110, 110), (90, 40, 190, 240), (150, 0, 240, 240)])
def test_a_shadow_is_not_ink(testing, shadow):
    for image in testing[0][:20]:
        page = Image.new("L", (240, 240), 230)
        page.paste(40, (70, 60), scaled(image, 110))
        shaded = page.copy()
        shaded.paste(page.crop(shadow).point(lambda gray: gray * 0.55), shadow[:2])
        assert likeness(page, shaded.filter(ImageFilter.GaussianBlur(2))) > 0.6


@pytest.mark.parametrize(
    "shadow", [(-80, -60, 110, 110), (120, 150, 300, 300), (60, -100, 180, 60)]
)
def test_the_edge_of_a_round_shadow_is_not_ink(testing, shadow):
    clear = 0
    for image in testing[0][:20]:
        page = Image.new("L", (280, 240), 230)
        page.paste(40, (90, 50), scaled(image, 120))
        light = Image.new("L", page.size, 255)
        ImageDraw.Draw(light).ellipse(shadow, 155)
        shaded = ImageChops.multiply(page, light.filter(ImageFilter.GaussianBlur(3)))
        clear += likeness(page, shaded) > 0.7
    assert clear >= 18


def test_faint_ink_on_bright_uneven_paper_is_found(testing):
    for image in testing[0][:20]:
        page = np.full((300, 400), 250.0)
        page[90:210, 140:260] -= 20 * (np.asarray(scaled(image, 120), float) / 255)
        uneven = (page * np.linspace(1, 0.7, 400)).astype(np.uint8)
        bare = Image.fromarray(page.astype(np.uint8))
        assert likeness(bare, Image.fromarray(uneven)) > 0.7


def test_bold_strokes_of_uneven_darkness_are_whole(testing):
    for image in testing[0][:40]:
        digit = scaled(image, 168).filter(ImageFilter.MaxFilter(9))
        page = ImageOps.invert(digit.crop(digit.getbbox()))
        assert likeness(page.point(lambda gray: gray // 160 * 255), page) > 0.7


def test_the_soft_sides_of_strokes_in_a_tiny_picture_are_no_shadow(testing):
    clear = 0
    for image in testing[0][:40]:
        small = Image.fromarray(image).resize((8, 8), Image.Resampling.BOX)
        soft = small.point(lambda gray: 255 - gray * 0.6)
        clear += likeness(scaled(255 - np.asarray(small), 8), soft) > 0.9
    assert clear >= 38


def test_ink_stands_out_in_light_that_varies_as_much_as_the_ink(testing):
    random = np.random.default_rng(5)
    clear = 0
    for image in testing[0][:20]:
        page = Image.new("L", (240, 180), 100)
        page.paste(60, (60, 30), scaled(image, 110))
        spots = random.normal(0, 12, (3, 3)).astype(np.float32)
        light = np.asarray(Image.fromarray(spots).resize(page.size, Image.Resampling.BICUBIC))
        uneven = (np.asarray(page) + light).clip(0, 255).astype(np.uint8)
        clear += likeness(page, Image.fromarray(uneven)) > 0.7
    assert clear >= 18


def test_a_cell_is_not_ink_although_the_digit_reaches_its_lower_side(testing):
    clear = 0
    for image in testing[0][:20]:
        digit = scaled(image, 34).crop(scaled(image, 34).getbbox())
        cell = Image.new("L", (50, 34), 245)
        cell.paste(50, (25 - digit.width // 2, 33 - digit.height), digit)
        bare = cell.copy()
        ImageDraw.Draw(cell).rectangle((0, 0, 49, 33), None, 120, 2)
        clear += likeness(bare, cell) > 0.6
    assert clear >= 18


def test_a_square_zero_is_no_sheet():
    for angle in (0, 10):
        page = Image.new("L", (200, 200), 255)
        ImageDraw.Draw(page).rectangle((60, 30, 139, 169), 255, 0, 25)
        image = decode(png(page.rotate(angle, fillcolor=255)))
        assert image[14, 14] < 50
        assert (image[14, [9, 18]] > 200).all()


def test_the_straight_foot_of_a_two_between_ruled_lines_is_ink():
    page = Image.new("L", (160, 200), 255)
    draw = ImageDraw.Draw(page)
    for row in (15, 185):
        draw.line((0, row, 159, row), 120, 2)
    draw.line([(25, 50), (60, 35), (120, 50), (30, 150), (147, 150)], 0, 9)
    rows, columns = np.nonzero(decode(png(page)))
    assert np.ptp(columns[rows >= rows.max() - 2]) >= 15


def test_two_strokes_across_the_picture_are_ink_if_another_joins_them():
    """A 2 with two straight strokes, which fills the picture."""
    page = Image.new("L", (100, 120), 255)
    ImageDraw.Draw(page).line([(5, 8), (95, 8), (5, 112), (95, 112)], 0, 8)
    rows, _ = np.nonzero(decode(png(page)))
    assert np.ptp(rows) >= 18


def test_lines_across_the_shorter_side_of_a_picture_are_erased(testing):
    page = Image.new("L", (400, 100), 255)
    for number, image in enumerate(testing[0][:3]):
        page.paste(scaled(255 - image, 80), (100 * number + 50, 10))
    ImageDraw.Draw(page).line((20, 0, 20, 99), 0, 2)
    ink = preprocessing.find_ink(np.asarray(page), 640)
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


def test_the_bar_of_a_crossed_seven_that_fills_the_picture_is_ink():
    page = Image.new("L", (100, 120), 255)
    draw = ImageDraw.Draw(page)
    draw.line([(12, 0), (90, 5), (40, 119)], 0, 7)
    draw.line((0, 60, 99, 60), 0, 7)
    # The bar is shorter than a printed line in a picture with a margin.
    assert likeness(ImageOps.expand(page, 40, 255), page) > 0.75


def test_thin_lines_are_printed_although_the_digit_fills_the_picture(testing):
    for image in testing[0][:20]:
        bare = ImageOps.invert(Image.fromarray(image))
        bare = bare.crop(ImageOps.invert(bare).getbbox()).resize((120, 196))
        bare = ImageOps.expand(bare, (40, 2), 255)
        page = bare.copy()
        for row in (40, 80, 120, 160):
            ImageDraw.Draw(page).line((0, row, 199, row), 0, 3)
        assert likeness(bare, page) > 0.7


def test_a_line_through_the_middle_is_not_a_part_of_a_digit_beside_it():
    page = Image.new("L", (200, 200), 255)
    draw = ImageDraw.Draw(page)
    draw.line([(30, 60), (80, 60), (50, 130)], 0, 6)
    bare = page.copy()
    draw.line((90, 0, 150, 199), 0, 10)
    assert likeness(bare, page) > 0.9


def test_a_digit_that_fills_the_picture_may_have_a_loose_stroke_inside():
    page = Image.new("L", (100, 120), 255)
    draw = ImageDraw.Draw(page)
    draw.line([(99, 3), (3, 3), (3, 45), (60, 45), (96, 80), (60, 116), (0, 116)], 0, 8)
    whole = page.copy()
    draw.line((20, 70, 55, 95), 0, 8)
    assert likeness(whole, page) > 0.5


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
