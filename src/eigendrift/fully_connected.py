"""Recognize the fully connected networks that have analytic gradients and Hessians, and their activations."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional


@dataclass(frozen=True)
class Activation:
    """phi' and phi'' as functions of phi(z), so that z need not be kept; `second` is None where phi'' = 0 (almost)."""

    first: Callable[[Tensor], Tensor]
    second: Callable[[Tensor], Tensor] | None

    def back(self, error: Tensor, a: Tensor) -> Tensor:
        """dL/dz from dL/da, in its memory."""
        return error.mul_(self.first(a))


class _Rectifier(Activation):
    """ReLU, whose derivative is taken in one pass."""

    def back(self, error: Tensor, a: Tensor) -> Tensor:
        result: Tensor = torch.ops.aten.threshold_backward.grad_input(error, a, 0, grad_input=error)
        return result


class ActivationOfInput(Activation):
    """phi' and phi'' as functions of z, where they do not follow from phi(z); phi'(z) is kept, and `back` takes it."""

    def back(self, error: Tensor, a: Tensor) -> Tensor:
        """dL/dz from dL/da, in its memory; `a` is phi'(z)."""
        return error.mul_(a)


def _softplus(beta: float) -> Activation:
    def logistic(a: Tensor) -> Tensor:
        return -torch.expm1(-beta * a)

    return Activation(logistic, lambda a: beta * logistic(a) * (1 - logistic(a)))


def _normal_density(z: Tensor) -> Tensor:
    return torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _gelu_of_tanh() -> Activation:
    c, d = math.sqrt(2 / math.pi), 0.044715

    def parts(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t = torch.tanh(c * (z + d * z**3))
        return t, 1 - t * t, c * (1 + 3 * d * z * z)

    def first(z: Tensor) -> Tensor:
        t, s, u = parts(z)
        return (1 + t + z * s * u) / 2

    def second(z: Tensor) -> Tensor:
        t, s, u = parts(z)
        return s * u + z * s * (6 * c * d * z - 2 * t * u * u) / 2

    return ActivationOfInput(first, second)


def _silu_second(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1 - s) * (2 + z * (1 - 2 * s))


# Activations of the analytic gradients too.
ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ReLU: _Rectifier(torch.sign, None),
    nn.Tanh: Activation(lambda a: 1 - a * a, lambda a: -2 * a * (1 - a * a)),
    nn.Sigmoid: Activation(lambda a: a * (1 - a), lambda a: a * (1 - a) * (1 - 2 * a)),
    nn.Softplus: _softplus(1.0),
}


def activation_of(module: nn.Module) -> Activation | None:
    """The derivatives of an activation module, None for one without a formula here."""
    match module:
        case nn.Softplus():
            # Beyond its threshold torch's softplus is the identity; from 20 on the difference is rounding.
            fits = type(module) is nn.Softplus and module.beta > 0 and module.threshold >= 20
            return _softplus(float(module.beta)) if fits else None
        case nn.LeakyReLU():
            # The output has the sign of the input for a positive factor alone.
            factor = float(module.negative_slope)
            fits = type(module) is nn.LeakyReLU and factor > 0
            rule = Activation(lambda a: torch.full_like(a, factor).masked_fill_(a > 0, 1.0), None)
            return rule if fits else None
        case nn.ELU():
            alpha = float(module.alpha)
            fits = type(module) is nn.ELU and alpha > 0
            rule = Activation(
                lambda a: torch.where(a > 0, 1.0, a + alpha), lambda a: torch.where(a > 0, 0.0, a + alpha)
            )
            return rule if fits else None
        case nn.SiLU() if type(module) is nn.SiLU:
            return ActivationOfInput(lambda z: torch.sigmoid(z) * (1 + z * torch.sigmoid(-z)), _silu_second)
        case nn.GELU() if type(module) is nn.GELU:
            if module.approximate == "tanh":
                return _gelu_of_tanh()
            return ActivationOfInput(
                lambda z: torch.special.ndtr(z) + z * _normal_density(z), lambda z: _normal_density(z) * (2 - z * z)
            )
    return ACTIVATIONS.get(type(module))


def mlp_layers(model: nn.Module) -> tuple[list[nn.Linear], list[nn.Module]] | None:
    """The linear layers and the activations of a model that has an analytic gradient, else None.

    Such a model is an nn.Sequential of linear layers with biases and one activation of `ACTIVATIONS` between each two.
    """
    if type(model) is not nn.Sequential or len(model) % 2 == 0 or not is_plain(model):
        return None
    linear, activations = list(model[::2]), list(model[1::2])
    plain = all(type(layer) is nn.Linear and layer.bias is not None for layer in linear)
    known = all(type(a) in ACTIVATIONS for a in activations)
    shifted = any(isinstance(a, nn.Softplus) and (a.beta != 1 or a.threshold < 20) for a in activations)
    if not (plain and known) or shifted:
        return None
    layers = [layer for layer in linear if isinstance(layer, nn.Linear)]
    return (layers, activations) if owns_all(model, layers) else None


def is_plain(model: nn.Module) -> bool:
    """Whether no hook, on one of its modules or on all modules, takes part in what the model computes."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    shared = (
        "_global_forward_hooks",
        "_global_forward_pre_hooks",
        "_global_backward_hooks",
        "_global_backward_pre_hooks",
    )
    if any(getattr(torch.nn.modules.module, name, None) for name in shared):
        return False
    # A forward method may also be set on the object itself.
    return not any("forward" in vars(m) or any(getattr(m, name, None) for name in hooks) for m in model.modules())


def owns_all(model: nn.Module, linear: list[nn.Linear]) -> bool:
    """Whether the weights and biases of these layers, in turn, are all parameters of the model, each of them once."""
    own = [p for layer in linear for p in (layer.weight, layer.bias) if p is not None]
    every = list(model.parameters())
    return len(own) == len(every) and all(a is b for a, b in zip(own, every, strict=True))


@dataclass(frozen=True)
class Network:
    """A fully connected network: linear layers, one activation module after each but the last.

    `flattens`: whether it takes inputs of any shape (n, ...), as (n, d).
    """

    linear: list[nn.Linear]
    activations: list[nn.Module]
    flattens: bool


_FUNCTIONS: dict[Any, Callable[..., nn.Module]] = {
    **dict.fromkeys([functional.relu, torch.relu, "relu"], lambda: nn.ReLU()),
    **dict.fromkeys([functional.tanh, torch.tanh, "tanh"], lambda: nn.Tanh()),
    **dict.fromkeys([functional.sigmoid, torch.sigmoid, "sigmoid"], lambda: nn.Sigmoid()),
    functional.silu: lambda: nn.SiLU(),
    functional.gelu: lambda approximate="none": nn.GELU(approximate),
    functional.elu: lambda alpha=1.0: nn.ELU(alpha),
    functional.leaky_relu: lambda negative_slope=0.01: nn.LeakyReLU(negative_slope),
    functional.softplus: lambda beta=1.0, threshold=20.0: nn.Softplus(beta, threshold),
}
_FLATTENING = (torch.flatten, "flatten", "view", "reshape", torch.reshape)
# Methods that read a tensor's shape before `view`.
_OF_SHAPE = ("size", "dim", "__len__")


def read_network(model: nn.Module) -> Network | None:
    """The fully connected network that a model is, None for any other.

    Its computation is traced (torch.fx), so that an nn.Sequential, nested ones and user-defined classes are recognized.
    The trace does not see everything, such as the arguments of `view`, so the caller has to compare the result with the
    model.
    """
    leaves = [m for m in model.modules() if next(m.children(), None) is None]
    linear = [m for m in leaves if type(m) is nn.Linear]
    others = [m for m in leaves if type(m) is not nn.Linear and next(m.parameters(recurse=False), None) is not None]
    buffers = next(model.buffers(), None)
    if not linear or others or buffers is not None or not is_plain(model):
        return None
    if type(model) is nn.Linear:
        return Network([model], [], False)
    try:
        # A forward pass may keep what it has seen, in a dictionary for example; then a copy keeps the traced values.
        graph = fx.Tracer().trace(copy.deepcopy(model, {id(t): t for t in model.parameters()}))
    except Exception:  # A forward pass may fail with any error on traced values; then it is not recognized.
        return None
    network = _read(graph, dict(model.named_modules()))
    return network if network is not None and owns_all(model, network.linear) else None


def _read(graph: fx.Graph, modules: dict[str, nn.Module]) -> Network | None:
    current: fx.Node | None = None
    linear: list[nn.Linear] = []
    activations: list[nn.Module] = []
    flattens = False
    aside: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder":
            if current is not None and node.users:
                return None
            current = current or node
            continue
        if node.op == "output":
            fits = node.args[0] is current and linear and len(activations) == len(linear) - 1
            return Network(linear, activations, flattens) if fits else None
        if _is_of_shape(node, current, aside):
            aside.add(node)
            continue
        others = [n for n in node.all_input_nodes if n is not current]
        if node.args[:1] != (current,) or any(n not in aside for n in others):
            return None
        module = modules[node.target] if node.op == "call_module" else _as_module(node)
        if module is None:
            return None
        if isinstance(module, nn.Flatten):
            if linear:
                return None
            flattens = True
        elif type(module) is nn.Linear:
            if len(linear) != len(activations):
                return None
            linear.append(module)
        elif isinstance(module, nn.Dropout) and not module.training:
            pass
        elif type(module) is not nn.Identity:
            if len(linear) != len(activations) + 1 or activation_of(module) is None:
                return None
            activations.append(module)
        current = node
    return None


def _is_of_shape(node: fx.Node, current: fx.Node | None, aside: set[fx.Node]) -> bool:
    own = [*aside, current]
    if any(n not in own for n in node.all_input_nodes):
        return False
    if node.op == "call_method":
        return node.target in _OF_SHAPE
    name = getattr(node.target, "__name__", "")
    if node.op == "call_function" and name == "getattr":
        return node.args[1:2] == ("shape",)
    return node.op == "call_function" and name in ("getitem", "len") and (node.args[0] in aside or name == "len")


def _as_module(node: fx.Node) -> nn.Module | None:
    if node.op not in ("call_function", "call_method"):
        return None
    if node.target in _FLATTENING:
        return nn.Flatten()
    settings = {name: value for name, value in node.kwargs.items() if name != "inplace"}
    if node.target in (functional.dropout, functional.alpha_dropout):
        given = settings.get("training", node.args[2] if len(node.args) > 2 else True)
        return nn.Identity() if given is False else None
    make = _FUNCTIONS.get(node.target)
    if make is None or node.args[2:]:
        return None
    try:
        return make(*node.args[1:], **settings)
    except TypeError:
        return None
