"""The statistics of eigenvectors along a training run, as pure NumPy functions.

Layout: one vector is (N,), a series of S vectors is (S, N), one vector a row. Where a function takes several arguments,
a single vector is compared with every row of a series, and two series row by row. One vector each gives a scalar, a
series gives (S,).

An eigenvector has no sign, so every function gives the same for v and -v. Sums are taken in float64 whatever the
input's precision, a block of rows at a time, so memory-mapped float32 series are never copied whole. "Eigenvector"
arguments must have norm 1 within UNIT_TOLERANCE and are normalised to float64 precision; everything raises ValueError
for wrong shapes and for values that are not finite.

Equation numbers are those of Marjankowska, Modugno and Barucca (2026), arXiv:2606.30226.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d

Floats: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Any  # np.float64 for single vectors, float64 (S,) for a series

UNIT_TOLERANCE = 1e-3
BLOCK_ENTRIES = 1 << 20  # float64 entries held at a time: 8 MiB, so that the passes over a block stay in cache


def overlap(v: ArrayLike, w: ArrayLike) -> Statistic:
    """|cos| of the angle between v and w, each (N,) or (S, N), of any non-zero norm; from 0 to 1, no unit."""

    def statistic(v: Floats, w: Floats) -> Floats:
        for name, rows in (("v", v), ("w", w)):
            if not rows.any(axis=-1).all():
                raise ValueError(f"{name} holds a vector of norm 0, which has no direction")
        return _absolute_cosine(_directions(v), _directions(w))

    return _by_rows(statistic, v=v, w=w)


def displacement(v: ArrayLike, w: ArrayLike) -> Statistic:
    """Displacement (1/N) min(|v - w|^2, |v + w|^2) of unit eigenvectors, each (N,) or (S, N) (eq. 3).

    It lies between 0 and 2/N and has no unit. The minimum makes eq. 3 independent of the solver's choice of sign: it
    equals (2/N)(1 - |cos|). It is taken from the differences, so that it keeps its relative accuracy for nearly
    parallel vectors, where 1 - |cos| cancels.
    """

    def statistic(v: Floats, w: Floats) -> Floats:
        v, w = _unit("v", v), _unit("w", w)
        sign = np.where(np.vecdot(v, w) < 0, -1.0, 1.0)
        return _mean_square(v - sign[:, None] * w)

    return _by_rows(statistic, v=v, w=w)


def overlap_to_displacement(overlap: ArrayLike, n_parameters: int) -> Statistic:
    """Displacement (2/N)(1 - overlap) of unit vectors with a given |cos|, elementwise; no unit (appendix C)."""
    values = np.asarray(overlap, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("overlap must lie between 0 and 1")
    if n_parameters < 1:
        raise ValueError(f"n_parameters must be at least 1, not {n_parameters}")
    return (2.0 / n_parameters) * (1.0 - values)


def inverse_participation_ratio(v: ArrayLike) -> Statistic:
    """Inverse participation ratio sum_j v_j^4 of a unit eigenvector, (N,) or (S, N) (section 2).

    It lies between 1/N (spread evenly) and 1 (one parameter) and has no unit.
    """

    def statistic(v: Floats) -> Floats:
        squares = _unit("v", v) ** 2
        fourth_powers: Floats = np.vecdot(squares, squares)
        return fourth_powers

    return _by_rows(statistic, v=v)


def alignment(v: ArrayLike, direction: ArrayLike) -> Statistic:
    """|v . d/|d|| of a unit eigenvector and a gradient or an update d, each (N,) or (S, N) (eqs. 7 and 8).

    It lies between 0 and 1 and has no unit. It is nan where d = 0: such a d has no direction.
    """

    def statistic(v: Floats, direction: Floats) -> Floats:
        return _absolute_cosine(_unit("v", v), _directions(direction))

    return _by_rows(statistic, v=v, direction=direction)


def update_alignment(v: ArrayLike, theta_a: ArrayLike, theta_b: ArrayLike) -> Statistic:
    """Two-time update alignment |v . d/|d|| with d = theta_b - theta_a, each (N,) or (S, N); no unit (eq. 6).

    For eq. 6, v and theta_a belong to the waiting time, theta_b to the waiting time plus the lag. It is nan where the
    weights have not moved.
    """

    def statistic(v: Floats, theta_a: Floats, theta_b: Floats) -> Floats:
        return _absolute_cosine(_unit("v", v), _directions(theta_b - theta_a))

    return _by_rows(statistic, v=v, theta_a=theta_a, theta_b=theta_b)


def weight_displacement(theta_a: ArrayLike, theta_b: ArrayLike) -> Statistic:
    """Weight displacement (1/N)|theta_b - theta_a|^2 of parameter vectors, each (N,) or (S, N) (figure 10).

    Its unit is that of the parameters, squared. Baity-Jesi et al. (2018) divide it by the gradient noise; here, as in
    the paper, it is not divided.
    """

    def statistic(theta_a: Floats, theta_b: Floats) -> Floats:
        return _mean_square(theta_b - theta_a)

    return _by_rows(statistic, theta_a=theta_a, theta_b=theta_b)


def convergence(vectors: ArrayLike) -> Floats:
    """|v(t_final) . v(t)| of one eigenvector's series (S, N) with its own last row, (S,); no unit (figure 7)."""
    series = np.asarray(vectors)
    if series.ndim != 2 or not len(series):
        raise ValueError(f"vectors must be a series (S, N) with at least one row, not {series.shape}")
    result: Floats = alignment(series, series[-1])
    return result


def subspace_displacement(v: ArrayLike, w: ArrayLike) -> np.float64:
    """Displacement (2/N)(1 - mean_i cos(theta_i)) of the subspaces that the orthonormal rows of v and w span.

    v and w are (k, N); the result has no unit. theta_1..theta_k are the principal angles, whose cosines are the
    singular values of v w' (Bjorck and Golub 1973). It equals (1/(kN)) min |v - Q w|_F^2 over orthogonal Q, the
    distance of the two bases after the best rotation (Procrustes problem, Schonemann 1966), and is computed as that. So
    it depends on the subspaces alone, not on the sign, the order or a rotation of the vectors, lies between 0 and 2/N,
    and is the displacement of eq. 3 for k = 1.
    """
    bases = [_orthonormal(name, np.asarray(basis)) for name, basis in (("v", v), ("w", w))]
    if bases[0].shape != bases[1].shape:
        raise ValueError(f"v and w must have the same shape (k, N), not {bases[0].shape} and {bases[1].shape}")
    left, _, right = np.linalg.svd(bases[0] @ bases[1].T)
    return np.float64(_mean_square(bases[0] - (left @ right) @ bases[1]).mean())


def subspace_overlap(overlaps: ArrayLike) -> Floats:
    """O_k = |V_s' V_t|_F^2 / k of the spans of v_1..v_k at two times, for every k from 1 on; from 0 to 1, no unit.

    Args:
        overlaps: C_ij = |v_i(s) . v_j(t)| (k, m) of two orthonormal bases.

    Returns:
        O_1, O_2, ... up to the smaller of k and m. O_k is the mean squared cosine of the principal angles, and depends
        on the two spans alone. Of two random spans in N dimensions it is k/N on average (`random_subspace_overlap`).
        Gur-Ari, Roberts and Dyer (2018), arXiv:1812.04754.
    """
    squares = np.asarray(overlaps, dtype=np.float64) ** 2
    if squares.ndim != 2 or not (squares <= 1 + UNIT_TOLERANCE).all():
        raise ValueError(f"overlaps must be a matrix (k, m) of numbers from 0 to 1; its shape is {squares.shape}")
    sums = np.diagonal(squares.cumsum(axis=0).cumsum(axis=1))
    result: Floats = np.minimum(sums / np.arange(1, len(sums) + 1), 1.0)
    return result


def random_subspace_overlap(k: ArrayLike, n_parameters: int) -> Statistic:
    """The mean k/N of `subspace_overlap` of a fixed and a random span of k vectors in N dimensions; no unit."""
    dimensions = np.asarray(k, dtype=np.float64)
    if not ((dimensions >= 1) & (dimensions <= n_parameters)).all():
        raise ValueError(f"k must lie between 1 and n_parameters = {n_parameters}, not {dimensions}")
    return dimensions / n_parameters


def span_share(alignments: ArrayLike) -> Floats:
    """Share |P_k d|^2/|d|^2 of a direction's squared norm within the span of v_1..v_k, for every k; no unit.

    Args:
        alignments: |v_i . d/|d|| (k,) of orthonormal v_1..v_k in their order, or nan for a d of norm 0.

    Returns:
        The sums of squares up to each k (k,), from 0 to 1; nan for a d of norm 0.
    """
    values = np.asarray(alignments, dtype=np.float64)
    if values.ndim != 1 or (values < 0).any() or (values > 1 + UNIT_TOLERANCE).any():
        raise ValueError(f"alignments must be (k,) and lie between 0 and 1, not {values}")
    result: Floats = np.minimum((values**2).cumsum(), 1.0)
    return result


def gaussian_smooth(series: ArrayLike, sigma: float) -> Floats:
    """A series (S,) convolved with a Gaussian of standard deviation `sigma`, in snapshots (figures 7 and 12).

    The end values are repeated beyond the ends. sigma = 0 gives the series itself. A value that is not finite raises
    ValueError, for it would spread over its neighbours.
    """
    values = np.array(series, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"series must be (S,) with at least one value, not {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"series must be finite; value {int(np.flatnonzero(~np.isfinite(values))[0])} is not")
    if not (np.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma must be finite and at least 0, not {sigma}")
    if sigma > 0:
        values = np.asarray(gaussian_filter1d(values, sigma, mode="nearest"), dtype=np.float64)
    return values


def angle_bound(residual: ArrayLike, gap: ArrayLike, eigenvalue: ArrayLike) -> Statistic:
    """Upper bound |Hv - lambda v|/gap, at most 1, on the sine of the angle between computed and true eigenvector.

    Elementwise, for v of norm 1 and lambda = v'Hv. `residual` is relative, |Hv - lambda v|/|lambda|; `gap` is the
    distance from lambda to the nearest other eigenvalue (for an inner pair the nearer of its two neighbours), in the
    unit of the eigenvalue. A gap that is 0, negative or nan (unknown) bounds nothing and gives 1.
    Davis and Kahan (1970); Parlett (1998), theorem 11.7.1.
    """
    relative, distance, value = (np.asarray(x, dtype=np.float64) for x in (residual, gap, eigenvalue))
    if not (np.isfinite(relative) & (relative >= 0)).all():
        raise ValueError("residual must be finite and at least 0")
    if not np.isfinite(value).all():
        raise ValueError("eigenvalue must be finite")
    norm, distance = np.broadcast_arrays(relative * np.abs(value), distance)
    bound = np.ones(norm.shape)
    np.divide(norm, distance, out=bound, where=distance > norm)
    return bound[()]


def _by_rows(statistic: Callable[..., Floats], **arguments: ArrayLike) -> Statistic:
    """Evaluate `statistic` on float64 blocks (rows, N) of the arguments; single vectors go with every row."""
    arrays = {name: _vectors(name, argument) for name, argument in arguments.items()}
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    if len({array.shape[-1] for array in arrays.values()}) > 1:
        raise ValueError(f"the vectors must have the same length: {shapes}")
    lengths = {len(array) for array in arrays.values() if array.ndim == 2}
    if len(lengths) > 1:
        raise ValueError(f"the series must have the same number of rows: {shapes}")
    rows = lengths.pop() if lengths else None
    single = {name: _float64(name, array[None]) for name, array in arrays.items() if array.ndim == 1}
    if rows is None:
        return statistic(**single)[0]
    height = max(1, BLOCK_ENTRIES // next(iter(arrays.values())).shape[-1])
    result = np.empty(rows)
    for start in range(0, rows, height):
        block = {
            name: _float64(name, array[start : start + height]) for name, array in arrays.items() if array.ndim == 2
        }
        result[start : start + height] = statistic(**block, **single)
    return result


def _vectors(name: str, argument: ArrayLike) -> NDArray[Any]:
    array = np.asarray(argument)
    if array.ndim not in (1, 2) or not array.size:
        raise ValueError(f"{name} must be a vector (N,) or a series (S, N), not empty; its shape is {array.shape}")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must hold real numbers, not {array.dtype}")
    return array


def _float64(name: str, array: NDArray[Any]) -> Floats:
    rows = array.astype(np.float64)
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} holds a value that is not finite")
    return rows


def _unit(name: str, rows: Floats) -> Floats:
    norms = np.sqrt(np.vecdot(rows, rows))
    wrong = np.abs(norms - 1.0) > UNIT_TOLERANCE
    if wrong.any():
        raise ValueError(
            f"{name} must hold unit vectors, one a row (columns need .T); one has norm {norms[wrong][0]:.6g}"
        )
    result: Floats = rows / norms[:, None]
    return result


def _directions(rows: Floats) -> Floats:
    """Rows divided by their norms, nan for norm 0; scaled first, for the squares of tiny entries vanish."""
    peaks = np.abs(rows).max(axis=-1, keepdims=True)
    scaled = np.divide(rows, peaks, out=np.full_like(rows, np.nan), where=peaks > 0)
    result: Floats = scaled / np.sqrt(np.vecdot(scaled, scaled))[:, None]
    return result


def _absolute_cosine(v: Floats, w: Floats) -> Floats:
    result: Floats = np.minimum(np.abs(np.vecdot(v, w)), 1.0)
    return result


def _mean_square(rows: Floats) -> Floats:
    result: Floats = np.vecdot(rows, rows) / rows.shape[-1]
    return result


def _orthonormal(name: str, basis: NDArray[Any]) -> Floats:
    """The nearest exactly orthonormal rows in float64, of rows that are orthonormal within UNIT_TOLERANCE."""
    if basis.ndim != 2:
        raise ValueError(f"{name} must be a basis (k, N), not {basis.shape}")
    rows = _float64(name, _vectors(name, basis))
    if len(rows) > rows.shape[1] or np.abs(rows @ rows.T - np.eye(len(rows))).max() > UNIT_TOLERANCE:
        raise ValueError(f"{name} must hold orthonormal rows, one basis vector a row (columns need .T)")
    left, _, right = np.linalg.svd(rows, full_matrices=False)
    result: Floats = left @ right
    return result
