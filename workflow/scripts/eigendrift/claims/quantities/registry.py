"""The registry of measuring functions, and what they share: choosing rows and going through seeds."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from eigendrift.claims.evidence import MAIN
from eigendrift.claims.statistics import Measurement

Measure = Callable[..., Measurement]


@dataclass(frozen=True)
class Quantity:
    """One measuring function: `measure(evidence, dataset, **parameters)`.

    `label` is what a reader sees, with {name} for a parameter; `tables` are those it reads, `pairs` the indices i of
    the eigenpairs it reads (a parameter i comes first), `sweeps` whether it reads runs of the sweeps too.
    """

    name: str
    label: str
    unit: str
    tables: tuple[str, ...]
    pairs: tuple[int, ...]
    sweeps: bool
    measure: Measure

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The keyword parameters that a test may set, with their defaults."""
        signature = inspect.signature(self.measure)
        return {name: p for name, p in signature.parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def described(self, parameters: dict[str, Any]) -> str:
        """The label with the parameters of one test, defaults included."""
        values = {name: parameters.get(name, p.default) for name, p in self.parameters.items()}
        shown = {name: ", ".join(map(str, v)) if isinstance(v, (list, tuple)) else v for name, v in values.items()}
        return self.label.format(**shown)


QUANTITIES: dict[str, Quantity] = {}


def quantity(
    label: str, *, unit: str, tables: tuple[str, ...], pairs: tuple[int, ...] = (1,), sweeps: bool = False
) -> Callable[[Measure], Measure]:
    """Enter the decorated function into `QUANTITIES` under its own name."""

    def enter(function: Measure) -> Measure:
        QUANTITIES[function.__name__] = Quantity(function.__name__, label, unit, tables, pairs, sweeps, function)
        return function

    return enter


def rows(frame: pd.DataFrame, dataset: str, optimizer: str, variant: str = MAIN, **equal: object) -> pd.DataFrame:
    """The rows of one (dataset, optimizer, variant), and of the given values of further columns."""
    for column, value in {"dataset": dataset, "optimizer": optimizer, "variant": variant, **equal}.items():
        if frame.empty:
            break
        frame = frame[frame[column] == value]
    return frame


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
