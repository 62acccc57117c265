"""How much of the curvature each sample carries, from the outputs of any classifier and the inputs of its last layer.

With the outputs z and the inputs a of the last layer, |a|^2 + 1 times the trace of cross-entropy's Hessian by z is the
trace of a sample's part of the Gauss-Newton block of that layer. A confidently misclassified sample has a vanishing
Gauss-Newton term but a large residual term, so the larger of that trace and of the gradient by z is taken. A sample
whose inputs of another layer are larger than usual may carry curvature there, of which the last layer shows nothing
after a normalization: it counts so many times more. All of it decides only which samples are drawn: they are weighted
such that any importance gives an unbiased sum.
"""

from typing import Any

import torch
from torch import Tensor, nn

from eigendrift.hessian.autograd import FunctionalHessian
from eigendrift.hessian.evaluation import explained
from eigendrift.hessian.loss_data import PairLoss, TensorChunks, cross_entropy_settings
from eigendrift.hessian.mlp import softmax_trace


def importance(path: FunctionalHessian) -> tuple[Tensor, Tensor] | None:
    """Estimate how much of the curvature each sample carries.

    Args:
        path: The Hessian of a loss of outputs and targets over tensors.

    Returns:
        The importance, (n,) float64 in units of the loss, at least 0; and a label, (n,) int64, of the two most probable
        classes in their order for one prediction a sample, else 0. None where the loss is not torch's cross-entropy,
        the outputs are not one tensor with a row a sample, or a number is not finite.
    """
    loss, chunks = path.evaluation.batch_loss, path.chunks
    settings = cross_entropy_settings(loss.loss) if isinstance(loss, PairLoss) else None
    if settings is None or not isinstance(chunks, TensorChunks):
        return None
    sizes, labels = [], []
    layers = _Layers()
    norms: list[list[Tensor]] = []
    for x, y in chunks:
        with torch.no_grad(), explained("evaluating the model"):
            outputs, lengths, each = path.evaluation.apply(layers, path.state, x, path.dtype)
        if not isinstance(outputs, Tensor) or outputs.ndim < 2 or len(outputs) != len(x) or not outputs.numel():
            return None
        curvature, label = softmax_curvature(outputs.detach().double(), y, settings)
        if lengths is None:
            lengths = torch.zeros_like(curvature)
        elif lengths.shape != curvature.shape:
            lengths = lengths.mean(dim=1, keepdim=True)
        norms.append(each)
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
    uncertainty, surest, label = softmax_trace(p)
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
        mistaken = torch.where(surest == y, 0.0, 1 - own)
        found = torch.maximum(uncertainty, mistaken) * counted
        if weight is not None:
            found = found * weight.detach().to(z)[y]
    return found, label[:, 0] if label.shape[1] == 1 else torch.zeros_like(label[:, 0])
