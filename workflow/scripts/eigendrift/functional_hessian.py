"""Exact Hessian-vector products of any module and mean loss, by differentiating twice in reverse (torch.func).

Reverse over reverse, since every differentiable operation has a backward formula and not every one a forward one.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp, vmap

ROWS = 1024

Loss = Callable[[Tensor, Tensor], Tensor]


class FunctionalHessian:
    """The Hessian at one point, as a map of row vectors (b, N) -> (b, N).

    The mean over n samples is taken as a sum over chunks of `rows` samples, each weighted with its true size, so a
    ragged last chunk is exact.
    """

    def __init__(self, model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, rows: int = ROWS) -> None:
        self.model, self.mean_loss, self.inputs, self.targets, self.rows = model, loss, inputs, targets, rows
        self.names = [name for name, _ in model.named_parameters()]
        self.shapes = [p.shape for _, p in model.named_parameters()]
        self.sizes = [p.numel() for _, p in model.named_parameters()]
        self.n_parameters = sum(self.sizes)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take the module's present parameters."""
        self._point = {name: p.detach() for name, p in self.model.named_parameters()}
        self.loss = sum(
            float(self._chunk_loss(self._point, self.inputs[i : i + self.rows], self.targets[i : i + self.rows]))
            for i in range(0, len(self.inputs), self.rows)
        )

    def _chunk_loss(self, parameters: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        value = self.mean_loss(functional_call(self.model, parameters, (inputs,)), targets)
        return value * (len(inputs) / len(self.inputs))

    @torch.no_grad()
    def product(self, vectors: Tensor) -> Tensor:
        """H v for each row: (b, N) -> (b, N), over all samples."""
        tangents = {
            name: part.reshape(len(vectors), *shape)
            for name, part, shape in zip(self.names, vectors.split(self.sizes, dim=1), self.shapes, strict=True)
        }
        total = torch.zeros_like(vectors)
        for start in range(0, len(self.inputs), self.rows):
            inputs, targets = self.inputs[start : start + self.rows], self.targets[start : start + self.rows]

            def slope(
                parameters: dict[str, Tensor], inputs: Tensor = inputs, targets: Tensor = targets
            ) -> dict[str, Tensor]:
                gradient: dict[str, Tensor] = grad(self._chunk_loss)(parameters, inputs, targets)
                return gradient

            # H is symmetric, so the pullback of the gradient is the product; the forward passes serve all vectors.
            pullback = vjp(slope, self._point)[1]
            (products,) = vmap(pullback)(tangents)
            total += torch.cat([products[name].reshape(len(vectors), -1) for name in self.names], dim=1)
        return total
