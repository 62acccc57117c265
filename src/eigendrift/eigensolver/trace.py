"""Trace and squared Frobenius norm of a symmetric operator, estimated from products, each with a standard error.

Hutch++ (Meyer, Musco, Musco and Woodruff, SOSA 2021): an orthonormal basis Q of the products with a few random vectors
holds most of what the large eigenvalues contribute, which is computed exactly from H Q. With R = I - QQ' the rest is a
mean over random signs z:

    tr H      = tr Q'HQ + E z'RHR z
    |H|_F^2   = |Q'HQ|_F^2 + 2 |RHQ|_F^2 + E |RHR z|^2

Both means are unbiased whatever Q is, so that known eigenvectors may join it. Their standard error is that of a mean
over the vectors z. Where the rank of H is below the size of Q, R H R and the error vanish, up to rounding.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from eigendrift._threads import single_threaded_torch
from eigendrift.eigensolver.result import EigenPairs
from eigendrift.operators import (
    Operator,
    as_operator,
    check_finite,
    check_symmetric,
    torch_type,
    uses_thread_pool,
)
from eigendrift.ranks import led_by_one_rank

Kind = Literal["exact", "estimated"]

# Number of vectors that are multiplied at once.
BLOCK = 8
# Smallest number of random vectors from which a standard error is estimated.
FEWEST = 4


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error.

    Attributes:
        value: The number, in units of the operator (a squared norm in their square).
        standard_error: Standard deviation of `value` over the random vectors, in the same units, itself estimated from
            them; rounding alone where `kind` is "exact". The error is within twice as much in about 19 of 20 cases.
        kind: "exact", up to rounding, or "estimated".
        products: Number of products that it took.

    Example:
        >>> Estimate(10.0, 0.5, "estimated", 30)
        10 +- 0.5 (estimated, 30 products)
        >>> float(Estimate(10.0, 0.5, "estimated", 30))
        10.0
    """

    value: float
    standard_error: float
    kind: Kind
    products: int

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return f"{self.value:.6g} +- {self.standard_error:.2g} ({self.kind}, {self.products} products)"


@led_by_one_rank
def trace(operator: Any, *, pairs: EigenPairs | None = None, products: int = 90, seed: int = 0) -> Estimate:
    """Trace of a symmetric operator, the sum of its eigenvalues, by Hutch++.

    Args:
        operator: A HessianOperator or any other operator or symmetric matrix that `top_eigenpairs` takes.
        pairs: Known eigenpairs of it, which reduce the error. They need not be exact.
        products: Number of products. With as many as N or more the trace is exact.
        seed: Seed of the random vectors; the same seed gives the same result.

    Returns:
        The trace in units of the operator, with its standard error.

    Raises:
        ValueError: `products` are too few, `pairs` are of another N, or a product is not finite.
        TypeError: `operator` has no shape or no @.

    Example:
        >>> trace(torch.diag(torch.arange(50.0, dtype=torch.float64))).kind
        'exact'
        >>> found = trace(torch.diag(torch.arange(1000.0)))
        >>> found.kind, abs(found.value - 499500) < 4 * found.standard_error
        ('estimated', True)
    """
    parts = _parts(operator, pairs, products, seed)
    return parts.estimate(parts.projected.diagonal().sum(), parts.quadratic, parts.projected.diagonal().abs().sum())


@led_by_one_rank
def squared_frobenius_norm(
    operator: Any, *, pairs: EigenPairs | None = None, products: int = 90, seed: int = 0
) -> Estimate:
    """Squared Frobenius norm of a symmetric operator, the sum of the squares of its eigenvalues.

    Args:
        operator: A HessianOperator or any other operator or symmetric matrix that `top_eigenpairs` takes.
        pairs: Known eigenpairs of it, which reduce the error. They need not be exact.
        products: Number of products. With as many as N or more the norm is exact.
        seed: Seed of the random vectors; the same seed gives the same result.

    Returns:
        The squared norm in squared units of the operator, with its standard error.

    Raises:
        ValueError: `products` are too few, `pairs` are of another N, or a product is not finite.
        TypeError: `operator` has no shape or no @.

    Example:
        >>> round(squared_frobenius_norm(torch.diag(torch.tensor([3.0, 4.0]))).value, 3)
        25.0
    """
    parts = _parts(operator, pairs, products, seed)
    known = parts.projected.square().sum() + 2 * parts.coupling
    return parts.estimate(known, parts.squares, known)


@dataclass(frozen=True)
class _Parts:
    """What both estimates are made of, in float64 on the CPU."""

    projected: Tensor  # Q'HQ (m, m)
    coupling: Tensor  # |RHQ|_F^2
    quadratic: Tensor  # z'RHR z for each z
    squares: Tensor  # |RHR z|^2 for each z
    products: int
    rounding: float  # relative uncertainty of the products

    def estimate(self, known: Tensor, drawn: Tensor, scale: Tensor) -> Estimate:
        """The number whose part `known` is computed and whose rest is the mean of `drawn`."""
        rounding = self.rounding * float(scale)
        if not len(drawn):
            return Estimate(float(known), rounding, "exact", self.products)
        error = float(drawn.std()) / math.sqrt(len(drawn))
        return Estimate(float(known + drawn.mean()), math.hypot(error, rounding), "estimated", self.products)


def _parts(given: Any, pairs: EigenPairs | None, products: int, seed: int) -> _Parts:
    operator = as_operator(given)
    n = operator.shape[0]
    # In half precision a basis would not be orthogonal.
    dtype = torch_type(operator) if torch_type(operator).itemsize >= 4 else torch.float32
    rounding = 10 * max(torch.finfo(dtype).eps, torch.finfo(torch_type(operator)).eps)
    if products >= n:
        matrix = multiplied(operator, torch.eye(n, dtype=dtype, device=operator.device)).double().cpu()
        check_symmetric(matrix, torch_type(operator))
        none = matrix.new_zeros(0)
        return _Parts(matrix, matrix.new_zeros(()), none, none, n, rounding)
    known = known_vectors(pairs, operator).to(dtype)
    k = len(known)
    # A third for the sketch, a third for H Q and a third for the mean, as in Hutch++.
    sketched = (products - k) // 3
    if sketched < FEWEST:
        raise ValueError(
            f"products = {products} is not allowed; give {3 * FEWEST + k} at least"
            + (f", of which {k} are for the pairs" if k else "")
        )
    generator = torch.Generator("cpu").manual_seed(seed)
    sketch = multiplied(operator, _signs(sketched, known, generator))
    q = torch.linalg.qr(torch.cat([known, sketch]).T).Q.T.contiguous()
    w = multiplied(operator, q)
    projected = (w @ q.T).double().cpu()
    check_symmetric(projected, torch_type(operator))
    coupling = without(w, q).double().square().sum().cpu()
    drawn = without(_signs(products - k - 2 * sketched, known, generator), q)
    rest = multiplied(operator, drawn)
    quadratic = (drawn.double() * rest.double()).sum(dim=1).cpu()
    squares = without(rest, q).double().square().sum(dim=1).cpu()
    return _Parts(projected, coupling, quadratic, squares, products, rounding)


def known_vectors(pairs: EigenPairs | None, operator: Operator) -> Tensor:
    """The vectors of eigenpairs as rows (k, N) on the device of the operator, none without pairs.

    Raises:
        ValueError: They are of another N.
    """
    n = operator.shape[0]
    if pairs is None:
        return torch.zeros(0, n, dtype=torch_type(operator), device=operator.device)
    if len(pairs.vectors) != n:
        raise ValueError(f"pairs are of N = {len(pairs.vectors)}, and the operator has N = {n}")
    return pairs.vectors.T.to(operator.device)


def multiplied(operator: Operator, vectors: Tensor) -> Tensor:
    """The products with rows (b, N), in blocks, in the type of the rows.

    Raises:
        ValueError: A product is not finite.
    """
    with single_threaded_torch() if uses_thread_pool(operator) else nullcontext():
        blocks = [operator.product(block.to(torch_type(operator))) for block in vectors.split(BLOCK)]
    found = torch.cat(blocks).to(vectors.dtype)
    check_finite(found.sum(dim=1))
    return found


def without(vectors: Tensor, basis: Tensor) -> Tensor:
    """The parts of rows (b, N) that are orthogonal to orthonormal rows (m, N), by two passes."""
    for _ in range(2):
        vectors = vectors - (vectors @ basis.T) @ basis
    return vectors


def _signs(count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Rows (count, N) of random signs; drawn on the host, so that they do not depend on the device."""
    drawn = torch.randint(0, 2, (count, like.shape[1]), generator=generator, dtype=torch.int8, device="cpu")
    return drawn.to(like.device, like.dtype).mul_(2).sub_(1)
