"""What is measured where our result differs from a claim: one cause for each, in paper/causes.yaml."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from reproduction.claims.evidence import Evidence
from reproduction.claims.quantities.alignment import Kind, alignment_mean
from reproduction.claims.quantities.displacement import null_displacement
from reproduction.claims.quantities.localization import final_vectors, unit_agreement
from reproduction.claims.quantities.registry import quantity, rows
from reproduction.claims.quantities.sweeps import Statistic, statistic
from reproduction.claims.quantities.training import converged_share
from reproduction.claims.statistics import Measurement
from reproduction.experiment.labels import MAIN
from reproduction.statistics.localization import tail
from reproduction.statistics.rows import by_seed, values
from reproduction.statistics.two_time import (
    curves,
    final_step,
    late_over_middle,
    middle_waiting_time,
    plateau,
    spread,
    tail_mean,
)

SPAN = "subspace_displacement"
HALF = 0.5


@quantity(
    "late plateau of the span of v_1 to v_{span} over that of v_1 ({optimizer})",
    unit="1",
    tables=("displacement",),
    pairs=(1, 2, 3),
)
def span_share(evidence: Evidence, dataset: str, *, optimizer: str, span: int) -> Measurement:
    """As `displacement_plateau`, of the displacement of a span (`metrics.subspace_displacement`) over D_1."""
    first, whole = (
        by_seed(rows(evidence.displacement, dataset, optimizer, i=i), lambda run: plateau(curves(run, SPAN)))
        for i in (1, span)
    )
    return Measurement(by_seed={s: whole[s] / first[s] for s in sorted(set(first) & set(whole)) if first[s] != 0})


@quantity(
    "span of v_1 to v_{span}: displacement at the late over that at the middle waiting time, same lag ({optimizer})",
    unit="1",
    tables=("displacement",),
    pairs=(1, 2, 3),
)
def span_ageing_ratio(evidence: Evidence, dataset: str, *, optimizer: str, span: int) -> Measurement:
    """As `ageing_ratio`, of the displacement of a span, which exchanges within it leave alone."""
    chosen = rows(evidence.displacement, dataset, optimizer, i=span)
    return Measurement(by_seed=by_seed(chosen, lambda run: late_over_middle(run, curves(run, SPAN))))


@quantity("plateau of D_1 at the middle waiting time ({optimizer})", unit="tau_1", tables=("displacement",))
def middle_plateau(evidence: Evidence, dataset: str, *, optimizer: str) -> Measurement:
    """As `displacement_plateau`, at the waiting time nearest to a tenth of the late one."""
    tau = null_displacement(evidence, dataset)

    def measured(run: pd.DataFrame) -> float:
        run_curves = curves(run)
        middle = middle_waiting_time(run_curves)
        return math.nan if math.isnan(middle) else tail_mean(run_curves[middle]) / tau

    return Measurement(by_seed=by_seed(rows(evidence.displacement, dataset, optimizer, i=1), measured))


@quantity("spread of D_1 over waiting times {window} T/1000 ({optimizer})", unit="1", tables=("displacement",))
def spread_around_first_steps(
    evidence: Evidence, dataset: str, *, optimizer: str, window: Literal["below", "above"]
) -> Measurement:
    """As `displacement_spread`, over waiting times below T/1000, or above: from there to T/100.

    T/1000 is the interval of the paper's snapshots.
    """

    def measured(run: pd.DataFrame) -> float:
        end = final_step(run)
        first, last = (0.0, np.nextafter(end / 1000.0, 0.0)) if window == "below" else (end / 1000.0, end / 100.0)
        return spread([curve for tw, curve in curves(run).items() if first <= tw <= last])

    return Measurement(by_seed=by_seed(rows(evidence.displacement, dataset, optimizer, i=1), measured))


@quantity(
    "{kind} alignment with a direction of the plane of v_1 and v_2 minus that with v_3 ({optimizer})",
    unit="1",
    tables=("alignment",),
    pairs=(1, 2, 3),
)
def plane_alignment(evidence: Evidence, dataset: str, *, optimizer: str, kind: Kind) -> Measurement:
    """sqrt((a_1^2 + a_2^2) / 2) - a_3 of the run means, which an exchange of v_1 and v_2 leaves alone."""
    first, second, third = (
        alignment_mean(evidence, dataset, optimizer=optimizer, kind=kind, i=i).by_seed or {} for i in (1, 2, 3)
    )
    seeds = sorted(set(first) & set(second) & set(third))
    return Measurement(by_seed={s: math.hypot(first[s], second[s]) / math.sqrt(2.0) - third[s] for s in seeds})


@quantity(
    "{statistic_name} under the reading of figure S1 in which it is largest ({optimizer})",
    unit="1",
    tables=("alignment", "ipr", "displacement"),
    sweeps=True,
)
def largest_reading(evidence: Evidence, dataset: str, *, optimizer: str, statistic_name: Statistic) -> Measurement:
    """Final IPR, run-mean gradient alignment of v_1 or late plateau of D_1 of the scaling and initialization, our own
    among them, whose mean over seeds is largest; without variants besides our own there is no value.
    """
    frame = evidence.ipr
    names = set() if frame.empty else {str(name) for name in frame.loc[frame["dataset"] == dataset, "variant"]}
    variants = sorted(name for name in names if not name.startswith((MAIN, "batch_size-", "learning_rate-")))
    found = [statistic(evidence, dataset, statistic_name, optimizer, name) for name in (MAIN, *variants)]
    found = [by_seeds for by_seeds in found if by_seeds]
    if not variants or not found:
        return Measurement(by_seed={})
    return Measurement(by_seed=max(found, key=lambda by_seeds: float(np.mean(list(by_seeds.values())))))


@quantity("largest over smallest IPR of v_1 in the last tenth of training ({optimizer})", unit="1", tables=("ipr",))
def ipr_fluctuation(evidence: Evidence, dataset: str, *, optimizer: str) -> Measurement:
    """By how much the IPR of v_1 changes from snapshot to snapshot, max / min over the last tenth of the steps."""

    def measured(run: pd.DataFrame) -> float:
        last = values(tail(run), "ipr")
        return float(last.max() / last.min())

    return Measurement(by_seed=by_seed(rows(evidence.ipr, dataset, optimizer, i=1), measured))


@quantity("best test accuracy on the way ({optimizer})", unit="1", tables=("history",))
def best_accuracy(evidence: Evidence, dataset: str, *, optimizer: str) -> Measurement:
    """Largest test accuracy among the run's snapshots, 0 to 1."""
    chosen = rows(evidence.history, dataset, optimizer)
    return Measurement(by_seed=by_seed(chosen, lambda run: float(values(run, "test_accuracy").max())))


@quantity(
    "share of curves (i = 1..3; {optimizers}) that reach 0.8 in the first half of training",
    unit="1",
    tables=("alignment",),
    pairs=(1, 2, 3),
)
def half_convergence_share(evidence: Evidence, dataset: str, *, optimizers: Sequence[str]) -> Measurement:
    """As `early_convergence_share`, before T/2."""
    return converged_share(evidence, dataset, optimizers, HALF)


@quantity(
    "active units of layer 3 that are active in layer 2 too ({optimizer})", unit="1", tables=("final_eigenvector",)
)
def layer_activity_agreement(evidence: Evidence, dataset: str, *, optimizer: str) -> Measurement:
    """As `layer_sign_agreement`, whatever the signs are."""
    found = final_vectors(evidence, dataset, optimizer)
    return Measurement(by_seed={vector.identity["seed"]: unit_agreement(vector, signs=False) for vector in found})
