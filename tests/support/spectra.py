"""Symmetric matrices with known spectra, and a matrix as somebody else's operator."""

import math

import torch
from torch import Tensor

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
