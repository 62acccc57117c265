"""How much of the curvature each sample carries, from the outputs of any model and the inputs of its last layer.

With the outputs z and the inputs a of the last layer, |a|^2 + 1 times the trace of the loss's Hessian by z is the trace
of a sample's part of the Gauss-Newton block of that layer. A confidently misclassified sample has a vanishing
Gauss-Newton term but a large residual term, so the larger of that trace and of the gradient by z is taken. A sample
whose inputs of another layer are larger than usual may carry curvature there, of which the last layer shows nothing
after a normalization: it counts so many times more. All of it is a guide for sampling: the samples are weighted such
that any importance gives an unbiased sum.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from eigendrift.hessian.autograd import FunctionalHessian
from eigendrift.hessian.evaluation import Batch, explained, moved
from eigendrift.hessian.loss_data import PairLoss, TensorChunks, cross_entropy_settings

# The trace of a loss's Hessian by up to so many outputs of a sample is computed, that by more is estimated from as many
# random directions.
DIRECTIONS = 16


def importance(path: FunctionalHessian) -> tuple[Tensor, Tensor] | None:
    """Estimate how much of the curvature each sample carries.

    Args:
        path: The Hessian of a loss of outputs and targets over tensors.

    Returns:
        The importance, (n,) float64 in units of the loss, at least 0; and a label, (n,) int64, of the two most probable
        classes in their order where the loss is a cross-entropy of one prediction a sample, else 0. None where the loss
        is of another form, the outputs are not one tensor with a row a sample, or a number is not finite.
    """
    loss, chunks = path.evaluation.batch_loss, path.chunks
    if not isinstance(loss, PairLoss) or not isinstance(chunks, TensorChunks):
        return None
    settings = cross_entropy_settings(loss.loss)
    sizes, labels = [], []
    layers = _Layers()
    norms: list[list[Tensor]] = []
    for batch in chunks:
        weight = path.combination.weight(batch)
        if weight == 0:
            # Every target is ignored.
            norms.append([])
            sizes.append(torch.zeros(len(batch[0]), dtype=torch.float64, device=path.device))
            labels.append(torch.zeros(len(batch[0]), dtype=torch.int64, device=path.device))
            continue
        with torch.no_grad(), explained("evaluating the model"):
            outputs, lengths, each = path.evaluation.apply(layers, path.state, batch[0], path.dtype)
        norms.append(each)
        n = len(batch[0])
        if not isinstance(outputs, Tensor) or outputs.ndim == 0 or len(outputs) != n or not outputs.numel():
            return None
        z = outputs.detach().double()
        if settings is not None and z.ndim > 1:
            curvature, label = softmax_curvature(z, batch[1], settings)
        else:
            curvature, label = _curvature(path, z, batch, weight), z.new_zeros(n, dtype=torch.int64)
        if lengths is None:
            lengths = torch.zeros_like(curvature)
        elif lengths.shape != curvature.shape:
            lengths = lengths.mean(dim=1, keepdim=True)
        sizes.append(((1 + lengths) * curvature).sum(dim=1))
        labels.append(label)
    found = torch.cat(sizes) * _outliers(norms, sizes)
    return (found, torch.cat(labels)) if bool(torch.isfinite(found).all()) and bool((found > 0).any()) else None


def _outliers(norms: list[list[Tensor]], sizes: list[Tensor]) -> Tensor:
    """How many times the mean the inputs of any layer are in squared norm, at least 1, (n,)."""
    calls = max(map(len, norms))
    found = []
    means = []
    for call in range(calls):
        every = torch.cat([each[call] for each in norms if len(each) == calls])
        means.append(every.mean().clamp(min=1e-300))
    for each, size in zip(norms, sizes, strict=True):
        factor = torch.ones_like(size)
        if len(each) == calls:
            for norm, mean in zip(each, means, strict=True):
                factor = torch.maximum(factor, norm / mean)
        found.append(factor)
    return torch.cat(found)


class _Layers:
    """Outputs of a module, and squared norms |a|^2 of the inputs of its linear and convolutional layers.

    Those of the last layer are (n, positions), or None without one: the last layer is the last one that is called, if
    its outputs are as many as the module's. Those of each call of any layer are (n,), summed over positions.
    """

    def __call__(self, module: nn.Module, inputs: Any) -> tuple[Any, Tensor | None, list[Tensor]]:
        squares: list[Tensor] = []
        results: list[Any] = []

        def remember(layer: nn.Module, given: Any, result: Any) -> None:
            a = given[0] if given else None
            if isinstance(a, Tensor) and a.ndim and len(a) == len(inputs):
                axis = -1 if isinstance(layer, nn.Linear) else 1
                norms = torch.linalg.vector_norm(a.detach(), dim=axis)
                squares.append(norms.double().square().reshape(len(a), -1))
                results.append(result)

        layers = [m for m in module.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
        handles = [layer.register_forward_hook(remember) for layer in layers]
        try:
            outputs = module(inputs)
        finally:
            for handle in handles:
                handle.remove()
        sums = [each.sum(dim=1) for each in squares]
        last = results[-1] if results else None
        if not isinstance(outputs, Tensor) or not isinstance(last, Tensor) or last.numel() != outputs.numel():
            return outputs, None, sums
        return outputs, squares[-1], sums


def softmax_curvature(z: Tensor, targets: Tensor, settings: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The larger of trace and gradient of the cross-entropy by the outputs, for each prediction.

    Args:
        z: (n, C) or (n, C, ...) outputs, float64.
        targets: Classes (n,) or (n, ...), or probabilities with the shape of z.
        settings: `weight` and `ignore_index` of the loss.

    Returns:
        (n, positions), and the label of the two most probable classes (n,), 0 for several positions.
    """
    n, classes = z.shape[:2]
    p = z.reshape(n, classes, -1).softmax(dim=1)
    top = p.topk(min(2, classes), dim=1)
    largest = top.values[:, 0]
    # 1 - p is taken as the sum of the other probabilities: for a fitted sample it is lost in the rounding of p.
    others = p.scatter(1, top.indices[:, :1], 0.0)
    missing = others.sum(dim=1)
    uncertainty = missing * (1 + largest) - others.square().sum(dim=1)
    weight = settings.get("weight")
    if targets.is_floating_point():
        q = targets.to(z).reshape(n, classes, -1)
        if weight is not None:
            q = q * weight.to(z)[:, None]
        found = torch.maximum(q.sum(dim=1) * uncertainty, (q.sum(dim=1, keepdim=True) * p - q).abs().amax(dim=1))
    else:
        y = targets.to(z.device).long().reshape(n, -1)
        counted = (y != settings.get("ignore_index", -100)) & (y >= 0) & (y < classes)
        y = torch.where(counted, y, 0)
        own = p.gather(1, y[:, None])[:, 0]
        mistaken = torch.where(top.indices[:, 0] == y, 0.0, 1 - own)
        found = torch.maximum(uncertainty, mistaken) * counted
        if weight is not None:
            found = found * weight.detach().to(z)[y]
    label = top.indices[:, 0] * classes + top.indices[:, -1]
    return found, label[:, 0] if label.shape[1] == 1 else torch.zeros_like(label[:, 0])


def _curvature(path: FunctionalHessian, z: Tensor, batch: Batch, weight: float) -> Tensor:
    """The larger of trace and gradient of any loss by the outputs of each sample, (n, 1)."""
    n, dtype = len(z), torch.float64
    entries = z[0].numel()
    z = z.requires_grad_()
    loss = path.evaluation.batch_loss
    assert isinstance(loss, PairLoss)
    given = _AtOutputs(loss.loss, z)
    with explained("differentiating the loss"), path.evaluation.working(dtype):
        value = weight * path.evaluation.apply(given, path.state, moved(batch[1], path.device, dtype), dtype).reshape(
            ()
        )
        if not value.requires_grad:
            return z.new_zeros(n, 1)
        (gradient,) = torch.autograd.grad(value, z, create_graph=True)
        trace = z.new_zeros(n)
        if gradient.requires_grad:
            generator = torch.Generator().manual_seed(0)
            few = entries <= DIRECTIONS
            for index in range(entries if few else DIRECTIONS):
                direction = torch.zeros(n, entries, dtype=dtype)
                if few:
                    direction[:, index] = 1.0
                else:
                    direction = torch.randn(n, entries, dtype=dtype, generator=generator) / DIRECTIONS**0.5
                direction = direction.to(z.device).view_as(z)
                (found,) = torch.autograd.grad((gradient * direction).sum(), z, retain_graph=True, allow_unused=True)
                if found is not None:
                    trace += (direction * found).reshape(n, -1).sum(dim=1)
    slope = gradient.detach().reshape(n, -1).abs().amax(dim=1)
    return torch.maximum(trace, slope)[:, None]


class _AtOutputs:
    """The loss as a function of the targets, at given outputs."""

    def __init__(self, loss: Callable[..., Tensor], outputs: Tensor) -> None:
        self.loss, self.outputs = loss, outputs

    def __call__(self, _: nn.Module, targets: Any) -> Tensor:
        return self.loss(self.outputs, targets)
