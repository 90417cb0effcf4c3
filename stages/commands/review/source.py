"""The reviewed corrections: a source of the stage `handwriting`, and the facts of each picture.

`data/feedback.jsonl`, which is in git, has one line for each reviewed picture: its SHA-256, its
label, when and by which version it was answered, and what was decided and when. The accepted
pictures are `data/sources/feedback/<label>/<sha256>.<extension>`, which DVC tracks.
"""

import fcntl
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from dvc.exceptions import DvcException
from dvc.repo import Repo
from pydantic import AwareDatetime, ValidationError

from stages import handwriting
from stages.commands.review import params_file
from stages.commands.review.inbox import Extension, Facts
from stages.common import idx, outputs, params, paths
from stages.common.runner import StageError

NAME = "feedback"
FACTS = paths.DATA / "feedback.jsonl"
FOLDER = paths.DATA / "sources" / NAME
DVC_FILE = FOLDER.with_suffix(".dvc")
# The fraction of the accepted pictures that is only for testing, and their license, in a new entry
# of params.yaml.
HELD_BACK = 0.2
LICENSE = "private"


class Review(Facts):
    """What a person decided about a correction. `label` is the one that the person chose."""

    decision: Literal["accepted", "rejected", "removed"]
    extension: Extension
    reviewed: AwareDatetime

    @property
    def picture(self) -> Path:
        """The file of an accepted picture."""
        return FOLDER / str(self.label) / f"{self.sha256}.{self.extension}"


Reviews = dict[str, Review]  # by SHA-256


@contextmanager
def locked() -> Iterator[None]:
    """Let no other review of this repository change its files.

    Raises:
        StageError: Another review is running.
    """
    outputs.SCRATCH.mkdir(parents=True, exist_ok=True)
    with (outputs.SCRATCH / "review.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StageError("another review is running in this folder; finish it first") from error
        yield


def load() -> Reviews:
    """Read the reviewed corrections.

    Raises:
        StageError: The file is not valid, or the accepted pictures are not those of the file.
    """
    reviews: Reviews = {}
    lines = FACTS.read_bytes().splitlines() if FACTS.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            review = Review.model_validate_json(line)
        except ValidationError as error:
            raise StageError(
                f"line {number} of {FACTS} is not valid: {error.errors()[0]['msg']}; restore the "
                "file with `git checkout`, or resolve the merge"
            ) from error
        reviews[review.sha256] = review
    expected = {review.picture for review in accepted(reviews)}
    found = set(FOLDER.glob("[0-9]/*"))
    if missing := expected - found:
        raise StageError(
            f"{len(missing)} pictures of {FACTS} are missing, such as {min(missing)}; fetch them "
            f"with `dvc checkout {FOLDER}` or `dvc pull {FOLDER}`"
        )
    if more := found - expected:
        raise StageError(
            f"{FOLDER} has {len(more)} pictures that were not reviewed, such as {min(more)}; "
            "remove them"
        )
    return reviews


def save(reviews: Reviews) -> None:
    """Write the file of reviewed corrections, sorted, so that git can merge those of two people."""
    lines = [f"{reviews[sha256].model_dump_json()}\n" for sha256 in sorted(reviews)]
    outputs.write_atomically(FACTS, "".join(lines).encode())


def accepted(reviews: Reviews) -> list[Review]:
    return [review for review in reviews.values() if review.decision == "accepted"]


def add(review: Review, content: bytes) -> None:
    """Write an accepted picture."""
    review.picture.parent.mkdir(parents=True, exist_ok=True)
    outputs.write_atomically(review.picture, content)


def publish(reviews: Reviews) -> str:
    """Write the accepted pictures to DVC and params.yaml, and return a sentence about them.

    While the part of the source for training or the one for testing would be empty, params.yaml
    does not get the source, because no stage could use it.
    """
    if not accepted(reviews):
        _write_entry(None)
        _untrack()
        return "No picture is accepted."
    source = handwriting.read(FOLDER)
    if changed := set(source.writers) - set(reviews):
        raise StageError(
            f"{len(changed)} pictures in {FOLDER} have changed; restore them with "
            f"`dvc checkout --force {FOLDER}`"
        )
    listed = [source for source in params.load().data.handwriting if source.name == NAME]
    held_back = listed[0].held_back if listed else HELD_BACK
    parts = handwriting.split(source, held_back, _known())
    training, testing = (len(parts[part][1]) for part in ("training", "testing"))
    entry = {
        "name": NAME,
        "path": FOLDER.as_posix(),
        "held_back": held_back,
        "license": listed[0].license if listed else LICENSE,
        "sha256": source.sha256,
    }
    _write_entry(entry if training and testing else None)
    _track()
    sentence = (
        f"{len(source.files)} pictures are accepted: {training} for training, {testing} held back "
        f"for testing, and {len(source.files) - training - testing} that the stage leaves out."
    )
    if training and testing:
        return f"{sentence} Run `dvc repro` to train with them."
    return f"{sentence} Accept more, because params.yaml gets them only when neither part is empty."


def remove(hashes: Iterable[str]) -> str:
    """Remove accepted pictures, remember that they were removed, and publish the others.

    Raises:
        StageError: A picture is not among the accepted ones.
    """
    reviews = load()
    for sha256 in hashes:
        review = reviews.get(sha256)
        if review is None or review.decision != "accepted":
            raise StageError(f"{sha256!a} is not the SHA-256 of an accepted picture in {FACTS}")
        removed = {"decision": "removed", "reviewed": datetime.now(UTC)}
        reviews[sha256] = review.model_copy(update=removed)
        review.picture.unlink()
        save(reviews)
    return publish(reviews)


def held_back() -> set[bytes]:
    """Return the images that no training may use, as bytes.

    Raises:
        StageError: The pipeline has not made them yet.
    """
    try:
        splits = [idx.load(folder, "testing") for folder in _folders()]
    except FileNotFoundError as error:
        raise StageError(
            f"{error.filename} is missing, which has digits that no training may use; make it with "
            "`dvc repro handwriting`, or fetch it with `dvc pull data/idx data/handwriting`"
        ) from error
    return {image.tobytes() for images, _ in splits for image in images}


def _known() -> set[bytes]:
    """Return the images that the stage `handwriting` leaves out of this source, as bytes."""
    return {
        image.tobytes()
        for folder in _folders()
        if folder.name != NAME
        for part in idx.FILES
        for image in idx.load(folder, part)[0]
    }


def _folders() -> list[Path]:
    return [paths.IDX, *sorted(paths.HANDWRITING.iterdir())]


def _write_entry(entry: dict[str, Any] | None) -> None:
    before = params.FILE.read_bytes().decode()
    after = params_file.update(before, NAME, entry)
    if after != before:
        outputs.write_atomically(params.FILE, after.encode())


def _track() -> None:
    """Let DVC keep the pictures in its cache, and write the file that git keeps."""
    try:
        Repo().add(str(FOLDER))
    except DvcException as error:
        raise StageError(f"DVC cannot add {FOLDER}: {error}") from error


def _untrack() -> None:
    try:
        if DVC_FILE.exists():
            Repo().remove(str(DVC_FILE))
    except DvcException as error:
        raise StageError(f"DVC cannot remove {DVC_FILE}: {error}") from error
    shutil.rmtree(FOLDER, ignore_errors=True)
