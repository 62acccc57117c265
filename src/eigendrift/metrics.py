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
BLOCK_ENTRIES = 1 << 20  # float64 entries a block: 8 MiB, so that the passes over a block stay in cache


def overlap(v: ArrayLike, w: ArrayLike) -> Statistic:
    """Overlap |cos| of the angle between v and w.

    Args:
        v: (N,) or (S, N), of any norm but 0.
        w: (N,) or (S, N), of any norm but 0.

    Returns:
        A number from 0 to 1 without a unit, or one a row, (S,).

    Raises:
        ValueError: The shapes do not fit, a value is not finite, or a vector has norm 0 and so no direction.

    Example:
        >>> round(float(overlap([1.0, 0.0], [-1.0, 1.0])), 4)
        0.7071
    """

    def statistic(v: Floats, w: Floats) -> Floats:
        for name, rows in (("v", v), ("w", w)):
            if not rows.any(axis=-1).all():
                raise ValueError(f"{name} holds a vector of norm 0, which has no direction")
        return _absolute_cosine(_directions(v), _directions(w))

    return _by_rows(statistic, v=v, w=w)


def displacement(v: ArrayLike, w: ArrayLike) -> Statistic:
    """Displacement (1/N) min(|v - w|^2, |v + w|^2) of unit eigenvectors (eq. 3).

    The minimum makes eq. 3 independent of the sign that a solver gives a vector: it equals (2/N)(1 - |cos|). It is
    computed from the differences, so that it keeps its relative accuracy for nearly parallel vectors, where 1 - |cos|
    cancels.

    Args:
        v: Unit vectors, (N,) or (S, N).
        w: Unit vectors, (N,) or (S, N).

    Returns:
        A number from 0 to 2/N without a unit, or one a row, (S,).

    Raises:
        ValueError: The shapes do not fit, a value is not finite, or a norm is not 1.

    Example:
        >>> float(displacement([1.0, 0.0], [0.0, -1.0]))
        1.0
    """

    def statistic(v: Floats, w: Floats) -> Floats:
        v, w = _unit("v", v), _unit("w", w)
        sign = np.where(np.vecdot(v, w) < 0, -1.0, 1.0)
        return _mean_square(v - sign[:, None] * w)

    return _by_rows(statistic, v=v, w=w)


def overlap_to_displacement(overlap: ArrayLike, n_parameters: int) -> Statistic:
    """Displacement (2/N)(1 - overlap) of unit vectors with a given overlap, elementwise (appendix C).

    Args:
        overlap: |cos|, of any shape, from 0 to 1.
        n_parameters: N, at least 1.

    Returns:
        Displacements of the same shape, without a unit.

    Raises:
        ValueError: An overlap is not between 0 and 1, or N is below 1.

    Example:
        >>> float(overlap_to_displacement(0.5, 100))
        0.01
    """
    values = np.asarray(overlap, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("overlap must lie between 0 and 1")
    if n_parameters < 1:
        raise ValueError(f"n_parameters must be at least 1, not {n_parameters}")
    return (2.0 / n_parameters) * (1.0 - values)


def inverse_participation_ratio(v: ArrayLike) -> Statistic:
    """Inverse participation ratio sum_j v_j^4 of unit eigenvectors (section 2).

    Args:
        v: Unit vectors, (N,) or (S, N).

    Returns:
        A number without a unit, from 1/N (spread evenly) to 1 (one parameter), or one a row, (S,).

    Raises:
        ValueError: The shape is another one, a value is not finite, or a norm is not 1.

    Example:
        >>> float(inverse_participation_ratio([0.5, 0.5, -0.5, 0.5]))
        0.25
    """

    def statistic(v: Floats) -> Floats:
        squares = _unit("v", v) ** 2
        fourth_powers: Floats = np.vecdot(squares, squares)
        return fourth_powers

    return _by_rows(statistic, v=v)


def alignment(v: ArrayLike, direction: ArrayLike) -> Statistic:
    """Alignment |v . d/|d|| of unit eigenvectors with gradients or updates d (eqs. 7 and 8).

    Args:
        v: Unit vectors, (N,) or (S, N).
        direction: d, (N,) or (S, N), of any norm.

    Returns:
        A number from 0 to 1 without a unit, or one a row, (S,); nan where d = 0, which has no direction.

    Raises:
        ValueError: The shapes do not fit, a value is not finite, or a norm of v is not 1.

    Example:
        >>> float(alignment([1.0, 0.0], [-3.0, 4.0]))
        0.6
    """

    def statistic(v: Floats, direction: Floats) -> Floats:
        return _absolute_cosine(_unit("v", v), _directions(direction))

    return _by_rows(statistic, v=v, direction=direction)


def update_alignment(v: ArrayLike, theta_a: ArrayLike, theta_b: ArrayLike) -> Statistic:
    """Two-time update alignment |v . d/|d|| with d = theta_b - theta_a (eq. 6).

    Args:
        v: Unit eigenvectors, (N,) or (S, N); in eq. 6 at the waiting time.
        theta_a: Parameters, (N,) or (S, N); in eq. 6 at the waiting time.
        theta_b: Parameters, (N,) or (S, N); in eq. 6 at the waiting time plus the lag.

    Returns:
        A number from 0 to 1 without a unit, or one a row, (S,); nan where the parameters have not moved.

    Raises:
        ValueError: The shapes do not fit, a value is not finite, or a norm of v is not 1.

    Example:
        >>> float(update_alignment([1.0, 0.0], theta_a=[1.0, 1.0], theta_b=[1.0, 3.0]))
        0.0
    """

    def statistic(v: Floats, theta_a: Floats, theta_b: Floats) -> Floats:
        return _absolute_cosine(_unit("v", v), _directions(theta_b - theta_a))

    return _by_rows(statistic, v=v, theta_a=theta_a, theta_b=theta_b)


def weight_displacement(theta_a: ArrayLike, theta_b: ArrayLike) -> Statistic:
    """Weight displacement (1/N)|theta_b - theta_a|^2 of parameter vectors (figure 10).

    Baity-Jesi et al. (2018) divide it by the gradient noise; here, as in the paper, it is not divided.

    Args:
        theta_a: Parameters, (N,) or (S, N).
        theta_b: Parameters, (N,) or (S, N).

    Returns:
        A number in units of a squared parameter, or one a row, (S,).

    Raises:
        ValueError: The shapes do not fit, or a value is not finite.

    Example:
        >>> float(weight_displacement([0.0, 0.0], [3.0, 4.0]))
        12.5
    """

    def statistic(theta_a: Floats, theta_b: Floats) -> Floats:
        return _mean_square(theta_b - theta_a)

    return _by_rows(statistic, theta_a=theta_a, theta_b=theta_b)


def convergence(vectors: ArrayLike) -> Floats:
    """Overlap |v(t_final) . v(t)| of an eigenvector's series with its own last row (figure 7).

    Args:
        vectors: Unit vectors (S, N), one a snapshot, with S at least 1.

    Returns:
        Numbers (S,) from 0 to 1 without a unit.

    Raises:
        ValueError: The shape is another one, a value is not finite, or a norm is not 1.

    Example:
        >>> convergence([[1.0, 0.0], [0.0, 1.0]]).tolist()
        [0.0, 1.0]
    """
    series = np.asarray(vectors)
    if series.ndim != 2 or not len(series):
        raise ValueError(f"vectors must be a series (S, N) with at least one row, not {series.shape}")
    result: Floats = alignment(series, series[-1])
    return result


def subspace_displacement(v: ArrayLike, w: ArrayLike) -> np.float64:
    """Displacement (2/N)(1 - mean_i cos(theta_i)) of the subspaces that the rows of v and of w span.

    theta_1..theta_k are the principal angles, whose cosines are the singular values of v w' (Bjorck and Golub 1973).
    The displacement equals (1/(kN)) min |v - Q w|_F^2 over orthogonal Q, the distance of the two bases after the best
    rotation (Procrustes problem, Schonemann 1966), and is computed as that. So it depends on the subspaces alone, not
    on the sign, the order or a rotation of the vectors, and for k = 1 it is the displacement of eq. 3.

    Args:
        v: Orthonormal rows, (k, N).
        w: Orthonormal rows, (k, N).

    Returns:
        A number from 0 to 2/N without a unit.

    Raises:
        ValueError: The shapes differ, a value is not finite, or the rows are not orthonormal.

    Example:
        >>> basis = np.eye(3)[:2]
        >>> float(subspace_displacement(basis, basis[::-1]))  # the same plane
        0.0
    """
    bases = [_orthonormal(name, np.asarray(basis)) for name, basis in (("v", v), ("w", w))]
    if bases[0].shape != bases[1].shape:
        raise ValueError(f"v and w must have the same shape (k, N), not {bases[0].shape} and {bases[1].shape}")
    left, _, right = np.linalg.svd(bases[0] @ bases[1].T)
    return np.float64(_mean_square(bases[0] - (left @ right) @ bases[1]).mean())


def subspace_overlap(overlaps: ArrayLike) -> Floats:
    """Overlap O_k = |V_s' V_t|_F^2 / k of the spans of v_1..v_k at two times, for every k.

    O_k is the mean squared cosine of the principal angles and depends on the two spans alone
    (Gur-Ari, Roberts and Dyer 2018, arXiv:1812.04754).

    Args:
        overlaps: C_ij = |v_i(s) . v_j(t)| (k, m) of two orthonormal bases.

    Returns:
        O_1, O_2, ... up to the smaller of k and m, from 0 to 1 without a unit. For two random spans in N dimensions the
        mean of O_k is k/N (`random_subspace_overlap`).

    Raises:
        ValueError: `overlaps` is not a matrix, or holds a number above 1.

    Example:
        >>> subspace_overlap([[0.0, 1.0], [1.0, 0.0]]).tolist()  # two vectors have exchanged places
        [0.0, 1.0]
    """
    squares = np.asarray(overlaps, dtype=np.float64) ** 2
    if squares.ndim != 2 or not (squares <= 1 + UNIT_TOLERANCE).all():
        raise ValueError(f"overlaps must be a matrix (k, m) of numbers from 0 to 1; its shape is {squares.shape}")
    sums = np.diagonal(squares.cumsum(axis=0).cumsum(axis=1))
    result: Floats = np.minimum(sums / np.arange(1, len(sums) + 1), 1.0)
    return result


def random_subspace_overlap(k: ArrayLike, n_parameters: int) -> Statistic:
    """Mean k/N of `subspace_overlap` for a fixed and a random span of k vectors in N dimensions.

    Args:
        k: Dimensions of the spans, of any shape, from 1 to N.
        n_parameters: N.

    Returns:
        Means of the shape of k, without a unit.

    Raises:
        ValueError: k is not between 1 and N.

    Example:
        >>> float(random_subspace_overlap(3, 300))
        0.01
    """
    dimensions = np.asarray(k, dtype=np.float64)
    if not ((dimensions >= 1) & (dimensions <= n_parameters)).all():
        raise ValueError(f"k must lie between 1 and n_parameters = {n_parameters}, not {dimensions}")
    return dimensions / n_parameters


def span_share(alignments: ArrayLike) -> Floats:
    """Share |P_k d|^2/|d|^2 of a direction's squared norm within the span of v_1..v_k, for every k.

    Args:
        alignments: |v_i . d/|d|| (k,) with orthonormal v_1..v_k in their order, or nan for a d of norm 0.

    Returns:
        The sums of squares up to each k, (k,), from 0 to 1 without a unit; nan for a d of norm 0.

    Raises:
        ValueError: `alignments` is not (k,), or a value is not between 0 and 1.

    Example:
        >>> [round(share, 2) for share in span_share([0.6, 0.8]).tolist()]
        [0.36, 1.0]
    """
    values = np.asarray(alignments, dtype=np.float64)
    if values.ndim != 1 or (values < 0).any() or (values > 1 + UNIT_TOLERANCE).any():
        raise ValueError(f"alignments must be (k,) and lie between 0 and 1, not {values}")
    result: Floats = np.minimum((values**2).cumsum(), 1.0)
    return result


def gaussian_smooth(series: ArrayLike, sigma: float) -> Floats:
    """A series convolved with a Gaussian (figures 7 and 12); the end values are repeated beyond the ends.

    Args:
        series: (S,), one value a snapshot, S at least 1.
        sigma: Standard deviation of the Gaussian, in snapshots; 0 returns the series itself.

    Returns:
        The smoothed series (S,), in the unit of the series.

    Raises:
        ValueError: The series has another shape or a value that is not finite, which would spread over its neighbours;
            or sigma is negative or not finite.

    Example:
        >>> gaussian_smooth([1.0, 1.0, 1.0], sigma=2.0).round(12).tolist()
        [1.0, 1.0, 1.0]
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
    """Upper bound |Hv - lambda v|/gap on the sine of the angle between a computed and the true eigenvector.

    It holds elementwise, for v of norm 1 and lambda = v'Hv (Davis and Kahan 1970; Parlett 1998, theorem 11.7.1).

    Args:
        residual: Relative residual norm |Hv - lambda v|/|lambda|, without a unit.
        gap: Distance from lambda to the nearest other eigenvalue, in units of H; for an inner pair the smaller of the
            two distances to its neighbours. A gap that is 0, negative or nan (unknown) bounds nothing.
        eigenvalue: lambda, in units of H.

    Returns:
        Bounds of the common shape, at most 1, without a unit; 1 where nothing is known.

    Raises:
        ValueError: A residual is negative or not finite, or an eigenvalue is not finite.

    Example:
        >>> float(angle_bound(residual=1e-3, gap=0.5, eigenvalue=10.0))
        0.02
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
    """Rows divided by their norms, nan for norm 0; scaled first, since the squares of tiny entries vanish."""
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
