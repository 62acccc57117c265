"""The machine's own rate: its best at the largest matrix product that a Hessian-vector product contains."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.timing import Timing, interleaved

CHUNKS = (1024, 2048, 4096, 8192)


def matrix_product_forms(inputs: Tensor, width: int) -> dict[str, Callable[[], object]]:
    """Ways to take X W' (n, d)(d, width) and D'X (width, n)(n, d), whole and in chunks of rows: the same operations."""
    n, d = inputs.shape
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(width, d, generator=generator)
    errors = torch.randn(n, width, generator=generator)
    outputs, total = torch.empty(n, width), torch.zeros(width, d)

    def forward(rows: int) -> None:
        for start in range(0, n, rows):
            torch.mm(inputs[start : start + rows], weights.T, out=outputs[start : start + rows])

    def backward(rows: int) -> None:
        for start in range(0, n, rows):
            total.addmm_(errors[start : start + rows].T, inputs[start : start + rows])

    forms: dict[str, Callable[[], object]] = {}
    for rows in (n, *(rows for rows in CHUNKS if rows < n)):
        name = "whole" if rows == n else f"{rows} rows"
        forms[f"X W', {name}"] = partial(forward, rows)
        forms[f"D' X, {name}"] = partial(backward, rows)
    return forms


def flops(inputs: Tensor, width: int) -> float:
    """Floating-point operations of each form."""
    return 2.0 * inputs.numel() * width


def machine_rate(inputs: Tensor, width: int, repeats: int) -> tuple[float, dict[str, Timing]]:
    """The rate of the fastest form by its median (FLOP/s), and the times of all forms."""
    times = interleaved(matrix_product_forms(inputs, width), repeats)
    return flops(inputs, width) / min(each.median for each in times.values()), times
