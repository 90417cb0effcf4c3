"""Distributions of features, and the index of how far two are apart."""

from dataclasses import asdict

import numpy as np
import pytest

from service.recognition import distributions
from service.recognition.distributions import Distribution, Features, stability_index


def test_features_are_confidence_label_and_sum_of_the_gray_values():
    images = np.zeros((2, 28, 28), np.uint8)
    images[0, 3, 4:6] = 255
    images[1] = 255
    probabilities = np.array([[0.5, 0.25] + [0.03125] * 8, [0] * 9 + [1]], np.float32)
    found = distributions.features(images, probabilities.argmax(1), probabilities)
    assert found == Features(confidence=[0.5, 1.0], label=[0, 9], ink=[510, 199_920])


def test_bins_are_deciles_and_labels():
    values = list(range(1000))
    labels = [value % 5 for value in values]
    measured = distributions.measure(Features([value / 1000 for value in values], labels, values))
    assert measured.confidence.counts == pytest.approx([100] * 10, abs=1)
    assert measured.ink.counts == pytest.approx([100] * 10, abs=1)
    assert set(measured.ink.edges) < set(values)
    assert measured.label == Distribution([1, 2, 3, 4, 5, 6, 7, 8, 9], [200] * 5 + [0] * 5)


def test_equal_deciles_are_one_edge():
    measured = distributions.measure(Features([0.5] * 50 + [1.0] * 50, [0] * 100, [7] * 100))
    assert measured.confidence == Distribution([0.5, 1.0], [0, 50, 50])
    assert measured.ink == Distribution([7], [0, 100])
    assert measured.ink.count([6, 7, 8, 8]) == [1, 3]


def test_distributions_survive_json():
    measured = distributions.measure(Features([0.1, 0.9, 0.8], [1, 2, 2], [5, 6, 7]))
    assert distributions.parse(asdict(measured)) == measured


def test_bins_that_do_not_match_the_edges_are_an_error():
    with pytest.raises(ValueError, match="2 bins cannot have 2 edges"):
        Distribution([0.1, 0.2], [1, 2])


def test_the_index_of_shares_is_that_of_the_formula():
    expected, actual = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
    formula = ((actual - expected) * np.log(actual / expected)).sum()
    assert stability_index([500_000, 300_000, 200_000], [400_000, 400_000, 200_000]) == (
        pytest.approx(formula, rel=1e-4)
    )


def test_the_index_does_not_depend_on_the_number_of_images_but_is_finite():
    assert stability_index([100, 200], [1000, 2000]) == pytest.approx(0, abs=1e-4)
    assert stability_index([100] * 10, [1000] + [0] * 9) > 5
    assert stability_index([1000] + [0] * 9, [100] * 10) > 5


def test_chance_alone_gives_few_images_a_small_index():
    """The alert needs 200 images, and a value above 0.25."""
    random = np.random.default_rng(1)
    samples = random.multinomial(200, [0.1] * 10, size=1000).tolist()
    found = [stability_index([1000] * 10, sample) for sample in samples]
    assert np.mean(found) == pytest.approx(9 / 200, rel=0.2)
    assert max(found) < 0.2
