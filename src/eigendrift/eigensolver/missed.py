"""How large an eigenvalue can be that a Krylov space did not show: bounds from one random vector.

A Krylov space holds one vector of each eigenspace, so it shows a repeated eigenvalue once, however long it grows, and
residuals say nothing about the eigenvalues that it does not show. Let Q (m, N) be an orthonormal basis with T = Q H Q'
and the coupling C = (I - Q'Q) H Q', and let B be the compression of H to the complement of Q. Two steps bound the
eigenvalues that were missed.

1. The largest eigenvalue of B. A fresh random vector u in the complement is independent of Q, so its component along
   the unknown eigenvector z of B is at least c in magnitude, except with a probability that is known in closed form.
   Lanczos on B from u gives orthonormal vectors p_i(B) u with polynomials p_i known from the recurrence. By Bessel's
   inequality (z'u)^2 sum_i p_i(lambda)^2 <= 1, and beyond the Ritz values the sum grows with lambda: lambda is bounded.
   This is the bound of van Dorsselaer, Hochstenbach and van der Vorst (SIAM J. Matrix Anal. Appl. 22, 837, 2000) with
   all polynomials at once. It uses the spectrum that Lanczos saw; the a priori bound of Kuczynski and Wozniakowski
   (SIAM J. Matrix Anal. Appl. 13, 1094, 1992) holds beside it.
2. The number of eigenvalues of H above x. For x > mu >= lambda_max(B), by the inertia of the Schur complement, it is at
   most the number of eigenvalues of T + C'C / (x - mu) above x, a matrix of order m.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Bisections: the distance from the largest Ritz value is then known to a relative 1e-4, from above.
_HALVINGS = 14


def largest_unseen(diagonal: Sequence[float], off_diagonal: Sequence[float], component: float) -> float:
    """Upper bound on the eigenvalues of an operator whose eigenvectors have this component along the start vector.

    Args:
        diagonal: alpha_1..alpha_j of the Lanczos recurrence from the start vector.
        off_diagonal: beta_1..beta_j, the last one the norm of what leaves the space.
        component: smallest |cos| of the angle between the start vector and the eigenvector, in (0, 1].

    Returns:
        A bound that holds for the eigenvalue of each such eigenvector, at least the largest Ritz value.

    Example:
        >>> round(largest_unseen([1.0], [0.5], component=0.5), 3)  # 0.25 (1 + ((x - 1) / 0.5)^2) = 1
        1.866
    """
    theta = largest_ritz_value(diagonal, off_diagonal)
    if not off_diagonal[-1] > 0:
        return theta

    def excluded(x: float) -> bool:
        before, now, total, beta_before = 0.0, 1.0, 1.0, 0.0
        for alpha, beta in zip(diagonal, off_diagonal, strict=True):
            before, now = now, ((x - alpha) * now - beta_before * before) / beta
            total, beta_before = total + now * now, beta
            if component * component * total > 1:
                return True
        return False

    scale = max(abs(theta), max(map(abs, off_diagonal)), 1e-300)
    low, step = theta, scale
    while not excluded(theta + step):
        low, step = theta + step, 2 * step
        if math.isinf(step):
            return math.inf
    high = theta + step
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if excluded(middle):
            high = middle
        else:
            low = middle
    return high


def largest_ritz_value(diagonal: Sequence[float], off_diagonal: Sequence[float]) -> float:
    """The largest eigenvalue of the tridiagonal matrix of a Lanczos recurrence.

    Args:
        diagonal: alpha_1..alpha_j.
        off_diagonal: beta_1..beta_j, the last of which is not part of the matrix.

    Returns:
        The eigenvalue, in units of the operator.
    """
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if len(diagonal) > 1:
        beside = torch.tensor(off_diagonal[: len(diagonal) - 1], dtype=torch.float64)
        matrix += torch.diag(beside, 1) + torch.diag(beside, -1)
    return float(torch.linalg.eigvalsh(matrix)[-1])


def at_most(k: int, x: float, mu: float, projected: Tensor, coupling: Tensor) -> bool:
    """Whether an operator certainly has at most k eigenvalues above x.

    Args:
        k: Number of eigenvalues.
        x: Threshold.
        mu: Upper bound on the compression to the complement of the basis.
        projected: T (m, m), symmetric, float64.
        coupling: C'C (m, m), float64.

    Returns:
        Whether the bound holds; False also where it cannot be computed.
    """
    if not x > mu:
        return False
    if len(projected) <= k:
        return True
    shifted = projected + coupling / (x - mu)
    if not bool(torch.isfinite(shifted).all()):
        return False
    return float(torch.linalg.eigvalsh(shifted)[-k - 1]) <= x


def next_eigenvalue_bound(known: Sequence[float], mu: float, projected: Tensor, coupling: Tensor) -> float:
    """The smallest x, to 1e-7 of the largest entry, above which the operator has no more eigenvalues than are known.

    Args:
        known: The Ritz values that count as found, descending.
        mu: Upper bound on the compression to the complement of the basis.
        projected: T (m, m), symmetric, float64.
        coupling: C'C (m, m), float64.

    Returns:
        x in units of the operator, infinite where nothing is bounded.
    """
    if not math.isfinite(mu):
        return math.inf
    scale = max(abs(mu), float(projected.abs().max()), 1e-300)
    x = math.inf
    for i in range(len(known), -1, -1):
        if i and not known[i - 1] > mu:
            continue
        x = _smallest(i, mu, scale, projected, coupling)
        if i == 0 or x < known[i - 1]:
            break
    return x


def _smallest(k: int, mu: float, scale: float, projected: Tensor, coupling: Tensor) -> float:
    """The smallest x > mu above which there are at most k eigenvalues."""
    low, step = mu, 1e-7 * scale
    while not at_most(k, mu + step, mu, projected, coupling):
        low, step = mu + step, 2 * step
        if math.isinf(step):
            return math.inf
    high = mu + step
    while high - low > 1e-7 * scale:
        middle = (low + high) / 2
        if at_most(k, middle, mu, projected, coupling):
            high = middle
        else:
            low = middle
    return high
