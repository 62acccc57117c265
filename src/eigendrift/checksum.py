"""Exact checksums of tensors: equal for equal bits, on any device and in any order of summation."""

import torch
from torch import Tensor

_BLOCK = 1 << 20
_WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def checksum(rows: Tensor) -> Tensor:
    """A number that differs if an entry differs or moves to another column; the order of the rows has no part in it.

    Sums of whole numbers modulo 2^64 have no rounding, so that they do not depend on how a device adds.

    Args:
        rows: (n, ...), of any type and layout.

    Returns:
        One int64, on the device of the rows.

    Example:
        >>> a = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> bool(checksum(a) == checksum(a.flip(0))), bool(checksum(a) == checksum(a.flip(1)))
        (True, False)
    """
    rows = rows.detach()
    if rows.layout != torch.strided:
        rows = rows.to_dense()
    if rows.is_complex():
        rows = torch.view_as_real(rows)
    if rows.ndim == 0 or rows.numel() == 0:
        rows = rows.reshape(1, -1)
    bits = rows.reshape(len(rows), -1).contiguous().view(_WHOLE[rows.element_size()])
    total = torch.zeros((), dtype=torch.int64, device=rows.device)
    for start in range(0, bits.shape[1], _BLOCK):
        columns = bits[:, start : start + _BLOCK].sum(dim=0, dtype=torch.int64)
        factors = torch.arange(start, start + len(columns), device=rows.device)
        # Without the constant, the first column would not count.
        total += (columns * (2 * factors + 1)).sum()
    return total
