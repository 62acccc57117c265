"""|cos| of uniform directions against closed forms and a simulation."""

import math

import numpy as np
import pytest

from eigendrift.sphere import mean_overlap, overlap_quantiles


def test_mean_in_two_and_three_dimensions_and_in_many() -> None:
    assert mean_overlap(2) == pytest.approx(2 / math.pi, rel=1e-13)
    assert mean_overlap(3) == pytest.approx(1 / 2, rel=1e-13)
    assert mean_overlap(89_610) == pytest.approx(math.sqrt(2 / (math.pi * 89_610)), rel=1e-5)


def test_quantiles_in_two_and_three_dimensions() -> None:
    probabilities = np.array([0.01, 0.3, 0.9])
    # An angle uniform on the circle; and, after Archimedes, a cosine uniform on the sphere.
    np.testing.assert_allclose(overlap_quantiles(probabilities, 2), np.sin(np.pi / 2 * probabilities), rtol=1e-10)
    np.testing.assert_allclose(overlap_quantiles(probabilities, 3), probabilities, rtol=1e-10)


def test_quantiles_and_mean_agree_with_a_simulation() -> None:
    random = np.random.default_rng(0)
    first, second = random.standard_normal((2, 40_000, 20))
    cosines = np.abs((first * second).sum(axis=1))
    cosines /= np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    probabilities = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(np.quantile(cosines, probabilities), overlap_quantiles(probabilities, 20), rtol=0.03)
    assert cosines.mean() == pytest.approx(mean_overlap(20), rel=0.02)
