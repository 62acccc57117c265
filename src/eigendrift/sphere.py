"""Overlaps |cos| between directions that are uniform on the sphere, in closed form: those without any structure."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv


def mean_overlap(n: int) -> float:
    """Mean |cos| of two independent uniform unit vectors; it tends to sqrt(2/(pi n)) for large n.

    Args:
        n: Number of dimensions, at least 2.

    Returns:
        A number from 0 to 1 without a unit.

    Example:
        >>> round(mean_overlap(3), 6)  # |cos| is uniform in three dimensions
        0.5
    """
    return math.exp(math.lgamma(n / 2) - math.lgamma((n + 1) / 2)) / math.sqrt(math.pi)


def overlap_quantiles(probabilities: ArrayLike, n: int) -> NDArray[np.float64]:
    """Quantiles of |cos| for two independent uniform unit vectors.

    cos^2 of such an angle has the beta distribution with parameters 1/2 and (n - 1)/2.

    Args:
        probabilities: From 0 to 1, of any shape.
        n: Number of dimensions, at least 2.

    Returns:
        For each probability the |cos| that is exceeded with one minus this probability, of the same shape, without a
        unit.

    Example:
        >>> overlap_quantiles([0.25, 0.5], 3).round(6).tolist()
        [0.25, 0.5]
    """
    quantiles: NDArray[np.float64] = np.sqrt(betaincinv(0.5, (n - 1) / 2, np.asarray(probabilities, dtype=np.float64)))
    return quantiles
