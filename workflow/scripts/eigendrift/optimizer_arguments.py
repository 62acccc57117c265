"""Check an optimizer's arguments against the signature of its torch.optim class, without importing torch.

Importing torch takes seconds and a controller machine may not have it, so the signatures are read from its source.
Where torch is not installed, the check is left to the training job, which fails on a wrong argument at its first step.
"""

import ast
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from eigendrift.errors import ConfigError, nearest, shown

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
def torch_optimizers() -> Mapping[str, tuple[str, ...]]:
    """Name -> argument names of every torch.optim class that training can use; empty where torch is not installed."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted((Path(spec.origin).parent / "optim").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and node.name not in UNSUITABLE:
                for item in node.body:
                    if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                        names = tuple(a.arg for a in (*item.args.args, *item.args.kwonlyargs) if a.arg not in RESERVED)
                        if "lr" in names:
                            found[node.name] = names
    return found


def check_optimizer(path: str, arguments: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where the class is unknown or does not take one of the arguments; `path` names the entry."""
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
    allowed = [*known[name], "class", *(("base", "rho") if is_sam else ())]
    for argument in arguments:
        if argument not in allowed:
            raise ConfigError(
                f"config: {path}.{argument}: unknown key{nearest(argument, allowed)} "
                f"(allowed here: {', '.join(allowed)})"
            )
