"""Surrogates of the full-data Hessian, of few weighted samples or of lower precision, and which suits a tolerance."""

import torch
from torch import Tensor

from eigendrift.hessian.mixed_precision import multiplying_in
from eigendrift.hessian.mlp import MLPHessian
from eigendrift.operators import Operator, RefinableOperator, torch_type

# Below, products with all samples are cheap enough.
FEWEST_SAMPLES = 10_000
# Tolerances from which on a surrogate of few samples saves time, measured on MNIST at N = 89 610.
SURROGATE_TOLERANCE = 1e-4
# Below it float32 products, which err by some 2e-7 of lambda_1 even after a forward pass in float64, cannot certify the
# smaller eigenvalues' residuals.
FLOAT32_TOLERANCE = 5e-6
# On a CPU float32 products as a surrogate pay down to this tolerance, as measured at N = 89 610; below it each
# correction reduces the residual too little. A GPU multiplies in float64 about as fast.
MIXED_PRECISION_TOLERANCE = 1e-7


class SurrogateHessian:
    """An approximate Hessian at the point where it was made; `coarse`, if any, preconditions its own solve in turn."""

    def __init__(self, path: MLPHessian, coarse: "SurrogateHessian | None" = None) -> None:
        self.path = path
        self.coarse: Operator | None = coarse
        self.shape = (path.n_parameters, path.n_parameters)
        self.dtype, self.device = path.dtype, path.device

    @property
    def uses_thread_pool(self) -> bool:
        """Whether products use a pool of threads."""
        return self.device.type == "cpu"

    def product(self, vectors: Tensor) -> Tensor:
        """G v for each row of (b, N)."""
        with multiplying_in(self.path.precision):
            return self.path.product(vectors)


class MixedPrecisionOperator:
    """A float32 operator on float64 vectors: it errs by the rounding of its products alone, for about half the time.

    The basis has to be in float64: with one in float32 the following float64 solve needs 1.5 times as many products.
    """

    dtype = torch.float64

    def __init__(self, operator: Operator) -> None:
        self.operator, self.shape, self.device = operator, operator.shape, operator.device

    def product(self, vectors: Tensor) -> Tensor:
        """The float32 operator's H v for each row of (b, N), in float64."""
        return self.operator.product(vectors.to(torch_type(self.operator))).to(self.dtype)


def for_tolerance(operator: RefinableOperator, tol: float, seed: int) -> tuple[Operator, Operator | None]:
    """The form of the operator, at the point where it is, and the surrogate that suit residuals of this size.

    Args:
        operator: a HessianOperator, or another that offers the same forms of itself.
        tol: the relative residual that is wanted.
        seed: of the samples that a surrogate takes.
    """
    if torch_type(operator).itemsize < 4:
        # The rounding of half precision is larger than any useful tolerance.
        return operator.in_float64(), None
    if tol >= SURROGATE_TOLERANCE:
        return operator, operator.surrogate(seed)
    if tol >= FLOAT32_TOLERANCE:
        # Corrected residuals converge more slowly than plain Lanczos where the surrogate errs more than this.
        return operator.with_float64_forward(), None
    exact = operator.in_float64()
    if exact is operator or exact.device.type == "cuda" or tol < MIXED_PRECISION_TOLERANCE:
        return exact, None
    return exact, MixedPrecisionOperator(operator.with_float64_forward())


def surrogate_of(path: MLPHessian, seed: int) -> SurrogateHessian | None:
    """The surrogate of the analytic path: on a CPU fewer samples, on a GPU all of them in TF32.

    A GPU takes a product with an eighth of the samples in little less time than one with all, and its host would draw
    the samples for longer than the whole solve takes.
    """
    if path.device.type == "cuda":
        return SurrogateHessian(path.in_precision("tf32"))
    return sampled_surrogate(path, seed)


def sampled_surrogate(path: MLPHessian, seed: int) -> SurrogateHessian | None:
    """A surrogate of few samples at the present point, or None where there are too few samples for one to pay.

    Samples weigh in H about as `MLPHessian.importance` says. With m99, the number of samples that hold 99% of the
    sum, of n, by what was measured on MNIST:

        m99 <= n/16   2 m99 samples (n/20 at least)   its top vectors have residuals of about 1e-4
        m99 <= n/4    4/3 m99, coarse level n/12      1e-3
        else          n/8                             1e-2 and more
    """
    n = len(path.inputs)
    if n < FEWEST_SAMPLES:
        return None
    sizes, strata = path.importance()
    sizes, strata = sizes.cpu(), strata.cpu()
    descending = sizes.sort(descending=True).values.cumsum(0)
    held = int(torch.searchsorted(descending, 0.99 * descending[-1]))

    def sampled(m: int, coarse: SurrogateHessian | None = None) -> SurrogateHessian:
        chosen, weights = weighted_sample(sizes, strata, m, seed)
        return SurrogateHessian(path.subset(chosen.to(path.device), weights.to(path.device)), coarse)

    if held <= n // 16:
        return sampled(max(2 * held, n // 20))
    if held <= n // 4:
        return sampled(4 * held // 3, coarse=sampled(n // 12))
    return sampled(n // 8)


def weighted_sample(sizes: Tensor, strata: Tensor, m: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices and weights of at most m of n terms, such that the weighted sum over them is unbiased.

    sizes (n,): how large the terms may be, zero only where a term is zero; strata (n,): labels of kinds of terms. A
    term is drawn with probability proportional to its size, or for certain where that would exceed one;
    systematically within strata, so that each kind has its share (Tille, Sampling Algorithms, 2006, chapters 5 and 7).
    """
    certain = torch.zeros(len(sizes), dtype=torch.bool)
    while True:
        left = torch.where(certain, 0.0, sizes)
        total, draws = float(left.sum()), m - int(certain.sum())
        if not total > 0 or draws <= 0:
            kept = certain.nonzero()[:, 0]
            return (kept, torch.ones(len(kept), dtype=torch.float64)) if len(kept) else _first(m)
        more = (left * (draws / total) >= 1) & ~certain
        if not bool(more.any()):
            break
        certain |= more
    others = (~certain & (sizes > 0)).nonzero()[:, 0]
    # Large before small within a stratum: of two neighbours in this order, systematic sampling seldom takes both.
    others = others[torch.argsort(sizes[others], descending=True, stable=True)]
    others = others[torch.argsort(strata[others], stable=True)]
    expected = sizes[others] * (draws / total)
    start = torch.rand(1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    drawn = torch.searchsorted(expected.cumsum(0), torch.arange(draws, dtype=torch.float64) + start)
    rows, times = torch.unique(drawn.clamp(max=len(others) - 1), return_counts=True)
    kept = certain.nonzero()[:, 0]
    weights = torch.cat([torch.ones(len(kept), dtype=torch.float64), times / expected[rows]])
    return torch.cat([kept, others[rows]]), weights


def _first(m: int) -> tuple[Tensor, Tensor]:
    # No term has any size: whichever are taken, the sum is right.
    return torch.arange(m), torch.ones(m, dtype=torch.float64)
