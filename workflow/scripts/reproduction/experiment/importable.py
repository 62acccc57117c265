"""Names of the form `package.module:Name`: whether one is such a name, what it names, and where its source lies."""

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

_FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def is_path(name: str) -> bool:
    """Whether `name` has the form `package.module:Name`."""
    return _FORM.fullmatch(name) is not None


def load(name: str) -> Any:
    """The object that `package.module:Name` names.

    Raises:
        ImportError: The module cannot be imported.
        AttributeError: The module has no such name.
    """
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def source(module: str) -> Path | None:
    """The file of `package.module`, found without importing anything; None where there is none to read."""
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
