"""Check the names and keywords of an optimizer against its constructor's source, without importing torch.

Importing torch takes seconds and a controller machine may not have it, so constructors are read from their source.
What the source does not show, and the values, are left to the training job, which makes the optimizer before it reads
any data (`training.optimizers.check_optimizer_is_made`).
"""

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from reproduction.errors import ConfigError, dotted, nearest, shown
from reproduction.experiment import importable

# Their step needs a closure, sparse gradients or matrices only.
UNSUITABLE = {
    "LBFGS": "its step evaluates the loss many times",
    "SparseAdam": "it needs sparse gradients",
    "Muon": "it takes weight matrices only, not biases",
    "Optimizer": "it is the base class",
}
# The training loop sets them or relies on their default.
RESERVED = ("self", "params", "maximize", "differentiable", "capturable")


@cache
def torch_optimizers() -> Mapping[str, Mapping[str, Any]]:
    """Name -> arguments of every torch.optim class that training can use; empty where torch is not installed."""
    origin = importable.source("torch")
    if origin is None:
        return {}
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted((origin.parent / "optim").glob("*.py")):
        for name, constructor in _constructors(path).items():
            defaults = _defaults(constructor)
            if "lr" in defaults and not name.startswith("_") and name not in UNSUITABLE:
                found[name] = defaults
    return found


def arguments_of(name: str) -> Mapping[str, Any] | None:
    """Arguments of the class `package.module:Class` with their defaults; None where its source does not show them."""
    module, _, attribute = name.rpartition(":")
    path = importable.source(module)
    constructor = None if path is None else _constructors(path).get(attribute)
    return None if constructor is None or constructor.args.kwarg is not None else _defaults(constructor)


def sources_of(spec: Mapping[str, Any]) -> list[str]:
    """The files of a class from outside torch.optim, where there are: their content decides what a run computes."""
    name = class_of(spec)
    return list(map(str, importable.sources(name))) if importable.is_path(name) else []


def class_of(spec: Mapping[str, Any]) -> str:
    """The class that takes the step: SAM's base, or the class itself."""
    return str(spec["base"] if spec["class"] == "SAM" else spec["class"])


def own_arguments(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of that class. SAM's rho is not among them; Adadelta has a rho of its own."""
    ours = ("class", "base", "rho") if spec["class"] == "SAM" else ("class",)
    return {key: value for key, value in spec.items() if key not in ours}


def gradients_per_step(spec: Mapping[str, Any]) -> int:
    """Gradients that one step takes."""
    return 2 if spec["class"] == "SAM" else 1


def _constructors(path: Path) -> dict[str, ast.FunctionDef]:
    """The constructor of each class at the top of a file that has one of its own."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return {}
    return {
        node.name: item
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if isinstance(item, ast.FunctionDef) and item.name == "__init__"
    }


def _defaults(constructor: ast.FunctionDef) -> dict[str, Any]:
    """Its arguments with their defaults (... where there is none to read), without those the training loop reserves."""
    arguments = constructor.args
    nodes = [*arguments.args, *arguments.kwonlyargs]
    values = [None] * (len(arguments.args) - len(arguments.defaults)) + [*arguments.defaults, *arguments.kw_defaults]
    return {node.arg: _literal(value) for node, value in zip(nodes, values, strict=True) if node.arg not in RESERVED}


def _literal(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else ...
    except ValueError:
        return ...


def check_optimizer(path: str, arguments: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where the class is unknown or does not take an argument, or a value of its kind.

    `path` is the entry's own key, for the message.
    """
    is_sam = arguments["class"] == "SAM"
    for key in ("base", "rho") if is_sam else ():
        if key not in arguments:
            raise ConfigError(
                f"config: {path}.{key}: missing; SAM needs base (a torch.optim class) and rho (its radius)"
            )
    taken = _arguments_of_class(f"{path}.{'base' if is_sam else 'class'}", class_of(arguments), is_sam)
    if taken is None:
        return
    allowed = [*taken, "class", *(("base", "rho") if is_sam else ())]
    for argument, value in own_arguments(arguments).items():
        if argument not in taken:
            raise ConfigError(
                f"config: {dotted(path, argument)}: unknown key{nearest(argument, allowed)} "
                f"(allowed here: {', '.join(allowed)})"
            )
        if (wanted := _wanted(value, taken[argument])) is not None:
            raise ConfigError(f"config: {path}.{argument}: {shown(value)} is not allowed; give {wanted}")


def _arguments_of_class(key: str, name: str, is_sam: bool) -> Mapping[str, Any] | None:
    """What a class takes, None where the source does not show it; `ConfigError` for a name without a class."""
    if name in UNSUITABLE:
        raise ConfigError(f"config: {key}: {name!r} is not allowed; {UNSUITABLE[name]}")
    if name.startswith(("torch.optim:", "torch.optim.")):
        raise ConfigError(
            f"config: {key}: {shown(name)} is not allowed; give a class of torch.optim by its name alone, such as SGD"
        )
    if importable.is_path(name):
        return arguments_of(name)
    if {":", "."} & set(name):
        raise ConfigError(
            f"config: {key}: {shown(name)} is not allowed; give the name of a torch.optim class, or any other class as "
            "package.module:Class or file.py:Class"
        )
    known = torch_optimizers()
    if known and name not in known:
        choices = list(known) if is_sam else [*known, "SAM"]
        raise ConfigError(
            f"config: {key}: {shown(name)} is not allowed; give one of {', '.join(choices)}{nearest(name, choices)}, "
            "or package.module:Class"
        )
    return known.get(name)


def _wanted(value: Any, default: Any) -> str | None:
    """What to give instead, for a value of another kind than its default; None for any other value."""
    if default is ...:
        return None
    if default is None or isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, tuple):
        fits = isinstance(value, list) and len(value) == len(default) and all(map(_is_number, value, default))
        return None if fits else f"a list of {len(default)} numbers"
    return None if _is_number(value, default) else "a number"


def _is_number(value: Any, default: Any) -> bool:
    return (isinstance(value, (int, float)) and not isinstance(value, bool)) or (value is None and default is None)
