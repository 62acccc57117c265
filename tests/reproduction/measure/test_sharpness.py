"""Interpolation, and epsilon-sharpness against closed-form maxima over the box and brute force over its corners."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reproduction.measure.sharpness import LossAndGradient, epsilon_sharpness, interpolate

Floats = NDArray[np.float64]


def quadratic(hessian: Floats, minimizer: Floats, minimum: float = 0.0, unit: float = 1.0) -> LossAndGradient:
    def loss_and_gradient(x: Floats) -> tuple[float, Floats]:
        slope = hessian @ (x - minimizer)
        return unit * (minimum + 0.5 * float((x - minimizer) @ slope)), unit * slope

    return loss_and_gradient


def half_widths(x: Floats, epsilon: float) -> Floats:
    result: Floats = epsilon * (np.abs(x) + 1)
    return result


# interpolation


def test_interpolation_meets_both_solutions_exactly_and_goes_beyond() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 9)).astype(np.float32)
    np.testing.assert_array_equal(interpolate(a, b, 1.0), a)
    np.testing.assert_array_equal(interpolate(a, b, 0.0), b)
    np.testing.assert_allclose(interpolate(a, b, 2.0), 2 * a.astype(np.float64) - b, rtol=1e-15)
    np.testing.assert_allclose(interpolate(a, b, -1.0), 2 * b.astype(np.float64) - a, rtol=1e-15)
    assert interpolate(a, b, 0.3).dtype == np.float64


def test_interpolation_refuses_bad_input() -> None:
    with pytest.raises(ValueError, match="same shape"):
        interpolate(np.ones(2), np.ones(3), 0.5)
    with pytest.raises(ValueError, match="alpha"):
        interpolate(np.ones(2), np.ones(2), np.nan)


# sharpness


@pytest.mark.parametrize("epsilon", [1e-4, 1e-3, 1e-1])
@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e4])
def test_separable_quadratic_at_its_minimum(epsilon: float, unit: float) -> None:
    """At the minimum the gradient is 0, and the maximum, half the sum of a_j b_j^2, is at every corner."""
    generator = np.random.default_rng(0)
    curvature, x = generator.uniform(0.1, 10, 200), generator.standard_normal(200)
    result = epsilon_sharpness(quadratic(np.diag(curvature), x, 0.3, unit), x, epsilon)
    rise = unit * 0.5 * (curvature * half_widths(x, epsilon) ** 2).sum()
    assert result.loss == pytest.approx(0.3 * unit, rel=1e-12)
    assert result.maximum - result.loss == pytest.approx(rise, rel=1e-6, abs=0)
    assert result.sharpness == pytest.approx(100 * rise / (1 + 0.3 * unit), rel=1e-6, abs=0)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_separable_quadratic_off_its_minimum(seed: int) -> None:
    """In each coordinate the maximum of a convex parabola is at the end away from its minimum."""
    generator = np.random.default_rng(seed)
    curvature, x = generator.uniform(0.1, 10, 30), generator.standard_normal(30)
    minimizer, epsilon = x + generator.standard_normal(30), 0.01
    result = epsilon_sharpness(quadratic(np.diag(curvature), minimizer), x, epsilon)
    farthest = np.abs(x - minimizer) + half_widths(x, epsilon)
    assert result.maximum == pytest.approx(0.5 * (curvature * farthest**2).sum(), rel=1e-10)


def test_one_curved_direction_gives_half_lambda_times_the_squared_reach() -> None:
    """For H = lambda v v' the box reaches sum_j b_j |v_j| along v, at the corner with the signs of v."""
    generator = np.random.default_rng(1)
    v, x = generator.standard_normal(50), generator.standard_normal(50)
    v /= np.linalg.norm(v)
    result = epsilon_sharpness(quadratic(7.0 * np.outer(v, v), x), x, 1e-3)
    assert result.maximum == pytest.approx(0.5 * 7.0 * (half_widths(x, 1e-3) @ np.abs(v)) ** 2, rel=1e-9, abs=0)


def test_against_all_corners_of_small_boxes() -> None:
    """A convex function is largest at a corner; a local method may stop at a lower one, and never above all."""
    reached = []
    for seed in range(100):
        generator = np.random.default_rng(seed)
        root, x = generator.standard_normal((8, 8)), generator.standard_normal(8)
        loss_and_gradient = quadratic(root @ root.T, x - 0.01 * generator.standard_normal(8))
        corners = x + half_widths(x, 0.01) * np.array(list(product([-1, 1], repeat=8)))
        highest = max(loss_and_gradient(corner)[0] for corner in corners)
        reached.append(epsilon_sharpness(loss_and_gradient, x, 0.01).maximum / highest)
    assert max(reached) <= 1 + 1e-9
    assert np.median(reached) > 0.95
    assert min(reached) > 0.4


def test_a_maximum_inside_the_box_is_found() -> None:
    x = np.zeros(5)
    peak = np.array([0.05, -0.03, 0.0, 0.02, 0.09])
    result = epsilon_sharpness(quadratic(-np.diag([1.0, 2, 3, 4, 5]), peak, minimum=1.0), x, 0.1, max_iterations=100)
    assert result.maximum == pytest.approx(1.0, abs=1e-10)


def test_the_sharper_of_two_minima_is_sharper() -> None:
    x = np.ones(20)
    flat = epsilon_sharpness(quadratic(np.eye(20), x), x, 1e-3)
    sharp = epsilon_sharpness(quadratic(5 * np.eye(20), x), x, 1e-3)
    assert sharp.sharpness == pytest.approx(5 * flat.sharpness, rel=1e-9, abs=0)


def test_a_saddle_is_left_where_only_some_slopes_are_zero() -> None:
    """f = x_1 + x_2^2: along the gradient alone the curved coordinate would never move."""

    def loss_and_gradient(x: Floats) -> tuple[float, Floats]:
        return float(x[0] + x[1] ** 2), np.array([1.0, 2 * x[1]])

    assert epsilon_sharpness(loss_and_gradient, np.zeros(2), 0.1).maximum == pytest.approx(0.1 + 0.01, rel=1e-9)


def test_every_point_that_is_evaluated_lies_in_the_box() -> None:
    x = np.random.default_rng(0).standard_normal(40)
    inner, visited = quadratic(np.eye(40), np.zeros(40)), []

    def loss_and_gradient(point: Floats) -> tuple[float, Floats]:
        visited.append(point.copy())
        value, slope = inner(point)
        return value, slope

    result = epsilon_sharpness(loss_and_gradient, x, 1e-2)
    assert result.evaluations == len(visited)
    np.testing.assert_array_equal(visited[0], x)
    assert np.all(np.abs(np.array(visited) - x) <= half_widths(x, 1e-2) * (1 + 1e-12))
    assert result.maximum == max(inner(point)[0] for point in visited)


def test_it_is_never_negative_and_stops_at_once_where_the_loss_is_flat() -> None:
    result = epsilon_sharpness(lambda x: (2.0, np.zeros_like(x)), np.ones(3), 1e-3)
    assert (result.sharpness, result.maximum, result.iterations, result.converged) == (0.0, 2.0, 0, True)


def test_a_loss_whose_gradient_misleads_does_not_fall_below_zero() -> None:
    result = epsilon_sharpness(lambda x: (-0.5 * float(np.abs(x).sum()), np.ones_like(x)), np.zeros(4), 1e-3)
    assert result.sharpness == 0.0
    assert not result.converged


def test_a_spent_budget_is_reported() -> None:
    def loss_and_gradient(x: Floats) -> tuple[float, Floats]:  # Rosenbrock's valley upside down: slow to climb
        value = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
        slope = [-400 * x[0] * (x[1] - x[0] ** 2) - 2 * (1 - x[0]), 200 * (x[1] - x[0] ** 2)]
        return 1000 - float(value), -np.array(slope)

    start = np.array([-1.0, 1.0])
    short = epsilon_sharpness(loss_and_gradient, start, 1.5, max_iterations=2)
    long = epsilon_sharpness(loss_and_gradient, start, 1.5, max_iterations=200)
    assert (short.iterations, short.converged) == (2, False)
    assert "LIMIT" in short.message
    assert long.maximum == pytest.approx(1000, abs=1e-6)
    assert short.maximum < long.maximum


def test_the_same_input_gives_the_same_result() -> None:
    loss_and_gradient, x = quadratic(np.diag([1.0, 2.0, 3.0]), np.zeros(3)), np.zeros(3)
    assert epsilon_sharpness(loss_and_gradient, x, 0.1) == epsilon_sharpness(loss_and_gradient, x, 0.1)


def test_a_float32_loss_is_taken() -> None:
    def loss_and_gradient(x: Floats) -> tuple[float, NDArray[np.float32]]:
        single = x.astype(np.float32)
        return float(np.float32(0.5) * (single @ single)), single

    result = epsilon_sharpness(loss_and_gradient, np.ones(10), 0.1)
    assert result.sharpness == pytest.approx(100 * (0.5 * 10 * 1.2**2 - 5) / 6, rel=1e-5)


def test_bad_arguments_are_refused() -> None:
    loss_and_gradient, x = quadratic(np.eye(3), np.zeros(3)), np.ones(3)
    for bad, message in ((np.ones((3, 3)), "vector"), (np.array([1.0, np.nan, 0.0]), "finite"), (np.ones(0), "empty")):
        with pytest.raises(ValueError, match=message):
            epsilon_sharpness(loss_and_gradient, bad, 1e-3)
    for epsilon in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="epsilon"):
            epsilon_sharpness(loss_and_gradient, x, epsilon)
    with pytest.raises(ValueError, match="max_iterations"):
        epsilon_sharpness(loss_and_gradient, x, 1e-3, max_iterations=0)


def test_bad_losses_are_refused() -> None:
    x = np.ones(3)
    with pytest.raises(ValueError, match="shape"):
        epsilon_sharpness(lambda point: (1.0, np.ones(2)), x, 1e-3)
    with pytest.raises(ValueError, match="finite"):
        epsilon_sharpness(lambda point: (np.nan, np.ones(3)), x, 1e-3)
    with pytest.raises(ValueError, match="finite"):
        epsilon_sharpness(lambda point: (1.0, np.array([1.0, np.inf, 0.0])), x, 1e-3)
    with pytest.raises(ValueError, match="above -1"):
        epsilon_sharpness(lambda point: (-1.0, np.ones(3)), x, 1e-3)
