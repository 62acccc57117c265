"""What every answer is held against: a tight solve in float64, by a plain Lanczos that shares nothing with ours."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# Pairs whose values differ by less than this, relatively, form a cluster: only their span is well determined.
CLUSTER = 1e-2
TIGHT = 1e-8

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Reference:
    """values (m,) descending and vectors (N, m) in float64, m >= k, and the largest relative residual of the first k.

    Beyond the first k come a neighbour, whose value alone is meant, and what else a cluster at the edge needs.
    """

    values: Tensor
    vectors: Tensor
    residual: float

    def relative_gaps(self, k: int) -> Tensor:
        """Distance of each of the first k values to its nearest neighbour, relative to the value."""
        distances = (self.values[:, None] - self.values[None, :]).abs()
        distances.fill_diagonal_(torch.inf)
        return distances.min(dim=1).values[:k] / self.values[:k].abs()

    def cluster(self, i: int) -> list[int]:
        """Indices of the pairs that hang together with pair i (0-based), itself among them."""
        first = last = i
        while first > 0 and self._close(first - 1):
            first -= 1
        while last + 1 < len(self.values) and self._close(last):
            last += 1
        return list(range(first, last + 1))

    def _close(self, i: int) -> bool:
        """Whether pairs i and i + 1 belong together."""
        return bool(self.values[i] - self.values[i + 1] < CLUSTER * self.values[i].abs())

    def overlap(self, i: int, vector: Tensor) -> float:
        """Norm of the projection of the unit `vector` (N,) on the span of pair i's cluster: |cos| for a single pair."""
        span = torch.linalg.qr(self.vectors[:, self.cluster(i)]).Q
        return min(float((span.T @ vector.double()).norm()), 1.0)


def tight_pairs(product: Product, n: int, k: int, seed: int, tol: float = TIGHT, limit: int = 400) -> Reference:
    """Lanczos with full reorthogonalization in float64 until the first k true residuals are at most `tol`.

    A cluster that reaches beyond pair k is converged to its end. Raises RuntimeError when `limit` products do not do.
    """
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(n, dtype=torch.float64, generator=generator)
    basis, products = torch.empty(limit, n, dtype=torch.float64), torch.empty(limit, n, dtype=torch.float64)
    for m in range(limit):
        basis[m] = q / q.norm()
        products[m] = product(basis[m])
        q = products[m].clone()
        for _ in range(2):
            q -= (basis[: m + 1] @ q) @ basis[: m + 1]
        if m < k + 1:
            continue
        small = basis[: m + 1] @ products[: m + 1].T
        values, columns = torch.linalg.eigh((small + small.T) / 2)
        values, columns = values.flip(0), columns.flip(1)
        wanted = k
        while wanted < m and values[wanted - 1] - values[wanted] < CLUSTER * values[wanted - 1].abs():
            wanted += 1
        # Each residual from products that were taken, not from the recurrence.
        s = columns[:, : wanted + 1].T
        vectors = s @ basis[: m + 1]
        residual_vectors = s @ products[: m + 1] - values[: wanted + 1, None] * vectors
        residuals = residual_vectors.norm(dim=1) / values[: wanted + 1].abs()
        if bool((residuals[:wanted] <= tol).all()) or m + 1 == n:
            return Reference(values[: wanted + 1], vectors.T.contiguous(), float(residuals[:k].max()))
    raise RuntimeError(f"the reference did not reach {tol} in {limit} products; residuals {residuals[:k].tolist()}")


def cached_pairs(folder: Path, weights: Tensor, k: int, compute: Callable[[], Reference], what: str) -> Reference:
    """The reference at these weights from the cache, else computed and kept; `what` names data, loss and tolerance."""
    key = hashlib.sha256(weights.numpy().tobytes() + f"{what}/{k}/{TIGHT}".encode()).hexdigest()[:16]
    path = folder / "references" / f"{key}.npz"
    if path.exists():
        with np.load(path) as kept:
            return Reference(
                torch.from_numpy(kept["values"]), torch.from_numpy(kept["vectors"]), float(kept["residual"])
            )
    found = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez(part, values=found.values.numpy(), vectors=found.vectors.numpy(), residual=found.residual)
    part.replace(path)
    return found


def true_residuals(product: Product, values: Tensor, vectors: Tensor) -> Tensor:
    """|H v - lambda v| / |lambda| of each column, with `product` for (N, b), with fresh products."""
    residual_vectors = product(vectors).double() - vectors.double() * values
    residuals: Tensor = residual_vectors.norm(dim=0) / values.abs()
    return residuals
