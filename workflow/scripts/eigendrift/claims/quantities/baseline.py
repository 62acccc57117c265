"""The null model: overlaps and displacements of the eigenvectors of independent initializations."""

import math

import pandas as pd

from eigendrift.claims.evidence import Evidence
from eigendrift.claims.quantities.registry import quantity, values
from eigendrift.claims.statistics import Measurement


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


@quantity("2 (1 - tau) / tau_1 over the number of parameters", unit="1", tables=("baseline",))
def implied_parameter_ratio(evidence: Evidence, dataset: str) -> Measurement:
    """N as our tau and tau_1 imply it, over the N of the network; the definitions make it 1."""
    row = _row(evidence, dataset, 1)
    if row.empty or "n_parameters" not in row:
        return Measurement(by_seed={})
    tau, displacement, size = (float(values(row, name)[0]) for name in ("mean_overlap", "displacement", "n_parameters"))
    return Measurement(pooled=parameters_from(tau, displacement) / size)


@quantity("2 (1 - {tau}) / {tau_1}, from the paper's own numbers", unit="parameters", tables=())
def parameters_from_paper(evidence: Evidence, dataset: str, *, tau: float, tau_1: float) -> Measurement:
    """N as the paper's tau and tau_1 imply it; arithmetic, no run is read."""
    return Measurement(
        pooled=parameters_from(tau, tau_1), notes=("arithmetic on the paper's numbers; its network has 89610",)
    )


def parameters_from(overlap: float, displacement: float) -> float:
    """N from tau_1 = 2 (1 - tau) / N, which follows from |v - w|^2 = 2 (1 - |cos|) for the closer sign."""
    return 2.0 * (1.0 - overlap) / displacement if displacement else math.nan
