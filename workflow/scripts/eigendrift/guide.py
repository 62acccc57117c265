"""Cheaper operators near the full-data Hessian, from few weighted samples or rounded: what guides the eigensolver."""

import torch
from torch import Tensor

from eigendrift.eigensolver import Operator
from eigendrift.mlp_hessian import MLPHessian
from eigendrift.split_products import multiplying_in

# Below, products with all samples are cheap enough.
FEWEST_SAMPLES = 10_000


class Guide:
    """An approximate Hessian at the point where it was made; `cruder`, if any, guides its own solve in turn."""

    def __init__(self, path: MLPHessian, cruder: "Guide | None" = None) -> None:
        self.path, self.cruder = path, cruder
        self.shape = (path.n_parameters, path.n_parameters)
        self.dtype, self.device = path.dtype, path.device

    def product(self, vectors: Tensor) -> Tensor:
        """G v for each row of (b, N)."""
        with multiplying_in(self.path.precision):
            return self.path.product(vectors)


class Rounded:
    """A float32 operator on float64 vectors: it errs by the rounding of its products alone, for about half the time.

    With vectors in float32 too its pairs would err by more, and a solve in float64 that they lead take half as many
    products again.
    """

    dtype = torch.float64

    def __init__(self, operator: Operator) -> None:
        self.operator, self.shape, self.device = operator, operator.shape, operator.device

    def product(self, vectors: Tensor) -> Tensor:
        """The float32 operator's H v for each row of (b, N), in float64."""
        return self.operator.product(vectors.to(self.operator.dtype)).to(self.dtype)


def guide_of(path: MLPHessian, seed: int) -> Guide | None:
    """What guides a solve here: on a CPU fewer samples, on a GPU all of them in TF32.

    A GPU takes a product with an eighth of the samples in little less time than one with all, and its host would draw
    the samples for longer than the whole solve takes.
    """
    return Guide(path.in_precision("tf32")) if path.device.type == "cuda" else sampled_guide(path, seed)


def sampled_guide(path: MLPHessian, seed: int) -> Guide | None:
    """A guide for the Hessian at the present point, or None where there are too few samples for one to pay.

    Samples weigh in H about as `MLPHessian.importance` says. The size of the guide follows how many hold 99% of the
    sum, by what was measured on MNIST: twice as many leave the guide's top vectors a residual of some 1e-4, a
    third more 1e-3. Where they are few, the guide is twice as many. Where they are up to a quarter of all, it is
    a third more, with a cruder guide of a 12th of the samples for its own solve. Where they are more, an eighth
    of the samples is the best trade.
    """
    n = len(path.inputs)
    if n < FEWEST_SAMPLES:
        return None
    sizes, strata = path.importance()
    sizes, strata = sizes.cpu(), strata.cpu()
    descending = sizes.sort(descending=True).values.cumsum(0)
    held = int(torch.searchsorted(descending, 0.99 * descending[-1]))

    def guide(m: int, cruder: Guide | None = None) -> Guide:
        chosen, weights = weighted_sample(sizes, strata, m, seed)
        return Guide(path.subset(chosen.to(path.device), weights.to(path.device)), cruder)

    if held <= n // 16:
        return guide(max(2 * held, n // 20))
    if held <= n // 4:
        return guide(4 * held // 3, cruder=guide(n // 12))
    return guide(n // 8)


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
    rest = (~certain & (sizes > 0)).nonzero()[:, 0]
    # Large before small within a stratum: of two neighbours in this order, systematic sampling seldom takes both.
    rest = rest[torch.argsort(sizes[rest], descending=True, stable=True)]
    rest = rest[torch.argsort(strata[rest], stable=True)]
    expected = sizes[rest] * (draws / total)
    start = torch.rand(1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    drawn = torch.searchsorted(expected.cumsum(0), torch.arange(draws, dtype=torch.float64) + start)
    rows, times = torch.unique(drawn.clamp(max=len(rest) - 1), return_counts=True)
    kept = certain.nonzero()[:, 0]
    weights = torch.cat([torch.ones(len(kept), dtype=torch.float64), times / expected[rows]])
    return torch.cat([kept, rest[rows]]), weights


def _first(m: int) -> tuple[Tensor, Tensor]:
    # No term has any size: whichever are taken, the sum is right.
    return torch.arange(m), torch.ones(m, dtype=torch.float64)
