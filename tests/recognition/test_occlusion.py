"""The map shows which ink the network's answer depends on."""

import cv2
import numpy as np
import pytest

from service.recognition import engines, occlusion, pin

REACH = 2 * occlusion.REACH  # pixels from ink to the farthest pixel that a patch with it covers


class OnePixel:
    """A recognizer that sees a single pixel: it answers 3 if there is ink, and else 8."""

    def __init__(self, y, x, sure=0.9):
        self._pixel = (slice(None), y, x)
        self._sure = sure

    def recognize(self, images):
        labels = np.where(images[self._pixel], 3, 8)
        probabilities = np.full((len(images), 10), (1 - self._sure) / 9, np.float32)
        probabilities[np.arange(len(images)), labels] = self._sure
        return labels, probabilities


@pytest.fixture(scope="module")
def recognizer(artifact):
    return engines.load(artifact.path / pin.ARTIFACT, "litert")


@pytest.mark.parametrize(("y", "x"), [(0, 0), (4, 9), (14, 14), (27, 27), (0, 27)])
def test_the_map_is_highest_at_the_pixel_that_alone_matters(y, x):
    image = np.full((28, 28), 255, np.uint8)
    found = occlusion.explain(OnePixel(y, x), image)
    assert found.dtype == np.float32
    assert found.shape == (28, 28)
    assert found[y, x] == found.max()
    assert found.max() == pytest.approx(0.9 - 0.1 / 9, abs=1e-3)
    distance = np.abs(np.indices((28, 28)) - [[[y]], [[x]]]).max(0)
    assert not found[distance > REACH].any()
    assert found[distance <= 1].all()


def test_the_map_is_smooth():
    found = occlusion.explain(OnePixel(14, 14), np.full((28, 28), 255, np.uint8))
    for axis in (0, 1):
        assert np.abs(np.diff(found, axis=axis)).max() < 0.35


def test_nothing_matters_in_a_blank_image(recognizer):
    assert not occlusion.explain(recognizer, np.zeros((28, 28), np.uint8)).any()


def test_ink_that_the_network_does_not_see_does_not_matter():
    image = np.full((28, 28), 255, np.uint8)
    image[20, 20] = 0
    # Covering the ink elsewhere never changes the answer, which is that the pixel has no ink.
    assert not occlusion.explain(OnePixel(20, 20), image).any()


def test_a_part_that_speaks_against_the_label_does_not_matter(recognizer, testing):
    """A probability that rises under a patch counts as 0, and not as a negative number."""
    for image in testing[0][:30]:
        found = occlusion.explain(recognizer, image)
        assert 0 <= found.min() <= found.max() <= 1
        near_ink = cv2.dilate(image, np.ones((2 * REACH + 1, 2 * REACH + 1)))
        assert not found[near_ink == 0].any()


def test_the_network_needs_the_ink_where_the_map_is_high(recognizer, testing):
    """Without the highest third of the ink, the labels are less likely than without the lowest."""
    falls = {"lowest": 0.0, "highest": 0.0}
    for image in testing[0][:30]:
        found = occlusion.explain(recognizer, image)
        ink = np.flatnonzero(image)
        order = ink[np.argsort(found.ravel()[ink], kind="stable")]
        third = len(order) // 3
        (label,), before = recognizer.recognize(image[np.newaxis])
        for name, removed in (("lowest", order[:third]), ("highest", order[-third:])):
            changed = image.copy()
            changed.ravel()[removed] = 0
            _, after = recognizer.recognize(changed[np.newaxis])
            falls[name] += float(before[0, label] - after[0, label])
    assert falls["highest"] > 3 * falls["lowest"]


def test_the_engines_agree(artifact, recognizer, testing):
    tensorflow = engines.load(artifact.path / pin.ARTIFACT, "tensorflow")
    for image in testing[0][:5]:
        litert = occlusion.explain(recognizer, image)
        np.testing.assert_allclose(occlusion.explain(tensorflow, image), litert, atol=2e-3)
