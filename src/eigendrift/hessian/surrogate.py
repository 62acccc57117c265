"""Surrogates of the full-data Hessian, from few weighted samples or in lower precision, chosen by the tolerance.

Late in training few samples carry the curvature. Their importance is known from the outputs and the inputs of the last
layer, so that every classifier has a surrogate of few samples.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from eigendrift.hessian.autograd import FunctionalHessian
from eigendrift.hessian.importance import importance
from eigendrift.hessian.loss_data import Combination, TensorChunks, WeightedPairs, samples_in
from eigendrift.hessian.mixed_precision import multiplying_in
from eigendrift.hessian.mlp import MLPHessian
from eigendrift.operators import Operator, RefinableOperator, torch_type
from eigendrift.ranks import Ranks, SharedOperator

# With fewer samples, products with all of them are cheap enough.
FEWEST_SAMPLES = 10_000
FEWEST_FOR_AUTOGRAD = 2_000
# A surrogate of any model that is not fitted has so many samples, within limits.
ENOUGH_SAMPLES = 2_000
# No sample is drawn with a probability below two to the power of minus this.
SMALLEST_SHARE = 12
# A surrogate of few samples saves time down to this tolerance, measured on MNIST at N = 89 610.
SURROGATE_TOLERANCE = 1e-4
# Below this tolerance float32 products cannot certify the residuals of the smaller eigenvalues: even after a float64
# forward pass their error is some 2e-7 of lambda_1.
FLOAT32_TOLERANCE = 5e-6
# On a CPU float32 products as a surrogate pay down to this tolerance, as measured at N = 89 610; below it each
# correction reduces the residual too little. A GPU multiplies in float64 about as fast.
MIXED_PRECISION_TOLERANCE = 1e-7


class SurrogateHessian:
    """An approximate Hessian at the point where it was made; `coarse`, if any, preconditions its own solve in turn.

    `entries`: indices (N,) of the chosen entries among those of the path; None if all are chosen.
    """

    def __init__(
        self,
        path: MLPHessian | FunctionalHessian,
        coarse: "SurrogateHessian | None" = None,
        entries: Tensor | None = None,
    ) -> None:
        self.path, self.entries = path, entries
        self.coarse: Operator | None = coarse
        n = path.n_parameters if entries is None else len(entries)
        self.shape = (n, n)
        self.dtype, self.device = path.dtype, path.device

    @property
    def uses_thread_pool(self) -> bool:
        """Whether products use a pool of threads."""
        return self.device.type == "cpu"

    def product(self, vectors: Tensor) -> Tensor:
        """G v for each row of (b, N)."""
        precision = self.path.precision if isinstance(self.path, MLPHessian) else "float32"
        with multiplying_in(precision):
            if self.entries is None:
                return self.path.product(vectors)
            whole = vectors.new_zeros(len(vectors), self.path.n_parameters)
            whole[:, self.entries] = vectors
            return self.path.product(whole)[:, self.entries]


class MixedPrecisionOperator:
    """A float32 operator on float64 vectors: its only error is rounding of the products, at about half of the time.

    The basis has to be in float64: with a float32 basis the following float64 solve needs 1.5 times as many products.
    """

    dtype = torch.float64

    def __init__(self, operator: Operator) -> None:
        self.operator, self.shape, self.device = operator, operator.shape, operator.device

    def product(self, vectors: Tensor) -> Tensor:
        """The float32 operator's H v for each row of (b, N), in float64."""
        return self.operator.product(vectors.to(torch_type(self.operator))).to(self.dtype)


def for_tolerance(operator: RefinableOperator, tol: float, seed: int | None) -> tuple[Operator, Operator | None]:
    """Choose the form of the operator, at its present point, and the surrogate for a tolerance.

    Args:
        operator: A HessianOperator, or another operator that offers the same forms of itself.
        tol: Wanted relative residual norm, without a unit.
        seed: Seed of the surrogate's choice of samples; None where no surrogate is wanted.

    Returns:
        The form of the operator, and the surrogate or None.
    """
    if torch_type(operator).itemsize < 4:
        # The rounding of half precision is larger than any useful tolerance.
        return operator.in_float64(), None
    if tol >= SURROGATE_TOLERANCE:
        return operator, None if seed is None else operator.surrogate(seed)
    if tol >= FLOAT32_TOLERANCE:
        # Corrected residuals converge more slowly than plain Lanczos where the surrogate errs more than this.
        return operator.with_float64_forward(), None
    exact = operator.in_float64()
    if seed is None or exact is operator or exact.device.type == "cuda" or tol < MIXED_PRECISION_TOLERANCE:
        return exact, None
    return exact, MixedPrecisionOperator(operator.with_float64_forward())


def shared_surrogate(ranks: Ranks, share: float, found: SurrogateHessian | None, path: Any) -> SharedOperator | None:
    """The surrogate over all ranks, from those of their parts; a rank without one takes all of its samples.

    Args:
        ranks: The processes.
        share: The factor of this rank's part.
        found: The surrogate of this rank's part, or None.
        path: The Hessian of this rank's part.
    """
    levels = ranks.gather((found is not None, found is not None and found.coarse is not None), "surrogate")
    if not any(one for one, _ in levels):
        return None
    own = found or SurrogateHessian(path)
    coarse = own.coarse if own.coarse is not None else own
    below = SharedOperator(ranks, coarse, share) if any(two for _, two in levels) else None
    return SharedOperator(ranks, own, share, below)


def surrogate_of(
    path: MLPHessian | FunctionalHessian, seed: int, entries: Tensor | None = None, graph_bytes: int = 0
) -> SurrogateHessian | None:
    """The surrogate of a path: on a CPU few samples, on a GPU all of them in TF32 along the analytic path.

    On a GPU an analytic product with an eighth of the samples takes little less time than one with all, and drawing the
    samples on the host would take longer than the whole solve.

    Args:
        path: The path of the Hessian.
        seed: Seed of the choice of samples.
        entries: Indices (N,) of the chosen entries among those of the path; None if all are chosen.
        graph_bytes: Memory for the graphs of a surrogate that autograd differentiates.
    """
    if isinstance(path, FunctionalHessian):
        return surrogate_of_any(path, seed, graph_bytes)
    if path.device.type == "cuda":
        return SurrogateHessian(path.in_precision("tf32"), entries=entries)
    return sampled_surrogate(path, seed, entries)


def sampled_surrogate(path: MLPHessian, seed: int, entries: Tensor | None = None) -> SurrogateHessian | None:
    """A surrogate of few samples at the present point, or None where there are too few samples for it to save time.

    `MLPHessian.importance` estimates the contribution of each sample to H. The size of the surrogate follows m99, the
    number of the n samples that hold 99% of the sum of importances, by measurements on MNIST:

        m99 <= n/16   2 m99 samples (n/20 at least)   its top vectors have residuals of about 1e-4
        m99 <= n/4    4/3 m99, coarse level n/12      1e-3
        else          n/8                             1e-2 and more
    """
    n = len(path.inputs)
    if n < FEWEST_SAMPLES:
        return None
    sizes, strata = path.importance()
    sizes, strata = sizes.cpu(), strata.cpu()
    held = _holding(0.99, sizes)

    def sampled(m: int, coarse: SurrogateHessian | None = None) -> SurrogateHessian:
        chosen, weights = weighted_sample(sizes, strata, m, seed)
        return SurrogateHessian(path.subset(chosen.to(path.device), weights.to(path.device)), coarse, entries)

    if held <= n // 16:
        return sampled(max(2 * held, n // 20))
    if held <= n // 4:
        return sampled(4 * held // 3, coarse=sampled(n // 12))
    return sampled(n // 8)


def surrogate_bytes(graph_bytes: int) -> int:
    """The part of the memory for graphs that is the surrogate's: its products are the most frequent ones."""
    return graph_bytes // 4


def surrogate_of_any(path: FunctionalHessian, seed: int, graph_bytes: int) -> SurrogateHessian | None:
    """A surrogate of few samples of any classifier, or None where it would save no time or the loss is another.

    With m99 as in `sampled_surrogate`, by measurements on convolutional networks and transformers of 10^4 parameters,
    with 8000 to 20 000 images:

        m99 <= n/6   2 m99 samples (n/20 at least)   its top vectors have residuals of about 5e-4
        else         2000 (n/20 to n/8)              5e-2 early in training, 1e-2 late

    One of more than n/12 samples by the first rule has a coarse level of n/25.
    """
    chunks = path.chunks
    # Differences of gradients, and other matrices than the Hessian, have none.
    if type(path) is not FunctionalHessian or not isinstance(chunks, TensorChunks):
        return None
    if len(chunks.inputs) < FEWEST_FOR_AUTOGRAD:
        return None
    n = len(chunks.inputs)
    try:
        found = importance(path)
        if found is None:
            return None
        sizes, strata = (each.cpu() for each in found)
        sampled = functools.partial(sampled_around, path, sizes, strata, seed)
        held = _holding(0.99, sizes)
        if held > n // 6:
            return sampled(min(max(ENOUGH_SAMPLES, n // 20), n // 8), graph_bytes)
        if held <= n // 24:
            return sampled(max(2 * held, n // 20), graph_bytes)
        coarse = sampled(n // 25, graph_bytes // 4)
        return sampled(2 * held, graph_bytes - graph_bytes // 4, coarse)
    except ValueError:
        # The model takes no other batches than the whole chunks.
        return None


def sampled_around(
    path: FunctionalHessian,
    sizes: Tensor,
    strata: Tensor,
    seed: int,
    m: int,
    graph_bytes: int,
    coarse: SurrogateHessian | None = None,
) -> SurrogateHessian:
    """The surrogate of about m samples."""
    chunks = path.chunks
    assert isinstance(chunks, TensorChunks)
    groups = grouped_sample(sizes, strata, m, seed)
    rows = torch.cat([rows for _, rows in groups])
    weights = torch.cat([torch.full((len(rows),), weight, dtype=torch.float64) for weight, rows in groups])
    # A few chunks of equal length for each thread.
    length = min(chunks.rows, max(64, -(-len(rows) // (2 * torch.get_num_threads()))))
    batches = []
    for part, w in zip(rows.split(length), weights.split(length), strict=True):
        values, counts = torch.unique_consecutive(w, return_counts=True)
        x, y = (t[part.to(t.device)] for t in (chunks.inputs, chunks.targets))
        batches.append((x, y, counts.tolist(), values.tolist()))
    evaluation = path.evaluation.with_loss(functools.partial(WeightedPairs, combination=path.combination))
    return SurrogateHessian(
        path.of_samples(evaluation, batches, Combination("sum", samples_in, True), graph_bytes), coarse
    )


def _holding(share: float, sizes: Tensor) -> int:
    """The smallest number of terms that hold this share of the sum."""
    descending = sizes.sort(descending=True).values.cumsum(0)
    return int(torch.searchsorted(descending, share * descending[-1]))


def grouped_sample(sizes: Tensor, strata: Tensor, m: int, seed: int) -> list[tuple[float, Tensor]]:
    """Groups of about m of n terms in all, such that the weighted sum over them is unbiased; one weight a group.

    A term is drawn with a probability 2^-j near the one that is proportional to its size, so that few different weights
    occur. Systematic sampling within strata as in `weighted_sample`.

    Args:
        sizes: (n,), estimates of the size of the terms.
        strata: (n,), labels of kinds of terms.
        m: Wanted number of terms.
        seed: Seed of the draw.

    Returns:
        The weight 2^j and the indices of the terms that have it, for ascending j.
    """
    # The factor of the sizes with which the probabilities add up to m, where none exceeds one.
    ascending = sizes[sizes > 0].sort().values
    certain = torch.arange(len(ascending) - 1, -1, -1, dtype=torch.float64)
    factors = (m - certain) / ascending.cumsum(0)
    within = (factors > 0) & (factors * ascending <= 1)
    factor = float(factors[within].max()) if bool(within.any()) else 1 / float(ascending[0])
    exponents = (-torch.log2((factor * sizes).clamp(min=2.0**-SMALLEST_SHARE, max=1.0))).round().int()
    order = torch.argsort(sizes, descending=True, stable=True)
    order = order[torch.argsort(strata[order], stable=True)]
    generator = torch.Generator().manual_seed(seed)
    groups = []
    for exponent in range(SMALLEST_SHARE + 1):
        members = order[exponents[order] == exponent]
        start = int(torch.randint(2**exponent, (1,), generator=generator))
        drawn = members[start :: 2**exponent]
        if len(drawn):
            groups.append((2.0**exponent, drawn))
    return groups


def weighted_sample(sizes: Tensor, strata: Tensor, m: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices and weights of at most m of n terms, such that the weighted sum over them is unbiased.

    A term is drawn with probability proportional to its size, or with certainty where that would exceed one.
    Systematic sampling within strata gives each kind its share (Tille, Sampling Algorithms, 2006, chapters 5 and 7).

    Args:
        sizes: (n,), estimates of the size of the terms, zero only where a term is zero.
        strata: (n,), labels of kinds of terms.
        m: Largest number of terms.
        seed: Seed of the draw.

    Returns:
        Indices (at most m,) and their weights, float64.
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
    # Within a stratum large terms come first: systematic sampling seldom takes two neighbours in this order.
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
    # All terms are zero, so that any choice gives the right sum.
    return torch.arange(m), torch.ones(m, dtype=torch.float64)
