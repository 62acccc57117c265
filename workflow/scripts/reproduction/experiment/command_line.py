"""Values of `--config`: Snakemake hands on as text what is nested; the schema's types say what was meant."""

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from reproduction.experiment.config import canonical_form, full_schema
from reproduction.schema import mistyped_paths

Path = tuple[Any, ...]

# YAML 1.1 wants a point before an exponent; on a command line 1e-3 can mean nothing but a number.
_EXPONENT = re.compile(r"[+-]?[0-9]+([.][0-9]*)?e[+-]?[0-9]+", re.IGNORECASE)


def typed(config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A merged configuration in which the values `given` on the command line have the types that the schema asks for.

    A value is what YAML reads it as, unless the schema wants text there; `null` removes a key, as in an overlay.
    """
    merged = copy.deepcopy(dict(config)) if given else dict(config)
    read: dict[Path, Any] = {}
    text: dict[Path, Any] = {}
    for path, value in _leaves(given):
        holder = _holder(merged, path)
        if holder is None or holder[path[-1]] != value:
            continue  # another file or a module's caller has set this key since
        text[path] = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        read[path] = _as_yaml(value)
        holder[path[-1]] = read[path]
    if not read:
        return merged
    mistyped = mistyped_paths(canonical_form(merged), full_schema()) & set(read)
    _set(merged, {path: text[path] for path in mistyped})
    # What has a wrong type either way is shown as it was read: a wrong number as a number.
    mistyped &= mistyped_paths(canonical_form(merged), full_schema())
    _set(merged, {path: read[path] for path in mistyped})
    return merged


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _leaves(item, (*path, position))
    else:
        yield path, value


def _holder(merged: Any, path: Path) -> Any:
    """The mapping or list that holds the end of a path, or None. A key that is a number in a file gives way."""
    for depth, part in enumerate(path):
        if isinstance(merged, dict):
            for twin in [key for key in merged if key != part and not isinstance(key, str) and str(key) == part]:
                del merged[twin]
        try:
            below = merged[part]
        except (LookupError, TypeError):
            return None
        if depth == len(path) - 1:
            return merged
        merged = below
    return None


def _as_yaml(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if _EXPONENT.fullmatch(value):
        return float(value)
    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    # Text in quotes within quotes, a date or a second mapping is not what anyone means.
    return read if read is None or isinstance(read, (bool, int, float)) else value


def _set(merged: Any, values: Mapping[Path, Any]) -> None:
    for path, value in values.items():
        _holder(merged, path)[path[-1]] = value
