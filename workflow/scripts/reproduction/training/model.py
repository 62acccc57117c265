"""The paper's fully connected network, and the initialization of its parameters."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from reproduction.experiment.architecture import ACTIVATIONS
from reproduction.experiment.importable import load


def mlp(inputs: int, hidden: Sequence[int], outputs: int, activation: str = "relu") -> nn.Sequential:
    """Linear layers with biases and `activation` between them; parameters in the order weight, bias, layer by layer."""
    widths = [inputs, *hidden, outputs]
    between = load(ACTIVATIONS[activation].module)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), between()]
    return nn.Sequential(*layers[:-1])


class Shaped(nn.Module):
    """A network that takes flat rows (n, d) of inputs of a shape: everywhere else data are flat."""

    def __init__(self, network: nn.Module, shape: Sequence[int]) -> None:
        super().__init__()
        self.network, self.shape = network, tuple(shape)

    def forward(self, flat: Tensor) -> Tensor:
        outputs: Tensor = self.network(flat.reshape(len(flat), *self.shape))
        return outputs


def initialize(model: nn.Module, seed: int, init: str = "xavier_uniform", bias_init: str = "zero") -> None:
    """Draw every linear layer's parameters anew from one generator with this seed.

    `init`: xavier_uniform, xavier_normal (Glorot and Bengio 2010, gain 1), kaiming_uniform, kaiming_normal (He et al.
    2015). `bias_init`: zero, or uniform in +-1/sqrt(fan in).
    """
    generator = torch.Generator().manual_seed(seed)
    draw: dict[str, Callable[..., Any]] = {
        "xavier_uniform": nn.init.xavier_uniform_,
        "xavier_normal": nn.init.xavier_normal_,
        "kaiming_uniform": lambda w, generator: nn.init.kaiming_uniform_(w, nonlinearity="relu", generator=generator),
        "kaiming_normal": lambda w, generator: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=generator),
    }
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            weight = torch.empty(layer.weight.shape)
            draw[init](weight, generator=generator)
            bias = torch.zeros(layer.bias.shape)
            if bias_init == "uniform":
                bias.uniform_(-(layer.in_features**-0.5), layer.in_features**-0.5, generator=generator)
            with torch.no_grad():
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)


def flatten(model: nn.Module) -> torch.Tensor:
    """A copy of all parameters as one vector (N,), in model.parameters() order."""
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def layer_shapes(model: nn.Module) -> list[list[Any]]:
    """[name, shape] of every parameter, in the order of the vector of `flatten`; the names are the network's own."""
    network = model.network if isinstance(model, Shaped) else model
    return [[name, list(parameter.shape)] for name, parameter in network.named_parameters()]
