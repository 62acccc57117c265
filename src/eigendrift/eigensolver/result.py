"""Eigenpairs with what is known of them: residuals, gaps, angles, clusters, and what may have been missed."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
from torch import Tensor

# Neighbours that are not known to differ by more than this part of their value form a cluster: within it a small error
# turns the vectors, and only their span is well determined.
CLUSTER = 1e-2

BoundSource = Literal["dense", "operator", "surrogate", "none"]


class ConvergenceWarning(UserWarning):
    """Some of the returned pairs have larger residuals than was asked."""


@dataclass(frozen=True, eq=False)
class EigenPairs:
    """k eigenpairs of a symmetric operator H, and how far each can be trusted.

    It unpacks as `values, vectors`, prints as a short table, and is saved without pickle. "Next" is the largest
    eigenvalue that is not among the k (for which="SA" the smallest, for "LM" the largest in magnitude).

    Attributes:
        values: (k,) float64, in units of H, the wanted end of the spectrum first.
        vectors: (N, k), orthonormal columns, in the type of the products, float32 at least.
        residuals: (k,) |H v - lambda v| / |lambda| from true products; relative to the largest |lambda| where lambda is
            zero within rounding.
        converged: (k,) bool, residual <= tol.
        gaps: (k,) distance in units of H from each eigenvalue to any other, at least; 0 where the two cannot be told
            apart, or where an eigenvalue so near may have been missed.
        angle_bounds: (k,) the sine of the angle between v_i and its eigenvector is at most residual norm / gap
            (Davis and Kahan 1970), at most 1. 1 says that nothing is known of the single vector.
        clustered: (k,) bool, whether a neighbour, the next one included, is not known to be more than 1% of the
            eigenvalue away.
        clusters: (k,) index of the first pair of the cluster that each belongs to.
        span_bounds: (k,) the same bound for the largest angle between the span of the whole cluster, as far as it is
            among the k, and that of the eigenvectors.
        next_bound: bound on the next eigenvalue; infinite (-infinite for "SA") where nothing is known.
        bound_source: what `next_bound` rests on. "dense": all N eigenvalues were computed, it is exact. "operator": a
            random vector was followed through products of H, the bound is wrong with probability `miss_probability`
            at most. "surrogate": the same with products of the surrogate, and H is assumed to differ from it on the
            next eigenvalue by no more than three times what it was seen to differ on the k (an estimate). "none".
        miss_probability: see `bound_source`; 0 for "dense", 1 for "none".
        matvecs: products with H.
        surrogate_matvecs: products with the surrogate and its coarse level.
        orthogonality: largest entry of |V'V - I|.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    converged: Tensor
    gaps: Tensor
    angle_bounds: Tensor
    clustered: Tensor
    clusters: Tensor
    span_bounds: Tensor
    next_bound: float
    bound_source: BoundSource
    miss_probability: float
    matvecs: int
    surrogate_matvecs: int
    orthogonality: float

    def __iter__(self) -> Iterator[Tensor]:
        """Unpack as values, vectors."""
        return iter((self.values, self.vectors))

    def __repr__(self) -> str:
        k = len(self.values)
        lines = [
            f"EigenPairs(k={k}, N={len(self.vectors)}): {int(self.converged.sum())} of {k} converged, "
            f"{self.matvecs} products, next eigenvalue bounded by {self.next_bound:.4g} ({self.bound_source})"
        ]
        lines += [
            f"  {i + 1:3d}  {float(self.values[i]):12.6g}  residual {float(self.residuals[i]):.1e}  "
            f"angle <= {float(self.angle_bounds[i]):.1e}"
            f"{'  clustered' if self.clustered[i] else ''}{'' if self.converged[i] else '  NOT CONVERGED'}"
            for i in range(min(k, 10))
        ]
        return "\n".join(lines + ([f"  ... {k - 10} more"] if k > 10 else []))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all fields to a NumPy .npz file, vectors on the CPU; `load` reads them back.

        Args:
            path: the file, whose name ends in .npz.

        Raises:
            ValueError: for another ending, which NumPy would change in silence.
        """
        if not os.fspath(path).endswith(".npz"):
            raise ValueError(f"path = {os.fspath(path)!r} is not allowed; give a name that ends in .npz")
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {k: v.cpu().numpy() if isinstance(v, Tensor) else np.asarray(v) for k, v in arrays.items()}
        np.savez(path, allow_pickle=False, **plain)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "EigenPairs":
        """Read what `save` wrote; nothing in the file is executed.

        Raises:
            ValueError: the file lacks a field, or holds pickled objects.
        """
        found: dict[str, object] = {}
        with np.load(path, allow_pickle=False) as file:
            for field in fields(cls):
                if field.name not in file:
                    raise ValueError(f"{os.fspath(path)} has no {field.name!r}; give a file that EigenPairs.save wrote")
                array = file[field.name]
                found[field.name] = array.item() if array.ndim == 0 else torch.from_numpy(array)
        return cls(**found)  # type: ignore[arg-type]


def assess(
    values: Tensor,
    norms: Tensor,
    residuals: Tensor,
    next_bound: float,
    rounding: float,
) -> dict[str, Tensor]:
    """The fields of EigenPairs that follow from the k largest Ritz pairs, descending, and the bound on the next.

    values (k,), norms (k,): of the residuals, in units of H; residuals (k,): relative;
    rounding: what eigenvalues are uncertain by beyond their residuals.
    """
    k = len(values)
    # An eigenvalue lies within the residual of each Ritz value, so a neighbour may be nearer by its residual.
    distances = (values[:, None] - values[None]).abs() - norms[None] - rounding
    distances = torch.cat([distances, (values - next_bound)[:, None]], dim=1)
    distances[range(k), range(k)] = torch.inf
    gaps = distances.min(dim=1).values.clamp(min=0.0)
    near = distances <= CLUSTER * values[:, None].abs()
    clusters = _first_of_each(near)
    # A residual that is smaller than the rounding of its product is not known to be that small.
    known = norms + rounding
    return {
        "values": values.clone(),
        "residuals": residuals,
        "gaps": gaps,
        "angle_bounds": _sines(known, gaps),
        "clustered": near.any(dim=1),
        "clusters": clusters,
        "span_bounds": _span_bounds(clusters, known, distances),
    }


def orthogonality(vectors: Tensor) -> float:
    """Largest entry of |Y Y' - I| for rows (k, N)."""
    gram = (vectors @ vectors.T).double().cpu()
    return float((gram - torch.eye(len(gram), dtype=torch.float64)).abs().max())


def _sines(norms: Tensor, gaps: Tensor) -> Tensor:
    """Residual norm / gap, at most 1."""
    # Nothing tells which vector of a repeated eigenvalue is meant, however small the residual.
    return torch.where(gaps > 0, norms / gaps, torch.ones_like(norms)).clamp(max=1.0)


def _first_of_each(near: Tensor) -> Tensor:
    """Index of the first pair of the chain of near neighbours that each belongs to; `near` is (k, k) or wider."""
    firsts = [0]
    for i in range(1, len(near)):
        firsts.append(firsts[-1] if near[i - 1, i] or near[i, i - 1] else i)
    return torch.tensor(firsts)


def _span_bounds(clusters: Tensor, norms: Tensor, distances: Tensor) -> Tensor:
    """|R|_F of each pair's cluster over the distance to what is not in it, at most 1."""
    bounds = torch.empty(len(clusters), dtype=torch.float64)
    for first in clusters.unique():
        own = torch.nonzero(clusters == first)[:, 0]
        outside = torch.ones(distances.shape[1], dtype=torch.bool)
        outside[own] = False
        gap = distances[own][:, outside].min() if bool(outside.any()) else torch.tensor(torch.inf)
        bounds[own] = _sines(torch.linalg.vector_norm(norms[own]), gap.clamp(min=0.0))
    return bounds
