"""The networks: their activations, one record each, and the sizes and costs that follow from their widths.

Read when the Snakefile is, so it does not import torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class ActivationRecord:
    """A module between two layers: its class `package.module:Class`, which takes no arguments.

    `by_hand` says whether gradients are taken by hand (`eigendrift.fully_connected.ACTIVATIONS` holds its derivatives);
    without it autograd takes them, whose graph needs memory.
    """

    module: str
    by_hand: bool = False


ACTIVATIONS: dict[str, ActivationRecord] = {
    "relu": ActivationRecord("torch.nn:ReLU", by_hand=True),
    "tanh": ActivationRecord("torch.nn:Tanh", by_hand=True),
    "sigmoid": ActivationRecord("torch.nn:Sigmoid", by_hand=True),
    "gelu": ActivationRecord("torch.nn:GELU"),
    "silu": ActivationRecord("torch.nn:SiLU"),
    "softplus": ActivationRecord("torch.nn:Softplus", by_hand=True),
    "elu": ActivationRecord("torch.nn:ELU"),
}


@dataclass(frozen=True)
class FullyConnected:
    """Linear layers with biases from `inputs` over the widths `hidden` to `outputs`, one activation between them."""

    inputs: int
    hidden: Sequence[int]
    outputs: int
    activation: str = "relu"

    @property
    def _layers(self) -> list[tuple[int, int]]:
        return list(pairwise([self.inputs, *self.hidden, self.outputs]))

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases."""
        return sum(a * b + b for a, b in self._layers)

    @property
    def layers(self) -> int:
        """Number of linear layers."""
        return len(self._layers)

    def values_kept(self, samples: int) -> int:
        """Numbers that a product keeps of all samples: activations and derivatives of each layer."""
        return samples * (sum(self.hidden) * 3 + 4 * self.outputs)

    @property
    def keeps_graph(self) -> bool:
        """Whether products go through autograd's graphs."""
        return not ACTIVATIONS[self.activation].by_hand

    def gradient_flops(self, samples: int) -> float:
        """Operations of the gradient: a forward pass, and a backward pass of twice as many."""
        return 3 * self.forward_flops(samples)

    def forward_flops(self, samples: float) -> float:
        """Operations of a forward pass."""
        return 2.0 * samples * self.n_parameters

    def product_flops(self, samples: int) -> float:
        """Operations of one product of the Hessian with one vector, where the forward pass is kept.

        The first layer takes two matrix products a sample (R(z) = v x and the sum of R(dL/dz) x'), since its inputs do
        not move; every other layer takes six, two each for R(z), for R(dL/dz) below it and for R of the weights'
        gradient.
        """
        first, *others = (a * b for a, b in self._layers)
        return 2.0 * samples * (2 * first + 6 * sum(others))
