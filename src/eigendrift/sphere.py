"""|cos| between directions that are uniform on the sphere, in closed form: what no structure at all would give."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv


def mean_overlap(n: int) -> float:
    """Mean |cos| of two independent uniform unit vectors in n >= 2 dimensions; sqrt(2/(pi n)) for large n."""
    return math.exp(math.lgamma(n / 2) - math.lgamma((n + 1) / 2)) / math.sqrt(math.pi)


def overlap_quantiles(probabilities: ArrayLike, n: int) -> NDArray[np.float64]:
    """|cos| that two independent uniform unit vectors in n >= 2 dimensions stay below with these probabilities.

    cos^2 of such an angle has the beta distribution with parameters 1/2 and (n - 1)/2.
    """
    quantiles: NDArray[np.float64] = np.sqrt(betaincinv(0.5, (n - 1) / 2, np.asarray(probabilities, dtype=np.float64)))
    return quantiles
