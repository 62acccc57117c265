"""The displacement baseline against closed forms and brute force over pairs."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import t as student_t

from eigendrift.metrics import displacement, overlap
from reproduction.measure import baseline as module
from reproduction.measure.baseline import BaselineStatistics, baseline_statistics, pairwise_overlaps

Floats = NDArray[np.float64]


def vectors(seed: int, m: int, n: int) -> Floats:
    rows = np.random.default_rng(seed).standard_normal((m, n))
    result: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return result


def statistics(rows: Floats) -> BaselineStatistics:
    return baseline_statistics(pairwise_overlaps(rows), rows.shape[1])


@pytest.mark.parametrize("entries", [1, 100, 1 << 22])
def test_pairwise_overlaps_are_the_overlaps_of_all_pairs(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_ENTRIES", entries)
    rows = vectors(0, 6, 40)
    overlaps = pairwise_overlaps(3 * rows)
    np.testing.assert_array_equal(overlaps, overlaps.T)
    np.testing.assert_array_equal(np.diagonal(overlaps), 1)
    for first, second in combinations(range(6), 2):
        assert overlaps[first, second] == pytest.approx(overlap(rows[first], rows[second]), rel=1e-12, abs=1e-15)


def test_float32_vectors_are_multiplied_in_float64(tmp_path: Path) -> None:
    rows = vectors(0, 4, 5000).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    np.testing.assert_array_equal(pairwise_overlaps(mapped), pairwise_overlaps(rows.astype(np.float64)))


def test_orthogonal_vectors_have_no_overlap_and_displacement_two_over_n() -> None:
    result = statistics(np.eye(8)[:5])
    assert (result.mean_overlap, result.overlap_low, result.overlap_high) == (0, 0, 0)
    assert (result.displacement, result.displacement_low, result.displacement_high) == (2 / 8, 2 / 8, 2 / 8)
    assert result.n_initializations == 5


def test_equal_vectors_of_any_sign_have_no_displacement() -> None:
    result = statistics(np.outer([1, -1, 1, -1], vectors(0, 1, 9)[0]))
    assert result.mean_overlap == pytest.approx(1, rel=1e-14)
    assert result.displacement == pytest.approx(0, abs=1e-14)


@given(st.integers(0, 2**32 - 1), st.integers(3, 9), st.integers(2, 20))
def test_means_and_jackknife_agree_with_brute_force(seed: int, m: int, n: int) -> None:
    rows = vectors(seed, m, n)

    def mean(kept: list[int]) -> float:
        return float(np.mean([overlap(rows[a], rows[b]) for a, b in combinations(kept, 2)]))

    whole = mean(list(range(m)))
    without_one = np.array([mean([j for j in range(m) if j != left_out]) for left_out in range(m)])
    error = np.sqrt((m - 1) / m * ((without_one - without_one.mean()) ** 2).sum())
    reach = student_t.ppf(0.975, m - 1) * error
    result = statistics(rows)
    assert result.mean_overlap == pytest.approx(whole, rel=1e-10)
    assert result.overlap_low == pytest.approx(max(whole - reach, 0), rel=1e-7, abs=1e-7)
    assert result.overlap_high == pytest.approx(min(whole + reach, 1), rel=1e-7, abs=1e-7)
    displacements = [displacement(rows[a], rows[b]) for a, b in combinations(range(m), 2)]
    assert result.displacement == pytest.approx(np.mean(displacements), rel=1e-9, abs=1e-14)
    assert result.displacement_low == pytest.approx(2 / n * (1 - result.overlap_high), rel=1e-12)
    assert result.displacement_high == pytest.approx(2 / n * (1 - result.overlap_low), rel=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_signs_and_order_do_not_matter(seed: int) -> None:
    rows, generator = vectors(seed, 7, 12), np.random.default_rng(seed)
    changed = generator.permutation(rows * generator.choice([-1, 1], (7, 1)))
    ours, theirs = statistics(rows), statistics(changed)
    assert theirs.mean_overlap == pytest.approx(ours.mean_overlap, rel=1e-12)
    assert theirs.overlap_low == pytest.approx(ours.overlap_low, rel=1e-9, abs=1e-12)


def test_mean_overlap_on_the_sphere() -> None:
    n = 1000
    result = statistics(vectors(0, 100, n))
    assert result.overlap_low < np.sqrt(2 / (np.pi * n)) < result.overlap_high
    assert result.mean_overlap == pytest.approx(np.sqrt(2 / (np.pi * n)), rel=0.05)


def test_the_interval_covers_the_mean_where_pairs_are_dependent() -> None:
    """A common part of random strength makes pairs dependent: the error of independent pairs is far too small."""
    covered, naive, n, repeats = 0, 0, 30, 300
    generator = np.random.default_rng(0)

    def sample(m: int) -> Floats:
        rows: Floats = generator.standard_normal((m, n)) / np.sqrt(n)
        rows[:, 0] = generator.exponential(1.0, m)
        return rows

    many = pairwise_overlaps(sample(3000))
    truth = many[np.triu_indices(3000, 1)].mean()
    for _ in range(repeats):
        overlaps = pairwise_overlaps(sample(20))
        result, pairs = baseline_statistics(overlaps, n), overlaps[np.triu_indices(20, 1)]
        covered += result.overlap_low <= truth <= result.overlap_high
        naive += abs(pairs.mean() - truth) <= 1.96 * pairs.std(ddof=1) / np.sqrt(len(pairs))
    assert 0.9 <= covered / repeats <= 0.99
    assert naive / repeats < 0.6


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.ones(3), r"\(M, N\)"),
        (np.ones((0, 3)), r"\(M, N\)"),
        (np.array([[1.0, np.nan], [1.0, 0.0]]), "row 0 is not"),
        (np.array([[1.0, 2.0], [0.0, 0.0]]), "row 1 has no direction"),
        (np.array([[1j, 2.0]]), "real"),
    ],
)
def test_vectors_without_overlaps_are_refused(rows: Floats, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pairwise_overlaps(rows)


@pytest.mark.parametrize(
    ("overlaps", "message"),
    [
        (np.eye(2), "at least 3"),
        (np.ones((3, 4)), "square"),
        (np.ones(3), "square"),
        (np.eye(3) - 0.1, "between 0 and 1"),
        (np.full((3, 3), np.nan), "between 0 and 1"),
        (np.triu(np.ones((3, 3))), "symmetric"),
    ],
)
def test_what_is_no_matrix_of_overlaps_is_refused(overlaps: Floats, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        baseline_statistics(overlaps, 10)
