"""Gradients for training: a model's parameters as one vector, and the gradient of a batch written beside it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from eigendrift.fully_connected import mlp_layers
from reproduction.training.mlp_gradient import MLPGradient


class FlatParameters:
    """All parameters of a model in one vector, and their gradients in another; the model's own become views of them.

    vector (N,) with gradient in its .grad (N,), in model.parameters() order. An optimizer that treats every element
    alike then takes one step on one tensor, not one on each layer's.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.vector = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
        self.gradient = torch.zeros_like(self.vector)
        self.vector.grad = self.gradient
        self.gradients: list[Tensor] = []
        start = 0
        for parameter in model.parameters():
            part = slice(start, start + parameter.numel())
            parameter.data = self.vector.detach()[part].view_as(parameter)
            parameter.grad = self.gradient[part].view_as(parameter)
            self.gradients.append(parameter.grad)
            start += parameter.numel()


# Leaves the gradient of the mean cross-entropy of a batch (inputs, targets) in FlatParameters.gradient.
BatchGradient = Callable[[Tensor, Tensor], Any]


def batch_gradient(flat: FlatParameters) -> BatchGradient:
    """The fastest gradient of this model: written by hand for a plain fully connected network, else by autograd."""
    layers = mlp_layers(flat.model)
    return _by_autograd(flat) if layers is None else MLPGradient(*layers, flat.gradients)


def _by_autograd(flat: FlatParameters) -> BatchGradient:
    def gradient(inputs: Tensor, targets: Tensor) -> None:
        flat.gradient.zero_()
        nn.functional.cross_entropy(flat.model(inputs), targets).backward()

    return gradient
