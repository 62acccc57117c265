"""How a GPU multiplies float32 matrices: in full precision, or in TF32, which is less accurate and faster."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# float32: full precision. tf32: 10 bits of each factor in all products; a CPU has no TF32 and uses float32.
PRECISIONS = ("float32", "tf32")


@contextmanager
def multiplying_in(precision: str) -> Iterator[None]:
    """Compute float32 products and convolutions on a GPU in TF32 for `tf32`, else in full, whatever is set outside.

    By default torch computes convolutions on a GPU in TF32, with which a residual cannot be trusted below 1e-3.
    """
    cudnn: Any = torch.backends.cudnn
    settings = (torch.backends.cuda.matmul, cudnn.conv)
    before = [each.fp32_precision for each in settings]
    for each in settings:
        each.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        for each, value in zip(settings, before, strict=True):
            each.fp32_precision = value
