"""The decisions of a review, which are on the disk at once."""

import pytest

from stages.commands.review import source
from stages.commands.review.session import ON_SCREEN, Session
from tests.stages.review.conftest import LABELS, SEMEION, png, send

NUMBERS = range(SEMEION.stop, SEMEION.stop + 4)


@pytest.fixture
def hashes(inbox):
    """Four corrections, in the order of their confidence."""
    return [
        send(inbox, png(number), int(LABELS[number]), confidence=0.1 * place)
        for place, number in enumerate(NUMBERS)
    ]


def waiting(session):
    return [correction["sha256"] for correction in session.state()["corrections"]]


def files():
    return sorted(file.name for file in source.FOLDER.glob("*/*"))


def test_each_decision_can_be_taken_back_and_survives_a_new_start(project, inbox, hashes):
    session = Session(inbox)
    assert waiting(session) == hashes
    session.accept(hashes[:2], None)
    session.reject(hashes[2:3])
    assert waiting(session) == waiting(Session(inbox)) == hashes[3:]
    assert session.undo() == hashes[2:3]
    assert session.undo() == hashes[:2]
    assert session.undo() == []
    assert waiting(session) == waiting(Session(inbox)) == hashes
    assert files() == []


def test_another_label_replaces_that_of_the_person(project, inbox, hashes):
    session = Session(inbox)
    label = (int(LABELS[NUMBERS[0]]) + 5) % 10
    session.accept(hashes[:1], label)
    assert (source.FOLDER / f"{label}/{hashes[0]}.png").read_bytes() == png(NUMBERS[0])
    assert source.load()[hashes[0]].label == label


def test_a_test_digit_cannot_be_accepted_but_rejected(project, inbox):
    [mnist, semeion, other] = [
        send(inbox, png(number), int(LABELS[number]), confidence=0.001 * number)
        for number in (0, SEMEION.start, SEMEION.stop)
    ]
    session = Session(inbox)
    held_back = [one["is_held_back"] for one in session.state()["corrections"]]
    assert held_back == [True, True, False]
    message = session.accept([mnist, semeion, other], None)
    assert message == "A digit of a test set cannot be accepted. 2 pictures are not accepted."
    assert files() == [f"{other}.png"]
    session.reject([mnist, semeion])
    assert waiting(session) == []


def test_a_picture_that_changed_meanwhile_is_not_accepted(project, inbox, hashes):
    session = Session(inbox)
    [file] = inbox.glob(f"*/{hashes[0]}.png")
    file.write_bytes(png(0))
    assert "has a picture with another SHA-256" in session.accept(hashes[:2], None)
    assert waiting(session) == [hashes[0], *hashes[2:]]


def test_an_unknown_or_reviewed_picture_changes_nothing(project, inbox, hashes):
    session = Session(inbox)
    session.reject(hashes[:1])
    session.accept([hashes[0], "0" * 64, "../../etc/passwd"], None)
    assert (files(), session.state()["rejected"]) == ([], 1)


def test_a_full_inbox_comes_in_parts_and_has_space_afterwards(project, inbox):
    numbers = range(SEMEION.stop, SEMEION.stop + ON_SCREEN + 10)
    for number in numbers:
        send(inbox, png(number), int(LABELS[number]))
    session = Session(inbox)
    assert (len(waiting(session)), session.state()["waiting"]) == (ON_SCREEN, ON_SCREEN + 10)
    session.reject(waiting(session))
    assert len(waiting(session)) == 10
    assert session.finish() == "No picture is accepted."
    assert len([file for file in inbox.rglob("*") if file.is_file()]) == 20
