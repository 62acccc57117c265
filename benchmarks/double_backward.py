"""The way everyone takes Hessian-vector products: differentiate the gradient's product with v once more."""

import torch
from torch import Tensor, nn


class DoubleBackward:
    """H v of the mean cross-entropy over all samples, in the type of the model's parameters.

    `rows` samples are differentiated at a time. With `keep_graph` the graph of the gradient is built once for all
    samples, so that a product is a second backward pass alone; without it every product repeats the forward pass and
    the gradient, which is the common form and needs memory for one chunk only.
    """

    def __init__(
        self, model: nn.Module, inputs: Tensor, targets: Tensor, rows: int | None = None, keep_graph: bool = False
    ) -> None:
        self.model, self.inputs, self.targets = model, inputs, targets
        self.parameters = list(model.parameters())
        self.n_parameters = sum(p.numel() for p in self.parameters)
        self.rows, self.products = rows or len(inputs), 0
        self.kept = [self._gradient(start) for start in self._starts()] if keep_graph else None

    def _starts(self) -> range:
        return range(0, len(self.inputs), self.rows)

    def _gradient(self, start: int) -> tuple[Tensor, ...]:
        chunk = slice(start, start + self.rows)
        inputs = self.inputs[chunk].to(self.parameters[0].dtype)
        loss = nn.functional.cross_entropy(self.model(inputs), self.targets[chunk], reduction="sum")
        return torch.autograd.grad(loss / len(self.inputs), self.parameters, create_graph=True)

    def __call__(self, vector: Tensor) -> Tensor:
        """H v for v (N,)."""
        self.products += 1
        sizes = [p.numel() for p in self.parameters]
        parts = [part.view_as(p) for part, p in zip(vector.split(sizes), self.parameters, strict=True)]
        total = torch.zeros_like(vector)
        for index, start in enumerate(self._starts()):
            gradient = self.kept[index] if self.kept is not None else self._gradient(start)
            products = torch.autograd.grad(gradient, self.parameters, parts, retain_graph=self.kept is not None)
            total += torch.cat([each.reshape(-1) for each in products])
        return total
