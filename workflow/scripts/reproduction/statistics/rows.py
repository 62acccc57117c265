"""Means over the rows of a table, for figures and claims."""

from collections.abc import Callable

import numpy as np
import pandas as pd


def is_on_grid(steps: np.ndarray, every: int, last: int) -> np.ndarray:
    """Which of the steps are multiples of `every`, or the last."""
    found: np.ndarray = (steps % every == 0) | (steps == last)
    return found


def by_seed(frame: pd.DataFrame, measure: Callable[[pd.DataFrame], float]) -> dict[int, float]:
    """`measure` of each seed's rows, NaN included; empty where there are no rows."""
    if frame.empty:
        return {}
    return {int(str(seed)): float(measure(group)) for seed, group in frame.groupby("seed", sort=True)}


def values(frame: pd.DataFrame, column: str) -> np.ndarray:
    """A column as float64 (n,)."""
    return frame[column].to_numpy(dtype=np.float64)


def mean(numbers: np.ndarray) -> float:
    """Mean of the finite numbers, NaN without any."""
    finite = numbers[np.isfinite(numbers)]
    return float(finite.mean()) if len(finite) else float("nan")


def geometric_mean(numbers: np.ndarray) -> float:
    """Geometric mean of the positive finite numbers, NaN without any."""
    positive = numbers[np.isfinite(numbers) & (numbers > 0)]
    return float(np.exp(np.log(positive).mean())) if len(positive) else float("nan")


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation (mean ranks for ties) of two samples (n,); NaN if n < 3 or one is constant."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    ranks = [pd.Series(sample).rank().to_numpy(dtype=np.float64) for sample in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
