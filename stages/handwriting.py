"""Add handwritten digits that are not MNIST's.

    dvc repro handwriting

The stage reads the sources that `data.handwriting` in params.yaml lists, and `data/idx/`. A source
is one of:

- a folder of `<label>/<name>.png`, or of another picture format of the service
- a `.npz` file with the arrays `images`, uint8 (N, height, width), `labels`, integer (N,), and
  optionally `writers`, (N,), which identifies the writer of each digit

The stage decodes each digit with the code of the service. It writes each source to
`data/handwriting/<name>/` as four IDX files like MNIST's: one part for training, and one part that
is held back for testing.
"""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from service.recognition import images
from stages.common import idx, params, paths
from stages.common.idx import Split
from stages.common.outputs import atomic_directory
from stages.common.runner import StageError


@dataclass(frozen=True)
class Source:
    """The digits of one source, N of each list."""

    files: list[bytes]  # the content of picture files
    labels: list[int]
    writers: list[str]  # the writer, or the SHA-256 of the file if the writer is unknown
    sha256: str


def read(path: Path) -> Source:
    """Read a source: a folder or a `.npz` file, as described above.

    The SHA-256 of a folder is that of the output of `sha256sum */* | sort -k 2` in it.

    Raises:
        StageError: The path is not a source.
    """
    return _read_folder(path) if path.is_dir() else _read_arrays(path)


def _read_folder(folder: Path) -> Source:
    found = sorted(file for file in folder.glob("[0-9]/*") if file.is_file())
    if not found:
        raise StageError(f"{folder} has no files of the form <label>/<name>.png")
    files = [file.read_bytes() for file in found]
    digests = [hashlib.sha256(content).hexdigest() for content in files]
    names = [file.relative_to(folder).as_posix() for file in found]
    listed = "".join(f"{sha256}  {name}\n" for sha256, name in zip(digests, names, strict=True))
    labels = [int(file.parent.name) for file in found]
    return Source(files, labels, digests, hashlib.sha256(listed.encode()).hexdigest())


def _read_arrays(file: Path) -> Source:
    content = file.read_bytes()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            pixels, labels = arrays["images"], arrays["labels"]
            writers = arrays.get("writers")
    except (ValueError, KeyError, TypeError, AttributeError, BadZipFile) as error:
        raise StageError(f"{file} is not a .npz file with `images` and `labels`") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or labels.shape != pixels.shape[:1]:
        raise StageError(
            f"{file} has images {pixels.dtype} {pixels.shape} and labels {labels.shape}; "
            "expected images uint8 (N, height, width) and labels (N,)"
        )
    if not np.isin(labels, range(10)).all():
        raise StageError(f"{file} has labels that are not from 0 to 9")
    files = [_encoded(image) for image in pixels]
    names = [_sha256(png) for png in files] if writers is None else [*map(str, writers.tolist())]
    return Source(files, [*map(int, labels)], names, _sha256(content))


def split(source: Source, held_back: float, known: set[bytes]) -> dict[str, Split]:
    """Decode the digits, and divide them into two parts. The digits of a writer stay together.

    Args:
        source: The digits.
        held_back: The fraction of the writers in the part `testing`.
        known: Images to leave out, as bytes. The function adds the images that it returns.

    Returns:
        Images, uint8 (N, 28, 28), and labels, uint8 (N,), by `training` and `testing`. A picture in
        which the service finds no digit is a black image in the part `testing`, where it counts as
        an error. The part `training` does not have it.
    """
    with ThreadPoolExecutor() as threads:
        decoded = list(threads.map(_decode, source.files))
    parts: dict[str, list[tuple[np.ndarray, int]]] = {"training": [], "testing": []}
    for image, label, writer in zip(decoded, source.labels, source.writers, strict=True):
        part = (
            "testing" if int(_sha256(writer.encode())[:8], 16) < held_back * 2**32 else "training"
        )
        if image is None and part == "testing":
            parts[part].append((np.zeros((28, 28), np.uint8), label))
        elif image is not None and image.tobytes() not in known:
            known.add(image.tobytes())
            parts[part].append((image, label))
    return {
        part: (
            np.array([image for image, _ in digits], np.uint8).reshape(-1, 28, 28),
            np.array([label for _, label in digits], np.uint8),
        )
        for part, digits in parts.items()
    }


def _decode(content: bytes) -> np.ndarray | None:
    """Decode a picture to uint8 (28, 28), or return None if it has no digit."""
    try:
        return images.decode(content)
    except images.NoInkError:
        return None


def _encoded(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> None:
    data = params.load().data
    known = {image.tobytes() for part in idx.FILES for image in idx.load(paths.IDX, part)[0]}
    with atomic_directory(paths.HANDWRITING) as folder:
        for wanted in data.handwriting:
            source = read(Path(wanted.path))
            if source.sha256 != wanted.sha256:
                raise StageError(
                    f"{wanted.path} has the SHA-256 {source.sha256}, but data.handwriting of "
                    f"params.yaml says {wanted.sha256}"
                )
            parts = split(source, wanted.held_back, known)
            idx.save(folder / wanted.name, parts)
            counts = {part: f"{len(labels):,}" for part, (_, labels) in parts.items()}
            print(
                f"{wanted.name}: {counts['training']} digits for training, {counts['testing']} for "
                f"testing, {len(source.labels) - sum(len(labels) for _, labels in parts.values())} "
                "left out"
            )
