"""Two-time quantities: plateau, growth, ageing and collapse of D_1, weight displacement, two-time update alignment.

Here T is the last step of a run, and the lags are log-spaced. The late waiting time is the largest t_w > 0 that is
followed by lags over at least one decade and by a lag at least half as long as itself, so that its curve has the time
to flatten.
"""

import math
from typing import Literal

import numpy as np
import pandas as pd

from reproduction.claims.evidence import Evidence
from reproduction.claims.quantities.registry import quantity, rows
from reproduction.claims.statistics import Measurement
from reproduction.experiment.labels import MAIN
from reproduction.statistics.rows import by_seed, mean, spearman, values
from reproduction.statistics.two_time import (
    NAN,
    Curve,
    at_lag,
    curves,
    final_step,
    last_third,
    late_over_middle,
    late_waiting_time,
    plateau,
    reference_lag,
    spread,
)

Window = Literal["early", "late"]


def null_displacement(evidence: Evidence, dataset: str, i: int = 1) -> float:
    """tau_i of a dataset, NaN where it is missing."""
    frame = evidence.baseline
    if frame.empty:
        return NAN
    return mean(values(frame[(frame["dataset"] == dataset) & (frame["i"] == i)], "displacement"))


@quantity("late plateau of D_1 ({optimizer})", unit="tau_1", tables=("displacement",))
def displacement_plateau(evidence: Evidence, dataset: str, *, optimizer: str, variant: str = MAIN) -> Measurement:
    """Mean of D_1 over the last third of log lag at the late waiting time, divided by tau_1."""
    tau = null_displacement(evidence, dataset)
    chosen = rows(evidence.displacement, dataset, optimizer, variant, i=1)
    return Measurement(by_seed=by_seed(chosen, lambda run: plateau(curves(run)) / tau))


@quantity("growth of D_1 per decade of lag at the late plateau ({optimizer})", unit="tau_1", tables=("displacement",))
def displacement_growth(evidence: Evidence, dataset: str, *, optimizer: str) -> Measurement:
    """Least-squares slope of D_1 against log10 lag over the late plateau (see `displacement_plateau`), over tau_1.

    0 is flat; a steady rise from 0 to the baseline over four decades of lag gives 0.25.
    """
    tau = null_displacement(evidence, dataset)

    def growth(run: pd.DataFrame) -> float:
        run_curves = curves(run)
        tw = late_waiting_time(run_curves)
        if math.isnan(tw):
            return NAN
        lags, displacement = run_curves[tw]
        tail = last_third(lags)
        if tail.sum() < 2:
            return NAN
        return float(np.polyfit(np.log10(lags[tail]), displacement[tail], 1)[0]) / tau

    return Measurement(by_seed=by_seed(rows(evidence.displacement, dataset, optimizer, i=1), growth))


@quantity(
    "D_1 at the late over D_1 at the middle waiting time, same lag ({optimizer})", unit="1", tables=("displacement",)
)
def ageing_ratio(evidence: Evidence, dataset: str, *, optimizer: str) -> Measurement:
    """D_1 at the late waiting time over D_1 at the middle one, both at the lag T/100.

    The middle waiting time is the one nearest, in logarithm, to a tenth of the late one.
    """
    chosen = rows(evidence.displacement, dataset, optimizer, i=1)
    return Measurement(by_seed=by_seed(chosen, lambda run: late_over_middle(run, curves(run))))


@quantity("rank correlation of D_1 at a fixed lag with t_w ({optimizer})", unit="1", tables=("displacement",))
def ageing_rank_correlation(evidence: Evidence, dataset: str, *, optimizer: str) -> Measurement:
    """Spearman correlation of D_1 at the lag T/100 with t_w, over waiting times from T/100 to the late one."""

    def correlation(run: pd.DataFrame) -> float:
        run_curves = curves(run)
        chosen = _window(run, run_curves, "late")
        if len(chosen) < 3:
            return NAN
        lag = reference_lag(run, [run_curves[tw] for tw in chosen])
        if math.isnan(lag):
            return NAN
        return spearman(np.array(chosen), np.array([at_lag(run_curves[tw], lag) for tw in chosen]))

    return Measurement(by_seed=by_seed(rows(evidence.displacement, dataset, optimizer, i=1), correlation))


def _window(run: pd.DataFrame, run_curves: dict[float, Curve], window: Window) -> list[float]:
    """Early: waiting times up to T/1000, at least the two smallest. Late: from T/100 to the late waiting time."""
    end = final_step(run)
    if window == "early":
        return sorted(run_curves)[: max(2, sum(tw <= end / 1000.0 for tw in run_curves))]
    return [tw for tw in sorted(run_curves) if end / 100.0 <= tw <= late_waiting_time(run_curves)]


@quantity("spread of D_1 over {window} waiting times ({optimizer})", unit="1", tables=("displacement",))
def displacement_spread(evidence: Evidence, dataset: str, *, optimizer: str, window: Window) -> Measurement:
    """(max - min) / mean of D_1 over the waiting times of a window, mean over 20 log-spaced lags common to them.

    `window` is early (t_w up to T/1000, at least the two smallest) or late (t_w from T/100 to the late waiting time).
    0 means that the curves coincide.
    """

    def over_window(run: pd.DataFrame) -> float:
        run_curves = curves(run)
        return spread([run_curves[tw] for tw in _window(run, run_curves, window)])

    return Measurement(by_seed=by_seed(rows(evidence.displacement, dataset, optimizer, i=1), over_window))


@quantity(
    "difference of D_w between the datasets, {window} waiting times ({optimizer})", unit="decades", tables=("weights",)
)
def weight_displacement_difference(
    evidence: Evidence, dataset: str, *, optimizer: str, other_dataset: str, window: Window
) -> Measurement:
    """Mean of |log10 D_w / D_w of the other dataset| over all (t_w, lag) of a window, same seed.

    `window` is early (t_w up to T/10) or late (above). 0.3 is a factor of 2.
    """
    key = ["seed", "waiting_time", "lag"]
    sides = [rows(evidence.weights, name, optimizer) for name in (dataset, other_dataset)]
    if any(side.empty for side in sides):
        return Measurement(by_seed={})
    joined = sides[0][[*key, "weight_displacement"]].merge(sides[1][[*key, "weight_displacement"]], on=key)

    def difference(run: pd.DataFrame) -> float:
        is_early = values(run, "waiting_time") <= final_step(run) / 10.0
        chosen = run[is_early if window == "early" else ~is_early]
        first, second = values(chosen, "weight_displacement_x"), values(chosen, "weight_displacement_y")
        positive = (first > 0) & (second > 0)
        return mean(np.abs(np.log10(first[positive] / second[positive])))

    return Measurement(by_seed=by_seed(joined, difference))


@quantity("two-time update alignment at {lags} lags ({optimizer})", unit="1", tables=("displacement",))
def two_time_alignment(
    evidence: Evidence, dataset: str, *, optimizer: str, lags: Literal["shortest", "longest"]
) -> Measurement:
    """|v_1(t_w) . (theta_{t_w+t} - theta_{t_w})| / |...| (eq. 6), mean over waiting times.

    `lags` is shortest (the smallest lag, t = 1) or longest (the last third of log lag of each curve).
    """

    def alignment(run: pd.DataFrame) -> float:
        run_curves = curves(run, "update_alignment")
        if not run_curves:
            return NAN
        if lags == "shortest":
            return mean(np.array([curve[0] for _, curve in run_curves.values()]))
        return mean(np.array([curve[last_third(points)].mean() for points, curve in run_curves.values()]))

    return Measurement(by_seed=by_seed(rows(evidence.displacement, dataset, optimizer, i=1), alignment))
