"""Errors that a user can fix: each is one line that names what is wrong, where, and what would be right."""

import difflib
from collections.abc import Iterable
from typing import Any


class EigendriftError(Exception):
    """Base of every error that the library raises on purpose."""


class ConfigError(EigendriftError):
    """A key of the configuration has a value that cannot be used."""


class DataError(EigendriftError):
    """A raw data file is missing, damaged or not what its name says."""


class DamagedFileError(EigendriftError):
    """The content of a file that a rule wrote does not agree with its header."""


class WriteError(EigendriftError):
    """A file cannot be written: the disk is full, or its folder is not ours to write to."""


def shown(value: Any) -> str:
    """A value as a message shows it: one line, at most 60 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        # Python refuses to print a number of thousands of digits, or lists nested a thousand deep.
        text = f"a value of type {type(value).__name__} that is too large to show"
    return text if len(text) <= 60 else text[:57] + "..."


def dotted(*path: object) -> str:
    """A key's path as a message shows it: its parts with points between them, on one line, long ones cut."""
    parts = map(str, path)
    shown_parts = (part if part.isprintable() and 0 < len(part) <= 80 else shown(part) for part in parts)
    return ".".join(shown_parts) or "(top level)"


def nearest(word: Any, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the choice nearest to `word`, or nothing."""
    names = list(choices)
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""
