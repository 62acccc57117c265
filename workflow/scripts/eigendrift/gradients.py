"""Gradients for training: a model's parameters as one vector, and the gradient of a batch written beside it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from eigendrift.mlp_layers import ACTIVATIONS, mlp_layers


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
    """The fastest way to this model's gradient: by hand for a plain fully connected network, else by autograd."""
    layers = mlp_layers(flat.model)
    return _by_autograd(flat) if layers is None else MLPGradient(*layers, flat.gradients)


def _by_autograd(flat: FlatParameters) -> BatchGradient:
    def gradient(inputs: Tensor, targets: Tensor) -> None:
        flat.gradient.zero_()
        nn.functional.cross_entropy(flat.model(inputs), targets).backward()

    return gradient


class MLPGradient:
    """Backpropagation through linear layers and activations, without a graph, in memory that is used again.

    Samples are columns here: matrix products, sums over the batch and the softmax over the classes then all run along
    memory, which at a batch of 128 saves a tenth of the time.
    """

    def __init__(self, linear: list[nn.Linear], activations: list[nn.Module], gradients: list[Tensor]) -> None:
        """`gradients` takes the result: weight and bias of each layer, in turn."""
        self.weights = [layer.weight.detach() for layer in linear]
        self.biases = [layer.bias.detach()[:, None] for layer in linear]
        # In place where that is known to be free of arguments; z itself is not needed again.
        self.activations = [torch.relu_ if type(a) is nn.ReLU else a for a in activations]
        self.rules = [ACTIVATIONS[type(a)] for a in activations]
        self.weight_gradients, self.bias_gradients = gradients[::2], gradients[1::2]
        self._size = 0

    def _allocate(self, n: int) -> None:
        like = self.weights[0]
        self._size = n
        self._pre = [like.new_empty(len(w), n) for w in self.weights]
        self._errors = [like.new_empty(len(w), n) for w in self.weights]
        self._ones = like.new_ones(n)
        # Column c: what the target c adds to the slope of the mean loss.
        self._hit = torch.eye(len(self.weights[-1]), dtype=like.dtype, device=like.device).div_(-n)
        self._hits = like.new_empty(len(self.weights[-1]), n)

    def __call__(self, inputs: Tensor, targets: Tensor) -> None:
        """inputs (n, d_0), targets (n,) class indices."""
        n = len(inputs)
        if n != self._size:
            self._allocate(n)
        below, last = [inputs.T], len(self.weights) - 1
        for index, z in enumerate(self._pre):
            torch.addmm(self.biases[index], self.weights[index], below[-1], out=z)
            if index < last:
                below.append(self.activations[index](z))
        error = torch.softmax(self._pre[-1], dim=0, out=self._errors[-1])
        # Deterministic on a GPU too, where a scatter would sort its indices, wait for them, and not be captured.
        hits = torch.index_select(self._hit, 1, targets, out=self._hits)
        torch.add(hits, error, alpha=1 / n, out=error)
        for index in range(last, -1, -1):
            torch.mm(error, below[index].T, out=self.weight_gradients[index])
            torch.mv(error, self._ones, out=self.bias_gradients[index])
            if index:
                back = torch.mm(self.weights[index].T, error, out=self._errors[index - 1])
                error = self.rules[index - 1].back(back, below[index])
