"""The statistics of eigenvectors refuse what they are not defined for, and say why."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eigendrift.metrics import (
    alignment,
    convergence,
    displacement,
    inverse_participation_ratio,
    overlap,
    update_alignment,
    weight_displacement,
)

Floats = NDArray[np.float64]

STATISTICS: list[tuple[Callable[..., Any], int]] = [
    (overlap, 2),
    (displacement, 2),
    (alignment, 2),
    (weight_displacement, 2),
    (update_alignment, 3),
    (inverse_participation_ratio, 1),
]

UNIT = np.array([1.0, 0.0, 0.0])


@pytest.mark.parametrize(("statistic", "arity"), STATISTICS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(statistic: Callable[..., Any], arity: int, bad: float) -> None:
    for position in range(arity):
        arguments = [np.tile(UNIT, (2, 1)) for _ in range(arity)]
        arguments[position][1, 2] = bad
        with pytest.raises(ValueError, match="not finite"):
            statistic(*arguments)


@pytest.mark.parametrize(("statistic", "arity"), STATISTICS)
@pytest.mark.parametrize("bad", [1.0, [], np.ones((2, 2, 2)), np.ones((0, 3)), [1j, 0, 0], ["a", "b", "c"]])
def test_wrong_shapes_and_types_are_refused(statistic: Callable[..., Any], arity: int, bad: Any) -> None:
    with pytest.raises(ValueError, match=r"its shape is|real numbers"):
        statistic(bad, *[UNIT] * (arity - 1))


@pytest.mark.parametrize(("statistic", "arity"), [pair for pair in STATISTICS if pair[1] > 1])
def test_lengths_that_differ_are_refused(statistic: Callable[..., Any], arity: int) -> None:
    with pytest.raises(ValueError, match="same length"):
        statistic(*[UNIT] * (arity - 1), np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="same number of rows"):
        statistic(*[np.tile(UNIT, (2, 1))] * (arity - 1), np.tile(UNIT, (3, 1)))


@pytest.mark.parametrize("v", [np.zeros(3), 2 * UNIT, 0.9 * UNIT])
def test_eigenvectors_that_are_not_unit_vectors_are_refused(v: Floats) -> None:
    for call in (
        lambda: displacement(v, UNIT),
        lambda: displacement(UNIT, v),
        lambda: inverse_participation_ratio(v),
        lambda: alignment(v, UNIT),
        lambda: update_alignment(v, UNIT, 2 * UNIT),
        lambda: convergence([v, UNIT]),
    ):
        with pytest.raises(ValueError, match="unit vectors"):
            call()


def test_eigenvectors_stored_as_columns_are_refused_with_a_hint() -> None:
    columns = np.linalg.qr(np.random.default_rng(0).standard_normal((50, 3)))[0]
    with pytest.raises(ValueError, match=r"need \.T"):
        displacement(columns, columns)


def test_overlap_of_a_zero_vector_is_refused() -> None:
    with pytest.raises(ValueError, match="w holds a vector of norm 0"):
        overlap(UNIT, [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


def test_convergence_needs_a_series() -> None:
    for bad in (UNIT, np.ones((0, 3))):
        with pytest.raises(ValueError, match="series"):
            convergence(bad)
