"""Inner products and norms of long vectors in float32.

A CPU adds the terms of a float32 sum one after another, a few at a time. Over 10^6 entries the norm of a vector then
has a relative error of 1e-5, over 10^7 of 4e-4, with which a basis loses its orthonormality and a solve does not
converge. So sums go over blocks of columns, and the blocks are added in float64; smaller blocks would gain little and
take longer. The tree of a GPU's sum has no such error.
"""

import torch
from torch import Tensor

BLOCK = 1 << 15


def inner(rows: Tensor, others: Tensor) -> Tensor:
    """Inner products of rows.

    Args:
        rows: (m, N).
        others: (b, N), in the same type.

    Returns:
        (m, b) float64, on the device of the rows.
    """
    if not _in_blocks(rows):
        return (rows @ others.T).double()
    total = torch.zeros(len(rows), len(others), dtype=torch.float64)
    for start in range(0, rows.shape[1], BLOCK):
        total += (rows[:, start : start + BLOCK] @ others[:, start : start + BLOCK].T).double()
    return total


def row_norms(rows: Tensor) -> Tensor:
    """Euclidean norms of rows.

    Args:
        rows: (m, N).

    Returns:
        (m,) float64, on the device of the rows.
    """
    if not _in_blocks(rows):
        whole: Tensor = torch.linalg.vector_norm(rows, dim=1)
        return whole.double()
    squares = torch.zeros(len(rows), dtype=torch.float64)
    for start in range(0, rows.shape[1], BLOCK):
        squares += rows[:, start : start + BLOCK].square().sum(dim=1, dtype=torch.float64)
    found: Tensor = squares.sqrt()
    return found


def _in_blocks(rows: Tensor) -> bool:
    return rows.device.type == "cpu" and rows.dtype == torch.float32 and rows.shape[1] > BLOCK
