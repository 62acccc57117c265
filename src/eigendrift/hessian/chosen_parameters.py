"""The parameters with respect to which the Hessian is taken, and the conversion between vectors and named tensors."""

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

# A glob or several, a compiled regular expression, a predicate of name and parameter, or parameters themselves.
Choice = str | re.Pattern[str] | Callable[[str, nn.Parameter], bool] | Iterable[str | nn.Parameter]


def beneath(model: nn.Module) -> nn.Module:
    """The module that a compiled or data-parallel one wraps."""
    while True:
        if hasattr(model, "_orig_mod") and isinstance(model._orig_mod, nn.Module):
            model = model._orig_mod
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def chosen(model: nn.Module, params: Choice | None) -> list[str]:
    """Names of the parameters that `params` chooses, in the order of model.parameters(); by default the trained ones.

    Raises:
        ValueError: Nothing is chosen, or a name or parameter is not the model's.
    """
    names = [name for name, _ in model.named_parameters()]
    if not names:
        raise ValueError("the model has no parameters")
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        raise ValueError("the model has lazy layers without parameters yet; call it once with some inputs first")
    if params is None:
        found = [name for name, p in model.named_parameters() if p.requires_grad]
        if not found:
            raise ValueError(
                "no parameter of the model is trained (all have requires_grad=False); choose some with params="
            )
        return found
    # A tied parameter matches by each of its names, and counts once, under the first.
    first: dict[int, str] = {}
    matches: set[str] = set()
    wanted = _conditions(params)
    used = [False] * len(wanted)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first.setdefault(id(parameter), name)
        for index, condition in enumerate(wanted):
            if condition(_plain(name), parameter):
                matches.add(first[id(parameter)])
                used[index] = True
    if not all(used) or not matches:
        raise ValueError(
            f"params = {params!r} chooses what the model does not have; "
            f"its parameters are {', '.join(map(_plain, names))}"
        )
    return [name for name in names if name in matches]


def _conditions(params: Choice) -> list[Callable[[str, nn.Parameter], bool]]:
    if isinstance(params, str):
        return [lambda name, _: fnmatch.fnmatchcase(name, params)]
    if isinstance(params, re.Pattern):
        return [lambda name, _: params.search(name) is not None]
    if callable(params):
        return [params]
    found: list[Callable[[str, nn.Parameter], bool]] = []
    for each in params:
        if isinstance(each, Tensor):
            found.append(lambda _, parameter, each=each: parameter is each)  # type: ignore[misc]
        elif isinstance(each, str):
            found += _conditions(each)
        else:
            raise ValueError(f"params holds {each!r}, expected names, globs or parameters of the model")
    return found


def _plain(name: str) -> str:
    """A name without the prefix that torch.compile adds."""
    return name.replace("_orig_mod.", "")


class Layout:
    """Where each chosen parameter lies in a vector (N,)."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self.slices: dict[str, slice] = {}
        self.shapes = {_plain(name): p.shape for name, p in parameters.items()}
        start = 0
        for name, p in parameters.items():
            self.slices[_plain(name)] = slice(start, start + p.numel())
            start += p.numel()
        self.size = start

    def to_named(self, vector: Tensor) -> dict[str, Tensor]:
        """Views of a vector (N,), or of columns (N, b), in the shapes of the parameters, columns last."""
        if vector.ndim not in (1, 2) or len(vector) != self.size:
            raise ValueError(f"v has shape {tuple(vector.shape)}, expected ({self.size},) or ({self.size}, b)")
        return {
            name: vector[where].reshape((*self.shapes[name], *vector.shape[1:])) for name, where in self.slices.items()
        }

    def from_named(self, named: Mapping[str, Any]) -> Tensor:
        """The vector (N,), or columns (N, b), from the tensors that `to_named` returns."""
        if set(named) != set(self.slices):
            odd = sorted(set(named) ^ set(self.slices))
            raise ValueError(f"named holds too much or too little: {', '.join(odd)}")
        parts: list[Tensor] = []
        columns: tuple[int, ...] | None = None
        for name in self.slices:
            part, shape = torch.as_tensor(named[name]), self.shapes[name]
            expected = (*shape, *(part.shape[len(shape) : len(shape) + 1] if columns is None else columns))
            if tuple(part.shape) != expected:
                raise ValueError(f"{name} has shape {tuple(part.shape)}, expected {expected}")
            columns = tuple(part.shape[len(shape) :])
            parts.append(part.reshape((shape.numel(), *columns)))
        return torch.cat(parts)
