"""The statistics of eigenvectors against closed forms, their invariances, and float64 oracles."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from eigendrift import metrics
from eigendrift.metrics import (
    alignment,
    angle_bound,
    convergence,
    displacement,
    gaussian_smooth,
    inverse_participation_ratio,
    overlap,
    overlap_to_displacement,
    random_subspace_overlap,
    span_share,
    subspace_displacement,
    subspace_overlap,
    update_alignment,
    weight_displacement,
)

Floats = NDArray[np.float64]
SHAPES = st.tuples(st.integers(0, 2**32 - 1), st.integers(2, 40))


def unit(rows: Any) -> Floats:
    values = np.asarray(rows, dtype=np.float64)
    result: Floats = values / np.linalg.norm(values, axis=-1, keepdims=True)
    return result


def unit_vectors(seed: int, rows: int, n: int) -> Floats:
    return unit(np.random.default_rng(seed).standard_normal((rows, n)))


def rotation(seed: int, n: int) -> Floats:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


# displacement and overlap


@pytest.mark.parametrize("n", [2, 3, 50])
def test_displacement_of_equal_opposite_and_orthogonal_vectors(n: int) -> None:
    first, second = np.eye(n)[:2]
    assert displacement(first, first) == 0
    assert displacement(first, -first) == 0
    assert displacement(first, second) == pytest.approx(2 / n, rel=1e-15)
    assert overlap(first, second) == 0
    assert overlap(first, -first) == 1


def test_displacement_at_sixty_degrees() -> None:
    v, w = np.array([1.0, 0, 0, 0]), np.array([0.5, np.sqrt(0.75), 0, 0])
    assert displacement(v, w) == pytest.approx((2 / 4) * 0.5, rel=1e-14)
    assert overlap(v, w) == pytest.approx(0.5, rel=1e-14)


@pytest.mark.parametrize("angle", [1e-3, 1e-6, 1e-9, 1e-12])
def test_displacement_keeps_its_digits_for_nearly_parallel_vectors(angle: float) -> None:
    v, w = np.array([1.0, 0.0]), np.array([np.cos(angle), np.sin(angle)])
    assert displacement(v, -w) == pytest.approx(2 * np.sin(angle / 2) ** 2, rel=1e-6, abs=0)


@given(SHAPES)
def test_displacement_is_the_linear_function_of_overlap(shape: tuple[int, int]) -> None:
    seed, n = shape
    v, w = unit_vectors(seed, 2, n)
    assert displacement(v, w) == pytest.approx(overlap_to_displacement(overlap(v, w), n), rel=1e-9, abs=1e-14)


@given(SHAPES)
def test_displacement_does_not_depend_on_order_or_basis(shape: tuple[int, int]) -> None:
    seed, n = shape
    v, w = unit_vectors(seed, 2, n)
    turn = rotation(seed, n)
    assert displacement(w, v) == pytest.approx(displacement(v, w), rel=1e-12)
    assert displacement(v @ turn, w @ turn) == pytest.approx(displacement(v, w), rel=1e-9, abs=1e-14)


def test_overlap_takes_vectors_of_any_norm() -> None:
    v, w = np.array([3.0, 4.0]), np.array([1.0, 0.0])
    for scale in (1e-200, 1e-30, 1.0, 1e200):
        assert overlap(scale * v, w) == pytest.approx(0.6, rel=1e-14)


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan])
def test_overlap_to_displacement_refuses_what_is_no_overlap(value: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        overlap_to_displacement(value, 10)
    with pytest.raises(ValueError, match="n_parameters"):
        overlap_to_displacement(0.5, 0)


# inverse participation ratio


@pytest.mark.parametrize("n", [1, 7, 1000])
def test_ipr_of_one_parameter_and_of_all(n: int) -> None:
    assert inverse_participation_ratio(np.eye(n)[n // 2]) == 1
    assert inverse_participation_ratio(np.full(n, n**-0.5)) == pytest.approx(1 / n, rel=1e-14)


def test_ipr_of_k_equal_entries_is_one_over_k() -> None:
    v = np.zeros(100)
    v[[3, 50, 51, 99]] = [0.5, -0.5, 0.5, -0.5]
    assert inverse_participation_ratio(v) == pytest.approx(1 / 4, rel=1e-15)


def test_mean_ipr_on_the_sphere() -> None:
    n = 500
    mean = inverse_participation_ratio(unit_vectors(0, 4000, n)).mean()
    assert mean == pytest.approx(3 / (n + 2), rel=0.002)  # exact mean on the sphere; the standard error is 0.0002 of it


@given(SHAPES)
def test_ipr_lies_between_its_bounds(shape: tuple[int, int]) -> None:
    seed, n = shape
    value = inverse_participation_ratio(unit_vectors(seed, 1, n)[0])
    assert 1 / n * (1 - 1e-12) <= value <= 1


# alignments and weight displacement


def test_alignment_of_known_angles() -> None:
    v, gradient = np.array([1.0, 0.0, 0.0]), np.array([-3.0, 4.0, 0.0])
    assert alignment(v, gradient) == pytest.approx(0.6, rel=1e-15)
    assert alignment(v, v) == 1
    assert alignment(v, [0.0, 0.0, 2.0]) == 0


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-20, 1e100, 1e300])
def test_alignment_does_not_depend_on_the_length_of_the_direction(scale: float) -> None:
    assert alignment([0.6, 0.8], scale * np.array([1.0, 0.0])) == pytest.approx(0.6, rel=1e-14)


def test_alignment_with_no_direction_is_nan_for_that_row_alone() -> None:
    v = np.array([1.0, 0.0])
    assert np.isnan(alignment(v, np.zeros(2)))
    np.testing.assert_array_equal(alignment(v, [[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]]), [np.nan, 1, 0])


def test_squared_alignments_with_an_orthonormal_basis_sum_to_one() -> None:
    gradient = np.random.default_rng(1).standard_normal(12)
    assert (alignment(rotation(2, 12), gradient) ** 2).sum() == pytest.approx(1, rel=1e-13)


def test_two_time_update_alignment_is_the_alignment_with_the_difference() -> None:
    v, theta = np.array([0.0, 1.0]), np.array([5.0, -2.0])
    later = theta + np.array([[3.0, 4.0], [0.0, -0.5], [0.0, 0.0]])
    np.testing.assert_allclose(update_alignment(v, theta, later), [0.8, 1.0, np.nan], rtol=1e-14)


def test_differences_of_float32_weights_are_taken_in_float64() -> None:
    before = np.full(3, 1.0, dtype=np.float32)
    after = np.nextafter(before, np.float32(2))
    assert weight_displacement(before, after) == 2.0**-46
    assert update_alignment(np.full(3, 3**-0.5), before, after) == pytest.approx(1, rel=1e-15)


def test_weight_displacement_is_the_mean_square() -> None:
    theta = np.array([1.0, 2.0, 3.0, 4.0])
    assert weight_displacement(theta, theta) == 0
    assert weight_displacement(theta, [3.0, 2.0, 1.0, 4.0]) == 2.0
    np.testing.assert_array_equal(weight_displacement(theta, [theta + 1, theta - 3]), [1.0, 9.0])


def test_convergence_compares_with_the_last_row() -> None:
    half = np.sqrt(0.5)
    series = [[1.0, 0.0], [half, half], [0.0, 1.0], [half, -half]]
    np.testing.assert_allclose(convergence(series), [half, 0.0, half, 1.0], atol=1e-15)


# invariance under a change of sign

TWO_VECTORS: list[Callable[[Any, Any], Any]] = [overlap, displacement, alignment]


@given(SHAPES, st.sampled_from(TWO_VECTORS))
def test_two_vector_statistics_do_not_see_signs(shape: tuple[int, int], statistic: Callable[[Any, Any], Any]) -> None:
    seed, n = shape
    v, w = unit_vectors(seed, 2, n)
    expected = statistic(v, w)
    for signs in ((-1, 1), (1, -1), (-1, -1)):
        assert statistic(signs[0] * v, signs[1] * w) == pytest.approx(expected, rel=1e-12, abs=1e-16)


@given(SHAPES)
def test_series_statistics_do_not_see_signs(shape: tuple[int, int]) -> None:
    seed, n = shape
    series, generator = unit_vectors(seed, 6, n), np.random.default_rng(seed)
    flipped = series * generator.choice([-1.0, 1.0], (6, 1))
    before, after = generator.standard_normal((2, n))
    np.testing.assert_array_equal(inverse_participation_ratio(flipped), inverse_participation_ratio(series))
    np.testing.assert_allclose(convergence(flipped), convergence(series), rtol=1e-12)
    np.testing.assert_allclose(update_alignment(flipped, before, after), update_alignment(series, before, after))
    np.testing.assert_allclose(
        subspace_displacement(flipped[:1], series[1:2]), displacement(series[0], series[1]), rtol=1e-9, atol=1e-16
    )


# precision, layout and blocks

STATISTICS: list[tuple[Callable[..., Any], int]] = [
    (overlap, 2),
    (displacement, 2),
    (alignment, 2),
    (weight_displacement, 2),
    (update_alignment, 3),
    (inverse_participation_ratio, 1),
]


@pytest.mark.parametrize(("statistic", "arity"), STATISTICS)
def test_float32_input_gives_what_its_float64_copy_gives(statistic: Callable[..., Any], arity: int) -> None:
    single = [unit_vectors(seed, 4, 20_000).astype(np.float32) for seed in range(arity)]
    double = [array.astype(np.float64) for array in single]
    result = statistic(*single)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, statistic(*double))


def test_sums_of_float32_input_are_not_taken_in_float32() -> None:
    n = 1 << 20
    v = np.full(n, n**-0.5, dtype=np.float32)
    v[0] = -v[0]
    exact = (2 / n) * (1 - (n - 2) / n)
    assert displacement(v, np.abs(v)) == pytest.approx(exact, rel=1e-9, abs=0)


def naive_displacement(v: Floats, w: Floats) -> float:
    return float(min(((v - w) ** 2).mean(), ((v + w) ** 2).mean()))


@pytest.mark.parametrize("entries", [1, 64, 1 << 20])
def test_blocks_and_broadcasting_give_the_row_by_row_result(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK_ENTRIES", entries)
    v, w = unit_vectors(1, 11, 30), unit_vectors(2, 11, 30)
    np.testing.assert_allclose(displacement(v, w), [naive_displacement(*pair) for pair in zip(v, w, strict=True)])
    np.testing.assert_allclose(displacement(v[3], w), [naive_displacement(v[3], row) for row in w])
    np.testing.assert_allclose(displacement(v, w[3]), [naive_displacement(row, w[3]) for row in v])
    np.testing.assert_allclose(update_alignment(v[0], w[0], v), alignment(v[0], v - w[0]))


def test_one_vector_gives_a_scalar_and_a_series_of_one_an_array() -> None:
    v = unit_vectors(0, 1, 5)
    assert isinstance(displacement(v[0], v[0]), np.float64)
    assert isinstance(inverse_participation_ratio(v[0]), np.float64)
    assert isinstance(overlap_to_displacement(0.5, 5), np.float64)
    assert isinstance(angle_bound(0.1, 1.0, 1.0), np.float64)
    assert displacement(v, v[0]).shape == (1,)


def test_a_memory_mapped_series_is_read(tmp_path: Any) -> None:
    series = unit_vectors(0, 3, 8).astype(np.float32)
    np.save(tmp_path / "series.npy", series)
    mapped = np.load(tmp_path / "series.npy", mmap_mode="r")
    np.testing.assert_array_equal(convergence(mapped), convergence(series))


def test_arguments_are_left_as_they_were() -> None:
    v, w = unit_vectors(0, 3, 8), unit_vectors(1, 3, 8)
    copies = v.copy(), w.copy()
    for statistic in (overlap, displacement, alignment, weight_displacement):
        statistic(v, w)
    subspace_displacement(v[:1], w[:1])
    np.testing.assert_array_equal(v, copies[0])
    np.testing.assert_array_equal(w, copies[1])


# subspaces


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(5, 30))
def test_subspace_displacement_sees_the_subspaces_alone(seed: int, k: int, n: int) -> None:
    v, w = rotation(seed, n)[:k], rotation(seed + 1, n)[:k]
    expected = subspace_displacement(v, w)
    assert 0 <= expected <= 2 / n * (1 + 1e-12)
    assert subspace_displacement(rotation(seed + 2, k) @ v, w) == pytest.approx(expected, rel=1e-9, abs=1e-16)
    assert subspace_displacement(w, v[::-1]) == pytest.approx(expected, rel=1e-9, abs=1e-16)
    assert subspace_displacement(v, rotation(seed + 2, k) @ v) == pytest.approx(0, abs=1e-25)


def test_subspace_displacement_of_known_principal_angles() -> None:
    angles = np.array([0.3, 1.1])
    v, w = np.zeros((2, 6)), np.zeros((2, 6))
    v[[0, 1], [0, 1]] = 1
    w[[0, 1], [0, 1]] = np.cos(angles)
    w[[0, 1], [2, 3]] = np.sin(angles)
    assert subspace_displacement(v, w) == pytest.approx((2 / 6) * (1 - np.cos(angles).mean()), rel=1e-13)
    assert subspace_displacement(np.eye(6)[:2], np.eye(6)[2:4]) == pytest.approx(2 / 6, rel=1e-13)


@pytest.mark.parametrize("angle", [1e-5, 1e-9])
def test_subspace_displacement_keeps_its_digits_for_nearly_equal_subspaces(angle: float) -> None:
    v, w = np.eye(4)[:2], np.eye(4)[:2].copy()
    w[0] = [np.cos(angle), 0, np.sin(angle), 0]
    assert subspace_displacement(v, w) == pytest.approx(2 * np.sin(angle / 2) ** 2 / 4, rel=1e-5, abs=0)


def test_subspace_displacement_refuses_what_is_no_pair_of_bases() -> None:
    with pytest.raises(ValueError, match="orthonormal"):
        subspace_displacement([[1.0, 0.0], [1.0, 0.0]], np.eye(2))
    with pytest.raises(ValueError, match="orthonormal"):
        subspace_displacement(np.eye(3)[:, :2], np.eye(3)[:, :2])
    with pytest.raises(ValueError, match="same shape"):
        subspace_displacement(np.eye(3)[:1], np.eye(3)[:2])
    with pytest.raises(ValueError, match=r"basis \(k, N\)"):
        subspace_displacement(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="not finite"):
        subspace_displacement([[np.nan, 1.0]], [[0.0, 1.0]])


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(5, 30))
def test_subspace_overlap_sees_the_spans_alone(seed: int, k: int, n: int) -> None:
    v, w = rotation(seed, n)[:k], rotation(seed + 1, n)[:k]
    expected = subspace_overlap(np.abs(v @ w.T))
    assert expected.shape == (k,)
    assert (expected >= 0).all()
    assert (expected <= 1).all()
    turned = rotation(seed + 2, k) @ v
    assert subspace_overlap(turned @ (rotation(seed + 3, k) @ w).T)[-1] == pytest.approx(expected[-1], rel=1e-9)
    assert subspace_overlap(turned @ v.T)[-1] == pytest.approx(1, rel=1e-12)
    # O_1 is the squared overlap, and the last is that of the principal angles.
    assert expected[0] == pytest.approx(overlap(v[0], w[0]) ** 2, rel=1e-9)
    cosines = np.linalg.svd(v @ w.T, compute_uv=False)
    assert expected[-1] == pytest.approx((cosines**2).mean(), rel=1e-9)


def test_subspace_overlap_of_an_exchange_and_of_different_numbers() -> None:
    np.testing.assert_allclose(subspace_overlap(np.eye(3)[[1, 0, 2]]), [0, 1, 1])
    np.testing.assert_allclose(subspace_overlap(np.eye(2, 5)), [1, 1])
    assert subspace_overlap(np.zeros((3, 0))).shape == (0,)
    for wrong in ([0.5], [[1.5]], [[np.nan]]):
        with pytest.raises(ValueError, match="overlaps must be a matrix"):
            subspace_overlap(wrong)


def test_subspace_overlap_of_random_spans_is_k_over_n() -> None:
    k, n = 3, 40
    found = [subspace_overlap(rotation(seed, n)[:k] @ np.eye(n)[:, :k])[-1] for seed in range(400)]
    # Its standard error is 0.001.
    assert np.mean(found) == pytest.approx(random_subspace_overlap(k, n), abs=0.004)
    np.testing.assert_array_equal(random_subspace_overlap([1, 2], 4), [0.25, 0.5])
    with pytest.raises(ValueError, match="k must lie between 1 and n_parameters = 4"):
        random_subspace_overlap(5, 4)


def test_span_share_is_the_squared_norm_of_the_projection() -> None:
    v, d = rotation(4, 9)[:4], np.random.default_rng(5).standard_normal(9)
    shares = span_share(alignment(v, d))
    for k in range(1, 5):
        assert shares[k - 1] == pytest.approx(np.square(v[:k] @ d).sum() / (d @ d), rel=1e-12)
    np.testing.assert_array_equal(span_share(alignment(v, -d)), shares)
    np.testing.assert_allclose(span_share([0.6, 0.8]), [0.36, 1.0])
    assert np.isnan(span_share([np.nan, np.nan])).all()
    for wrong in ([[0.5]], [-0.1], [1.5]):
        with pytest.raises(ValueError, match="alignments must be"):
            span_share(wrong)


# smoothing


def test_smoothing_is_the_convolution_with_a_sampled_gaussian() -> None:
    sigma, impulse = 2.0, np.zeros(41)
    impulse[20] = 1
    offsets = np.arange(-20, 21)
    weights = np.where(np.abs(offsets) <= 4 * sigma, np.exp(-(offsets**2) / (2 * sigma**2)), 0)
    np.testing.assert_allclose(gaussian_smooth(impulse, sigma), weights / weights.sum(), atol=1e-15)


def test_smoothing_repeats_the_end_values() -> None:
    np.testing.assert_allclose(gaussian_smooth(np.full(5, 0.3), 10), 0.3, rtol=1e-14)
    ramp = np.linspace(0.2, 1.0, 20)
    longer = np.concatenate([np.full(50, 0.2), ramp, np.full(50, 1.0)])
    np.testing.assert_allclose(gaussian_smooth(ramp, 2), gaussian_smooth(longer, 2)[50:70], atol=1e-15)


def test_no_smoothing_gives_a_copy_of_the_series() -> None:
    series = np.array([3.0, 1.0, 2.0])
    smooth = gaussian_smooth(series, 0)
    np.testing.assert_array_equal(smooth, series)
    assert not np.shares_memory(smooth, series)


@pytest.mark.parametrize(
    ("series", "sigma", "message"),
    [
        ([1.0, np.nan], 1, "value 1 is not"),
        ([1.0, 2.0], -1, "sigma"),
        ([1.0, 2.0], np.nan, "sigma"),
        ([[1.0, 2.0]], 1, r"must be \(S,\)"),
        ([], 1, "at least one value"),
    ],
)
def test_smoothing_refuses_bad_input(series: Any, sigma: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gaussian_smooth(series, sigma)


# the bound on the angle of a computed eigenvector


def test_angle_bound_is_the_absolute_residual_over_the_gap() -> None:
    assert angle_bound(1e-3, 2.0, -10.0) == pytest.approx(1e-2 / 2, rel=1e-15)
    np.testing.assert_allclose(angle_bound([1e-3, 1e-2], [2.0, 0.05], 10.0), [0.005, 1.0])


@pytest.mark.parametrize("gap", [0.0, -1.0, np.nan, 5e-324])
def test_without_a_gap_nothing_is_bounded(gap: float) -> None:
    assert angle_bound(1e-3, gap, 1.0) == 1
    assert angle_bound(1e-3, np.inf, 1.0) == 0


@given(st.integers(0, 2**32 - 1), st.floats(1e-8, 0.3))
def test_angle_bound_holds(seed: int, size: float) -> None:
    generator = np.random.default_rng(seed)
    eigenvalues, basis = np.sort(generator.uniform(-5, 5, 6))[::-1], rotation(seed, 6)
    hessian = (basis * eigenvalues) @ basis.T
    true = basis[:, 0]
    v = unit(true + size * unit(generator.standard_normal(6)))
    rayleigh = v @ hessian @ v
    residual = np.linalg.norm(hessian @ v - rayleigh * v) / abs(rayleigh)
    sine = np.linalg.norm(v - (v @ true) * true)
    assert sine <= angle_bound(residual, np.abs(eigenvalues[1:] - rayleigh).min(), rayleigh) * (1 + 1e-6) + 1e-12


@pytest.mark.parametrize(("residual", "eigenvalue"), [(-1.0, 1.0), (np.nan, 1.0), (1.0, np.inf)])
def test_angle_bound_refuses_bad_input(residual: float, eigenvalue: float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        angle_bound(residual, 1.0, eigenvalue)
