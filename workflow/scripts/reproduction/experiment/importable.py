"""Names of the form `package.module:Name` or `file.py:Name`: what is such a name, what it names, where its source lies.

A file is relative to the folder where Snakemake works.
"""

import ast
import importlib
import importlib.util
import re
import site
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FORM = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*|[^:{}]+\.py):[A-Za-z_]\w*", re.ASCII)


def is_path(name: str) -> bool:
    """Whether `name` has the form `package.module:Name` or `file.py:Name`."""
    return _FORM.fullmatch(name) is not None


def is_file(module: str) -> bool:
    """Whether what stands before the colon is a file."""
    return module.endswith(".py")


def load(name: str) -> Any:
    """The object that a name stands for.

    Raises:
        ImportError: The module cannot be imported.
        AttributeError: The module has no such name.
        ValueError: The same of a file.
    """
    module, _, attribute = name.rpartition(":")
    if is_file(module):
        # Imported here: the Snakefile is read before this checkout's library can be found.
        from eigendrift.loading import load as load_from_file

        return load_from_file(name, "it")
    return getattr(importlib.import_module(module), attribute)


def source(module: str) -> Path | None:
    """The file of `package.module`, or `file.py` itself, found without importing anything; None where there is none."""
    if is_file(module):
        path = Path(module).expanduser()
        return path.absolute() if path.is_file() else None
    top, *parts = module.split(".")
    try:
        # For a dotted name, find_spec would import the packages above it, which may import torch.
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not parts:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        place = Path(folder).joinpath(*parts)
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file():
                return file
    return None


def sources(name: str) -> list[Path]:
    """The file that a name stands in, and the files of the same folder or package that it imports, sorted.

    Read from the source, nothing is imported. Of an installed package it is the one file, since its version says what
    the others are; empty where there is none to read.
    """
    module = name.rpartition(":")[0]
    first = source(module)
    if first is None:
        return []
    if any(first.is_relative_to(folder) for folder in (*site.getsitepackages(), site.getusersitepackages())):
        return [first]
    # What a file imports lies beside it; what a module of a package imports lies in the package.
    depth = 1 if is_file(module) else len(module.split(".")) + (first.name == "__init__.py")
    root, top = first.parents[depth - 1], None if is_file(module) else module.split(".")[0]
    found: set[Path] = set()
    pending = [first]
    while pending:
        path = pending.pop()
        if path not in found:
            found.add(path)
            pending += [
                file
                for parts in _imported(path, root)
                if top is None or parts[0] == top
                for file in _files(root, parts)
            ]
    return sorted(found)


def _files(root: Path, parts: tuple[str, ...]) -> list[Path]:
    """The files below a folder that importing a dotted name runs."""
    folders = [root.joinpath(*parts[:count]) / "__init__.py" for count in range(1, len(parts) + 1)]
    return [file for file in (*folders, root.joinpath(*parts).with_suffix(".py")) if file.is_file()]


def _imported(path: Path, root: Path) -> Iterator[tuple[str, ...]]:
    """The dotted names that a file imports, relative ones as they are from the root."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base: tuple[str, ...] = ()
            if node.level:
                folder = path.parents[node.level - 1]
                if not folder.is_relative_to(root):
                    continue
                base = folder.relative_to(root).parts
            base += tuple(node.module.split(".")) if node.module else ()
            yield from ((*base, alias.name) for alias in node.names)
            if base:
                yield base
