"""`service.api.confidence` says why a result is less certain than required."""

import re

import numpy as np
import pytest

from service.api.confidence import CLEAR, LIKELY, doubt
from tests.conftest import PROJECT


def row(probabilities):
    """Return the probabilities of ten labels; the labels not given share the rest."""
    rest = (1 - sum(probabilities.values())) / (10 - len(probabilities))
    return np.array([probabilities.get(label, rest) for label in range(10)], np.float32)


def sentence(*rows, limit=0.9, many=False):
    return doubt(np.array(rows), limit, many)


@pytest.mark.parametrize(
    ("probabilities", "readings"),
    [
        ({7: 0.515, 1: 0.455}, "it could be a 7 (51%) or a 1 (45%)"),
        ({8: 0.605, 3: 0.355}, "it could be an 8 (60%) or a 3 (35%)"),
        ({3: 0.605, 8: 0.255}, "it is probably a 3 (60%)"),
        ({8: 0.8999}, "it is probably an 8 (89%)"),  # not "90%", which 0.9 allows
        ({7: 0.485, 1: 0.465}, "it could be a 7 (48%) or a 1 (46%)"),
        (
            {1: 0.485, 7: 0.315},
            "it is probably not a digit, and the likeliest reading is a 1 (48%)",
        ),
        ({8: 0.145}, "it is probably not a digit, and the likeliest reading is an 8 (14%)"),
    ],
)
def test_the_sentence_has_the_readings_of_the_picture(probabilities, readings):
    assert sentence(row(probabilities)) == (
        f"The picture is unclear: {readings}; no label reaches the required confidence of 0.9."
    )


def test_a_tie_is_two_different_readings():
    assert "it could be a 1 (50%) or a 7 (50%);" in sentence(row({1: 0.5, 7: 0.5}))


def test_a_confidence_equal_to_the_limit_suffices():
    assert sentence(row({5: 0.9})) is None
    assert sentence(row({5: 0.9}), limit=0.91).endswith("of 0.91.")
    assert sentence(row({5: 1.0}), limit=1.0) is None
    assert sentence(row({}), limit=0.0) is None


def test_the_sentence_names_the_first_doubtful_digit_of_many():
    clear, doubtful, other = row({2: 0.95}), row({3: 0.8}), row({4: 0.3})
    third = sentence(clear, clear, doubtful, other, many=True)
    assert third.startswith("Digit 3 from the left is unclear: it is probably a 3 (")
    assert sentence(other, many=True).startswith("Digit 1 from the left is unclear: ")
    assert sentence(clear, clear, many=True) is None


def test_the_page_has_the_same_limits():
    page = (PROJECT / "service/api/static/reading.js").read_text()
    assert re.findall(r"^const (SURE|LIKELY) = (.+?);", page, re.M) == [
        ("SURE", str(CLEAR)),
        ("LIKELY", str(LIKELY)),
    ]


def test_the_sentence_of_the_readme_is_exact():
    error = f"Picture 2 (b.png): {sentence(row({7: 0.515, 1: 0.455}))}"
    assert f'{{"error":"{error}"}}' in (PROJECT / "service/README.md").read_text()
