"""One review: which corrections wait, what was decided, and how to take that back.

Each decision is on the disk before the next one, so a review continues where it ended.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Any, Literal

from stages.commands.review import inbox, source
from stages.commands.review.inbox import Correction

ON_SCREEN = 48  # corrections at once
PROBLEMS_ON_SCREEN = 100


class Session:
    """The state of a review, for the threads of the page."""

    def __init__(self, folder: Path) -> None:
        self.lock = RLock()
        self.reviews = source.load()
        found, self.problems = inbox.read(folder, self.reviews)
        self.corrections = {correction.facts.sha256: correction for correction in found}
        self._inbox = folder
        self._held_back = source.held_back()
        self._undo: list[list[str]] = []
        self._summary = ""

    def state(self) -> dict[str, Any]:
        """Return what the page shows, in the form of JSON."""
        waiting = [one for sha256, one in self.corrections.items() if sha256 not in self.reviews]
        decisions = [review.decision for review in self.reviews.values()]
        return {
            "corrections": [
                one.facts.model_dump(mode="json")
                | {"has_digit": one.image is not None, "is_held_back": self._is_held_back(one)}
                for one in waiting[:ON_SCREEN]
            ],
            "waiting": len(waiting),
            "accepted": decisions.count("accepted"),
            "rejected": decisions.count("rejected"),
            "can_undo": bool(self._undo),
            "problems": self.problems[:PROBLEMS_ON_SCREEN],
            "problem_count": len(self.problems),
        }

    def accept(self, hashes: Iterable[str], label: int | None) -> str:
        """Accept corrections, and return a sentence about those that cannot be accepted, or "".

        Args:
            hashes: The SHA-256 of each picture.
            label: The label of all of them, or None for the label that each sender chose.
        """
        done: list[source.Review] = []
        refused = []
        try:
            for correction in self._waiting(hashes):
                if self._is_held_back(correction):
                    refused.append("A digit of a test set cannot be accepted.")
                    continue
                try:
                    content = correction.content()
                except inbox.InboxError as error:
                    refused.append(f"{correction.picture} {error}.")
                    continue
                review = _review(correction, "accepted", label)
                source.add(review, content)
                done.append(review)
        finally:  # the disk may be full
            self._save(done)
        if len(refused) > 1:
            return f"{refused[0]} {len(refused)} pictures are not accepted."
        return "".join(refused)

    def reject(self, hashes: Iterable[str]) -> None:
        """Reject corrections."""
        self._save([_review(one, "rejected", None) for one in self._waiting(hashes)])

    def undo(self) -> list[str]:
        """Take back the last decision, and return the SHA-256 of each picture that waits again."""
        hashes = self._undo.pop() if self._undo else []
        undone = [self.reviews.pop(sha256) for sha256 in hashes]
        source.save(self.reviews)
        for review in source.accepted({review.sha256: review for review in undone}):
            review.picture.unlink()
        return hashes

    def finish(self) -> str:
        """Publish the accepted pictures, remove reviewed ones from the inbox, and summarize that.

        Raises:
            StageError: The pictures cannot be published.
        """
        with self.lock:
            if not self._summary:
                self._summary = source.publish(self.reviews)
                try:
                    inbox.clear(self._inbox, self.reviews)
                except OSError as error:
                    self._summary += f" Reviewed corrections stay in the inbox: {error.strerror}."
            return self._summary

    def _waiting(self, hashes: Iterable[str]) -> list[Correction]:
        return [
            self.corrections[sha256]
            for sha256 in hashes
            if sha256 in self.corrections and sha256 not in self.reviews
        ]

    def _is_held_back(self, correction: Correction) -> bool:
        return correction.image in self._held_back

    def _save(self, done: list[source.Review]) -> None:
        if done:
            self.reviews |= {review.sha256: review for review in done}
            source.save(self.reviews)
            self._undo.append([review.sha256 for review in done])


def _review(
    correction: Correction, decision: Literal["accepted", "rejected"], label: int | None
) -> source.Review:
    facts = correction.facts
    return source.Review(
        **facts.model_dump(exclude={"label"}),
        label=facts.label if label is None else label,
        decision=decision,
        extension=correction.extension,
        reviewed=datetime.now(UTC).replace(microsecond=0),
    )
