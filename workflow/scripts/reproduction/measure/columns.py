"""Columns of tables: their types, and how many digits are written."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from reproduction.experiment.table_catalogue import NAME, RELATIONS

# Columns of whole numbers, in whatever table.
WHOLE = frozenset(
    (
        *("step", "waiting_time", "lag", "first", "second", *RELATIONS, "i", "k", "seed", "layer"),
        *("partner", "track", "predecessor", "tracked_i"),
        *("converged", "accepted", "certified", "broken", "tracked_certified"),
    )
)
# Of numbers that are written for later questions: what solvers and float32 leave certain, in few bytes.
DIGITS = 6


def typed(rows: np.ndarray | Sequence[tuple[Any, ...]], units: Mapping[str, str]) -> pd.DataFrame:
    """A table whose columns have their type without a row too: a run may diverge before its first snapshot."""
    types = {name: str if unit == NAME else np.int64 if name in WHOLE else np.float64 for name, unit in units.items()}
    return pd.DataFrame(rows, columns=list(units)).astype(types)


def significant(values: ArrayLike, digits: int = DIGITS) -> np.ndarray:
    """Numbers rounded to so many significant digits."""
    numbers = np.asarray(values, dtype=np.float64)
    usual = np.isfinite(numbers) & (numbers != 0)
    sizes = np.floor(np.log10(np.abs(numbers), out=np.zeros(numbers.shape), where=usual))
    return decimal_rounded(numbers, np.minimum(digits - 1 - sizes, 300))


def decimal_rounded(values: np.ndarray, decimals: np.ndarray) -> np.ndarray:
    """Numbers rounded each to its own number of decimals."""
    # A power of ten with a negative exponent is not exact; numbers of usual size take two exact ones.
    scale = 10.0 ** np.abs(decimals)
    # Both branches are taken of all numbers.
    with np.errstate(over="ignore"):
        found: np.ndarray = np.where(decimals >= 0, np.rint(values * scale) / scale, np.rint(values / scale) * scale)
    return found
