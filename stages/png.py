"""Write the images as PNG files, `data/png/<split>/<label>/<id>.png`; id = index in the split.

    dvc repro png

Reads `data/idx/`, `data.png` and `data.timeout` in params.yaml; writes `data/png/`. No public
digest of the archives is known, so an archive serves as a witness only: every image in it must
equal the IDX image of its id. What is written is drawn from the IDX files, and so is the same for
every mirror.
"""

import io
import lzma
import re
import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from stages.common import idx, params
from stages.common.idx import Split
from stages.common.mirrors import MirrorError, from_file, from_url, gather, retrying, try_in_order
from stages.common.runner import atomic_directory

FOLDER = Path("data/png")
MEMBER = re.compile(r"(?:.*/)?(training|testing)/([0-9])/([0-9]{1,9})\.png")


def compare(archive: bytes, splits: dict[str, Split]) -> None:
    """Check that a tar archive of PNG files holds exactly the images of `splits`.

    Members are read in memory; no path in the archive is ever written to.

    Raises:
        MirrorError: it is not such an archive, an image is missing, or one differs; the text
            names the first.
    """
    seen = {split: np.zeros(len(labels), bool) for split, (_, labels) in splits.items()}
    total = sum(map(len, seen.values()))
    try:
        with (
            tarfile.open(fileobj=io.BytesIO(archive)) as members,
            tqdm(desc="comparing", total=total, unit="PNG", leave=False, disable=None) as bar,
        ):
            for member in members:
                found = MEMBER.fullmatch(member.name)
                if not (found and member.isfile() and found[1] in splits):
                    continue
                split, label, number = found[1], int(found[2]), int(found[3])
                images, labels = splits[split]
                name = f"{split}/{label}/{number}.png"
                if number >= len(labels) or labels[number] != label:
                    raise MirrorError(f"{name} has no counterpart in the IDX files")
                stream = members.extractfile(member)
                assert stream is not None  # a regular file always has one
                if not np.array_equal(_pixels(stream.read(), name), images[number]):
                    raise MirrorError(f"{name} differs from image {number} of the IDX files")
                seen[split][number] = True
                bar.update()
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise MirrorError(f"not a readable tar archive ({error})") from error
    for split, (_, labels) in splits.items():
        if not seen[split].all():
            number = int(seen[split].argmin())
            raise MirrorError(f"{split}/{labels[number]}/{number}.png is missing")


def render(splits: dict[str, Split], folder: Path) -> None:
    """Draw every image of `splits` as `folder/<split>/<label>/<id>.png`, 8-bit grey."""
    total = sum(len(labels) for _, labels in splits.values())
    with tqdm(desc="writing", total=total, unit="PNG", leave=False, disable=None) as bar:
        for split, (images, labels) in splits.items():
            for label in np.unique(labels):
                (folder / split / str(label)).mkdir(parents=True)
            for number, (image, label) in enumerate(zip(images, labels, strict=True)):
                Image.fromarray(image).save(folder / split / str(label) / f"{number}.png")
                bar.update()
    print(f"{total:,} PNG files")


def _pixels(content: bytes, name: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            return np.asarray(image) if image.size == (28, 28) else np.empty(0)
    except (OSError, SyntaxError, ValueError) as error:
        raise MirrorError(f"{name} is not a readable PNG ({error})") from error


@retrying
def _archive(mirror: str, timeout: float) -> bytes:
    if mirror.startswith(("http://", "https://")):
        return gather(from_url(mirror, timeout))
    return gather(from_file(Path(mirror).expanduser()))


def main() -> None:
    data = params.load().data
    png = data.png
    splits: dict[str, Split] = {split: idx.load(Path("data/idx"), split) for split in png.splits}

    def attempt(mirror: str) -> None:
        if mirror != "render":
            compare(_archive(mirror, data.timeout), splits)
            print(f"{mirror}: every image equals its IDX image", flush=True)

    try_in_order(
        png.mirrors,
        attempt,
        "No archive agrees with the IDX files. Add `render` to data.png.mirrors of params.yaml "
        "to go without one. Tried:",
    )
    with atomic_directory(FOLDER) as folder:
        render(splits, folder)
