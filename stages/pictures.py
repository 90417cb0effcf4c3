"""Measure how well the network reads digits in pictures as people send them.

    dvc repro pictures

Reads `data/network/`, `data/idx/` and `pictures` in params.yaml; writes `data/pictures/`:
metrics.json (accuracy on the first test images in each variation, as PNG files and in the form
that the service gets them), accuracy.csv to plot, and examples.png: each variation as it is
sent, and below it what the network sees.

The code of `service.recognition.preprocessing` was tuned on variations like those of `TUNED`, made
of validation images; those of `HELD_OUT` were written afterwards, and nothing was changed for them.
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
from stages.common import idx, metrics, network, params
from stages.common.runner import atomic_directory

SEED = 0
TILE = 128  # screen pixels of an example

Picture = Image.Image
Random = np.random.Generator
Variation = Callable[[Picture, Random], bytes]  # of an image of MNIST: a file


def encoded(picture: Picture, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"compress_level": 1} if kind == "PNG" else {}) | options)
    return buffer.getvalue()


def _of_mode(mode: str, picture: Picture, random: Random) -> bytes:
    return encoded(picture.convert(mode))


def _of_kind(kind: str, picture: Picture, random: Random) -> bytes:
    return encoded(picture.convert("RGB"), kind)


def _wide(picture: Picture, random: Random) -> bytes:
    return encoded(Image.fromarray(np.asarray(picture).astype(np.uint16) * 257))


def _cmyk(picture: Picture, random: Random) -> bytes:
    return encoded(_enlarged(picture, 112).convert("CMYK"), "JPEG")


def _inverted(picture: Picture, random: Random) -> bytes:
    return encoded(ImageOps.invert(picture))


def _of_size(size: int, picture: Picture, random: Random) -> bytes:
    return encoded(picture.resize((size, size), Image.Resampling.LANCZOS))


def _on_page(
    picture: Picture,
    random: Random,
    size: tuple[int, int] = (400, 300),
    digit: int = 120,
    paper: float = 255,
    pen: float = 30,
) -> np.ndarray:
    """A digit anywhere on a page: floating point (height, width)."""
    ink = np.asarray(_enlarged(picture, digit), float) / 255
    page = np.full(size[::-1], paper, float)
    left, top = random.integers(0, size[0] - digit), random.integers(0, size[1] - digit)
    part = page[top : top + digit, left : left + digit]
    part += (pen - part) * ink
    return page


def _off_centre(picture: Picture, random: Random) -> bytes:
    return _photo(_on_page(picture, random))


def _small_off_centre(picture: Picture, random: Random) -> bytes:
    return _photo(_on_page(picture, random, digit=60))


def _in_shadow(picture: Picture, random: Random) -> bytes:
    page = _on_page(picture, random, paper=200, pen=60)
    slope = _slope(page.shape, random)
    return _photo(page * (0.75 + 0.5 * slope) + random.normal(0, 8, page.shape))


def _slope(shape: tuple[int, ...], random: Random) -> np.ndarray:
    """From one edge to the other, in any direction: about -0.5 to 0.5."""
    angle = random.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.cos(angle) * (columns / shape[1] - 0.5) + np.sin(angle) * (rows / shape[0] - 0.5)


def _transparent(grey: int, picture: Picture, random: Random) -> bytes:
    drawn = Image.new("LA", (280, 280), grey)
    drawn.putalpha(_enlarged(picture, 280))
    return encoded(drawn.convert("RGBA"))


def _turned_by_exif(picture: Picture, random: Random) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn to the right
    turned = ImageOps.invert(_enlarged(picture, 112)).rotate(90)
    return encoded(turned, "JPEG", exif=exif)


def _with_stroke(morph: Callable[..., np.ndarray], picture: Picture, random: Random) -> bytes:
    pen = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (13, 13))
    return encoded(Image.fromarray(morph(np.asarray(_enlarged(picture, 280)), pen)))


def _coloured(picture: Picture, random: Random) -> bytes:
    """Blue ink on yellow paper, in a bad JPEG file."""
    ink = np.asarray(_enlarged(picture, 150), float)[..., np.newaxis] / 255
    page = np.array([250, 235, 150]) * (1 - ink) + np.array([30, 50, 160]) * ink
    return encoded(Image.fromarray(page.astype(np.uint8)), "JPEG", quality=25)


def _chalk(picture: Picture, random: Random) -> bytes:
    """Light and uneven on a dark board."""
    page = _on_page(picture, random, (500, 500), 200, paper=50, pen=200)
    rough = 1 + 0.25 * random.normal(size=page.shape)
    return _photo(50 + (page - 50) * rough + random.normal(0, 6, page.shape))


def _blurred_in_a_corner(picture: Picture, random: Random) -> bytes:
    """An upright photograph, out of focus, darker towards its edges."""
    page = _on_page(picture, random, (360, 640), 140, paper=210, pen=90)
    rows, columns = np.mgrid[-1 : 1 : page.shape[0] * 1j, -1 : 1 : page.shape[1] * 1j]
    lit = Image.fromarray((page * (1 - 0.25 * (rows**2 + columns**2))).astype(np.uint8))
    return encoded(lit.filter(ImageFilter.GaussianBlur(3)), "JPEG", quality=70)


def _cut_close(picture: Picture, random: Random) -> bytes:
    """Scissors along the ink."""
    return encoded(ImageOps.invert(_enlarged(picture.crop(picture.getbbox()), 90)))


def _faint(picture: Picture, random: Random) -> bytes:
    """A hard pencil."""
    return _photo(_on_page(picture, random, paper=235, pen=175))


def _slanted(picture: Picture, random: Random) -> bytes:
    """A sheet photographed from the side, in slanting light."""
    page = _on_page(picture, random, (400, 400), 220, paper=190, pen=40)
    corners = np.array([[0, 0], [400, 0], [400, 400], [0, 400]], np.float32)
    seen = corners + random.uniform(-35, 35, (4, 2)).astype(np.float32)
    slanted = cv2.warpPerspective(
        page,
        cv2.getPerspectiveTransform(corners, seen),
        (400, 400),
        borderMode=cv2.BORDER_REPLICATE,
    )
    return _photo(
        slanted * (1 + 0.3 * _slope(page.shape, random)) + random.normal(0, 4, page.shape)
    )


def _half_in_shadow(picture: Picture, random: Random) -> bytes:
    """Somebody's head is in the light."""
    page = _on_page(picture, random, paper=220, pen=50)
    shaded = np.where(_slope(page.shape, random) < 0.1, page, 0.7 * page)
    return _photo(cv2.GaussianBlur(shaded, (0, 0), 4) + random.normal(0, 3, page.shape))


def _enlarged(picture: Picture, longer: int) -> Picture:
    factor = longer / max(picture.size)
    size = (max(round(picture.width * factor), 1), max(round(picture.height * factor), 1))
    return picture.resize(size, Image.Resampling.BICUBIC)


def _photo(page: np.ndarray) -> bytes:
    return encoded(Image.fromarray(page.clip(0, 255).astype(np.uint8)))


TUNED: dict[str, Variation] = {
    "RGB": partial(_of_mode, "RGB"),
    "palette": partial(_of_mode, "P"),
    "1 bit": partial(_of_mode, "1"),
    "16 bits": _wide,
    "CMYK JPEG": _cmyk,
    "WebP": partial(_of_kind, "WEBP"),
    "GIF": partial(_of_kind, "GIF"),
    "BMP": partial(_of_kind, "BMP"),
    "inverted": _inverted,
    "14 pixels": partial(_of_size, 14),
    "20 pixels": partial(_of_size, 20),
    "100 pixels": partial(_of_size, 100),
    "1000 pixels": partial(_of_size, 1000),
    "off-centre": _off_centre,
    "small, off-centre": _small_off_centre,
    "shadow and noise": _in_shadow,
    "transparent, white ink": partial(_transparent, 255),
    "transparent, black ink": partial(_transparent, 0),
    "turned by EXIF": _turned_by_exif,
    "thin stroke": partial(_with_stroke, cv2.erode),
    "thick stroke": partial(_with_stroke, cv2.dilate),
    "blurred photo": _blurred_in_a_corner,
    "cut close": _cut_close,
    "hard shadow": _half_in_shadow,
}
HELD_OUT: dict[str, Variation] = {
    "blue on yellow": _coloured,
    "chalk": _chalk,
    "faint pencil": _faint,
    "slanted photo": _slanted,
}


def files(pictures: np.ndarray, variation: Variation) -> list[bytes]:
    """Each image (N, 28, 28) in a variation, as a file; the same for the same images."""
    randoms = np.random.default_rng(SEED).spawn(len(pictures))
    drawn = [Image.fromarray(image) for image in pictures]
    with ThreadPoolExecutor() as threads:
        return list(threads.map(variation, drawn, randoms))


def accuracy(
    probabilities: Callable[[np.ndarray], np.ndarray], sent: list[bytes], labels: np.ndarray
) -> float:
    """The fraction that is read rightly; a picture that is refused is not."""
    with ThreadPoolExecutor() as threads:
        seen = np.stack(list(threads.map(seen_of, sent)))
    right = probabilities(seen).argmax(1) == labels
    return float((right & seen.any((1, 2))).mean())


def seen_of(content: bytes) -> np.ndarray:
    """What the network sees of a picture; nothing of one that is refused."""
    try:
        return images.decode(content)
    except images.NoInkError:
        return np.zeros((28, 28), np.uint8)


def examples(sent: dict[str, bytes]) -> Picture:
    """What is sent, by its name, and below it what the network sees."""
    across = 7
    down = -(-len(sent) // across)
    sheet = Image.new("RGB", (across * (TILE + 8), down * (2 * TILE + 30)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for place, (name, content) in enumerate(sent.items()):
        left, top = place % across * (TILE + 8), place // across * (2 * TILE + 30)
        with Image.open(io.BytesIO(content)) as opened:
            shown = ImageOps.exif_transpose(opened)
            shown = shown.convert("RGBA" if shown.has_transparency_data else "RGB")
        shown = ImageOps.contain(shown, (TILE, TILE))
        draw.rectangle((left, top + 16, left + TILE, top + 16 + TILE), fill="#8ab")
        mask = shown.getchannel("A") if shown.mode == "RGBA" else None
        sheet.paste(shown, (left, top + 16), mask)
        seen = Image.fromarray(seen_of(content)).resize((TILE, TILE), Image.Resampling.NEAREST)
        sheet.paste(seen, (left, top + 18 + TILE))
        draw.text((left, top), name, "black", font)
    return sheet


def main() -> None:
    count = params.load().pictures.images
    pictures, labels = (part[:count] for part in idx.load(Path("data/idx"), "testing"))
    probabilities = partial(network.probabilities, network.load(Path("data/network")))
    plain = metrics.accuracy(probabilities(pictures), labels)
    figures: dict[str, dict[str, float]] = {"plain": {"PNG": plain}, "tuned": {}, "held_out": {}}
    shown: dict[str, bytes] = {}
    for group, variations in (("tuned", TUNED), ("held_out", HELD_OUT)):
        for name, variation in variations.items():
            sent = files(pictures, variation)
            figures[group][name] = accuracy(probabilities, sent, labels)
            shown[name] = sent[len(shown) % len(sent)]
    with atomic_directory(Path("data/pictures")) as folder:
        (folder / "metrics.json").write_text(json.dumps(figures, indent=2) + "\n")
        with (folder / "accuracy.csv").open("w", newline="") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(("picture", "kind", "accuracy"))
            for group, accuracies in figures.items():
                table.writerows((name, group, value) for name, value in accuracies.items())
        examples(shown).save(folder / "examples.png")
    worst = min((value, name) for part in figures.values() for name, value in part.items())
    print(f"plain {plain:.2%}; the worst is {worst[1]}, {worst[0]:.2%}")
