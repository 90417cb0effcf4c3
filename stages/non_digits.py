"""Make images of things that are not a digit, for training and for testing.

    dvc repro non_digits

The stage reads `data/idx/`, and `data.fonts`, `data.non_digits`, `data.timeout` and
`train.validation_size` in params.yaml. It writes `data/non_digits/`, four IDX files with the names
of MNIST's:

- the images, uint8 (N, 28, 28), white ink on black, in random order
- instead of labels, the kinds of the images, uint8 (N,), as positions in `KINDS`

The stage normalizes each picture with the code of the service, so an image is what the network
receives for such a picture. The test images show fonts, kinds of shapes and MNIST digits that no
training image shows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stages.common import drawings, fonts, idx, params, paths
from stages.common.drawings import Random
from stages.common.outputs import atomic_directory
from stages.common.runner import StageError

KINDS = ("letters", "shapes", "scribbles", "numbers")
FONT_SIZE = 72  # pixels
MNIST_SCALE = 2.4, 3.2  # range of the pixels of a picture for each pixel of an MNIST digit
WORD_FRACTION = 0.15  # of the images of letters; a word has two to four characters

# The characters that no reader takes for a digit in any of the fonts. An image shows neither the
# size of a character nor its baseline. These are left out because they look like a digit:
#   0: C c D O o Q U u a e, Cyrillic De (in cursive), and Cyrillic and Greek letters with a circle
#   1: I i J j L l ! | / \ ( )   2: Z z   3: Cyrillic Ze and E   4: Y y, Cyrillic Che and Tse
#   5: S s $   6: G b and the Cyrillic signs   7: > and other hooks   8: B &   9: g q
#   10: Cyrillic Yu
# The euro sign is left out because its lines merge.
CLEAR = "AEFHKMNPRTVWXdfhkmnprtvwx?#@%+=*ЖШЩЯИПΨΞΠΔΩπω"
# A word has one clear character and any of these.
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Glyphs:
    """The characters of `CLEAR` and of `LETTERS` that a font has."""

    font: ImageFont.FreeTypeFont
    clear: str
    letters: str

    @classmethod
    def of(cls, name: str, content: bytes) -> "Glyphs":
        """Open the file of a font.

        Raises:
            StageError: The file is not a font, or has no clear character.
        """
        font = fonts.opened(name, content, FONT_SIZE)
        clear, letters = fonts.present(font, CLEAR), fonts.present(font, LETTERS)
        if not clear:
            raise StageError(f"{name} has none of the characters {CLEAR}")
        return cls(font, clear, letters)


def make(
    split: str, count: int, chosen: params.NonDigits, glyphs: list[Glyphs], digits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Make the images of one split. Equal arguments give equal images.

    Args:
        split: `training` or `testing`.
        count: The number of images.
        chosen: The seed and the share of each kind.
        glyphs: The fonts of the split.
        digits: The MNIST digits of the split, uint8 (N, 28, 28).

    Returns:
        The images, uint8 (count, 28, 28), and their kinds, uint8 (count,), positions in `KINDS`.
    """
    draw: dict[str, Callable[[Random], np.ndarray]] = {
        "letters": partial(letters, glyphs=[(font, one) for font in glyphs for one in font.clear]),
        "shapes": partial(shape, kinds=drawings.SHAPES[split]),
        "scribbles": partial(shape, kinds=drawings.SCRIBBLES[split]),
        "numbers": partial(number, digits=digits[digits.any(axis=(1, 2))]),
    }
    random = np.random.default_rng([chosen.seed, list(idx.FILES).index(split)])
    ends = np.cumsum([getattr(chosen.shares, kind) for kind in KINDS])
    in_order = np.searchsorted(ends / ends[-1], (np.arange(count) + 0.5) / count)
    kinds = random.permutation(in_order.astype(np.uint8))
    images = [
        drawings.normalized(draw[KINDS[kind]], own_random)
        for kind, own_random in zip(kinds, random.spawn(count), strict=True)
    ]
    return np.stack(images), kinds


def letters(random: Random, glyphs: list[tuple[Glyphs, str]]) -> np.ndarray:
    """Draw a clear character, or a word that contains one.

    Args:
        random: The source of all choices.
        glyphs: Every font with each of its clear characters.

    Returns:
        The picture, uint8 (height, width), white ink on black.
    """
    font, text = glyphs[random.integers(len(glyphs))]
    if font.letters and random.random() < WORD_FRACTION:
        others = random.choice([*font.letters], random.integers(1, 4))
        text = "".join(random.permutation([text, *others]))
    stroke = max(random.uniform(-2, 2), 0)  # half of the texts have a thicker pen than the font
    left, top, right, bottom = font.font.getbbox(text, stroke_width=stroke)
    margin = FONT_SIZE // 3
    picture = Image.new("L", (round(right - left) + 2 * margin, round(bottom - top) + 2 * margin))
    place = margin - left, margin - top
    ImageDraw.Draw(picture).text(place, text, 255, font.font, stroke_width=stroke)
    return drawings.distorted(np.asarray(picture), random)


def shape(random: Random, kinds: list[drawings.Shape]) -> np.ndarray:
    """Draw a shape of a random kind: uint8 (height, width), white ink on black."""
    kind = kinds[random.integers(len(kinds))]
    return drawings.distorted(drawings.draw(kind, random), random)


def number(random: Random, digits: np.ndarray) -> np.ndarray:
    """Draw two or three MNIST digits beside each other, apart or touching.

    Args:
        random: The source of all choices.
        digits: MNIST images, uint8 (N, 28, 28), none of them blank.

    Returns:
        The picture, uint8 (height, width), white ink on black.
    """
    count, margin = 2 if random.random() < 0.8 else 3, 16
    page = np.zeros((2 * margin + 102, 2 * margin + count * 102), np.uint8)
    right, bottom, was_narrow = margin, 0, False
    for image in digits[random.integers(len(digits), size=count)]:
        ink = image[np.ix_(image.any(axis=1), image.any(axis=0))]
        scale = random.uniform(*MNIST_SCALE)
        width, height = round(scale * ink.shape[1]), round(scale * ink.shape[0])
        large = cv2.resize(ink, (width, height), interpolation=cv2.INTER_CUBIC)
        is_narrow = 2 * width < height
        # Two 1s that touch would be one thick 1.
        gap = int(random.integers(4 if is_narrow and was_narrow else -4, 12))
        left, top = max(right + gap, margin), margin + int(random.integers(0, 12))
        part = page[top : top + height, left : left + width]
        np.maximum(part, large, out=part)
        right, bottom, was_narrow = left + width, max(bottom, top + height), is_narrow
    return page[: bottom + margin, : right + margin]


def main() -> None:
    chosen = params.load()
    data = chosen.data
    wanted = {"training": data.fonts.training, "testing": data.fonts.testing}
    counts = {"training": data.non_digits.training, "testing": data.non_digits.testing}
    images, _ = idx.load(paths.IDX, "training")
    cut = len(images) - chosen.train.validation_size  # `train` trains with the images before it
    if cut <= 0:
        raise StageError(
            f"train.validation_size is {chosen.train.validation_size}, but the training split has "
            f"only {len(images)} images"
        )
    digits = {"training": images[:cut], "testing": images[cut:]}
    contents = fonts.fetch(
        data.fonts.mirrors, [*wanted["training"], *wanted["testing"]], data.timeout
    )
    with atomic_directory(paths.NON_DIGITS) as folder:
        splits = {}
        for split, count in counts.items():
            glyphs = [Glyphs.of(font.file, contents[font.file]) for font in wanted[split]]
            splits[split] = make(split, count, data.non_digits, glyphs, digits[split])
            print(f"{count:,} images for {split}", flush=True)
        idx.save(folder, splits)
