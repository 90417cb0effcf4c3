"""Numbers of several digits: what may be a digit, and which candidates are chosen."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from service.recognition import segmentation
from service.recognition.images import decode
from service.recognition.segmentation import Candidates
from stages.pictures import encoded


def scaled(image, side=90):
    return Image.fromarray(255 - image).resize((side, side), Image.Resampling.BICUBIC)


def page_of(images, distance=100):
    """Return a page with digits in a row, each a little lower than the one before."""
    page = Image.new("L", (distance * len(images) + 10, 140), 255)
    for index, image in enumerate(images):
        digit = scaled(image)
        page.paste(
            digit, (distance * index + 5, 10 + 3 * index), Image.eval(digit, lambda x: 255 - x)
        )
    return page


def test_separate_digits_are_candidates_from_left_to_right(testing):
    images = testing[0][:5]
    found = segmentation.decode(encoded(page_of(images)))
    assert found.images.shape == (len(found.spans), 28, 28)
    whole = [number for number, cost in enumerate(found.costs) if not cost]
    boxes = [found.boxes[number] for number in whole]
    for index, image in enumerate(images):
        alone = decode(encoded(scaled(image))).astype(float).ravel()
        likeness = [
            np.corrcoef(found.images[number].ravel(), alone)[0, 1]
            for number, (left, _, width, _) in zip(whole, boxes, strict=True)
            if 100 * index < left < left + width < 100 * index + 100
        ]
        assert max(likeness) > 0.8
    assert all(0 <= top < top + height <= 140 for _, top, _, height in found.boxes)


def test_a_separate_stroke_belongs_to_the_digit_below_it():
    page = Image.new("L", (200, 100), "white")
    draw = ImageDraw.Draw(page)
    draw.line((20, 30, 20, 90), 0, 6)  # 1
    draw.line((120, 15, 160, 15), 0, 6)  # the top stroke of a 5
    draw.arc((115, 30, 160, 90), 180, 120, 0, 6)
    found = segmentation.decode(encoded(page))
    assert [box for box in found.boxes if box[0] > 100 and box[1] < 20 and box[3] > 60]
    assert all(box[3] > 20 for box in found.boxes)  # the stroke is not a candidate


@pytest.mark.parametrize("distance", [58, 62, 66])
def test_touching_digits_are_cut_between_them(testing, distance):
    images = [testing[0][0], testing[0][4]]  # 7 and 4
    found = segmentation.decode(encoded(page_of(images, distance)))
    for index in range(2):
        middle = distance * index + 50
        assert [
            box for box in found.boxes if abs(box[0] + box[2] / 2 - middle) < 12 and box[3] > 45
        ]


@pytest.mark.parametrize("mark", [(95, 80, 101, 86), (95, 78, 102, 96), (90, 55, 108, 60)])
def test_a_full_stop_a_comma_and_a_dash_are_no_candidates(testing, mark):
    page = page_of(testing[0][:2], distance=110)
    ImageDraw.Draw(page).rectangle(mark, 0)
    found = segmentation.decode(encoded(page))
    inside = [
        box for box in found.boxes if box[0] >= mark[0] - 2 and box[0] + box[2] <= mark[2] + 3
    ]
    assert inside == []


@pytest.mark.parametrize("is_shaded", [False, True])
def test_a_table_and_a_shadow_are_no_candidates(testing, is_shaded):
    page = page_of(testing[0][:5])
    plain = segmentation.decode(encoded(page))
    if is_shaded:
        page.paste(page.crop((0, 0, 300, 140)).point(lambda gray: gray * 0.55), (0, 0))
        found = segmentation.decode(encoded(page))
    else:
        table = Image.new("L", (page.width + 80, page.height + 80), 90)
        table.paste(page, (40, 40))
        found = segmentation.decode(encoded(table))
    assert found.spans == plain.spans
    differences = np.array(found.boxes) - plain.boxes
    differences[:, :2] -= 0 if is_shaded else 40
    assert np.abs(differences).max() <= 10  # pixels; a cut may move, too


@pytest.mark.parametrize("row", [85, 125])  # across the digits, and below
def test_a_ruled_line_is_no_candidate(testing, row):
    """The first and the last digit are close to the ends of the line."""
    page = page_of(testing[0][:4])
    columns = np.flatnonzero(np.asarray(page).min(0) < 128)
    page = page.crop((columns[0] - 5, 0, columns[-1] + 5, page.height))
    ImageDraw.Draw(page).line((0, row, page.width, row), 90, 2)
    found = segmentation.decode(encoded(page))
    assert max(width for _, _, width, _ in found.boxes) < 75  # pixels: wider than each digit


def rows(*confidences):
    """Return rows of probabilities with these confidences."""
    table = np.repeat((1 - np.array(confidences, np.float32))[:, np.newaxis] / 9, 10, axis=1)
    table[:, 3] = confidences
    return table


def candidates(spans, costs=None):
    count = len(spans)
    images = np.zeros((count, 28, 28), np.uint8)
    return Candidates(images, [(0, 0, 1, 1)] * count, spans, costs or [0.0] * count)


@pytest.mark.parametrize(
    ("confidences", "chosen"),
    [
        ((0.9, 0.9, 0.3), [0, 1]),  # the network is surer of the parts
        ((0.5, 0.5, 0.9), [2]),  # the network is surer of the whole
    ],
)
def test_the_surest_digits_that_cover_all_parts_are_chosen(confidences, chosen):
    spans = [(0, 1), (1, 2), (0, 2)]
    assert candidates(spans).choose(rows(*confidences)) == chosen


def test_each_part_belongs_to_one_digit():
    spans = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    found = candidates(spans)
    chosen = found.choose(rows(0.6, 0.9, 0.6, 0.95, 0.3))
    assert [spans[number] for number in chosen] == [(0, 1), (1, 3)]


def test_a_cut_needs_more_confidence_than_none():
    spans = [(0, 1), (1, 2), (0, 2)]
    costs = [0.0, segmentation.CUT_COST, 0.0]
    assert candidates(spans, costs).choose(rows(0.9, 0.9, 0.6)) == [2]
    assert candidates(spans, costs).choose(rows(0.99, 0.99, 0.1)) == [0, 1]
