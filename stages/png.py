"""Write the images as PNG files, and check them against a published archive.

    dvc repro png

The stage reads `data/idx/`, and `data.png` and `data.timeout` in params.yaml. It writes
`data/png/<split>/<label>/<id>.png`, where the id is the index of the image in its split. The stage
draws the PNG files from the IDX files, so the files are the same for every mirror. It uses an
archive only for comparison, because no publisher gives a digest of its archive: every image in the
archive must equal the IDX image with its id.
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

from stages.common import idx, params, paths
from stages.common.idx import Split
from stages.common.mirrors import MirrorError, from_file, from_url, gather, retrying, try_in_order
from stages.common.outputs import atomic_directory

MEMBER = re.compile(r"(?:.*/)?(training|testing)/([0-9])/([0-9]{1,9})\.png")


def compare(archive: bytes, splits: dict[str, Split]) -> None:
    """Check that a tar archive of PNG files contains exactly the images of `splits`.

    The function reads the members in memory and extracts no file, so paths in the archive are
    harmless. It ignores the other splits of the archive.

    Args:
        archive: The content of the archive, which may be compressed.
        splits: The expected images, uint8 (N, 28, 28), and labels, uint8 (N,), by split.

    Raises:
        MirrorError: The archive is damaged, or an image is missing, differs, or has no IDX image.
            The text names the first such image.
    """
    compared = {split: np.zeros(len(labels), bool) for split, (_, labels) in splits.items()}
    total = sum(map(len, compared.values()))
    try:
        with (
            tarfile.open(fileobj=io.BytesIO(archive)) as members,
            tqdm(desc="comparing", total=total, unit="PNG", leave=False, disable=None) as bar,
        ):
            for member in members:
                match = MEMBER.fullmatch(member.name)
                if not (match and member.isfile() and match[1] in splits):
                    continue
                split, label, number = match[1], int(match[2]), int(match[3])
                images, labels = splits[split]
                name = f"{split}/{label}/{number}.png"
                if number >= len(labels) or labels[number] != label:
                    raise MirrorError(f"{name} has no counterpart in the IDX files")
                stream = members.extractfile(member)
                assert stream is not None  # a regular file always has a stream
                if not np.array_equal(_pixels(stream.read(), name), images[number]):
                    raise MirrorError(f"{name} differs from image {number} of the IDX files")
                compared[split][number] = True
                bar.update()
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise MirrorError(f"not a readable tar archive ({error})") from error
    for split, (_, labels) in splits.items():
        if not compared[split].all():
            number = int(compared[split].argmin())
            raise MirrorError(f"{split}/{labels[number]}/{number}.png is missing")


def render(splits: dict[str, Split], folder: Path) -> None:
    """Write every image to `folder/<split>/<label>/<id>.png`, with 8-bit gray pixels.

    Args:
        splits: Images, uint8 (N, 28, 28), and labels, uint8 (N,), by split.
        folder: An existing folder.
    """
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
    splits: dict[str, Split] = {split: idx.load(paths.IDX, split) for split in data.png.splits}

    def attempt(mirror: str) -> None:
        if mirror != "render":
            compare(_archive(mirror, data.timeout), splits)
            print(f"{mirror}: every image equals its IDX image", flush=True)

    try_in_order(
        data.png.mirrors,
        attempt,
        "No archive matches the IDX files. To skip the comparison, add `render` to "
        "data.png.mirrors of params.yaml. Reasons:",
    )
    with atomic_directory(paths.PNG) as folder:
        render(splits, folder)
