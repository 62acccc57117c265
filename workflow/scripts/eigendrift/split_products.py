"""The two large matrix products with the inputs, in the precision that is asked for.

A Hessian product takes X W' and D'X with all inputs X. A GPU multiplies matrices fastest in 16 bits. Images come in 8
bits, so bfloat16, which has 8 bits of mantissa, holds the raw pixels P exactly. Their scaling X = (P - shift) scale
moves into the other factor: X W' = P (scale W)' - shift (scale W)', and D'X = (D'P - (sum of D)' shift) scale. What is
left to round is that other factor, and a sum of bfloat16 pieces holds it: one piece 8 bits of it, two 16, three all 24
of float32. Products of pieces are exact in float32, in which they are summed.

As float32 from bfloat16 pieces: Henry, Tang and Heinecke, Leveraging the bfloat16 artificial intelligence datatype for
higher-precision computations (2019), where both factors are split.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eigendrift.data import Scaling

# float32: as the type says. split3, split2: 8-bit inputs, the other factor in so many pieces. tf32: 10 bits of each
# factor in all products (a CPU has no such thing, and takes float32).
PRECISIONS = ("float32", "split3", "split2", "tf32")
# Those whose products round as float32 does, so that a residual of 1e-6 can be told from them.
EXACT = ("float32", "split3")
PIECES = {"split3": 3, "split2": 2}
_ROWS = 4096


@dataclass(frozen=True)
class Pixels:
    """Inputs X = (raw - shift) scale: raw (n, d) bfloat16 that holds integers 0..255, shift and scale (d,) float32."""

    raw: Tensor
    shift: Tensor
    scale: Tensor

    @classmethod
    def of(cls, inputs: Tensor, scaling: Scaling) -> "Pixels":
        """The pixels behind inputs (n, d) float32 that are the scaling of integers from 0 to 255.

        Raises ValueError where the inputs are not that, to the rounding of float32.
        """
        if inputs.ndim != 2 or inputs.dtype != torch.float32:
            found = f"{str(inputs.dtype).removeprefix('torch.')} of shape {tuple(inputs.shape)}"
            raise ValueError(f"inputs are {found}; products in pieces take float32 inputs of shape (n, d)")
        shift, scale = (
            torch.tensor(np.asarray(each), dtype=inputs.dtype, device=inputs.device)
            for each in (scaling.shift, scaling.scale)
        )
        raw = torch.empty(inputs.shape, dtype=torch.bfloat16, device=inputs.device)
        for start in range(0, len(inputs), _ROWS):
            rows = slice(start, start + _ROWS)
            # A pixel that is the same in all images has scale 0; whatever it was, X is 0 there.
            levels = torch.where(scale > 0, inputs[rows] / scale + shift, 0.0).round()
            error = ((levels - shift) * scale - inputs[rows]).abs()
            allowed = 8 * torch.finfo(inputs.dtype).eps * ((levels.abs() + shift.abs()) * scale)
            if not bool(((levels >= 0) & (levels <= 255) & (error <= allowed)).all()):
                raise ValueError("the inputs are not this scaling of pixels from 0 to 255; take precision='float32'")
            raw[rows] = levels.to(torch.bfloat16)
        return cls(raw, shift, scale)

    def subset(self, chosen: Tensor) -> "Pixels":
        """Those of some samples."""
        return Pixels(self.raw[chosen], self.shift, self.scale)

    def forward(self, rows: slice, weights: Tensor, biases: Tensor, pieces: int) -> Tensor:
        """X W' + b over some samples: weights (m, d), biases (m,) -> (rows, m)."""
        scaled = weights * self.scale
        parts = torch.cat(split(scaled, pieces))
        sums = _wide_mm(self.raw[rows], parts.T).view(-1, pieces, len(weights))
        # The small pieces first: they vanish in the sum otherwise.
        total = sums[:, -1]
        for piece in range(pieces - 2, -1, -1):
            total = total + sums[:, piece]
        return total + (biases - scaled @ self.shift)

    def backward(self, rows: slice, errors: Tensor, pieces: int) -> Tensor:
        """D'X over some samples: errors (rows, m) -> (m, d)."""
        width = errors.shape[1]
        parts = split(errors, pieces)
        # Tensor cores read rows of a multiple of 16 bytes fastest.
        parts.append(parts[0].new_zeros(len(errors), -pieces * width % 8))
        products = _wide_mm(torch.cat(parts, dim=1).T, self.raw[rows])
        sums = products[: pieces * width].view(pieces, width, -1)
        total = sums[-1]
        for piece in range(pieces - 2, -1, -1):
            total = total + sums[piece]
        return (total - errors.sum(dim=0)[:, None] * self.shift) * self.scale


@dataclass(frozen=True)
class InPieces:
    """Products with pixels in blocks of `size` rows, as `staircase.Staircase` takes them."""

    pixels: Pixels
    pieces: int
    size: int

    def layer(self, weights: Tensor, biases: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` takes of weights (m, d) and biases (m,)."""
        return weights, biases

    def forward(self, block: int, layer: tuple[Tensor, Tensor]) -> Tensor:
        """X W' + b over a block: (size, m)."""
        return self.pixels.forward(self._rows(block), *layer, self.pieces)

    def zeros(self, m: int) -> Tensor:
        """What `backward` adds to."""
        return self.pixels.shift.new_zeros(m, len(self.pixels.shift))

    def backward(self, block: int, errors: Tensor, total: Tensor) -> None:
        """Add the part of D'X of a block with errors (size, m)."""
        total += self.pixels.backward(self._rows(block), errors, self.pieces)

    def finished(self, total: Tensor, sums: Tensor) -> Tensor:
        """D'X (m, d), from what `backward` has added up and the sums of the errors (m,)."""
        return total

    def _rows(self, block: int) -> slice:
        return slice(block * self.size, (block + 1) * self.size)


def split(values: Tensor, pieces: int) -> list[Tensor]:
    """bfloat16 tensors that sum up to float32 values, to 8 bits of mantissa a piece; the largest first."""
    parts, rest = [], values
    for _ in range(pieces):
        parts.append(rest.to(torch.bfloat16))
        rest = rest - parts[-1]
    return parts


def _wide_mm(a: Tensor, b: Tensor) -> Tensor:
    """The product of bfloat16 matrices in float32."""
    if a.device.type == "cuda":
        return torch.mm(a, b, out_dtype=torch.float32)
    # The same numbers: each product of two entries is exact in float32.
    return a.float() @ b.float()


@contextmanager
def multiplying_in(precision: str) -> Iterator[None]:
    """Float32 products and convolutions on a GPU in TF32 for `tf32`, else in full, whatever is set outside.

    Without this a convolution there is in TF32, and a residual could not be trusted below 1e-3.
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
