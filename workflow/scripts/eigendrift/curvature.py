"""The exact Hessian of a mean loss over a full data set, as an operator."""

import copy
import math
from typing import overload

import numpy as np
import torch
from torch import Tensor, nn

from eigendrift import functional_hessian
from eigendrift.data import Scaling
from eigendrift.functional_hessian import FunctionalHessian, Loss
from eigendrift.guide import Guide, guide_of
from eigendrift.mlp_hessian import MLPHessian
from eigendrift.mlp_layers import mlp_layers
from eigendrift.split_products import EXACT, Pixels, multiplying_in

_RANDOM_IN_TRAINING = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


class HessianOperator:
    """H(theta) of the mean loss over all samples, shape (N, N), parameters in model.parameters() order.

    Products are exact to the rounding of the parameters' type; nothing is sampled. A fully connected network (an
    nn.Sequential of linear layers with ReLU, tanh, sigmoid or softplus between them) with nn.CrossEntropyLoss() or
    nn.functional.cross_entropy takes an analytic path; every other module and loss is differentiated by autograd.

        H = HessianOperator(model, nn.CrossEntropyLoss(), inputs, targets)
        H @ v

    Raises ValueError for a loss that is not a mean over samples, inputs and targets of different length, no sample,
    targets that are no class, values that are not finite, parameters of several types or devices, and modules that
    behave at random or batch-wise in training mode.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        inputs: Tensor,
        targets: Tensor,
        *,
        rows: int | None = None,
        precision: str = "float32",
        scaling: Scaling | None = None,
    ) -> None:
        """loss(outputs, targets) is the mean over samples; inputs (n, ...), targets (n, ...) for the whole data set.

        `rows`: samples that are differentiated at once, a matter of memory and speed alone. `precision` of the
        products with the inputs on the analytic path: float32, or split3 for the tensor cores of a GPU, as exact but
        for its own rounding, which takes the `scaling` that made the inputs of 8-bit pixels (`split_products`).
        """
        parameters = list(model.parameters())
        _check(model, loss, inputs, targets, parameters)
        like = parameters[0]
        inputs = inputs.to(like.device, like.dtype if inputs.is_floating_point() else inputs.dtype)
        targets = targets.to(like.device)
        self.model, self.dtype, self.device = model, like.dtype, like.device
        self._double: HessianOperator | None = None
        _check_precision(precision)
        layers = mlp_layers(model) if _is_cross_entropy(loss) and inputs.ndim == 2 and targets.ndim == 1 else None
        self.path: MLPHessian | FunctionalHessian
        if layers is not None:
            classes = layers[0][-1].out_features
            wrong = targets[(targets < 0) | (targets >= classes)]
            if len(wrong):
                raise ValueError(f"target {int(wrong[0])} is not a class; the model has {classes} outputs")
            pixels = Pixels.of(inputs, scaling) if scaling is not None else None
            with multiplying_in("float32"):
                path = MLPHessian(*layers, inputs.to(like.dtype), targets, rows, pixels)
            self.path = path.in_precision(precision)
        elif precision != "float32":
            raise ValueError(f"precision = {precision!r} is for fully connected networks with cross-entropy alone")
        else:
            with multiplying_in("float32"):
                self.path = FunctionalHessian(model, loss, inputs, targets, rows or functional_hessian.ROWS)
        self.shape = (self.path.n_parameters, self.path.n_parameters)
        self.products = 0  # vectors multiplied since the operator was made

    @property
    def shares_out(self) -> bool:
        """Whether products use torch's threads one by one, so that the solver leaves them all to these."""
        return isinstance(self.path, MLPHessian) and self.device.type == "cpu"

    @property
    def loss(self) -> float:
        """The mean loss at the present parameters."""
        return self.path.loss

    def move_to(self, parameters: Tensor) -> None:
        """Set the model's parameters to a vector (N,) and the operator to that point; no memory is taken anew."""
        if parameters.shape != self.shape[:1]:
            raise ValueError(f"parameters have shape {tuple(parameters.shape)}, expected {self.shape[:1]}")
        with torch.no_grad():
            start = 0
            for parameter in self.model.parameters():
                part = parameters[start : start + parameter.numel()]
                parameter.copy_(part.view_as(parameter))
                start += parameter.numel()
        with multiplying_in("float32"):
            self.path.refresh()

    def sharpened(self) -> "HessianOperator":
        """The same Hessian at the present point, with products whose residuals count below 1e-5.

        On the analytic path it is this operator, until it moves, with the forward pass taken in float64; elsewhere it
        is `in_float64`.
        """
        if self.dtype == torch.float64 or not isinstance(self.path, MLPHessian):
            return self.in_float64()
        self.path.refresh(torch.float64)
        return self

    def in_float64(self) -> "HessianOperator":
        """The same Hessian in float64 at the present point, for residuals that float32 products cannot reach.

        It has a copy of model and data of its own, made at the first call and moved at the next ones. On a CPU a solve
        to 1e-7 and above takes a fifth to a third less time with `guide.MixedPrecisionOperator` as surrogate.
        """
        if self.dtype == torch.float64:
            return self
        if self._double is None:
            self._double = copy.copy(self)
            self._double.model, self._double.dtype = copy.deepcopy(self.model).double(), torch.float64
            self._double.path, self._double.products = self.path.in_float64(self._double.model), 0
        self._double.move_to(torch.cat([p.detach().reshape(-1) for p in self.model.parameters()]).double())
        return self._double

    def guide(self, seed: int = 0) -> Guide | None:
        """A cheaper operator near this one, for `top_eigenpairs`, or None where there is none.

        Late in training few samples carry the curvature. The analytic path has a guide, of weighted samples that are
        drawn with this seed, or on a GPU of all samples in TF32 (`guide.guide_of`); other paths have none.
        """
        return guide_of(self.path, seed) if isinstance(self.path, MLPHessian) else None

    def product(self, vectors: Tensor) -> Tensor:
        """H v for each row of (b, N), as rows: what the eigensolver calls."""
        self.products += len(vectors)
        with multiplying_in("float32"):
            return self.path.product(vectors)

    @overload
    def __matmul__(self, vector: Tensor) -> Tensor: ...
    @overload
    def __matmul__(self, vector: np.ndarray) -> np.ndarray: ...
    def __matmul__(self, vector: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """H @ v for v (N,) or (N, b); a NumPy array gives a NumPy array of its own type."""
        if isinstance(vector, np.ndarray):
            product = self @ torch.from_numpy(vector).to(self.device, self.dtype)
            return product.cpu().numpy().astype(vector.dtype, copy=False)
        if vector.ndim not in (1, 2) or len(vector) != self.shape[0]:
            raise ValueError(f"v has shape {tuple(vector.shape)}, expected ({self.shape[0]},) or ({self.shape[0]}, b)")
        rows = (vector[None] if vector.ndim == 1 else vector.T).to(self.device, self.dtype).contiguous()
        product_rows = self.product(rows)
        return product_rows[0] if vector.ndim == 1 else product_rows.T


def _check_precision(precision: str) -> None:
    if precision not in EXACT:
        raise ValueError(
            f"precision = {precision!r} is not allowed; residuals need products in one of {', '.join(EXACT)} "
            "(coarser ones can guide a solve: MLPHessian.in_precision)"
        )


def _is_cross_entropy(loss: Loss) -> bool:
    if loss is nn.functional.cross_entropy:
        return True
    return (
        type(loss) is nn.CrossEntropyLoss
        and loss.reduction == "mean"
        and loss.weight is None
        and loss.label_smoothing == 0
    )


def _check(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, parameters: list[nn.Parameter]) -> None:
    if not parameters:
        raise ValueError("the model has no parameters")
    if len({(p.dtype, p.device) for p in parameters}) > 1 or not parameters[0].is_floating_point():
        raise ValueError("all parameters must be of one floating-point type and on one device")
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise ValueError(
            f"{len(inputs)} inputs and {len(targets)} targets; give as many of one as of the other, at least one"
        )
    reduction = getattr(loss, "reduction", "mean")
    if reduction != "mean":
        raise ValueError(f"the loss has reduction={reduction!r}; give one that is the mean over samples")
    if isinstance(loss, nn.CrossEntropyLoss) and bool((targets == loss.ignore_index).any()):
        raise ValueError(f"targets hold ignore_index={loss.ignore_index}, so the loss is not the mean over all samples")
    if any(isinstance(m, _RANDOM_IN_TRAINING) and m.training for m in model.modules()):
        raise ValueError("the model has dropout or batch normalization in training mode; call model.eval() first")
    if any(not math.isfinite(float(p.detach().sum())) for p in parameters):
        raise ValueError("a parameter is not finite")
    # By the extremes, which NaN passes into: isfinite would take as much memory as the data.
    if inputs.is_floating_point() and inputs.numel() and not bool(torch.isfinite(torch.stack(inputs.aminmax())).all()):
        raise ValueError("an input is not finite")
