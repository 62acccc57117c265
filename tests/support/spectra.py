"""Symmetric matrices with known spectra, and a matrix as somebody else's operator."""

import math

import torch
from torch import Tensor

from eigendrift import EigenPairs

N = 300


def with_spectrum(values: Tensor, seed: int = 0) -> Tensor:
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64, generator=generator)).Q
    matrix = (q * values.double()) @ q.T
    return (matrix + matrix.T) / 2


SPECTRA: dict[str, Tensor] = {
    "decaying": 1.0 / torch.arange(1, N + 1) ** 1.5,
    "flat": torch.linspace(-1, 1, N),
    "outliers": torch.cat([torch.tensor([50.0, 30.0, -20.0]), torch.linspace(-1, 1, N - 3)]),
    "semicircle": torch.cos(torch.linspace(0, math.pi, N)),
}


class Columns:
    """An object that multiplies columns."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.shape, self.dtype = matrix, tuple(matrix.shape), matrix.dtype

    def __matmul__(self, vectors: Tensor) -> Tensor:
        return self.matrix @ vectors


class Matrix:
    """A symmetric matrix as an operator that counts its products."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.shape, self.dtype, self.device = matrix, tuple(matrix.shape), matrix.dtype, matrix.device
        self.products = 0

    def product(self, vectors: Tensor) -> Tensor:
        self.products += len(vectors)
        return vectors @ self.matrix


def check_pairs(pairs: EigenPairs, dense: Tensor, tol: float) -> None:
    """Values, residuals, angle bounds and the bound on the next eigenvalue against those of the dense matrix."""
    values, vectors = torch.linalg.eigh(dense)
    k = len(pairs.values)
    values, vectors = values.flip(0), vectors.flip(1)
    torch.testing.assert_close(pairs.values, values[:k], rtol=1e-4, atol=0)
    true = (dense @ pairs.vectors - pairs.vectors * pairs.values).norm(dim=0) / pairs.values.abs()
    assert float(true.max()) <= tol
    torch.testing.assert_close(pairs.residuals, true, rtol=1e-4, atol=1e-10)
    # From the parts across, since 1 - cos^2 rounds to 1e-16 and its root to 1e-8.
    along = (pairs.vectors * vectors[:, :k]).sum(dim=0)
    sines = (pairs.vectors - along * vectors[:, :k]).norm(dim=0)
    assert bool((sines <= pairs.angle_bounds + 1e-9).all())
    assert pairs.next_bound >= float(values[k]) * (1 - 1e-9)
