"""Convolutions with second derivatives that take less time than those of torch.

A Hessian product is the derivative of a gradient. That of a convolution's gradient torch takes by a convolution with
exchanged strides and dilations, for which a CPU has no fast kernel: it is a third to a half of the product. Here every
derivative is one of the three operations of a training step, with the same values to rounding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Settings = tuple[Any, ...]


class FastOperations(TorchFunctionMode):
    """Inside, convolutions are those of this module."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        own = _OWN.get(func)
        if own is not None and not torch._C._are_functorch_transforms_active():
            found = own(*args, **kwargs)
            if found is not None:
                return found
        return func(*args, **kwargs)


def _fits(*tensors: Tensor | None) -> bool:
    """Whether these are plain tensors of one real type, one of which has a gradient."""
    given = [t for t in tensors if t is not None]
    plain = all(type(t) in (Tensor, nn.Parameter) and t.layout == torch.strided for t in given)
    same = plain and len({t.dtype for t in given}) == 1 and given[0].is_floating_point()
    if not same or torch.is_autocast_enabled(given[0].device.type):
        return False
    return torch.is_grad_enabled() and any(t.requires_grad for t in given)


# A convolution y = C(x, w) is linear in either argument, and so are the derivatives of y'g with respect to each,
# X(g, w) and W(x, g). The derivatives of these three are again among the three.


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor | None:
    d = weight.ndim - 2
    if isinstance(padding, str) or input.ndim != d + 2 or not _fits(input, weight, bias):
        return None
    expanded = [[each] * d if isinstance(each, int) else list(each) for each in (stride, padding, dilation)]
    expanded = [each * d if len(each) == 1 else each for each in expanded]
    settings = (*expanded, False, [0] * d, groups)
    result: Tensor = _Convolution.apply(input, weight, bias, settings)
    return result


def _pulled_back(g: Tensor, x: Tensor, w: Tensor, settings: Settings, to_inputs: bool) -> Tensor:
    mask = (to_inputs, not to_inputs, False)
    found = torch.ops.aten.convolution_backward(g, x, w, None, *settings, mask)
    result: Tensor = found[0 if to_inputs else 1]
    return result


def _applied(function: type[Function], *args: Any) -> Tensor:
    # The last derivative is taken without a graph, and may be of several vectors at once, unlike a custom function.
    result: Tensor = function.apply(*args) if torch.is_grad_enabled() else function.forward(_Nowhere(), *args)
    return result


class _Nowhere:
    """In place of the context of a function whose derivative is not wanted."""

    settings: Settings = ()

    def save_for_backward(self, *tensors: Tensor) -> None:
        pass


class _Convolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None, settings: Settings) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.settings = settings
        result: Tensor = torch.ops.aten.convolution(x, w, bias, *settings)
        return result

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w = ctx.saved_tensors
        to_x, to_w, to_bias = ctx.needs_input_grad[:3]
        return (
            _applied(_ToInputs, g, w, x.detach(), ctx.settings) if to_x else None,
            _applied(_ToWeights, x, g, w.detach(), ctx.settings) if to_w else None,
            g.sum(dim=[0, *range(2, g.ndim)]) if to_bias else None,
            None,
        )


class _ToInputs(Function):
    """X(g, w); x has the shape of the result, and its values are not used."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, w: Tensor, x: Tensor, settings: Settings) -> Tensor:
        ctx.save_for_backward(g, w)
        ctx.settings = settings
        return _pulled_back(g, x, w, settings, True)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Any:
        g, w = ctx.saved_tensors
        to_g, to_w = ctx.needs_input_grad[:2]
        return (
            _applied(_Convolution, u, w, None, ctx.settings) if to_g else None,
            _applied(_ToWeights, u, g, w.detach(), ctx.settings) if to_w else None,
            None,
            None,
        )


class _ToWeights(Function):
    """W(x, g); w has the shape of the result, and its values are not used."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, w: Tensor, settings: Settings) -> Tensor:
        ctx.save_for_backward(x, g)
        ctx.settings = settings
        return _pulled_back(g, x, w, settings, False)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        x, g = ctx.saved_tensors
        to_x, to_g = ctx.needs_input_grad[:2]
        return (
            _applied(_ToInputs, g, v, x.detach(), ctx.settings) if to_x else None,
            _applied(_Convolution, x, v, None, ctx.settings) if to_g else None,
            None,
            None,
        )


_OWN: dict[Any, Callable[..., Tensor | None]] = {
    functional.conv1d: _convolution,
    functional.conv2d: _convolution,
    functional.conv3d: _convolution,
}
