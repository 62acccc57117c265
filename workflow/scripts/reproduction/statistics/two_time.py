"""Curves over lag: what figures and claims both take from a two-time table.

T is the last step of a run, and the lags are log-spaced. The late waiting time is the largest t_w > 0 that is
followed by lags over at least one decade and by a lag at least half as long as itself, so that its curve has the
time to flatten.
"""

import math

import numpy as np
import pandas as pd

from reproduction.statistics.rows import mean, values

NAN = math.nan
Curve = tuple[np.ndarray, np.ndarray]


def final_step(run: pd.DataFrame) -> float:
    """T: the largest waiting time + lag of one run's rows."""
    return float((values(run, "waiting_time") + values(run, "lag")).max())


def curves(run: pd.DataFrame, column: str = "displacement") -> dict[float, Curve]:
    """waiting time -> (lags ascending, values) of one run, without missing values."""
    kept = run[np.isfinite(values(run, column))].sort_values(["waiting_time", "lag"])
    return {
        float(str(tw)): (values(rows, "lag"), values(rows, column))
        for tw, rows in kept.groupby("waiting_time", sort=True)
    }


def late_waiting_time(run_curves: dict[float, Curve]) -> float:
    """The late waiting time (see the module's text), NaN if there is none."""
    late = [tw for tw, (lags, _) in run_curves.items() if tw > 0 and lags[-1] >= 10 * lags[0] and 2 * lags[-1] >= tw]
    return max(late, default=NAN)


def last_third(lags: np.ndarray) -> np.ndarray:
    """Which lags (n,) lie in the last third of the range of log lag."""
    low, high = math.log(lags[0]), math.log(lags[-1])
    chosen: np.ndarray = np.log(lags) >= high - (high - low) / 3.0 - 1e-9
    return chosen


def plateau(run_curves: dict[float, Curve]) -> float:
    """Mean over the last third of log lag at the late waiting time; NaN without one."""
    tw = late_waiting_time(run_curves)
    return NAN if math.isnan(tw) else tail_mean(run_curves[tw])


def tail_mean(curve: Curve) -> float:
    """Mean of a curve over the last third of its log lags."""
    lags, displacement = curve
    return float(displacement[last_third(lags)].mean())


def at_lag(curve: Curve, lag: float) -> float:
    """The value of a curve (lags, values) at a lag, linear in log lag between its points."""
    return float(np.interp(math.log(lag), np.log(curve[0]), curve[1]))


def common_lags(chosen: list[Curve]) -> tuple[float, float]:
    """The range of lags that all curves cover."""
    return max(lags[0] for lags, _ in chosen), min(lags[-1] for lags, _ in chosen)


def reference_lag(run: pd.DataFrame, chosen: list[Curve]) -> float:
    """T/100, or the nearest lag to it that all the curves cover; NaN if they have no lag in common."""
    low, high = common_lags(chosen)
    return min(max(final_step(run) / 100.0, low), high) if low <= high else NAN


def middle_waiting_time(run_curves: dict[float, Curve]) -> float:
    """The waiting time nearest, in logarithm, to a tenth of the late one; NaN if there is none before that."""
    late = late_waiting_time(run_curves)
    earlier = [tw for tw in run_curves if 0 < tw < late]
    return min(earlier, key=lambda tw: abs(math.log(tw / (late / 10.0)))) if earlier else NAN


def late_over_middle(run: pd.DataFrame, run_curves: dict[float, Curve]) -> float:
    """The curve of the late over that of the middle waiting time, both at the lag T/100."""
    middle = middle_waiting_time(run_curves)
    if math.isnan(middle):
        return NAN
    pair = [run_curves[late_waiting_time(run_curves)], run_curves[middle]]
    lag = reference_lag(run, pair)
    if math.isnan(lag) or at_lag(pair[1], lag) <= 0:
        return NAN
    return at_lag(pair[0], lag) / at_lag(pair[1], lag)


def spread(chosen: list[Curve]) -> float:
    """(max - min) / mean of curves, mean over 20 log-spaced lags that all of them cover; NaN for fewer than two."""
    if len(chosen) < 2:
        return NAN
    low, high = common_lags(chosen)
    if low > high:
        return NAN
    grid = np.geomspace(low, high, 20)
    stack = np.array([[at_lag(curve, lag) for lag in grid] for curve in chosen])
    level = stack.mean(axis=0)
    return mean(np.ptp(stack, axis=0)[level > 0] / level[level > 0])
