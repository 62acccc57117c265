"""Which eigenvector is which after the eigenvalues have crossed, from overlaps |cos| alone; no units.

The i-th eigenvector is the one of the i-th largest eigenvalue: where two eigenvalues cross, v_1 and v_2 exchange
places, and v_1 seems to jump by 90 degrees. Here a direction is followed instead. C_ij = |v_i(s) . v_j(t)| are the
overlaps of two orthonormal bases, so that the squares of a row and those of a column sum to at most 1, and at most one
entry of a row and of a column has a square above 1/2: a direction that keeps more than half of its square has one
successor, and that has one predecessor. An overlap has no sign, so nothing here depends on those of the vectors.

A computed eigenvector lies within an angle a of the true one, of which the solver bounds the sine
(`metrics.angle_bound`). Angles between lines obey the triangle inequality, so that the true overlap lies between
cos(arccos C + a + b) and cos(arccos C - a - b), both angles kept within 0 and 90 degrees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from eigendrift.metrics import UNIT_TOLERANCE, Floats

Integers = NDArray[np.int64]
Truths = NDArray[np.bool_]

# C^2 > 1/2: the angle is below 45 degrees.
LARGEST_ANGLE = np.pi / 4


@dataclass(frozen=True)
class Matching:
    """For each of k vectors its partner among m others.

    Attributes:
        partner: Index of the partner (k,), from 0; -1 for a vector without one (m < k).
        overlap: |cos| with the partner (k,); nan without one.
        accepted: Whether the overlap's square is above 1/2 (k,): the partner is the same direction, rotated.
    """

    partner: Integers
    overlap: Floats
    accepted: Truths


def match(overlaps: ArrayLike) -> Matching:
    """Assign the vectors of two bases to each other, one to one, from their overlaps.

    Accepted partners, C^2 > 1/2, are unique by themselves. The others are assigned so that the sum of all overlaps is
    largest (`scipy.optimize.linear_sum_assignment`). That assignment alone would now and then give up one overlap above
    1/sqrt(2) for two below it.

    Args:
        overlaps: C_ij = |v_i(s) . v_j(t)| (k, m), without a unit.

    Returns:
        The partner of each of the k vectors.

    Raises:
        ValueError: C is not (k, m), not within 0 and 1, or not the matrix of two orthonormal bases.

    Example:
        >>> match([[0.1, 0.9], [0.8, 0.2]]).partner.tolist()
        [1, 0]
    """
    matrix = _checked(overlaps)
    good = matrix > np.cos(LARGEST_ANGLE)
    rows, columns = linear_sum_assignment(matrix + min(matrix.shape, default=0) * good, maximize=True)
    partner = np.full(len(matrix), -1)
    overlap, accepted = np.full(len(matrix), np.nan), np.zeros(len(matrix), bool)
    partner[rows], overlap[rows], accepted[rows] = columns, matrix[rows, columns], good[rows, columns]
    return Matching(partner, overlap, accepted)


def certified(overlaps: ArrayLike, first_bounds: ArrayLike, second_bounds: ArrayLike) -> Truths:
    """Where the true eigenvectors too have an overlap above 1/sqrt(2), whatever the solver's errors.

    Args:
        overlaps: C (k, m), without a unit.
        first_bounds: Bounds (k,) on the sine of the angle between computed and true v_i(s); 1 bounds nothing.
        second_bounds: The same bounds (m,) for v_j(t).

    Returns:
        Whether the overlap of the true v_i(s) and v_j(t) is certain to be above 1/sqrt(2), (k, m) bool.

    Raises:
        ValueError: C is refused by `match`, or bounds are not within 0 and 1 or not one a vector.

    Example:
        >>> certified([[0.9, 0.1]], first_bounds=[1e-3], second_bounds=[1e-3, 1.0]).tolist()
        [[True, False]]
    """
    angles, slack = _angles(overlaps, first_bounds, second_bounds)
    found: Truths = np.minimum(angles + slack, np.pi / 2) < LARGEST_ANGLE
    return found


def broken(overlaps: ArrayLike, first_bounds: ArrayLike, second_bounds: ArrayLike) -> Truths:
    """For which i no j has a true overlap above 1/sqrt(2), whatever the solver's errors.

    The statement covers only the m given vectors: v_i may continue as a vector whose eigenvalue is smaller than theirs.

    Args:
        overlaps: C (k, m), without a unit.
        first_bounds: Bounds (k,) on the sine of the angle between computed and true v_i(s); 1 bounds nothing.
        second_bounds: The same bounds (m,) for v_j(t).

    Returns:
        Whether v_i(s) is certain to have no successor among the m vectors, (k,) bool.

    Raises:
        ValueError: C is refused by `match`, or bounds are not within 0 and 1 or not one a vector.

    Example:
        >>> broken([[0.1, 0.2], [0.9, 0.1]], [1e-3, 1e-3], [1e-3, 1e-3]).tolist()
        [True, False]
    """
    angles, slack = _angles(overlaps, first_bounds, second_bounds)
    return np.asarray((np.maximum(angles - slack, 0.0) > LARGEST_ANGLE).all(axis=1), dtype=np.bool_)


def start_tracks(count: int) -> Integers:
    """Numbers of the tracks that begin at a first snapshot.

    Args:
        count: Number of vectors k at the snapshot.

    Returns:
        1, 2, ..., (k,) int64.

    Example:
        >>> start_tracks(3).tolist()
        [1, 2, 3]
    """
    return np.arange(1, count + 1)


def continue_tracks(tracks: ArrayLike, matching: Matching, count: int, next_track: int) -> Integers:
    """Numbers of the tracks at the next snapshot: those of accepted predecessors, and new ones for the other vectors.

    Args:
        tracks: Numbers (k,) at the snapshot before.
        matching: The matching of its k vectors with the `count` vectors of the next snapshot.
        count: Number of vectors m at the next snapshot.
        next_track: The first number that no track has had.

    Returns:
        One number a vector, (m,) int64.

    Raises:
        ValueError: The matching is one of other numbers of vectors.

    Example:
        >>> continue_tracks([1, 2], match([[0.1, 0.9], [0.3, 0.2]]), count=2, next_track=3).tolist()
        [3, 1]
    """
    before = np.asarray(tracks, dtype=np.int64)
    if before.shape != matching.partner.shape or matching.partner.max(initial=-1) >= count:
        raise ValueError(f"matching is one of {matching.partner.shape} vectors, and tracks has {before.shape}")
    found = np.zeros(count, np.int64)
    found[matching.partner[matching.accepted]] = before[matching.accepted]
    new = found == 0
    found[new] = next_track + np.arange(int(new.sum()))
    return found


def predecessors(matching: Matching, count: int) -> Integers:
    """For each vector of the next snapshot the vector of the one before that it is assigned to.

    Args:
        matching: The matching of the vectors before with the `count` vectors of the next snapshot.
        count: Number of vectors m at the next snapshot.

    Returns:
        Indices from 0, (m,) int64; -1 for a vector without a predecessor.

    Example:
        >>> predecessors(match([[0.1, 0.9]]), count=2).tolist()
        [-1, 0]
    """
    found = np.full(count, -1)
    known = matching.partner >= 0
    found[matching.partner[known]] = np.flatnonzero(known)
    return found


def exchange_share(displacement: ArrayLike, followed: ArrayLike) -> Floats:
    """Share 1 - D_followed/D of a displacement that the order of the vectors alone accounts for, elementwise.

    Args:
        displacement: D of v_i(s) and v_i(t), of any shape, in any unit.
        followed: D of v_i(s) and its accepted partner v_j(t), in the same unit; nan where there is none. Then nothing
            is known to be an exchange, and the share is 0, as it is where nothing has moved.

    Returns:
        Shares from 0 to 1 of the common shape, without a unit.

    Raises:
        ValueError: A displacement is negative, or `displacement` is not finite.

    Example:
        >>> exchange_share([1.0, 1.0], [0.25, float("nan")]).tolist()
        [0.75, 0.0]
    """
    whole, remaining = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (displacement, followed)))
    if not (np.isfinite(whole) & (whole >= 0)).all() or (remaining < 0).any():
        raise ValueError("displacement must be finite, and both at least 0")
    share = np.zeros(whole.shape)
    np.divide(whole - remaining, whole, out=share, where=(whole > 0) & np.isfinite(remaining))
    result: Floats = np.clip(share, 0.0, 1.0)
    return result


def _checked(overlaps: ArrayLike) -> Floats:
    matrix = np.asarray(overlaps, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"overlaps must be a matrix (k, m), not {matrix.shape}")
    wrong = ~((matrix >= 0) & (matrix <= 1))
    if wrong.any():
        raise ValueError(f"overlaps must lie between 0 and 1; one is {matrix[wrong][0]:.6g}")
    largest = max((matrix**2).sum(axis=axis).max(initial=0.0) for axis in (0, 1))
    if largest > 1 + 10 * UNIT_TOLERANCE:
        raise ValueError(f"overlaps must be those of orthonormal vectors; a row's squares sum to {largest:.6g}")
    return matrix


def _angles(overlaps: ArrayLike, first_bounds: ArrayLike, second_bounds: ArrayLike) -> tuple[Floats, Floats]:
    """Angles (k, m) between computed vectors, and by how much those between the true ones may differ, in radians."""
    matrix = _checked(overlaps)
    bounds: Sequence[Floats] = [np.asarray(x, dtype=np.float64) for x in (first_bounds, second_bounds)]
    for name, bound, expected in zip(("first_bounds", "second_bounds"), bounds, matrix.shape, strict=True):
        if bound.shape != (expected,):
            raise ValueError(f"{name} must be ({expected},), one a vector, not {bound.shape}")
        wrong = ~((bound >= 0) & (bound <= 1))
        if wrong.any():
            raise ValueError(f"{name} must be sines, between 0 and 1; one is {bound[wrong][0]:.6g}")
    first, second = (np.arcsin(bound) for bound in bounds)
    return np.arccos(matrix), first[:, None] + second[None, :]
