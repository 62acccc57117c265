"""Eigenpairs with their residuals, gaps, angle bounds, clusters, and a bound on the eigenvalues that were missed."""

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from eigendrift.eigensolver.sums import inner

# Neighbours that are not known to differ by more than this fraction of their value form a cluster. Within a cluster a
# small error rotates the vectors, and only their span is well determined.
CLUSTER = 1e-2

BoundSource = Literal["dense", "operator", "surrogate", "none"]


class ConvergenceWarning(UserWarning):
    """Some of the returned pairs have larger residuals than the tolerance."""


@dataclass(frozen=True, eq=False)
class EigenPairs:
    """k eigenpairs of a symmetric operator H, and how far each can be trusted.

    It unpacks as `values, vectors`, prints as a short table, and is saved without pickle. "Next" is the largest
    eigenvalue that is not among the k (for which="SA" the smallest, for "LM" the largest in magnitude).

    Attributes:
        values: (k,) float64, in units of H, the wanted end of the spectrum first.
        vectors: (N, k), orthonormal columns, in the type of the products, float32 at least.
        residuals: (k,) relative residual norms |H v - lambda v| / |lambda| of true products; relative to the largest
            |lambda| where lambda is zero within rounding.
        converged: (k,) bool, residual <= tol.
        gaps: (k,) lower bound on the distance from each eigenvalue to any other, in units of H; 0 where the two cannot
            be distinguished, or where an eigenvalue so near may have been missed.
        angle_bounds: (k,) upper bound residual norm / gap on the sine of the angle between v_i and its eigenvector
            (Davis and Kahan 1970), at most 1. 1 means that nothing is known of the single vector.
        clustered: (k,) bool, whether a neighbour, the next eigenvalue included, is not known to be more than 1% of the
            eigenvalue away.
        clusters: (k,) index of the first pair of the cluster that each pair belongs to.
        span_bounds: (k,) the same upper bound for the largest angle between the span of the whole cluster, as far as it
            is among the k, and the span of its eigenvectors.
        next_bound: Upper bound on the next eigenvalue (for "SA" a lower bound), in units of H; infinite where nothing
            is known.
        bound_source: The basis of `next_bound`. "dense": all N eigenvalues were computed, and it is exact. "operator":
            a random vector was followed through products with H, and the bound is wrong with probability
            `miss_probability` at most. "surrogate": the same with products of the surrogate, on the assumption that H
            differs from it on the next eigenvalue by no more than three times the difference seen on the k; then it is
            an estimate. "none": nothing was bounded.
        miss_probability: See `bound_source`; 0 for "dense", 1 for "none".
        matvecs: Number of products with H.
        surrogate_matvecs: Number of products with the surrogate and its coarse level.
        orthogonality: Largest entry of |V'V - I|.

    Example:
        >>> from eigendrift import top_eigenpairs
        >>> pairs = top_eigenpairs(torch.diag(torch.tensor([5.0, 4.0, 1.0], dtype=torch.float64)), k=1)
        >>> values, vectors = pairs
        >>> round(float(pairs.gaps[0]), 6), pairs.next_bound, pairs.bound_source
        (1.0, 4.0, 'dense')
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
            path: The file, whose name ends in .npz.

        Raises:
            ValueError: The name has another ending, which NumPy would change in silence.
        """
        if not os.fspath(path).endswith(".npz"):
            raise ValueError(f"path = {os.fspath(path)!r} is not allowed; give a name that ends in .npz")
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {k: v.cpu().numpy() if isinstance(v, Tensor) else np.asarray(v) for k, v in arrays.items()}
        np.savez(path, allow_pickle=False, **plain)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "EigenPairs":
        """Read a file that `save` wrote; nothing in the file is executed.

        Args:
            path: The file.

        Returns:
            The pairs, on the CPU.

        Raises:
            ValueError: The file is damaged, lacks a field or holds pickled objects.
            FileNotFoundError: There is no such file.
        """
        name = os.fspath(path)
        found: dict[str, Any] = {}
        try:
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
                for field in fields(cls):
                    if field.name not in file:
                        raise ValueError(f"it has no {field.name!r}")
                    array = file[field.name]
                    found[field.name] = array.item() if array.ndim == 0 else torch.from_numpy(array)
        except FileNotFoundError:
            raise
        except (ValueError, TypeError, AttributeError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(f"{name} is damaged, or no file that EigenPairs.save wrote: {error}") from error
        k = len(found["values"]) if isinstance(found["values"], Tensor) else -1
        for field in fields(cls):
            value, whole = found[field.name], field.type is Tensor
            if whole != isinstance(value, Tensor) or (whole and k not in value.shape):
                raise ValueError(f"{name} is damaged: {field.name} does not fit {k} values")
        return cls(**found)


def assess(
    values: Tensor,
    norms: Tensor,
    residuals: Tensor,
    next_bound: float,
    rounding: float,
) -> dict[str, Tensor]:
    """The fields of EigenPairs that follow from the k largest Ritz pairs and the bound on the next eigenvalue.

    Args:
        values: (k,) Ritz values, descending, in units of H.
        norms: (k,) residual norms, in units of H.
        residuals: (k,) relative residual norms.
        next_bound: Upper bound on the next eigenvalue, in units of H.
        rounding: Uncertainty of the eigenvalues besides their residuals, in units of H.

    Returns:
        The fields by name.
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
    """Largest entry of |Y Y' - I|.

    Args:
        vectors: Rows Y (k, N).

    Returns:
        A number without a unit, 0 for orthonormal rows.
    """
    gram = inner(vectors, vectors).cpu()
    return float((gram - torch.eye(len(gram), dtype=torch.float64)).abs().max())


def _sines(norms: Tensor, gaps: Tensor) -> Tensor:
    """Residual norm / gap, at most 1."""
    # The vectors of a repeated eigenvalue are not determined, however small the residual is.
    return torch.where(gaps > 0, norms / gaps, torch.ones_like(norms)).clamp(max=1.0)


def _first_of_each(near: Tensor) -> Tensor:
    """Index of the first pair of the chain of near neighbours that each belongs to; `near` is (k, k) or wider."""
    firsts = [0]
    for i in range(1, len(near)):
        firsts.append(firsts[-1] if near[i - 1, i] or near[i, i - 1] else i)
    return torch.tensor(firsts)


def _span_bounds(clusters: Tensor, norms: Tensor, distances: Tensor) -> Tensor:
    """|R|_F of each pair's cluster over the distance to the eigenvalues outside of it, at most 1."""
    bounds = torch.empty(len(clusters), dtype=torch.float64)
    for first in clusters.unique():
        own = torch.nonzero(clusters == first)[:, 0]
        outside = torch.ones(distances.shape[1], dtype=torch.bool)
        outside[own] = False
        gap = distances[own][:, outside].min() if bool(outside.any()) else torch.tensor(torch.inf)
        bounds[own] = _sines(torch.linalg.vector_norm(norms[own]), gap.clamp(min=0.0))
    return bounds
