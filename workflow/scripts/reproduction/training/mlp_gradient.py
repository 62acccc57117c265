"""The gradient of a batch's mean cross-entropy for a fully connected network, by hand."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from eigendrift.fully_connected import ACTIVATIONS
from reproduction.training.compiled import compiled

Operation = Callable[[], object]


class MLPGradient:
    """Backpropagation through linear layers and activations, without a graph, in memory that is used again.

    Samples are columns here: matrix products, sums over the batch and the softmax over the classes then all run along
    memory, which at a batch of 128 saves a tenth of the time. What is done to a batch is a list of operations, made
    once for the memory that batches come in: between products that fill the cache, Python is slow.
    """

    def __init__(self, linear: list[nn.Linear], activations: list[nn.Module], gradients: list[Tensor]) -> None:
        """`gradients` takes the result: weight and bias of each layer, in turn."""
        self.weights = [layer.weight.detach() for layer in linear]
        self.biases = [layer.bias.detach() for layer in linear]
        self.activations = activations
        self.weight_gradients, self.bias_gradients = gradients[::2], gradients[1::2]
        self._batch: tuple[Tensor | None, Tensor | None] = None, None
        self._operations: list[Operation] = []

    def __call__(self, inputs: Tensor, targets: Tensor) -> None:
        """inputs (n, d_0), targets (n,) class indices; fastest when they are the same tensors every time."""
        if self._batch[0] is not inputs or self._batch[1] is not targets:
            self._batch, self._operations = (inputs, targets), self._listed(inputs, targets)
        for operation in self._operations:
            operation()

    def _listed(self, inputs: Tensor, targets: Tensor) -> list[Operation]:
        loops, last, n = compiled(inputs), len(self.weights) - 1, len(inputs)
        by_loop = [loops is not None and type(activation) is nn.ReLU for activation in self.activations]
        z, errors = ([w.new_empty(len(w), n) for w in self.weights] for _ in range(2))
        # The inputs of each layer, which are the outputs of the one below.
        below, ones = [inputs.T, *z[:-1]], inputs.new_ones(n)
        done: list[Operation] = []
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if loops is not None and (index == last or by_loop[index]):
                done.append(partial(torch.mm, weight, below[index], out=z[index]))
            else:
                done.append(partial(torch.addmm, bias[:, None], weight, below[index], out=z[index]))
            if index < last and loops is not None and by_loop[index]:
                done.append(partial(loops.relu, z[index].numpy(), bias.numpy()))
            elif index < last:
                done.append(partial(_activate, self.activations[index], z[index]))
        if loops is not None:
            arrays = (each.numpy() for each in (self.biases[-1], targets, errors[-1], self.bias_gradients[-1]))
            done.append(partial(loops.cross_entropy_backward, z[-1].numpy(), *arrays))
        else:
            done += _cross_entropy_backward(z[-1], targets, errors[-1])
            done.append(partial(torch.mv, errors[-1], ones, out=self.bias_gradients[-1]))
        for index in range(last, -1, -1):
            done.append(partial(torch.mm, errors[index], below[index].T, out=self.weight_gradients[index]))
            if index == 0:
                break
            error, a, sums = errors[index - 1], below[index], self.bias_gradients[index - 1]
            done.append(partial(torch.mm, self.weights[index].T, errors[index], out=error))
            if loops is not None and by_loop[index - 1]:
                done.append(partial(loops.relu_backward, error.numpy(), a.numpy(), sums.numpy()))
            else:
                rule = ACTIVATIONS[type(self.activations[index - 1])]
                done += [partial(rule.back, error, a), partial(torch.mv, error, ones, out=sums)]
        return done


def _activate(activation: nn.Module, z: Tensor) -> None:
    """phi(z) in the memory of z, which is not needed again."""
    if type(activation) is nn.ReLU:
        torch.relu_(z)
    else:
        z.copy_(activation(z))


def _cross_entropy_backward(z: Tensor, targets: Tensor, error: Tensor) -> list[Operation]:
    """error = dL/dz of the mean cross-entropy of softmax(z), both (classes, n)."""
    classes, n = z.shape
    # Column c: the contribution of target c. A table is deterministic on a GPU too, where a scatter would sort its
    # indices, wait for them, and could not be captured as a CUDA graph.
    table, hits = torch.eye(classes, dtype=z.dtype, device=z.device).div_(-n), torch.empty_like(z)
    return [
        partial(torch.softmax, z, dim=0, out=error),
        partial(torch.index_select, table, 1, targets, out=hits),
        partial(torch.add, hits, error, alpha=1 / n, out=error),
    ]
