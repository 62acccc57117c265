"""Which eigenvector is which after the eigenvalues have crossed, from overlaps |cos| alone; no units.

The i-th eigenvector is the one of the i-th largest eigenvalue: where two eigenvalues cross, v_1 and v_2 change places,
and v_1 seems to jump by 90 degrees. Here a direction is followed instead. C_ij = |v_i(s) . v_j(t)| are the overlaps of
two orthonormal bases, so that the squares of a row and those of a column sum to at most 1, and at most one entry of a
row and of a column has a square above 1/2: a direction that keeps more than half of its square has one successor, and
that has one predecessor. An overlap has no sign, so nothing here depends on those of the vectors.

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
        partner: Index of the partner (k,), from 0; -1 where there is none to be had (m < k).
        overlap: |cos| with the partner (k,); nan without one.
        accepted: Whether the overlap's square is above 1/2 (k,): the partner is the same direction, moved.
    """

    partner: Integers
    overlap: Floats
    accepted: Truths


def match(overlaps: ArrayLike) -> Matching:
    """Assign the vectors of two bases to each other, one to one, from their overlaps C (k, m).

    Accepted partners, C^2 > 1/2, are unique by themselves. The others are assigned so that the sum of all overlaps is
    largest (`scipy.optimize.linear_sum_assignment`), which alone would now and then give up one overlap above 1/sqrt(2)
    for two below it.

    Raises:
        ValueError: If C is not (k, m), not within 0 and 1, or not that of two orthonormal bases.
    """
    matrix = _checked(overlaps)
    good = matrix > np.cos(LARGEST_ANGLE)
    rows, columns = linear_sum_assignment(matrix + min(matrix.shape, default=0) * good, maximize=True)
    partner = np.full(len(matrix), -1)
    overlap, accepted = np.full(len(matrix), np.nan), np.zeros(len(matrix), bool)
    partner[rows], overlap[rows], accepted[rows] = columns, matrix[rows, columns], good[rows, columns]
    return Matching(partner, overlap, accepted)


def certified(overlaps: ArrayLike, first_bounds: ArrayLike, second_bounds: ArrayLike) -> Truths:
    """Where the true eigenvectors too have an overlap above 1/sqrt(2), whatever the solver's errors: (k, m).

    Args:
        overlaps: C (k, m).
        first_bounds: Bounds (k,) on the sine of the angle between computed and true v_i(s); 1 bounds nothing.
        second_bounds: The same (m,) of v_j(t).

    Raises:
        ValueError: As `match`, and for bounds that are not within 0 and 1 or of another number.
    """
    angles, slack = _angles(overlaps, first_bounds, second_bounds)
    found: Truths = np.minimum(angles + slack, np.pi / 2) < LARGEST_ANGLE
    return found


def broken(overlaps: ArrayLike, first_bounds: ArrayLike, second_bounds: ArrayLike) -> Truths:
    """For which i no j has a true overlap above 1/sqrt(2), whatever the solver's errors: (k,).

    Arguments and errors are those of `certified`. It speaks of the m vectors that there are: v_i may go on as one whose
    eigenvalue is smaller than theirs.
    """
    angles, slack = _angles(overlaps, first_bounds, second_bounds)
    return np.asarray((np.maximum(angles - slack, 0.0) > LARGEST_ANGLE).all(axis=1), dtype=np.bool_)


def start_tracks(count: int) -> Integers:
    """Numbers (k,) of the tracks that begin at a first snapshot of k vectors: 1, 2, ..."""
    return np.arange(1, count + 1)


def continue_tracks(tracks: ArrayLike, matching: Matching, count: int, next_track: int) -> Integers:
    """Numbers (m,) of the tracks at the next snapshot: those of accepted predecessors, and new ones from `next_track`.

    Args:
        tracks: Numbers (k,) at the snapshot before.
        matching: Of its vectors with the `count` = m ones of the next.
        count: m.
        next_track: The first number that no track has had.
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
    """For each of the m = `count` vectors the index of the one that it is assigned to, from 0; -1 without one."""
    found = np.full(count, -1)
    known = matching.partner >= 0
    found[matching.partner[known]] = np.flatnonzero(known)
    return found


def exchange_share(displacement: ArrayLike, followed: ArrayLike) -> Floats:
    """Share 1 - D_followed/D of a displacement that goes with the order of the vectors alone; from 0 to 1, elementwise.

    `displacement` is that of v_i(s) to v_i(t), `followed` that of v_i(s) to its accepted partner v_j(t), nan where it
    has none: nothing is known to be an exchange then, and the share is 0, as it is where nothing has moved.
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
