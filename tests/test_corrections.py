"""The parts of `tests.benchmarks.corrections` that need no training."""

import io
from xml.etree import ElementTree

import pytest
from PIL import Image

from stages import handwriting
from tests.benchmarks import corrections, tables
from tests.conftest import PROJECT, load_slice

FOUND = [
    corrections.Figures(0, 0, 30, 0.9956),
    corrections.Figures(100, 80, 20, 0.9955),
    corrections.Figures(400, 320, 10, 0.9957),
]


def png(number: int, level: int = 1) -> bytes:
    """Return a test image of the slice as a PNG file; the level changes its bytes alone."""
    buffer = io.BytesIO()
    Image.fromarray(load_slice("testing")[0][number]).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def source_of(files: list[bytes]) -> handwriting.Source:
    hashes = [handwriting._sha256(file) for file in files]
    return handwriting.Source(files, [*range(len(files))], hashes, "")


def test_fewer_corrections_are_the_first_of_more_and_no_test_digit_is_one():
    digits = source_of([png(number) for number in range(10)])
    many, testing = corrections.divide(digits, 6)
    few, _ = corrections.divide(digits, 2)
    assert many[:2] == few
    assert sorted([*(digit.label for digit in many), *testing[1].tolist()]) == [*range(10)]


def test_a_digit_with_the_image_of_a_correction_is_not_for_testing():
    _, (images, _) = corrections.divide(source_of([png(0, 1), png(0, 9)]), 1)
    assert len(images) == 0


def test_the_first_corrections_have_all_labels():
    digits = handwriting.read(PROJECT / "data/sources/semeion.npz")
    assert {*corrections.in_order(digits).labels[: corrections.COUNTS[1]]} == {*range(10)}


def test_the_table_compares_each_row_with_the_first():
    first, *_, last = corrections.table(FOUND, 600)
    assert (first["accuracy"], first["by chance"]) == (0.95, "")
    assert first["standard error"] == pytest.approx(0.0089, abs=0.0001)
    assert last["by chance"] == pytest.approx(0.00094, abs=0.0001)


def test_the_plot_shows_the_table():
    plot = ElementTree.fromstring(corrections.draw(corrections.table(FOUND, 600)))  # noqa: S314
    texts = {text.text for text in plot.findall(".//{*}text")}
    assert texts >= {"95.0%", "96.7%", "98.3%", "99.56%", "99.55%", "99.57%", "100", "400"}
    circles = [circle.attrib for circle in plot.findall(".//{*}circle")]
    spots = [(one["cx"], one["cy"]) for one in circles if one["class"] == "community"]
    # From 94% to 100%, and with half of the way for a quarter of the corrections.
    assert spots[1:] == [("90.0", "286.7"), ("365.0", "214.4"), ("640.0", "142.2")]


def test_the_plot_in_the_documents_is_that_of_the_saved_table():
    rows = tables.load("corrections").tables["corrections"].rows
    assert corrections.PLOT.read_text() == corrections.draw(rows)
