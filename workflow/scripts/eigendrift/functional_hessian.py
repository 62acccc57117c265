"""Exact Hessian-vector products of any module and mean loss, by differentiating twice in reverse.

Reverse over reverse, since every differentiable operation has a backward formula and not every one a forward one. The
graph of the gradient depends on the parameters alone, so it is kept, as far as memory allows, and a product is then one
backward pass through it.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call

ROWS = 1024
# Of the graphs that are kept between products.
GRAPH_BYTES = 2 << 30

Loss = Callable[[Tensor, Tensor], Tensor]


class FunctionalHessian:
    """The Hessian at one point, as a map of row vectors (b, N) -> (b, N).

    The mean over n samples is taken as a sum over chunks of `rows` samples, each weighted with its true size, so a
    ragged last chunk is exact.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        inputs: Tensor,
        targets: Tensor,
        rows: int = ROWS,
        graph_bytes: int = GRAPH_BYTES,
    ) -> None:
        """`graph_bytes`: memory for graphs that are kept; chunks beyond it are differentiated anew at every product."""
        self.model, self.mean_loss, self.inputs, self.targets, self.rows = model, loss, inputs, targets, rows
        self.names = [name for name, _ in model.named_parameters()]
        self.sizes = [p.numel() for p in model.parameters()]
        self.n_parameters = sum(self.sizes)
        self.graph_bytes = graph_bytes
        self.refresh()

    def in_float64(self, model: nn.Module) -> "FunctionalHessian":
        """The Hessian of this copy of the model in float64; the data are copied."""
        inputs = self.inputs.double() if self.inputs.is_floating_point() else self.inputs
        return FunctionalHessian(model, self.mean_loss, inputs, self.targets, self.rows, self.graph_bytes)

    def refresh(self) -> None:
        """Take the module's present parameters."""
        self._kept: list[list[Tensor]] = []
        self._point = [p.detach().requires_grad_() for p in self.model.parameters()]
        starts = range(0, len(self.inputs), self.rows)
        # The first chunk tells what one takes: they are alike, but for a ragged last one.
        counter = _SavedBytes([*self._point, *self.model.buffers(), self.inputs, self.targets])
        losses = []
        for start in starts:
            if (len(self._kept) + 1) * counter.bytes > self.graph_bytes:
                with torch.no_grad():
                    losses.append(float(self._chunk_loss(start)))
                continue
            with torch.autograd.graph.saved_tensors_hooks(counter, _as_it_is) if start == 0 else nullcontext():
                loss, slopes = self._chunk_gradient(start)
            losses.append(loss)
            if counter.bytes <= self.graph_bytes:
                self._kept.append(slopes)
        self.loss = math.fsum(losses)

    def _chunk_loss(self, start: int) -> Tensor:
        inputs, targets = self.inputs[start : start + self.rows], self.targets[start : start + self.rows]
        parameters = dict(zip(self.names, self._point, strict=True))
        value = self.mean_loss(functional_call(self.model, parameters, (inputs,)), targets)
        return value * (len(inputs) / len(self.inputs))

    def _chunk_gradient(self, start: int) -> tuple[float, list[Tensor]]:
        """A chunk's part of the loss, and of the gradient with its graph: one tensor a parameter."""
        with torch.enable_grad():
            loss = self._chunk_loss(start)
            slopes = torch.autograd.grad(loss, self._point, create_graph=True, materialize_grads=True)
        return float(loss.detach()), list(slopes)

    def gradient(self) -> Tensor:
        """The gradient of the mean loss, (N,)."""
        total = torch.zeros(self.n_parameters, dtype=self._point[0].dtype, device=self._point[0].device)
        for start in range(0, len(self.inputs), self.rows):
            with torch.enable_grad():
                parts = torch.autograd.grad(self._chunk_loss(start), self._point, materialize_grads=True)
            total += torch.cat([part.reshape(-1) for part in parts])
        return total

    def product(self, vectors: Tensor) -> Tensor:
        """H v for each row: (b, N) -> (b, N), over all samples."""
        tangents = [
            part.reshape(len(vectors), *point.shape)
            for part, point in zip(vectors.split(self.sizes, dim=1), self._point, strict=True)
        ]
        total = torch.zeros_like(vectors)
        for index, start in enumerate(range(0, len(self.inputs), self.rows)):
            kept = index < len(self._kept)
            slopes = self._kept[index] if kept else self._chunk_gradient(start)[1]
            total += self._pull_back(slopes, tangents, kept)
        return total

    def _pull_back(self, slopes: list[Tensor], tangents: list[Tensor], keep: bool) -> Tensor:
        """H is symmetric, so the derivative of (gradient . v) is the product."""
        # A gradient without a graph does not depend on the parameters, as that of a linear function.
        pairs = [(g, t) for g, t in zip(slopes, tangents, strict=True) if g.requires_grad]
        b = len(tangents[0])
        if not pairs:
            return tangents[0].new_zeros(b, self.n_parameters)
        outputs = [g for g, _ in pairs]
        single = b == 1
        products = torch.autograd.grad(
            outputs,
            self._point,
            [t[0] if single else t for _, t in pairs],
            retain_graph=keep,
            is_grads_batched=not single,
            materialize_grads=True,
        )
        return torch.cat([p.reshape(b, -1) for p in products], dim=1)


class _SavedBytes:
    """Memory of what a graph saves, each piece of it once; what is there anyway does not count."""

    def __init__(self, present: list[Tensor]) -> None:
        self.bytes = 0
        self._seen = {tensor.untyped_storage().data_ptr() for tensor in present}

    def __call__(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        # Detached, or an output that its own operation saves would keep itself alive.
        return tensor.detach()


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
