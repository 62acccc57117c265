"""The optimizers: any torch.optim class or importable one, and sharpness-aware minimization over any of them."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch

from reproduction.errors import ConfigError, shown
from reproduction.experiment import importable
from reproduction.experiment.optimizer_arguments import class_of, own_arguments
from reproduction.training.compiled import compiled
from reproduction.training.gradients import FlatParameters

# Optimizers whose step treats every element alike, so that one step on the vector of all parameters equals the steps on
# each layer's. Adafactor, and optimizers of a later torch, may depend on shapes.
_ELEMENTWISE = ["SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adagrad", "Adadelta", "RMSprop", "Rprop", "ASGD"]
# torch has a fused form: one loop over memory instead of about ten.
_FUSED = ("Adam", "AdamW", "Adagrad")

# Evaluates the loss at the current parameters, leaves its gradient in the parameters' .grad.
Gradient = Callable[[], None]


def optimizer_class(name: str, key: str = "optimizers") -> type[torch.optim.Optimizer]:
    """The class of torch.optim of this name, or the one that `package.module:Class` names.

    Raises:
        ConfigError: It cannot be imported, is no optimizer, or its step needs a closure; the message names `key`.
    """
    try:
        found = importable.load(name) if importable.is_path(name) else getattr(torch.optim, name)
    except Exception as error:  # importing another package's module runs its code, which may raise anything
        raise _refusal(key, name, f"it cannot be imported ({type(error).__name__}: {error})") from None
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise _refusal(key, name, "it is no torch.optim.Optimizer")
    needed = list(inspect.signature(found.step).parameters.values())[1:]
    if any(p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in needed):
        raise _refusal(key, name, "its step evaluates the loss, and must do without a closure")
    return found


def check_optimizer_is_made(path: str, spec: Mapping[str, Any]) -> None:
    """Make an optimizer of the configuration once, on a vector of zeros, so that a refused value costs no training.

    Args:
        path: The entry's key, for the message.
        spec: The entry, as `OptimizerStep` takes it.

    Raises:
        ConfigError: The class cannot be used, or refuses its arguments.
    """
    name, arguments = class_of(spec), own_arguments(spec)
    made_by = optimizer_class(name, f"{path}.{'base' if spec['class'] == 'SAM' else 'class'}")
    if _is_plain_sgd(name, arguments):
        return
    try:
        made_by([torch.zeros(2, requires_grad=True)], **arguments)
    except Exception as error:  # whatever another package's constructor raises
        named = next((key for key in arguments if re.search(rf"\b{key}\b", str(error), re.IGNORECASE)), None)
        key, value = (path, arguments) if named is None else (f"{path}.{named}", arguments[named])
        raise _refusal(key, value, f"{name} refuses it: {error}") from None


def _is_plain_sgd(name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether `_PlainSGD` takes the steps; the first optimizer of torch.optim loads the compiler, for over a second."""
    return name == "SGD" and set(arguments) == {"lr"} and arguments["lr"] >= 0


def _refusal(key: str, value: Any, reason: str) -> ConfigError:
    return ConfigError(f"config: {key}: {shown(value)} is not allowed; {' '.join(reason.split())}")


class _PlainSGD:
    """torch.optim.SGD without momentum and weight decay, to the bit, without the compiler that torch.optim loads."""

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float) -> None:
        self.parameters, self.lr = list(parameters), lr
        # Detached once, where torch.no_grad would be entered and left at every step.
        self._values = [p.detach() for p in self.parameters]

    def step(self) -> None:
        self.step_from(self._values)

    def step_from(self, starts: Sequence[torch.Tensor]) -> None:
        """The step from other values than the present ones."""
        for parameter, value, start in zip(self.parameters, self._values, starts, strict=True):
            if parameter.grad is not None:
                torch.add(start, parameter.grad, alpha=-self.lr, out=value)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class _PlainAdam:
    """torch.optim.Adam, fused, to the bit, without the bookkeeping, which costs more than the arithmetic."""

    # The arguments that are supported; with any other one torch.optim is used.
    ARGUMENTS = frozenset({"lr", "betas", "eps", "weight_decay"})

    def __init__(self, parameters: Iterable[torch.Tensor], **arguments: Any) -> None:
        self.parameters = list(parameters)
        # Checks the arguments and keeps the state.
        self.whole = torch.optim.Adam(self.parameters, fused=True, **arguments)
        group = self.whole.param_groups[0]
        beta1, beta2 = group["betas"]
        self._arguments = {"beta1": beta1, "beta2": beta2, **{key: group[key] for key in ("lr", "eps", "weight_decay")}}
        self._values = [p.detach() for p in self.parameters]
        self._keep()

    def _keep(self) -> None:
        """Cache views of the optimizer's state; left empty until every parameter has one, after the first step."""
        states = [self.whole.state[p] for p in self.parameters if p in self.whole.state]
        complete = len(states) == len(self.parameters)
        self._means, self._squares, self._counts = (
            [state[key] for state in states] if complete else [] for key in ("exp_avg", "exp_avg_sq", "step")
        )

    def step(self) -> None:
        # Both the operator and the loop assume contiguous memory.
        gradients = [p.grad.contiguous() for p in self.parameters if p.grad is not None]
        if not self._counts or len(gradients) < len(self.parameters):
            self.whole.step()
            self._keep()
            return
        self._advance(gradients)

    def _advance(self, gradients: list[torch.Tensor]) -> None:
        for count in self._counts:
            count.add_(1)
        largest: list[torch.Tensor] = []  # of amsgrad
        kept = (self._means, self._squares, largest, self._counts)
        torch._fused_adam_(self._values, gradients, *kept, amsgrad=False, maximize=False, **self._arguments)

    def state_dict(self) -> dict[str, Any]:
        return self.whole.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.whole.load_state_dict(state)
        self._keep()


class _CompiledAdam(_PlainAdam):
    """The same by a compiled loop, with one division an element instead of two; equal up to rounding."""

    def __init__(self, parameters: Iterable[torch.Tensor], loops: ModuleType, **arguments: Any) -> None:
        self._loop = loops.adam
        super().__init__(parameters, **arguments)

    def _keep(self) -> None:
        super()._keep()
        given = [float(self._arguments[key]) for key in ("lr", "beta1", "beta2", "eps", "weight_decay")]
        tensors = zip(self._values, self._means, self._squares, self._counts, strict=False)
        self._states = [(*(each.view(-1).numpy() for each in state), *given) for state in tensors]
        self._gradients: list[tuple[int, np.ndarray]] = [(0, np.empty(0))] * len(self._states)

    def _advance(self, gradients: list[torch.Tensor]) -> None:
        for index, (tensor, state) in enumerate(zip(gradients, self._states, strict=True)):
            address, gradient = self._gradients[index]
            if address != tensor.data_ptr():
                gradient = tensor.detach().view(-1).numpy()
                # The array keeps the memory alive, so that its address stands for this gradient.
                self._gradients[index] = gradient.ctypes.data, gradient
            self._loop(gradient, *state)


class OptimizerStep:
    """One optimizer step from a gradient that has been taken; `gradient` can be called again at other parameters."""

    def __init__(self, parameters: Iterable[torch.Tensor], spec: Mapping[str, Any]) -> None:
        """`spec` is the configuration's entry: class, lr and the class's own arguments; SAM also has base and rho."""
        self.parameters = list(parameters)
        self.rho: float | None = spec["rho"] if spec["class"] == "SAM" else None
        name = class_of(spec)
        made_by = optimizer_class(name)
        on_cpu = all(p.device.type == "cpu" for p in self.parameters)
        if self.rho is not None:
            self._starts = [(p.detach(), torch.empty_like(p.detach())) for p in self.parameters]
        arguments = own_arguments(spec)
        has_operator = on_cpu and hasattr(torch, "_fused_adam_")
        plain_adam = name == "Adam" and has_operator and set(arguments) <= _PlainAdam.ARGUMENTS
        in_line = all(p.is_contiguous() and p.dtype == self.parameters[0].dtype for p in self.parameters)
        loops = compiled(self.parameters[0]) if plain_adam and in_line else None
        if name in _FUSED and not plain_adam and not {"fused", "foreach"} & set(arguments):
            arguments["fused"] = True
        # Another package may use the word `capturable` for something else.
        records = hasattr(torch.optim, name) and "capturable" in inspect.signature(made_by).parameters
        if records and self.parameters[0].device.type == "cuda":
            # Counts its steps on the GPU, so that a CUDA graph of a step can be replayed.
            arguments.setdefault("capturable", True)
        # SGD keeps no counter. Others without the argument may compute on the host, which a graph would not repeat.
        self.capturable = bool(arguments.get("capturable", name == "SGD"))
        self.optimizer: torch.optim.Optimizer | _PlainSGD | _PlainAdam
        if _is_plain_sgd(name, arguments):
            self.optimizer = _PlainSGD(self.parameters, arguments["lr"])
        elif loops is not None:
            self.optimizer = _CompiledAdam(self.parameters, loops, **arguments)
        elif plain_adam:
            self.optimizer = _PlainAdam(self.parameters, **arguments)
        else:
            self.optimizer = made_by(self.parameters, **arguments)

    @classmethod
    def of(cls, flat: FlatParameters, spec: Mapping[str, Any]) -> "OptimizerStep":
        """The step of a model's parameters, taken on one vector where the result is the same."""
        name = class_of(spec)
        return cls([flat.vector] if name in _ELEMENTWISE else flat.model.parameters(), spec)

    def __call__(self, gradient: Gradient) -> None:
        """Take the step. The gradient at the current parameters must be in their .grad.

        SAM (Foret et al. 2021, equation 2): the base optimizer steps from theta with the gradient at
        theta + rho g / |g|, where |g| is the norm over all parameters.
        """
        if self.rho is None:
            self.optimizer.step()
            return
        starts_of = list(zip(self.parameters, self._starts, strict=True))
        moved = [(p.grad, value, start) for p, (value, start) in starts_of if p.grad is not None]
        norms = [torch.linalg.vector_norm(g) for g, _, _ in moved]
        norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        # A zero gradient has no direction to climb: the scale is then 0, and SAM is its base.
        scale = torch.nan_to_num(self.rho / norm, posinf=0.0)
        for g, value, start in moved:
            start.copy_(value)
            value.addcmul_(g, scale)
        # Parameters without a gradient did not move.
        starts = [value if p.grad is None else start for p, (value, start) in starts_of]
        gradient()
        if isinstance(self.optimizer, _PlainSGD):
            self.optimizer.step_from(starts)
            return
        for _, value, start in moved:
            value.copy_(start)
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        """The state that the next steps depend on, besides the parameters."""
        return self.optimizer.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave."""
        self.optimizer.load_state_dict(state)
