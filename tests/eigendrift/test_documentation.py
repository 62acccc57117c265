"""The public names are documented by argument, and their examples run."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import eigendrift

MODULES = sorted(m.name for m in pkgutil.walk_packages(eigendrift.__path__, "eigendrift."))
# Modules whose functions all are public, beside the names of the package itself.
PUBLIC = (
    "algebra",
    "identity",
    "localization",
    "metrics",
    "operators",
    "scaling",
    "sphere",
    "stability",
    "eigensolver.missed",
)


def functions_of(module: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, value in vars(module).items():
        if not name.startswith("_") and inspect.isfunction(value) and value.__module__ == module.__name__:
            yield f"{module.__name__}.{name}", value


def methods_of(kind: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, value in vars(kind).items():
        method = inspect.unwrap(getattr(value, "__func__", value))
        own = not name.startswith("_") or name in ("__init__", "__call__", "__matmul__")
        # The __init__ of a dataclass is generated: its arguments are the class's Attributes.
        if own and inspect.isfunction(method) and method.__qualname__ == f"{kind.__name__}.{name}":
            if name == "__init__" and hasattr(kind, "__dataclass_fields__"):
                continue
            yield f"{kind.__name__}.{name}", method


def public() -> dict[str, Callable[..., Any]]:
    found = dict(pair for name in PUBLIC for pair in functions_of(importlib.import_module(f"eigendrift.{name}")))
    for name in eigendrift.__all__:
        value = getattr(eigendrift, name)
        if inspect.isclass(value):
            # What a class inherits is public too.
            for kind in value.__mro__:
                if kind.__module__.startswith("eigendrift"):
                    found.update(methods_of(kind))
        elif inspect.isfunction(value):
            found[name] = inspect.unwrap(value)
    return found


FUNCTIONS = public()


def section(documentation: str, title: str) -> str:
    found = re.search(rf"^{title}:\n((?:    .*\n|\n)+)", documentation + "\n", re.MULTILINE)
    return found[1] if found else ""


def arguments_of(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self", "cls"}


def raises_itself(function: Callable[..., Any]) -> bool:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return any(isinstance(node, ast.Raise) and node.exc is not None for node in ast.walk(tree))


def test_the_public_names_are_found() -> None:
    assert {"top_eigenpairs", "HessianOperator.__init__", "HessianOperator.move_to", "EigenPairs.load"} <= set(
        FUNCTIONS
    )
    assert {"eigendrift.metrics.displacement", "eigendrift.stability.sam_edge"} <= set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_results_and_errors_are_documented(name: str) -> None:
    function = FUNCTIONS[name]
    documentation = inspect.getdoc(function) or ""
    documented = set(re.findall(r"^    (\w+): ", section(documentation, "Args"), re.MULTILINE))
    assert documented == arguments_of(function)
    if inspect.signature(function).return_annotation not in (None, "None"):
        assert section(documentation, "Returns")
    assert section(documentation, "Raises") or not raises_itself(function)


# A Track is opened in the example of the function that writes it.
@pytest.mark.parametrize("name", sorted({*eigendrift.__all__} - {"metrics", "Track"}))
def test_public_names_have_an_example(name: str) -> None:
    assert ">>> " in section(inspect.getdoc(getattr(eigendrift, name)) or "", "Example")


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if re.match(r"eigendrift\.(identity|loc|metrics|sph|stab)", n)])
def test_statistics_have_an_example(name: str) -> None:
    assert ">>> " in section(inspect.getdoc(FUNCTIONS[name]) or "", "Example")


@pytest.mark.parametrize("name", ["EigenPairs", "identity.Matching", "localization.Layer", "scaling.Scaling"])
def test_every_field_is_documented(name: str) -> None:
    kind: Any = eigendrift
    for part in name.split("."):
        kind = getattr(kind, part) if hasattr(kind, part) else importlib.import_module(f"eigendrift.{part}")
    documented = re.findall(r"^    (\w+): ", section(inspect.getdoc(kind) or "", "Attributes"), re.MULTILINE)
    assert documented == list(kind.__dataclass_fields__)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
