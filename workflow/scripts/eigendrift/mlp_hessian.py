"""Exact Hessian-vector products of a fully connected network with mean cross-entropy, by Pearlmutter's R-operator.

What depends on the parameters alone (activations and backpropagated errors) is computed once and kept,
so a product costs the matrix products that the R-operator needs and no more: for N weights in layers of sizes d_0, ...,
d_L and n samples, 2 n (2 d_0 d_1 + 6 d_1 d_2 + ... + 6 d_{L-1} d_L) floating-point operations. It runs over `rows`
samples at a time, so that what lies between the matrix products stays in cache.

Pearlmutter, Fast exact multiplication by the Hessian, Neural Computation 6 (1994).
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eigendrift.split_products import PIECES, PRECISIONS, Pixels
from eigendrift.threads import shared_out

# rows * widest hidden layer * a few float32 arrays should fit the cache of one core. A GPU needs large matrices.
ROWS = {"cpu": 1024, "cuda": 65536}


@dataclass(frozen=True)
class Activation:
    """phi' and phi'' as functions of phi(z), so that z need not be kept; `second` is None where phi'' = 0 (almost)."""

    first: Callable[[Tensor], Tensor]
    second: Callable[[Tensor], Tensor] | None


def _logistic_from_softplus(a: Tensor) -> Tensor:
    return -torch.expm1(-a)


ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ReLU: Activation(torch.sign, None),
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


class MLPHessian:
    """The Hessian at one point, as a map of row vectors (b, N) -> (b, N)."""

    def __init__(
        self,
        linear: list[nn.Linear],
        activations: list[nn.Module],
        inputs: Tensor,
        targets: Tensor,
        rows: int | None = None,
        pixels: Pixels | None = None,
    ) -> None:
        """inputs (n, d_0) in the parameters' type and on their device, targets (n,) class indices.

        `pixels`: what the inputs were before their scaling, for products in pieces (`in_precision`).
        """
        self.linear, self.activations, self.inputs, self.targets = linear, activations, inputs, targets
        self.rows = rows or ROWS.get(inputs.device.type, ROWS["cpu"])
        self.precision, self.pixels = "float32", pixels
        self.rules = [ACTIVATIONS[type(a)] for a in activations]
        self.n_parameters = sum(layer.weight.numel() + layer.out_features for layer in linear)
        n, like = len(inputs), inputs
        widths = [layer.out_features for layer in linear]
        # One entry a layer: phi(z) and phi''(z) * dL/dphi of hidden layers, and dL/dz of layers above the first.
        self._outputs = [like.new_empty(n, w) for w in widths[:-1]]
        self._bends = [
            None if rule.second is None else like.new_empty(n, w)
            for rule, w in zip(self.rules, widths[:-1], strict=True)
        ]
        self._errors = [None, *(like.new_empty(n, w) for w in widths[1:])] if len(widths) > 1 else [None]
        self._probabilities = like.new_empty(n, widths[-1])
        self._classes = torch.arange(widths[-1], device=inputs.device)
        self._weights: Tensor | None = None
        self._matrices = [layer.weight.detach() for layer in linear]
        self.total = float(n)
        self.refresh()

    def in_precision(self, precision: str) -> "MLPHessian":
        """The same Hessian with products in one of `split_products.PRECISIONS`; it shares memory and moves along.

        Raises ValueError for another precision, and for one in pieces where the pixels are not known.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision = {precision!r} is not allowed; give one of {', '.join(PRECISIONS)}")
        if precision in PIECES and self.pixels is None:
            raise ValueError(f"precision = {precision!r} takes 8-bit inputs; give their scaling")
        other = copy.copy(self)
        other.precision = precision
        return other

    def subset(self, chosen: Tensor, weights: Tensor) -> "MLPHessian":
        """The same mean with the terms of some samples only, each times its weight: a cheaper, approximate Hessian.

        chosen (m,) indices, weights (m,). What is kept is copied, so the subset stays where it is when this one moves.
        """
        part = object.__new__(MLPHessian)
        part.linear, part.activations, part.rules = self.linear, self.activations, self.rules
        part.rows, part.n_parameters, part.precision = self.rows, self.n_parameters, self.precision
        part.pixels = None if self.pixels is None else self.pixels.subset(chosen)
        part.inputs, part.targets, part.total = self.inputs[chosen], self.targets[chosen], self.total
        part._matrices = [matrix.clone() for matrix in self._matrices]
        part._weights = weights[:, None].to(self.inputs.dtype)
        part._outputs = [output[chosen] for output in self._outputs]
        part._bends = [None if bend is None else bend[chosen] * part._weights for bend in self._bends]
        part._errors = [None if error is None else error[chosen] * part._weights for error in self._errors]
        part._probabilities = self._probabilities[chosen]
        return part

    def importance(self) -> tuple[Tensor, Tensor]:
        """How much of the curvature each sample may carry, (n,) float64, and the pair of classes between which it lies.

        (1 - sum p^2) (1 + |a|^2) with the last layer's inputs a is the trace of its part of the last layer's
        Gauss-Newton block. A confident mistake has none, but errors that weigh the second derivatives of the outputs:
        1 - p of the target stands for them where it is larger. The pair, (n,) int64, is that of its two most probable
        classes, in their order.
        """
        top = self._probabilities.topk(min(2, self._probabilities.shape[1]), dim=1)
        largest, pairs = (
            top.values[:, 0].double(),
            top.indices[:, 0] * self._probabilities.shape[1] + top.indices[:, -1],
        )
        # 1 - p as the sum of the other probabilities: of a fitted sample 1 - p is lost in the rounding of p.
        others = self._probabilities.double().scatter(1, top.indices[:, :1], 0.0)
        missing = others.sum(dim=1)
        uncertainty = missing * (1 + largest) - others.square().sum(dim=1)
        below = self._outputs[-1] if self._outputs else self.inputs
        mistaken = torch.where(top.indices[:, 0] == self.targets, 0.0, 1 - self._of_targets())
        sizes = torch.linalg.vector_norm(below, dim=1).double().square().add_(1)
        return sizes.mul_(torch.maximum(uncertainty, mistaken)), pairs

    def _of_targets(self) -> Tensor:
        return self._probabilities.gather(1, self.targets[:, None])[:, 0].double()

    @torch.no_grad()
    def refresh(self) -> None:
        """Recompute what is kept, at the layers' present parameters; the memory is used again."""
        starts = range(0, len(self.inputs), self.rows)
        self._losses = [self._refresh_rows(slice(start, start + self.rows)) for start in starts]

    @property
    def loss(self) -> float:
        """The mean loss at the present parameters."""
        return sum(map(float, self._losses)) / len(self.inputs)

    def _refresh_rows(self, rows: slice) -> Tensor:
        a = self.inputs[rows]
        for index, layer in enumerate(self.linear):
            z = torch.addmm(layer.bias, a, layer.weight.T)
            if index < len(self.activations):
                a = self.activations[index](z)
                self._outputs[index][rows] = a
        log_p = torch.log_softmax(z, dim=1)
        self._probabilities[rows] = log_p.exp()
        targets = self.targets[rows, None]
        # p - 1 at the target as -sum of the others would round better, but enters only terms of the same small size.
        # Not by scatter_add, which sorts its indices on a GPU that is to be deterministic.
        error = self._probabilities[rows] - (self._classes == targets).to(log_p.dtype)
        for index in range(len(self.linear) - 1, 0, -1):
            kept = self._errors[index]
            assert kept is not None
            kept[rows] = error
            back = error @ self.linear[index].weight
            below, rule, bend = self._outputs[index - 1][rows], self.rules[index - 1], self._bends[index - 1]
            error = back * rule.first(below)
            if rule.second is not None and bend is not None:
                bend[rows] = back * rule.second(below)
        return -log_p.gather(1, targets).sum(dtype=torch.float64)

    def product(self, vectors: Tensor) -> Tensor:
        """H v for each row: (b, N) -> (b, N), over all samples."""
        starts = range(0, len(self.inputs), self.rows)
        threads = torch.get_num_threads() if vectors.device.type == "cpu" else 1
        sums = shared_out(lambda share: self._product_of_chunks(share, vectors), starts, threads)
        return torch.stack(sums).sum(dim=0) / self.total

    @torch.no_grad()
    def _product_of_chunks(self, starts: Sequence[int], vectors: Tensor) -> Tensor:
        """The sum over the samples of these chunks."""
        b = len(vectors)
        weights, biases = self._split(vectors)
        totals = [torch.zeros_like(w) for w in weights]
        # Sums over samples of dL/dz^T R(a), with the layer's outputs first: (out, b * in).
        crossed = [
            v.new_zeros(layer.out_features, b * layer.in_features)
            for v, layer in zip(weights, self.linear, strict=True)
        ]
        bias_totals = [torch.zeros_like(c) for c in biases]
        for start in starts:
            self._product_rows(slice(start, start + self.rows), b, weights, biases, totals, crossed, bias_totals)
        parts = []
        for layer, total, cross, bias in zip(self.linear, totals, crossed, bias_totals, strict=True):
            turned = cross.view(layer.out_features, b, layer.in_features).transpose(0, 1)
            parts += [(total.view(b, layer.out_features, layer.in_features) + turned).reshape(b, -1), bias.view(b, -1)]
        return torch.cat(parts, dim=1)

    def _split(self, vectors: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Views of the rows as weights (b * out, in) and biases (b * out,) of each layer."""
        weights, biases, start = [], [], 0
        for layer in self.linear:
            size, out = layer.weight.numel(), layer.out_features
            weights.append(vectors[:, start : start + size].reshape(-1, layer.in_features))
            biases.append(vectors[:, start + size : start + size + out].reshape(-1))
            start += size + out
        return weights, biases

    def _split_inputs(self) -> Pixels:
        assert self.pixels is not None
        return self.pixels

    def _product_rows(
        self,
        rows: slice,
        b: int,
        weights: list[Tensor],
        biases: list[Tensor],
        totals: list[Tensor],
        crossed: list[Tensor],
        bias_totals: list[Tensor],
    ) -> None:
        below = self.inputs[rows]
        n = len(below)
        pre: list[Tensor] = []  # R(z) of each layer (n, b, width)
        moved: list[Tensor] = []  # R(a) of each hidden layer (n, b, width)
        slopes: list[Tensor] = []  # phi' of each hidden layer (n, 1, width)
        for index in range(len(self.linear)):
            if index or self.precision not in PIECES:
                rz = torch.addmm(biases[index], below, weights[index].T)
            else:
                rz = self._split_inputs().forward(rows, weights[0], biases[0], PIECES[self.precision])
            if index:
                rz.view(n * b, -1).addmm_(moved[-1].view(n * b, -1), self._matrices[index].T)
            pre.append(rz.view(n, b, -1))
            if index < len(self.activations):
                below = self._outputs[index][rows]
                slopes.append(self.rules[index].first(below)[:, None])
                moved.append(pre[-1] * slopes[-1])
        p = self._probabilities[rows, None]
        error = p * pre[-1]
        error -= p * error.sum(dim=2, keepdim=True)
        if self._weights is not None:
            error *= self._weights[rows, None]
        for index in range(len(self.linear) - 1, -1, -1):
            below = self._outputs[index - 1][rows] if index else self.inputs[rows]
            flat = error.view(n, -1)
            if index or self.precision not in PIECES:
                totals[index].addmm_(flat.T, below)
            else:
                totals[0] += self._split_inputs().backward(rows, flat, PIECES[self.precision])
            bias_totals[index] += flat.sum(dim=0)
            if index == 0:
                return
            layer, kept = self.linear[index], self._errors[index]
            assert kept is not None
            crossed[index].addmm_(kept[rows].T, moved[index - 1].view(n, -1))
            # Weights of the vectors with the layer's outputs first: (out, b * in).
            turned = weights[index].view(b, layer.out_features, -1).transpose(0, 1).reshape(layer.out_features, -1)
            back = kept[rows] @ turned
            back.view(n * b, -1).addmm_(error.view(n * b, -1), self._matrices[index])
            error = back.view(n, b, -1)
            error *= slopes[index - 1]
            bend = self._bends[index - 1]
            if bend is not None:
                error += bend[rows, None] * pre[index - 1]
