"""The manifest of the artifact: the SHA-256 of each file, in the format of `sha256sum`.

    sha256sum --check data/model.sha256

Each line has the SHA-256 of a file, two spaces, and the path of the file, relative to the folder of
`dvc.yaml`. The lines are sorted by path.
"""

import re
from pathlib import PurePosixPath

# `sha256sum` escapes a name that contains a backslash or a line break. No artifact has such names.
_LINE = re.compile(r"([0-9a-f]{64})  ([^\\\r]+)")
_MALFORMED = "is not a sorted list in the format of `sha256sum`"


def render(files: dict[str, str], folder: str) -> bytes:
    """Return the content of a manifest.

    Args:
        files: The SHA-256 of each file by its path in the folder, with forward slashes.
        folder: The path of the folder, as the lines name it.
    """
    return "".join(
        f"{sha256}  {folder}/{path}\n" for path, sha256 in sorted(files.items())
    ).encode()


def parse(content: bytes, folder: str) -> dict[str, str]:
    """Return the SHA-256 of each file by its path in the folder.

    Args:
        content: The content of a manifest.
        folder: The path of the folder, as the lines name it.

    Raises:
        ValueError: The content is not a manifest of this folder. The text is the predicate of a
            sentence about the manifest.
    """
    files = {}
    for line in content.decode(errors="backslashreplace").removesuffix("\n").split("\n"):
        match = _LINE.fullmatch(line)
        if not match:
            raise ValueError(_MALFORMED)
        path = PurePosixPath(match[2])
        if not path.is_relative_to(folder) or ".." in path.parts:
            raise ValueError(f"lists {path}, which is outside {folder}")
        files[path.relative_to(folder).as_posix()] = match[1]
    if render(files, folder) != content:  # for example, a path occurs twice
        raise ValueError(_MALFORMED)
    return files
