"""Exact Hessian-vector products of a fully connected network with mean cross-entropy, by Pearlmutter's R-operator.

Quantities that depend on the parameters alone (activations and backpropagated gradients dL/dz) are computed once and
kept, so that a product costs the matrix products that the R-operator needs and no more: for N weights in layers of
sizes d_0, ..., d_L and n samples, 2 n (2 d_0 d_1 + 6 d_1 d_2 + ... + 6 d_{L-1} d_L) floating-point operations, of which
the first layer's products take only as many columns as the skyline of the inputs has (`sparse_inputs`). A product runs
over `rows` samples at a time, so that the intermediate results between its matrix products stay in cache.

Pearlmutter, Fast exact multiplication by the Hessian, Neural Computation 6 (1994).
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from eigendrift._threads import parallel_map
from eigendrift.fully_connected import ActivationOfInput, activation_of
from eigendrift.hessian.mixed_precision import PRECISIONS
from eigendrift.hessian.sparse_inputs import SkylineInputs, plain, skyline

# rows * widest hidden layer * a few float32 arrays should fit the cache of one core. A GPU needs large matrices.
ROWS = {"cpu": 1024, "cuda": 65536}

Result = TypeVar("Result")
Layer = tuple[Tensor, Tensor]


class MLPHessian:
    """The Hessian at one point, as a map of row vectors (b, N) -> (b, N)."""

    def __init__(
        self,
        linear: list[nn.Linear],
        activations: list[nn.Module],
        inputs: Tensor,
        targets: Tensor,
        rows: int | None = None,
    ) -> None:
        """Compute and keep the activations and gradients at the layers' present parameters.

        Args:
            linear: The linear layers. They belong to this operator: `move_to` writes into them.
            activations: The activation module after each layer but the last.
            inputs: (n, d_0), in the type of the parameters and on their device; kept in the order `inputs.rows`.
            targets: (n,) int64, class indices; kept in the same order.
            rows: Samples a block.

        Raises:
            ValueError: An activation has no known derivatives.
        """
        self.linear, self.activations = linear, activations
        self.rows = rows or ROWS.get(inputs.device.type, ROWS["cpu"])
        self.precision = "float32"
        self._find_rules()
        self.parameters = [p for layer in linear for p in (layer.weight, layer.bias) if p is not None]
        self.n_parameters = sum(p.numel() for p in self.parameters)
        # On a GPU the many small products of a skyline cost more than the zeros that it skips.
        on_gpu = inputs.device.type != "cpu"
        self.inputs = plain(inputs, self.rows) if on_gpu else skyline(inputs, self.rows)
        self.targets = targets[self.inputs.rows]
        self._allocate(like=self.inputs.background)
        self.refresh()

    def _find_rules(self) -> None:
        rules = [activation_of(activation) for activation in self.activations]
        self.rules = [rule for rule in rules if rule is not None]
        if len(self.rules) < len(rules):
            raise ValueError(
                f"activations: no derivatives are known for one of {', '.join(map(str, self.activations))}"
            )

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "rules"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._find_rules()

    def move_to(self, parts: Sequence[Tensor]) -> None:
        """Move to these weights and biases, in the order of `parameters`; the memory is used again."""
        with torch.no_grad():
            for parameter, part in zip(self.parameters, parts, strict=True):
                parameter.copy_(part)
        self.refresh()

    def in_float64(self) -> "MLPHessian":
        """The same Hessian in float64, with layers and data of its own."""
        double = copy.copy(self)
        double.linear = [copy.deepcopy(layer).double() for layer in self.linear]
        double.parameters = [p for layer in double.linear for p in (layer.weight, layer.bias) if p is not None]
        double.inputs, double.precision = self.inputs.to(torch.float64), "float32"
        double._allocate(like=double.inputs.background)
        double.refresh()
        return double

    def _allocate(self, like: Tensor) -> None:
        """Allocate memory for the quantities that are kept at a point."""
        n, linear = len(self.inputs), self.linear
        self.dtype, self.device = like.dtype, like.device
        widths = [layer.out_features for layer in linear]
        # One entry a layer. Of hidden layers: phi(z); phi'(z) where it does not follow from phi(z); and the
        # second-derivative term phi''(z) * dL/dphi. Of layers above the first: dL/dz.
        self._derivatives = [
            like.new_empty(n, w) if isinstance(rule, ActivationOfInput) else None
            for rule, w in zip(self.rules, widths[:-1], strict=True)
        ]
        self._outputs = [like.new_empty(n, w) for w in widths[:-1]]
        self._second_terms = [
            None if rule.second is None else like.new_empty(n, w)
            for rule, w in zip(self.rules, widths[:-1], strict=True)
        ]
        self._errors = [None, *(like.new_empty(n, w) for w in widths[1:])] if len(widths) > 1 else [None]
        self._probabilities = like.new_empty(n, widths[-1])
        self._surest = torch.empty(n, 1, dtype=torch.int64, device=self.device)
        self._classes = torch.arange(widths[-1], device=self.device)
        self._weights: Tensor | None = None
        self._matrices = [layer.weight.detach() for layer in linear]
        self.total = float(n)

    def in_precision(self, precision: str) -> "MLPHessian":
        """The same Hessian with products in one of `mixed_precision.PRECISIONS`; it shares memory and moves along.

        Raises:
            ValueError: The precision is not one of these.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision = {precision!r} is not allowed; give one of {', '.join(PRECISIONS)}")
        other = copy.copy(self)
        other.precision = precision
        return other

    def subset(self, chosen: Tensor, weights: Tensor) -> "MLPHessian":
        """The same mean with the terms of some samples only, each times its weight: a cheaper, approximate Hessian.

        The kept quantities are copied, so that the subset stays at its point when this operator moves.

        Args:
            chosen: (m,) int64, indices into `targets`.
            weights: (m,), factor of each of these samples' terms.
        """
        chosen, ascending = chosen.sort()
        part = copy.copy(self)
        part.inputs, part.targets = self.inputs.take(chosen), self.targets[chosen]
        part._matrices = [matrix.clone() for matrix in self._matrices]
        part._weights = weights[ascending, None].to(self.dtype)
        part._outputs = [output[chosen] for output in self._outputs]
        part._derivatives = [None if kept is None else kept[chosen] for kept in self._derivatives]
        part._second_terms = [
            None if second_term is None else second_term[chosen] * part._weights for second_term in self._second_terms
        ]
        part._errors = [None if error is None else error[chosen] * part._weights for error in self._errors]
        part._probabilities, part._surest = self._probabilities[chosen], self._surest[chosen]
        return part

    @property
    def flops(self) -> float:
        """Floating-point operations in the matrix products of H v for one v."""
        first, *others = [layer.weight.numel() for layer in self.linear]
        share = self.inputs.entries / (len(self.inputs) * self.linear[0].in_features)
        return 2.0 * len(self.inputs) * (2 * share * first + 6 * sum(others))

    def importance(self) -> tuple[Tensor, Tensor]:
        """Estimate how much of the curvature each sample carries, and the two classes between which it lies.

        With the inputs a of the last layer, (1 - sum p^2) (1 + |a|^2) is the trace of a sample's part of the
        Gauss-Newton block of that layer. Confidently misclassified samples have a vanishing Gauss-Newton term but a
        large residual term; max(1 - sum p^2, 1 - p_y) keeps them among the important samples.

        Returns:
            The importance, (n,) float64 without a unit; and a label, (n,) int64, of the two most probable classes in
            their order.
        """
        uncertainty, surest, pairs = softmax_trace(self._probabilities)
        below = self._outputs[-1] if self._outputs else self.inputs.dense()
        mistaken = torch.where(surest == self.targets, 0.0, 1 - self._of_targets())
        sizes = torch.linalg.vector_norm(below, dim=1).double().square().add_(1)
        return sizes.mul_(torch.maximum(uncertainty, mistaken)), pairs

    def _of_targets(self) -> Tensor:
        return self._probabilities.gather(1, self.targets[:, None])[:, 0].double()

    @torch.no_grad()
    def refresh(self, dtype: torch.dtype | None = None) -> None:
        """Recompute the kept quantities at the layers' present parameters; the memory is used again.

        Args:
            dtype: Type of this forward and backward pass, by default that of the products. The error of float32
                products is dominated by rounding of the logits, an absolute error in log p and so a relative error even
                of small probabilities. A float64 forward pass removes it.
        """
        layers = [(layer.weight.to(dtype), _bias(layer).to(dtype)) for layer in self.linear]
        first = self.inputs.layer(*layers[0])
        blocks = range(len(self.inputs.blocks))
        losses = self._map_blocks(lambda share: self._refresh_blocks(share, first, layers), blocks)
        self._losses = [loss for share in losses for loss in share]

    @property
    def loss(self) -> float:
        """The mean loss at the present parameters."""
        return math.fsum(map(float, self._losses)) / len(self.inputs)

    def _map_blocks(self, work: Callable[[Sequence[int]], Result], blocks: Sequence[int]) -> list[Result]:
        return parallel_map(work, blocks) if self.device.type == "cpu" else [work(blocks)]

    @torch.no_grad()
    def _refresh_blocks(self, blocks: Sequence[int], first: Layer, layers: Sequence[Layer]) -> list[Tensor]:
        """The summed loss of each of these blocks."""
        return [self._refresh_block(block, first, layers) for block in blocks]

    def _refresh_block(self, block: int, first: Layer, layers: Sequence[Layer]) -> Tensor:
        z = self.inputs.forward(block, first)
        rows = slice(block * self.rows, block * self.rows + len(z))
        seconds: list[Tensor | None] = []  # phi''(z) of each hidden layer
        for index, (weight, bias) in enumerate(layers[1:]):
            rule, derivative = self.rules[index], self._derivatives[index]
            if derivative is not None:
                derivative[rows] = rule.first(z)
            second_derivative = None if rule.second is None or derivative is None else rule.second(z)
            a = self.activations[index](z)
            if rule.second is not None and derivative is None:
                second_derivative = rule.second(a)
            seconds.append(second_derivative)
            self._outputs[index][rows] = a
            z = torch.addmm(bias, a, weight.T)
        log_p = torch.log_softmax(z, dim=1)
        p = log_p.exp()
        self._probabilities[rows] = p
        self._surest[rows] = log_p.argmax(dim=1, keepdim=True)
        targets = self.targets[rows, None]
        # At the target, minus the sum of the other probabilities would round better than p - 1, but it enters only
        # terms of the same small size. scatter_add is avoided: on a GPU in deterministic mode it sorts its indices.
        error = p - (self._classes == targets).to(p.dtype)
        for index in range(len(self.linear) - 1, 0, -1):
            kept = self._errors[index]
            assert kept is not None
            kept[rows] = error
            back = error @ layers[index][0]
            second_term, second, derivative = (
                self._second_terms[index - 1],
                seconds[index - 1],
                self._derivatives[index - 1],
            )
            if second_term is not None and second is not None:
                second_term[rows] = back * second
            known = self._outputs[index - 1][rows] if derivative is None else derivative[rows]
            error = self.rules[index - 1].back(back, known.to(back.dtype))
        return -log_p.gather(1, targets).sum(dtype=torch.float64)

    @torch.no_grad()
    def gradient(self) -> Tensor:
        """The gradient of the mean loss, (N,), from the kept forward and backward pass."""
        blocks = range(len(self.inputs.blocks))
        return torch.stack(self._map_blocks(self._gradient_of_blocks, blocks)).sum(dim=0) / self.total

    def _gradient_of_blocks(self, blocks: Sequence[int]) -> Tensor:
        """The sum over the samples of these blocks."""
        inputs = self.inputs
        totals = [inputs.zeros(self.linear[0].out_features), *(torch.zeros_like(m) for m in self._matrices[1:])]
        sums = [total.new_zeros(layer.out_features) for total, layer in zip(totals, self.linear, strict=True)]
        for block in blocks:
            rows = slice(block * self.rows, block * self.rows + len(inputs.blocks[block]))
            for index in range(len(self.linear) - 1, 0, -1):
                kept = self._errors[index]
                assert kept is not None
                totals[index].addmm_(kept[rows].T, self._outputs[index - 1][rows])
                sums[index] += kept[rows].sum(dim=0)
            error = self._first_error(rows)
            sums[0] += error.sum(dim=0)
            inputs.backward(block, error, totals[0])
        totals[0] = inputs.finished(totals[0], sums[0])
        parts = []
        for layer, total, bias in zip(self.linear, totals, sums, strict=True):
            parts += [total.reshape(-1)] if layer.bias is None else [total.reshape(-1), bias]
        return torch.cat(parts)

    def _first_error(self, rows: slice) -> Tensor:
        """dL/dz of the first layer; it is not kept, since only the gradient needs it."""
        if len(self.linear) > 1:
            above, derivative = self._errors[1], self._derivatives[0]
            assert above is not None
            known = self._outputs[0][rows] if derivative is None else derivative[rows]
            return self.rules[0].back(above[rows] @ self._matrices[1], known)
        p = self._probabilities[rows]
        return p - (self._classes == self.targets[rows, None]).to(p.dtype)

    def product(self, vectors: Tensor) -> Tensor:
        """H v for each row: (b, N) -> (b, N), over all samples."""
        blocks = range(len(self.inputs.blocks))
        sums = self._map_blocks(lambda share: self._product_of_blocks(share, vectors), blocks)
        return torch.stack(sums).sum(dim=0) / self.total

    @torch.no_grad()
    def _product_of_blocks(self, blocks: Sequence[int], vectors: Tensor) -> Tensor:
        """The sum over the samples of these blocks."""
        b = len(vectors)
        weights, biases = self._split(vectors)
        inputs = self.inputs
        first = inputs.layer(weights[0], biases[0])
        totals = [inputs.zeros(len(biases[0])), *(torch.zeros_like(w) for w in weights[1:])]
        # Sums over samples of dL/dz^T R(a), with the layer's outputs first: (out, b * in).
        crossed = [
            v.new_zeros(layer.out_features, b * layer.in_features)
            for v, layer in zip(weights, self.linear, strict=True)
        ]
        bias_totals = [torch.zeros_like(c) for c in biases]
        for block in blocks:
            self._product_of_block(block, b, inputs, first, weights, biases, totals, crossed, bias_totals)
        totals[0] = inputs.finished(totals[0], bias_totals[0])
        parts = []
        for layer, total, cross, bias in zip(self.linear, totals, crossed, bias_totals, strict=True):
            turned = cross.view(layer.out_features, b, layer.in_features).transpose(0, 1)
            whole = total.reshape(b, layer.out_features, layer.in_features) + turned
            parts += [whole.reshape(b, -1)] if layer.bias is None else [whole.reshape(b, -1), bias.view(b, -1)]
        return torch.cat(parts, dim=1)

    def _split(self, vectors: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Views of the rows as weights (b * out, in) and biases (b * out,) of each layer."""
        weights, biases, start = [], [], 0
        for layer in self.linear:
            size, out = layer.weight.numel(), layer.out_features
            weights.append(vectors[:, start : start + size].reshape(-1, layer.in_features))
            start += size
            if layer.bias is None:
                biases.append(vectors.new_zeros(len(vectors) * out))
                continue
            biases.append(vectors[:, start : start + out].reshape(-1))
            start += out
        return weights, biases

    def _product_of_block(
        self,
        block: int,
        b: int,
        inputs: SkylineInputs,
        first: Layer,
        weights: list[Tensor],
        biases: list[Tensor],
        totals: list[Tensor],
        crossed: list[Tensor],
        bias_totals: list[Tensor],
    ) -> None:
        rz = inputs.forward(block, first)
        n = len(rz)
        rows = slice(block * self.rows, block * self.rows + n)
        pre: list[Tensor | None] = []  # R(z) of each hidden layer whose phi'' is not zero (n, b, width)
        moved: list[Tensor] = []  # R(a) of each hidden layer (n, b, width)
        below = [output[rows, None] for output in self._outputs]  # phi(z) of each hidden layer (n, 1, width)
        # What rule.back takes phi'(z) from: phi(z), or phi'(z) itself.
        known = [a if d is None else d[rows, None] for a, d in zip(below, self._derivatives, strict=True)]
        for index, (a, argument, rule) in enumerate(zip(below, known, self.rules, strict=True), start=1):
            z = rz.view(n, b, -1)
            pre.append(None if rule.second is None else z.clone())
            moved.append(rule.back(z, argument))
            rz = torch.addmm(biases[index], a[:, 0], weights[index].T)
            rz.view(n * b, -1).addmm_(moved[-1].view(n * b, -1), self._matrices[index].T)
        z = rz.view(n, b, -1)
        p = self._probabilities[rows, None]
        # A shift of R(z) changes nothing. Shifting by the value of the most probable class avoids cancellation, however
        # confident the prediction is.
        error = z - z.gather(2, self._surest[rows, None].expand(-1, b, 1))
        error -= (p * error).sum(dim=2, keepdim=True)
        error *= p
        if self._weights is not None:
            error *= self._weights[rows, None]
        for index in range(len(self.linear) - 1, -1, -1):
            flat = error.view(n, -1)
            bias_totals[index] += flat.sum(dim=0)
            if index == 0:
                inputs.backward(block, flat, totals[0])
                return
            totals[index].addmm_(flat.T, below[index - 1][:, 0])
            layer, kept = self.linear[index], self._errors[index]
            assert kept is not None
            crossed[index].addmm_(kept[rows].T, moved[index - 1].view(n, -1))
            # Weights of the vectors with the layer's outputs first: (out, b * in).
            turned = weights[index].view(b, layer.out_features, -1).transpose(0, 1).reshape(layer.out_features, -1)
            back = kept[rows] @ turned
            back.view(n * b, -1).addmm_(error.view(n * b, -1), self._matrices[index])
            error = self.rules[index - 1].back(back.view(n, b, -1), known[index - 1])
            second_term, z_below = self._second_terms[index - 1], pre[index - 1]
            if second_term is not None and z_below is not None:
                error += second_term[rows, None] * z_below


def softmax_trace(p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The trace of the Hessian of the cross-entropy by the outputs, 1 - sum p^2, from probabilities (n, C, ...).

    Returns:
        The trace in float64; the most probable class; and a label of the two most probable ones in their order; each
        (n, ...).
    """
    top = p.topk(min(2, p.shape[1]), dim=1)
    first, second = top.indices[:, 0], top.indices[:, -1]
    # 1 - p is taken as the sum of the other probabilities: for a fitted sample it is lost in the rounding of p.
    others = p.double().scatter(1, top.indices[:, :1], 0.0)
    trace = others.sum(dim=1) * (1 + top.values[:, 0].double()) - others.square().sum(dim=1)
    return trace, first, first * p.shape[1] + second


def _bias(layer: nn.Linear) -> Tensor:
    return layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias
