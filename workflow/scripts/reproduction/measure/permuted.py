"""Networks for a null model of their Hessian's eigenvectors: trained weights at other places of their layer."""

import math
from collections.abc import Sequence
from typing import Any

import torch


def permuted(parameters: torch.Tensor, layers: Sequence[Sequence[Any]], seed: int) -> torch.Tensor:
    """A vector (N,) whose entries are shuffled within each weight matrix and each bias, by one generator of this seed.

    `layers` is [name, shape] of each, as `model.layer_shapes` gives them. What training gave to the distribution of a
    layer's weights stays, what it gave to the place of each goes.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = torch.split(parameters, [math.prod(shape) for _, shape in layers])
    return torch.cat([part[torch.randperm(len(part), generator=generator)] for part in parts])
