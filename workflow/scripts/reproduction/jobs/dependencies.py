"""Which files of this library a script imports, directly or through others: Snakemake watches the script alone."""

import ast
import os
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent


def library_files(script: str | Path) -> list[str]:
    """Paths of all modules of the library that `script` loads, sorted; read from the source, nothing is imported.

    The package's own __init__.py is left out: it only looks names up.
    """
    found: set[Path] = set()
    pending = [Path(script)]
    while pending:
        for path in _imports(pending.pop()):
            if path not in found and path != PACKAGE / "__init__.py":
                found.add(path)
                pending.append(path)
    return sorted(map(str, found))


@cache
def _imports(path: Path) -> frozenset[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return frozenset(file for name in names if name.split(".")[0] == PACKAGE.name for file in _files(name))


def _files(name: str) -> list[Path]:
    """The files that importing a dotted name runs: each package's __init__.py on the way, and the module."""
    parts = name.split(".")[1:]
    folders = [PACKAGE.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    candidates = [folder / "__init__.py" for folder in folders] + [PACKAGE.joinpath(*parts).with_suffix(".py")]
    return [file for file in candidates if file.is_file()]


def use_this_copy() -> None:
    """Make the processes that are started from now on import this copy of the library, whichever is installed.

    Snakemake adds the folder of a script behind all others, where an installed copy would win over the checkout's own.
    """
    others = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE.parent), others]))
