"""Which models are fully connected networks that gradients and Hessians by hand can take, and their activations."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Activation:
    """phi' and phi'' as functions of phi(z), so that z need not be kept; `second` is None where phi'' = 0 (almost)."""

    first: Callable[[Tensor], Tensor]
    second: Callable[[Tensor], Tensor] | None

    def back(self, error: Tensor, a: Tensor) -> Tensor:
        """dL/dz from dL/da, in its memory."""
        return error.mul_(self.first(a))


class _Rectifier(Activation):
    """ReLU, whose slope is taken in one pass."""

    def back(self, error: Tensor, a: Tensor) -> Tensor:
        result: Tensor = torch.ops.aten.threshold_backward.grad_input(error, a, 0, grad_input=error)
        return result


def _logistic_from_softplus(a: Tensor) -> Tensor:
    return -torch.expm1(-a)


ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ReLU: _Rectifier(torch.sign, None),
    nn.Tanh: Activation(lambda a: 1 - a * a, lambda a: -2 * a * (1 - a * a)),
    nn.Sigmoid: Activation(lambda a: a * (1 - a), lambda a: a * (1 - a) * (1 - 2 * a)),
    nn.Softplus: Activation(
        _logistic_from_softplus, lambda a: _logistic_from_softplus(a) * (1 - _logistic_from_softplus(a))
    ),
}


def mlp_layers(model: nn.Module) -> tuple[list[nn.Linear], list[nn.Module]] | None:
    """The linear layers and the activations of a model that this path can take, else None.

    It takes an nn.Sequential of linear layers with biases and one known activation between each two of them.
    """
    if not isinstance(model, nn.Sequential) or len(model) % 2 == 0:
        return None
    linear, activations = list(model[::2]), list(model[1::2])
    plain = all(type(layer) is nn.Linear and layer.bias is not None for layer in linear)
    known = all(type(a) in ACTIVATIONS for a in activations)
    shifted = any(isinstance(a, nn.Softplus) and (a.beta != 1 or a.threshold < 20) for a in activations)
    # Shared layers would count a parameter once that the products here count twice.
    distinct = len({id(layer) for layer in linear}) == len(linear)
    if not (plain and known and distinct) or shifted:
        return None
    return [layer for layer in linear if isinstance(layer, nn.Linear)], activations
