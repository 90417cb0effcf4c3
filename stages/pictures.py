"""Measure the accuracy on picture files of many formats and qualities, as users send them.

    dvc repro pictures

The stage reads `data/network/`, `data/idx/` and `pictures` in params.yaml. It draws the first test
images in several variations, decodes each picture with the code of the service, and writes
`data/pictures/`:

- metrics.json: the accuracy on the plain images and on each variation
- accuracy.csv: the same figures as a table
- examples.png: one picture of each variation, above the image that the network receives

The authors tuned `service.recognition.preprocessing` on variations like those in `TUNED`, drawn
from validation images. They added those in `HELD_OUT` later, without further tuning.
"""

import csv
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from service.recognition import images
from stages.common import idx, metrics, network, params, paths
from stages.common.outputs import atomic_directory

SEED = 0
TILE = 128  # width and height of an example, in pixels

Picture = Image.Image
Random = np.random.Generator
Variation = Callable[[Picture, Random], bytes]  # converts an MNIST image to a picture file


def encoded(picture: Picture, kind: str = "PNG", **options: object) -> bytes:
    """Encode a picture as a file.

    Args:
        picture: The picture to encode.
        kind: The file format, by Pillow's name.
        options: Options of Pillow for this format.
    """
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"compress_level": 1} if kind == "PNG" else {}) | options)
    return buffer.getvalue()


def _with_mode(mode: str, picture: Picture, random: Random) -> bytes:
    return encoded(picture.convert(mode))


def _with_format(kind: str, picture: Picture, random: Random) -> bytes:
    return encoded(picture.convert("RGB"), kind)


def _sixteen_bits(picture: Picture, random: Random) -> bytes:
    return encoded(Image.fromarray(np.asarray(picture).astype(np.uint16) * 257))


def _cmyk(picture: Picture, random: Random) -> bytes:
    return encoded(_enlarged(picture, 112).convert("CMYK"), "JPEG")


def _inverted(picture: Picture, random: Random) -> bytes:
    return encoded(ImageOps.invert(picture))


def _resized(size: int, picture: Picture, random: Random) -> bytes:
    return encoded(picture.resize((size, size), Image.Resampling.LANCZOS))


def _on_page(
    picture: Picture,
    random: Random,
    size: tuple[int, int] = (400, 300),
    digit: int = 120,
    paper: float = 255,
    pen: float = 30,
) -> np.ndarray:
    """Draw a digit at a random position on a page.

    Args:
        picture: The digit, white ink on black.
        random: The source of the position.
        size: The width and height of the page, in pixels.
        digit: The width and height of the digit, in pixels.
        paper: The gray level of the paper, 0 to 255.
        pen: The gray level of the ink, 0 to 255.

    Returns:
        Gray levels, float64 (height, width).
    """
    ink = np.asarray(_enlarged(picture, digit), float) / 255
    page = np.full(size[::-1], paper, float)
    left, top = random.integers(0, size[0] - digit), random.integers(0, size[1] - digit)
    part = page[top : top + digit, left : left + digit]
    part += (pen - part) * ink
    return page


def _off_center(picture: Picture, random: Random) -> bytes:
    return _photo(_on_page(picture, random))


def _small_off_center(picture: Picture, random: Random) -> bytes:
    return _photo(_on_page(picture, random, digit=60))


def _in_shadow(picture: Picture, random: Random) -> bytes:
    page = _on_page(picture, random, paper=200, pen=60)
    slope = _slope(page.shape, random)
    return _photo(page * (0.75 + 0.5 * slope) + random.normal(0, 8, page.shape))


def _slope(shape: tuple[int, ...], random: Random) -> np.ndarray:
    """Return a linear gradient in a random direction, from about -0.5 to 0.5, float64 `shape`."""
    angle = random.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.cos(angle) * (columns / shape[1] - 0.5) + np.sin(angle) * (rows / shape[0] - 0.5)


def _transparent(gray: int, picture: Picture, random: Random) -> bytes:
    drawn = Image.new("LA", (280, 280), gray)
    drawn.putalpha(_enlarged(picture, 280))
    return encoded(drawn.convert("RGBA"))


def _turned_by_exif(picture: Picture, random: Random) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: viewers rotate the picture by 90 degrees clockwise
    turned = ImageOps.invert(_enlarged(picture, 112)).rotate(90)
    return encoded(turned, "JPEG", exif=exif)


def _with_stroke(morph: Callable[..., np.ndarray], picture: Picture, random: Random) -> bytes:
    pen = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (13, 13))
    return encoded(Image.fromarray(morph(np.asarray(_enlarged(picture, 280)), pen)))


def _colored(picture: Picture, random: Random) -> bytes:
    """Draw blue ink on yellow paper, as a JPEG file of low quality."""
    ink = np.asarray(_enlarged(picture, 150), float)[..., np.newaxis] / 255
    page = np.array([250, 235, 150]) * (1 - ink) + np.array([30, 50, 160]) * ink
    return encoded(Image.fromarray(page.astype(np.uint8)), "JPEG", quality=25)


def _chalk(picture: Picture, random: Random) -> bytes:
    """Draw light, uneven chalk on a dark board."""
    page = _on_page(picture, random, (500, 500), 200, paper=50, pen=200)
    rough = 1 + 0.25 * random.normal(size=page.shape)
    return _photo(50 + (page - 50) * rough + random.normal(0, 6, page.shape))


def _blurred_in_a_corner(picture: Picture, random: Random) -> bytes:
    """Draw an upright photograph, out of focus and darker toward its edges."""
    page = _on_page(picture, random, (360, 640), 140, paper=210, pen=90)
    rows, columns = np.mgrid[-1 : 1 : page.shape[0] * 1j, -1 : 1 : page.shape[1] * 1j]
    lit = Image.fromarray((page * (1 - 0.25 * (rows**2 + columns**2))).astype(np.uint8))
    return encoded(lit.filter(ImageFilter.GaussianBlur(3)), "JPEG", quality=70)


def _cut_close(picture: Picture, random: Random) -> bytes:
    """Crop the picture along the ink."""
    return encoded(ImageOps.invert(_enlarged(picture.crop(picture.getbbox()), 90)))


def _faint(picture: Picture, random: Random) -> bytes:
    """Draw with a hard pencil."""
    return _photo(_on_page(picture, random, paper=235, pen=175))


def _slanted(picture: Picture, random: Random) -> bytes:
    """Draw a sheet photographed from the side, in slanting light."""
    page = _on_page(picture, random, (400, 400), 220, paper=190, pen=40)
    corners = np.array([[0, 0], [400, 0], [400, 400], [0, 400]], np.float32)
    moved = corners + random.uniform(-35, 35, (4, 2)).astype(np.float32)
    slanted = cv2.warpPerspective(
        page,
        cv2.getPerspectiveTransform(corners, moved),
        (400, 400),
        borderMode=cv2.BORDER_REPLICATE,
    )
    return _photo(
        slanted * (1 + 0.3 * _slope(page.shape, random)) + random.normal(0, 4, page.shape)
    )


def _half_in_shadow(picture: Picture, random: Random) -> bytes:
    """Draw a page that is partly in a hard shadow."""
    page = _on_page(picture, random, paper=220, pen=50)
    shaded = np.where(_slope(page.shape, random) < 0.1, page, 0.7 * page)
    return _photo(cv2.GaussianBlur(shaded, (0, 0), 4) + random.normal(0, 3, page.shape))


def _in_a_box(picture: Picture, random: Random) -> bytes:
    """Draw a digit in the box of a form, of which the crop has cut off one side."""
    page = _on_page(picture, random, (120, 120), 90, paper=225, pen=50)
    cv2.rectangle(page, (2, -5), (116, 116), 70.0, 2)
    return _photo(page + random.normal(0, 3, page.shape))


def _ruled(picture: Picture, random: Random) -> bytes:
    """Draw a digit across the lines of ruled paper."""
    page = _on_page(picture, random, (300, 300), 200, paper=240, pen=40)
    page[random.integers(0, 60) :: 60] *= 0.5
    return _photo(page + random.normal(0, 3, page.shape))


def _graph_paper(picture: Picture, random: Random) -> bytes:
    """Draw a digit on graph paper."""
    page = _on_page(picture, random, (300, 300), 200, paper=240, pen=40)
    for lines in (page, page.T):
        first = random.integers(0, 30)
        lines[first::30] = np.minimum(lines[first::30], 110)
    return _photo(page + random.normal(0, 3, page.shape))


def _cell_of_a_form(picture: Picture, random: Random) -> bytes:
    """Draw a digit in a small cell of a form."""
    page = _on_page(picture, random, (40, 30), 26, paper=235, pen=60)
    cell = cv2.copyMakeBorder(page, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=90.0)
    cell = cv2.copyMakeBorder(cell, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=235.0)
    return _photo(cell + random.normal(0, 3, cell.shape))


def _on_a_table(table: float, paper: float, pen: float, picture: Picture, random: Random) -> bytes:
    """Draw a whole sheet, or slate, that lies askew on a table.

    Args:
        table: The gray level of the table, 0 to 255.
        paper: The gray level of the sheet.
        pen: The gray level of the ink.
        picture: The digit, white ink on black.
        random: The source of positions and noise.
    """
    page = _on_page(picture, random, (300, 240), 140, paper=paper, pen=pen)
    corners = np.array([[0, 0], [300, 0], [300, 240], [0, 240]], np.float32)
    angle = random.uniform(-0.2, 0.2)  # radians
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    moved = (corners - [150, 120]) @ turn + [225, 200] + random.uniform(-15, 15, (4, 2))
    transform = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    photo = cv2.warpPerspective(page, transform, (450, 400), borderValue=table)
    return _photo(photo + random.normal(0, 4, photo.shape))


def _patch_of_shadow(picture: Picture, random: Random) -> bytes:
    """Draw a page with the shadow of a hand or a phone, near the digit or across it."""
    page = _on_page(picture, random, (400, 300), 150, paper=225, pen=45)
    center = int(random.integers(0, 400)), int(random.integers(0, 300))
    axes = int(random.integers(60, 200)), int(random.integers(60, 200))
    shade: np.ndarray = np.zeros(page.shape)
    cv2.ellipse(shade, center, axes, random.uniform(0, 180), 0, 360, 1.0, cv2.FILLED)
    shade = cv2.GaussianBlur(shade, (0, 0), random.uniform(2, 15))
    return _photo(page * (1 - random.uniform(0.15, 0.4) * shade) + random.normal(0, 3, page.shape))


def _by_a_lamp(picture: Picture, random: Random) -> bytes:
    """Draw a page in the light of a lamp beside it, in a dark room."""
    page = _on_page(picture, random, (400, 300), 150, paper=225, pen=60)
    rows, columns = np.mgrid[:300, :400]
    squared = (columns - random.uniform(0, 400)) ** 2 + (rows - random.uniform(0, 300)) ** 2
    return _photo(page * 0.6 / (1 + squared / 200**2) + random.normal(0, 4, page.shape))


def _edge_of_the_sheet(picture: Picture, random: Random) -> bytes:
    """Draw a sheet of which one edge, on a dark table, is in the picture."""
    page = _on_page(picture, random, (300, 300), 200, paper=230, pen=40)
    table = np.full((300, 40), random.uniform(30, 90))
    page = np.hstack((page, table) if random.random() < 0.5 else (table, page))
    return _photo(page + random.normal(0, 3, page.shape))


def _dotted(picture: Picture, random: Random) -> bytes:
    """Draw the strokes as separate dots."""
    page = np.asarray(_enlarged(picture, 280)) > 127
    rows, columns = np.mgrid[:280, :280] % 28 - 14
    return _photo(np.where(page & (rows**2 + columns**2 < 120), 30.0, 240.0))


def _one_pixel_pen(picture: Picture, random: Random) -> bytes:
    """Draw the middle of each stroke with a pen of one pixel, in a pale color."""
    rest: np.ndarray = np.uint8(255) * (np.asarray(_enlarged(picture, 140)) > 127)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    middle: np.ndarray = np.zeros_like(rest)
    while rest.any():
        middle |= rest - cv2.morphologyEx(rest, cv2.MORPH_OPEN, cross)
        rest = cv2.erode(rest, cross)
    return _photo(255 - random.uniform(0.3, 1) * cv2.morphologyEx(middle, cv2.MORPH_CLOSE, cross))


def _yellow(picture: Picture, random: Random) -> bytes:
    """Draw with a yellow felt pen on white paper."""
    ink = np.asarray(_enlarged(picture, 150), float)[..., np.newaxis] / 255
    return _photo(255 - ink * [0, random.uniform(5, 30), random.uniform(180, 255)])


def _on_gray(picture: Picture, random: Random) -> bytes:
    """Draw white ink on a gray ground, in MNIST's own size."""
    ground = random.uniform(20, 120)
    return _photo(ground + (255 - ground) * np.asarray(picture, float) / 255)


def _touching_the_edge(picture: Picture, random: Random) -> bytes:
    """Draw a binary picture that the digit fills."""
    filled = _enlarged(picture.crop(picture.getbbox()), 32)
    ink = np.asarray(filled, float) > 127
    return _photo(255.0 * (ink if random.random() < 0.5 else ~ink))


def _enlarged(picture: Picture, longer: int) -> Picture:
    factor = longer / max(picture.size)
    size = (max(round(picture.width * factor), 1), max(round(picture.height * factor), 1))
    return picture.resize(size, Image.Resampling.BICUBIC)


def _photo(page: np.ndarray) -> bytes:
    return encoded(Image.fromarray(page.clip(0, 255).astype(np.uint8)))


TUNED: dict[str, Variation] = {
    "RGB": partial(_with_mode, "RGB"),
    "palette": partial(_with_mode, "P"),
    "1 bit": partial(_with_mode, "1"),
    "16 bits": _sixteen_bits,
    "CMYK JPEG": _cmyk,
    "WebP": partial(_with_format, "WEBP"),
    "GIF": partial(_with_format, "GIF"),
    "BMP": partial(_with_format, "BMP"),
    "inverted": _inverted,
    "14 pixels": partial(_resized, 14),
    "20 pixels": partial(_resized, 20),
    "100 pixels": partial(_resized, 100),
    "1000 pixels": partial(_resized, 1000),
    "off-center": _off_center,
    "small, off-center": _small_off_center,
    "shadow and noise": _in_shadow,
    "transparent, white ink": partial(_transparent, 255),
    "transparent, black ink": partial(_transparent, 0),
    "turned by EXIF": _turned_by_exif,
    "thin stroke": partial(_with_stroke, cv2.erode),
    "thick stroke": partial(_with_stroke, cv2.dilate),
    "blurred photo": _blurred_in_a_corner,
    "cut close": _cut_close,
    "hard shadow": _half_in_shadow,
    "in a box": _in_a_box,
    "ruled paper": _ruled,
    "graph paper": _graph_paper,
    "edge of the sheet": _edge_of_the_sheet,
    "sheet on a table": partial(_on_a_table, 60, 225, 45),
    "slate on a table": partial(_on_a_table, 190, 50, 205),
    "patch of shadow": _patch_of_shadow,
    "by a lamp": _by_a_lamp,
    "cell of a form": _cell_of_a_form,
    "dotted": _dotted,
    "one-pixel pen": _one_pixel_pen,
    "yellow on white": _yellow,
    "28 pixels on gray": _on_gray,
    "touches the edge": _touching_the_edge,
}
HELD_OUT: dict[str, Variation] = {
    "blue on yellow": _colored,
    "chalk": _chalk,
    "faint pencil": _faint,
    "slanted photo": _slanted,
}


def files(pictures: np.ndarray, variation: Variation) -> list[bytes]:
    """Convert each image to a file in one variation; equal images give equal files.

    Args:
        pictures: MNIST images, uint8 (N, 28, 28).
        variation: The function that converts one image.

    Returns:
        The content of N files, in order.
    """
    randoms = np.random.default_rng(SEED).spawn(len(pictures))
    drawn = [Image.fromarray(image) for image in pictures]
    with ThreadPoolExecutor() as threads:
        return list(threads.map(variation, drawn, randoms))


def accuracy(
    probabilities: Callable[[np.ndarray], np.ndarray], contents: list[bytes], labels: np.ndarray
) -> float:
    """Return the fraction of pictures that are recognized correctly.

    A picture that the service rejects because it is blank counts as an error.

    Args:
        probabilities: The network, from images, uint8 (N, 28, 28), to probabilities, (N, 10).
        contents: The content of N picture files.
        labels: The true labels, uint8 (N,).
    """
    with ThreadPoolExecutor() as threads:
        decoded = np.stack(list(threads.map(preprocessed, contents)))
    correct = probabilities(decoded).argmax(1) == labels
    return float((correct & decoded.any((1, 2))).mean())


def preprocessed(content: bytes) -> np.ndarray:
    """Decode a picture file with the code of the service, as the network sees it.

    Returns:
        uint8 (28, 28). The image is black if the service rejects the picture as blank.
    """
    try:
        return images.decode(content)
    except images.NoInkError:
        return np.zeros((28, 28), np.uint8)


def examples(contents: dict[str, bytes]) -> Picture:
    """Draw each picture with its name, and below it the image that the network receives.

    Args:
        contents: The content of a picture file for each name.
    """
    across = 7
    down = -(-len(contents) // across)
    sheet = Image.new("RGB", (across * (TILE + 8), down * (2 * TILE + 30)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for place, (name, content) in enumerate(contents.items()):
        left, top = place % across * (TILE + 8), place // across * (2 * TILE + 30)
        with Image.open(io.BytesIO(content)) as opened:
            picture = ImageOps.exif_transpose(opened)
            picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
        picture = ImageOps.contain(picture, (TILE, TILE))
        draw.rectangle((left, top + 16, left + TILE, top + 16 + TILE), fill="#8ab")
        mask = picture.getchannel("A") if picture.mode == "RGBA" else None
        sheet.paste(picture, (left, top + 16), mask)
        image = Image.fromarray(preprocessed(content)).resize(
            (TILE, TILE), Image.Resampling.NEAREST
        )
        sheet.paste(image, (left, top + 18 + TILE))
        draw.text((left, top), name, "black", font)
    return sheet


def main() -> None:
    with atomic_directory(paths.PICTURES) as folder:
        _run(folder)


def _run(folder: Path) -> None:
    count = params.load().pictures.images
    pictures, labels = (part[:count] for part in idx.load(paths.IDX, "testing"))
    probabilities = partial(network.probabilities, network.load(paths.NETWORK))
    plain = metrics.accuracy(probabilities(pictures), labels)
    figures: dict[str, dict[str, float]] = {"plain": {"PNG": plain}, "tuned": {}, "held_out": {}}
    example_files: dict[str, bytes] = {}
    for group, variations in (("tuned", TUNED), ("held_out", HELD_OUT)):
        for name, variation in variations.items():
            contents = files(pictures, variation)
            figures[group][name] = accuracy(probabilities, contents, labels)
            example_files[name] = contents[len(example_files) % len(contents)]
    (folder / "metrics.json").write_text(json.dumps(figures, indent=2) + "\n")
    with (folder / "accuracy.csv").open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(("picture", "kind", "accuracy"))
        for group, accuracies in figures.items():
            table.writerows((name, group, value) for name, value in accuracies.items())
    examples(example_files).save(folder / "examples.png")
    worst, name = min((value, name) for part in figures.values() for name, value in part.items())
    print(f"accuracy {plain:.2%} on plain images; lowest accuracy {worst:.2%} on {name}")
