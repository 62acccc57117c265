"""The registry of measuring functions, and what they share: choosing rows and going through seeds."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reproduction.claims.statistics import Measurement
from reproduction.experiment.labels import MAIN

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
