"""The null model: overlaps and displacements of the eigenvectors of independent initializations."""

import pandas as pd

from reproduction.claims.evidence import Evidence
from reproduction.claims.quantities.registry import quantity
from reproduction.claims.statistics import Measurement
from reproduction.statistics.rows import values


def _row(evidence: Evidence, dataset: str, i: int) -> pd.DataFrame:
    frame = evidence.baseline
    return frame if frame.empty else frame[(frame["dataset"] == dataset) & (frame["i"] == i)]


def _from_table(evidence: Evidence, dataset: str, i: int, column: str, low: str, high: str) -> Measurement:
    row = _row(evidence, dataset, i)
    if row.empty:
        return Measurement(by_seed={})
    value, lower, upper, count = (float(values(row, name)[0]) for name in (column, low, high, "n_initializations"))
    note = f"jackknife interval over {count:.0f} initializations"
    return Measurement(pooled=value, interval=(lower, upper), notes=(note,))


@quantity("mean overlap of v_{i} between initializations, tau", unit="1", tables=("baseline",))
def baseline_overlap(evidence: Evidence, dataset: str, *, i: int = 1) -> Measurement:
    """Mean |cos| of v_i over all pairs of initializations, with the table's jackknife interval."""
    return _from_table(evidence, dataset, i, "mean_overlap", "overlap_low", "overlap_high")


@quantity("mean displacement of v_{i} between initializations, tau_{i}", unit="1", tables=("baseline",))
def baseline_displacement(evidence: Evidence, dataset: str, *, i: int = 1) -> Measurement:
    """tau_i (eq. 4), with the table's jackknife interval."""
    return _from_table(evidence, dataset, i, "displacement", "displacement_low", "displacement_high")


@quantity("number of parameters of the network", unit="parameters", tables=("baseline",))
def network_parameters(evidence: Evidence, dataset: str) -> Measurement:
    """N of the network that was run; the paper's tau and tau_1 imply its own (reproduction.claims.rounding)."""
    row = _row(evidence, dataset, 1)
    if row.empty or "n_parameters" not in row:
        return Measurement(by_seed={})
    return Measurement(pooled=float(values(row, "n_parameters")[0]), notes=("a count: no interval",))
