"""Where the compiled loops of training are used."""

from types import ModuleType

import torch


def compiled(like: torch.Tensor) -> ModuleType | None:
    """The module `numba_kernels` for tensors like this one, where it is the fastest: on a CPU, one thread. Else None.

    None also for types that NumPy lacks, and where numba cannot be imported.
    """
    fits = like.device.type == "cpu" and like.dtype in (torch.float32, torch.float64)
    if not fits or torch.get_num_threads() > 1:
        return None
    try:
        from reproduction.training import numba_kernels
    except ImportError:
        # Not installed, or not for this NumPy.
        return None
    return numba_kernels
