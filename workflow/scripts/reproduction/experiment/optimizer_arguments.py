"""Check an optimizer's arguments against the signature of its torch.optim class, without importing torch.

Importing torch takes seconds and a controller machine may not have it, so the signatures are read from its source.
Where torch is not installed, the check is left to the training job, which fails on a wrong argument at its first step.
"""

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from reproduction.errors import ConfigError, dotted, nearest, shown

# Their step needs a closure, sparse gradients or matrices only.
UNSUITABLE = {
    "LBFGS": "its step evaluates the loss many times",
    "SparseAdam": "it needs sparse gradients",
    "Muon": "it takes weight matrices only, not biases",
    "Optimizer": "it is the base class",
}
# The training loop sets them or relies on their default.
RESERVED = ("self", "params", "maximize", "differentiable", "capturable")


@dataclass(frozen=True)
class Signature:
    """What an optimizer's constructor takes: its arguments with their defaults, and the conditions it refuses."""

    defaults: Mapping[str, Any]
    refused: tuple[ast.expr, ...]


@cache
def torch_optimizers() -> Mapping[str, Signature]:
    """Name -> signature of every torch.optim class that training can use; empty where torch is not installed."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return {}
    classes: dict[str, tuple[ast.ClassDef, ast.FunctionDef]] = {}
    for path in sorted((Path(spec.origin).parent / "optim").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                for item in node.body:
                    if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                        classes[node.name] = node, item
    found: dict[str, Signature] = {}
    for name, (node, constructor) in classes.items():
        defaults = _defaults(constructor)
        if "lr" in defaults and not name.startswith("_") and name not in UNSUITABLE:
            parents = [classes[base.id][1] for base in node.bases if isinstance(base, ast.Name) and base.id in classes]
            refused = tuple(test for each in (constructor, *parents) for test in _refused(each))
            found[name] = Signature(defaults, refused)
    return found


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


def _refused(constructor: ast.FunctionDef) -> list[ast.expr]:
    """The conditions under which a constructor raises an error at once."""
    return [node.test for node in constructor.body if isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise)]


def check_optimizer(path: str, arguments: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where the class is unknown or does not take an argument or its value.

    `path` is the entry's own key, for the message.
    """
    known = torch_optimizers()
    name = arguments["class"]
    is_sam = name == "SAM"
    if is_sam:
        for key in ("base", "rho"):
            if key not in arguments:
                raise ConfigError(
                    f"config: {path}.{key}: missing; SAM needs base (a torch.optim class) and rho (its radius)"
                )
        name = arguments["base"]
    key = f"{path}.base" if is_sam else f"{path}.class"
    if name in UNSUITABLE:
        raise ConfigError(f"config: {key}: {name!r} is not allowed; {UNSUITABLE[name]}")
    if not known:
        return
    if name not in known:
        choices = list(known) if is_sam else [*known, "SAM"]
        raise ConfigError(
            f"config: {key}: {shown(name)} is not allowed; give one of {', '.join(choices)}{nearest(name, choices)}"
        )
    own = {
        key: value
        for key, value in arguments.items()
        if key not in (("class", "base", "rho") if is_sam else ("class",))
    }
    allowed = [*known[name].defaults, "class", *(("base", "rho") if is_sam else ())]
    for argument, value in own.items():
        if argument not in known[name].defaults:
            raise ConfigError(
                f"config: {dotted(path, argument)}: unknown key{nearest(argument, allowed)} "
                f"(allowed here: {', '.join(allowed)})"
            )
        if (wanted := _wanted(value, known[name].defaults[argument])) is not None:
            raise ConfigError(f"config: {path}.{argument}: {shown(value)} is not allowed; give {wanted}")
    _check_values(path, name, known[name], own)


def _wanted(value: Any, default: Any) -> str | None:
    """What to give instead of a value that is not of its default's kind; None where it is, or none is known."""
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


def _check_values(path: str, name: str, signature: Signature, own: Mapping[str, Any]) -> None:
    """Evaluate the constructor's own conditions, so that what is allowed is what this version of torch allows."""
    values = {**signature.defaults, **own}
    for test in signature.refused:
        named = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
        given = [argument for argument in own if argument in named]
        if given and _is_true(test, values):
            needs = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
            condition = ast.unparse(test.operand if isinstance(test, ast.UnaryOp) and needs else test)
            raise ConfigError(
                f"config: {path}.{given[0]}: {shown(own[given[0]])} is not allowed; torch.optim.{name} "
                f"{'needs' if needs else 'refuses'} {condition}"
            )


def _is_true(test: ast.expr, values: Mapping[str, Any]) -> bool:
    known = {"__builtins__": {}, "isinstance": isinstance, "float": float, "Tensor": type("Tensor", (), {})}
    try:
        return bool(eval(compile(ast.Expression(test), "<torch.optim>", "eval"), known, dict(values)))
    except (ArithmeticError, AttributeError, LookupError, NameError, TypeError, ValueError):
        # A condition on something that only torch knows is left to training.
        return False
