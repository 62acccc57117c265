"""Objects that are named by a file and a name within it: `file.py:name`."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def load(reference: str, name: str = "problem") -> Any:
    """The function or class that "file.py:name" names.

    Args:
        reference: The file, relative to the working directory, and the name within it.
        name: What errors call the reference.

    Returns:
        What has this name once the file was imported; it can be called.

    Raises:
        ValueError: There is no such file or name, or the file fails when it is imported.
    """
    file, colon, attribute = reference.rpartition(":")
    path = Path(file)
    if not colon or not path.is_file():
        raise ValueError(
            f"{name} = {reference!r} is not allowed; give an existing file and a function, as mine.py:function"
        )
    # A name of its own: a file called random.py must not stand in for Python's module.
    spec = importlib.util.spec_from_file_location(f"eigendrift_problem_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{name} = {reference!r} is not allowed; the file's name must end in .py")
    module = importlib.util.module_from_spec(spec)
    _import(spec.loader, module, path)
    found = getattr(module, attribute, None)
    if not callable(found):
        raise ValueError(f"{name} = {reference!r} is not allowed; {path} has no function {attribute!r}")
    return found


def _import(loader: Any, module: ModuleType, path: Path) -> None:
    # Its neighbours can be imported, as when the file is run.
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[module.__name__] = module
    try:
        loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} fails when it is imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
