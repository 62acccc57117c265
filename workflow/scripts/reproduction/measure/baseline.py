"""The displacement baseline: how far apart the eigenvectors of independent initializations lie (the paper's eq. 4)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student_t

from eigendrift.metrics import overlap_to_displacement

CONFIDENCE = 0.95
BLOCK_ENTRIES = 1 << 22  # float64 entries held at a time: 32 MiB


@dataclass(frozen=True)
class BaselineStatistics:
    """Means over all pairs of initializations, each with the ends of its 95% interval; no units.

    `mean_overlap` is the paper's tau, the mean |cos|; `displacement` its tau_i, eq. 4.
    """

    mean_overlap: float
    overlap_low: float
    overlap_high: float
    displacement: float
    displacement_low: float
    displacement_high: float
    n_initializations: int


def no_baseline() -> BaselineStatistics:
    """Where there are no random initializations to compare: nothing is known."""
    nan = float("nan")
    return BaselineStatistics(nan, nan, nan, nan, nan, nan, n_initializations=0)


def pairwise_overlaps(vectors: ArrayLike) -> NDArray[np.float64]:
    """|cos| between all pairs of M vectors (M, N), one a row: a symmetric matrix (M, M) with ones on its diagonal.

    Products are summed in float64 over blocks of parameters, so a memory-mapped float32 array is never copied whole.
    Raises ValueError for a wrong shape, values that are not finite, and vectors of norm 0.
    """
    rows = np.asarray(vectors)
    if rows.ndim != 2 or not rows.size or rows.dtype.kind not in "iuf":
        raise ValueError(f"vectors must be real and (M, N), not {rows.dtype} and {rows.shape}")
    gram = _gram(rows)
    norms = np.sqrt(np.diagonal(gram))
    if not np.isfinite(norms).all():
        raise ValueError(f"vectors must be finite; row {int(np.flatnonzero(~np.isfinite(norms))[0])} is not")
    if not norms.all():
        raise ValueError(f"vectors must not be 0; row {int(np.flatnonzero(norms == 0)[0])} has no direction")
    overlaps: NDArray[np.float64] = np.minimum(np.abs(gram) / np.outer(norms, norms), 1.0)
    np.fill_diagonal(overlaps, 1.0)
    return overlaps


def baseline_statistics(overlaps: ArrayLike, n_parameters: int) -> BaselineStatistics:
    """Mean overlap and mean displacement over all pairs of M >= 3 initializations, each with its 95% interval.

    `overlaps` is the matrix (M, M) of pairwise_overlaps; anything else raises ValueError. The M(M-1)/2 pairs share
    vectors, so they are not independent and their spread over sqrt(pairs) would be too small an error. The mean over
    pairs is a U-statistic of the M independent initializations; its standard error is taken by leaving out one
    initialization at a time (delete-one jackknife of U-statistics, Arvesen 1969; not too small on average, Efron and
    Stein 1981), and the interval is Student's t with M - 1 degrees of freedom, cut to the possible values 0..1.
    Displacement is (2/N)(1 - overlap), so its mean and its interval follow from those of the overlap.
    """
    matrix = _checked(np.asarray(overlaps, dtype=np.float64))
    mean, error = _jackknife(matrix)
    reach = float(student_t.ppf((1 + CONFIDENCE) / 2, len(matrix) - 1)) * error
    low, high = max(mean - reach, 0.0), min(mean + reach, 1.0)
    return BaselineStatistics(
        mean_overlap=mean,
        overlap_low=low,
        overlap_high=high,
        displacement=float(overlap_to_displacement(mean, n_parameters)),
        displacement_low=float(overlap_to_displacement(high, n_parameters)),
        displacement_high=float(overlap_to_displacement(low, n_parameters)),
        n_initializations=len(matrix),
    )


def _gram(rows: NDArray[Any]) -> NDArray[np.float64]:
    gram = np.zeros((len(rows), len(rows)))
    width = max(1, BLOCK_ENTRIES // len(rows))
    for start in range(0, rows.shape[1], width):
        block = rows[:, start : start + width].astype(np.float64)
        gram += block @ block.T
    return gram


def _checked(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 3:
        raise ValueError(f"overlaps must be a square matrix of at least 3 initializations, not {matrix.shape}")
    if not ((matrix >= 0) & (matrix <= 1)).all() or not np.array_equal(matrix, matrix.T):
        raise ValueError("overlaps must be symmetric and lie between 0 and 1")
    return matrix


def _jackknife(matrix: NDArray[np.float64]) -> tuple[float, float]:
    """Mean U over pairs, and its standard error sqrt((M-1)/M sum_m (U_(-m) - U)^2), U_(-m) the mean without m."""
    m = len(matrix)
    sums = matrix.sum(axis=1) - np.diagonal(matrix)
    total = sums.sum() / 2
    mean = total / (m * (m - 1) / 2)
    without_one = (total - sums) / ((m - 1) * (m - 2) / 2)
    return float(min(mean, 1.0)), float(np.sqrt((m - 1) / m * ((without_one - mean) ** 2).sum()))
