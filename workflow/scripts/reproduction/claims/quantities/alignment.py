"""Run means of the gradient and update alignment with v_i (equations 7 and 8)."""

from typing import Literal

import pandas as pd

from reproduction.claims.evidence import Evidence
from reproduction.claims.quantities.registry import quantity, rows
from reproduction.claims.statistics import Measurement
from reproduction.experiment.labels import MAIN
from reproduction.statistics.rows import by_seed, mean, values

Kind = Literal["gradient", "update"]


@quantity("run mean of the {kind} alignment, i = {i} ({optimizer})", unit="1", tables=("alignment",))
def alignment_mean(
    evidence: Evidence, dataset: str, *, optimizer: str, kind: Kind, i: int = 1, variant: str = MAIN
) -> Measurement:
    """Mean over all snapshots of |v_i . g/|g|| (gradient) or |v_i . u/|u|| (update)."""
    frame = rows(evidence.alignment, dataset, optimizer, variant, i=i)
    return Measurement(by_seed=by_seed(frame, lambda run: mean(values(run, f"{kind}_alignment"))))


@quantity("update over gradient alignment, run means, i = {i} ({optimizer})", unit="1", tables=("alignment",))
def update_over_gradient(evidence: Evidence, dataset: str, *, optimizer: str, i: int = 1) -> Measurement:
    """Run mean of the update alignment over run mean of the gradient alignment; 1 is the diagonal of figure 2."""

    def ratio(run: pd.DataFrame) -> float:
        gradient = mean(values(run, "gradient_alignment"))
        return mean(values(run, "update_alignment")) / gradient if gradient else float("nan")

    return Measurement(by_seed=by_seed(rows(evidence.alignment, dataset, optimizer, i=i), ratio))


@quantity(
    "smallest step down of the {kind} alignment from i to i + 1, i = 1, 2 ({optimizer})",
    unit="1",
    tables=("alignment",),
    pairs=(1, 2, 3),
)
def alignment_order(evidence: Evidence, dataset: str, *, optimizer: str, kind: Kind) -> Measurement:
    """min(a_1 - a_2, a_2 - a_3) of the run means: positive where i = 1 is above 2 and 2 above 3."""

    def step(run: pd.DataFrame) -> float:
        first, second, third = (mean(values(run[run["i"] == i], f"{kind}_alignment")) for i in (1, 2, 3))
        return min(first - second, second - third) if third == third else float("nan")

    return Measurement(by_seed=by_seed(rows(evidence.alignment, dataset, optimizer), step))


@quantity(
    "{kind} alignment, mean over i = 10..15, over that of i = 1 ({optimizer})",
    unit="1",
    tables=("alignment",),
    pairs=(1, *range(10, 16)),
)
def high_index_alignment(evidence: Evidence, dataset: str, *, optimizer: str, kind: Kind) -> Measurement:
    """Mean of the run means over i = 10..15, divided by that of i = 1; the dense seed at its dense snapshots."""

    def ratio(run: pd.DataFrame) -> float:
        dense = run[run["step"].isin(run.loc[run["i"] == 15, "step"])]
        means = {i: mean(values(dense[dense["i"] == i], f"{kind}_alignment")) for i in (1, *range(10, 16))}
        return sum(means[i] for i in range(10, 16)) / 6.0 / means[1] if means[1] else float("nan")

    return Measurement(by_seed=by_seed(rows(evidence.alignment, dataset, optimizer, seed=evidence.dense_seed), ratio))
