"""Which files of ours decide what a script writes: Snakemake itself watches the script alone."""

import ast
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from reproduction.experiment import importable
from reproduction.jobs.checkout import ROOTS

# What cannot change a number: how a process runs, what it says, how it writes and fetches files, of which content is
# checked. Files of the reproduction, and folders.
PLUMBING = (
    "experiment/asking.py",  # asks what is checked again where it is used
    "experiment/table_catalogue.py",  # what a rule's tables have for columns is among its parameters
    "jobs/",
    "errors.py",
    "progress.py",
    "schema.py",
    "files/atomic.py",
    "files/identity.py",
    "data/download.py",
)


def library_files(script: str | Path, *modules: str) -> list[str]:
    """Paths of the modules of both packages that `script` loads and that can change what it writes, sorted.

    `modules`: names of those that it imports by name when it runs, which may be another package's. Read from the
    source, nothing is imported. Left out are `PLUMBING`, the library's own __init__.py, which only looks names up, and
    modules without a statement.
    """
    return [str(path) for path in sorted(loaded_files(script, *modules)) if not is_plumbing(path)]


@cache
def is_plumbing(path: Path) -> bool:
    """Whether a module cannot change a number."""
    root = ROOTS["reproduction"]
    return path.is_relative_to(root) and path.relative_to(root).as_posix().startswith(PLUMBING)


def loaded_files(script: str | Path, *modules: str) -> set[Path]:
    """Paths of all modules of both packages that `script` loads, and these `modules`."""
    found: set[Path] = set()
    pending = [*_imports(Path(script)), *(file for module in modules for file in _named(module))]
    while pending:
        path = pending.pop()
        if path not in found and path != ROOTS["eigendrift"] / "__init__.py":
            found.add(path)
            pending += _imports(path)
    return {path for path in found if _has_statements(path)}


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _has_statements(path: Path) -> bool:
    def is_text(node: ast.AST) -> bool:
        return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)

    return bool(_imported(path)) or not all(map(is_text, ast.parse(_text(path)).body))


# An import statement on lines of its own, in brackets or not.
_STATEMENT = re.compile(
    r"^[ \t]*(from[ \t]+[\w.]+[ \t]+import[ \t]*(?:\([^)]*\)|[^(\n]*)|import[ \t][^\n]*)$", re.MULTILINE
)
# Lines that hold no statement of a module: comments, and examples in docstrings.
_NO_CODE = re.compile(r"^[ \t]*(?:#|>>>).*$", re.MULTILINE)


def _import_statements(path: Path) -> Iterator[ast.AST]:
    """The import statements of a module, at any depth.

    Parsing a whole module takes ten times as long as finding these, and Snakemake reads all modules whenever it starts.
    Where the word `import` occurs anywhere else, the module is parsed.
    """
    text = _NO_CODE.sub("", _text(path))
    found = _STATEMENT.findall(text)
    if len(re.findall(r"\bimport\b", text)) == len(found):
        with suppress(SyntaxError):
            yield from ast.parse("\n".join(found)).body
            return
    yield from ast.walk(ast.parse(_text(path)))


@cache
def _imported(path: Path) -> frozenset[str]:
    """The dotted names that the import statements of a module mention, whether they are modules or not."""
    names: set[str] = set()
    for node in _import_statements(path):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return frozenset(names)


@cache
def _imports(path: Path) -> frozenset[Path]:
    return frozenset(file for name in _imported(path) for file in _files(name))


def _named(module: str) -> list[Path]:
    """The files of a module that a record names: of ours, or the one file of another package's."""
    if module.split(".")[0] in ROOTS:
        return _files(module)
    found = importable.source(module)
    return [] if found is None else [found]


@cache
def _files(name: str) -> list[Path]:
    """The files of ours that importing a dotted name runs: each __init__.py on the way, and the module."""
    package, *parts = name.split(".")
    if package not in ROOTS:
        return []
    root = ROOTS[package]
    folders = [root.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    candidates = [folder / "__init__.py" for folder in folders]
    candidates += [root.joinpath(*parts).with_suffix(".py")] if parts else []
    return [file for file in candidates if file.is_file()]
