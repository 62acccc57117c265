"""The statistics of one run: its eigenvectors' motion, localization and alignment, as tables."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from eigendrift import metrics
from reproduction.experiment.table_catalogue import TABLES
from reproduction.measure.columns import DIGITS, significant, typed
from reproduction.statistics.rows import is_on_grid

# What solvers leave certain.
SOLVER_DIGITS = {"residual": 4, "angle_bound": 4, "span_bound": 4}


def displacement_table(
    pairs: pd.DataFrame,
    vectors: np.ndarray,
    steps: np.ndarray,
    weights: np.ndarray,
    two_times: Sequence[tuple[int, int]],
) -> pd.DataFrame:
    """Two-time statistics at each (waiting time, lag) and i; times at which the run has no snapshot are omitted.

    pairs (P rows) and vectors (P, N) as `files.eigenpairs.read_run` gives them; steps (S,) and weights (S, N) of the
    trajectory. `subspace_displacement` is that of the span of v_1..v_i. `angle_bound`: how far solver errors of both
    vectors can turn them apart, as a sum of sines, at most 1.
    """
    at = {int(step): row for row, step in enumerate(steps)}
    pair_at = {(int(s), int(i)): row for row, (s, i) in enumerate(zip(pairs["step"], pairs["i"], strict=True))}
    bounds = pairs["angle_bound"].to_numpy()
    good = pairs["converged"].to_numpy()
    largest = int(pairs["i"].max()) if len(pairs) else 0
    rows = []
    for waiting_time, lag in two_times:
        if waiting_time not in at or waiting_time + lag not in at:
            continue
        then, now = weights[at[waiting_time]], weights[at[waiting_time + lag]]
        moved = metrics.weight_displacement(then, now)
        for i in range(1, largest + 1):
            a, b = pair_at.get((waiting_time, i)), pair_at.get((waiting_time + lag, i))
            if a is None or b is None:
                continue
            rows.append(
                (
                    waiting_time,
                    lag,
                    i,
                    float(metrics.displacement(vectors[a], vectors[b])),
                    _spans_displacement(pair_at, vectors, waiting_time, waiting_time + lag, i),
                    float(metrics.overlap(vectors[a], vectors[b])),
                    float(moved),
                    float(metrics.update_alignment(vectors[a], then, now)),
                    min(1.0, float(bounds[a] + bounds[b])),
                    int(good[a] and good[b]),
                )
            )
    return typed(rows, TABLES["displacement"].units)


def _spans_displacement(
    pair_at: Mapping[tuple[int, int], int], vectors: np.ndarray, then: int, now: int, i: int
) -> float:
    """Displacement of the span of v_1..v_i between two steps, NaN where one of the vectors is missing."""
    first, second = ([pair_at[step, j] for j in range(1, i + 1) if (step, j) in pair_at] for step in (then, now))
    if len(first) < i or len(second) < i:
        return float("nan")
    return float(metrics.subspace_displacement(vectors[first], vectors[second]))


def ipr_table(pairs: pd.DataFrame, vectors: np.ndarray) -> pd.DataFrame:
    """Eigenvalue, solver record, inverse participation ratio and overlap with the full gradient of each pair.

    `angle_bound` and `span_bound` bound the sines of the angles to the true eigenvector, and to the true span of those
    that it is clustered with. `gradient_norm` is |g| of the full data's gradient, `gradient_overlap` |v_i . g|/|g|: the
    squares of the latter, summed up to i, are the share of the gradient within the span of v_1..v_i. Of the
    residual and the bounds there are four significant digits, of the gap and of these two six.
    """
    ratios = metrics.inverse_participation_ratio(vectors) if len(pairs) else np.empty(0)
    table = pairs.assign(ipr=ratios).reindex(columns=list(TABLES["ipr"].units))
    for name in ("residual", "gap", "angle_bound", "span_bound", "gradient_norm", "gradient_overlap"):
        table[name] = significant(table[name], SOLVER_DIGITS.get(name, DIGITS))
    return table


def on_grid(pairs: pd.DataFrame, vectors: np.ndarray, every: int, last: int) -> tuple[pd.DataFrame, np.ndarray]:
    """The pairs at the snapshots of the equal-interval grid, and at a run's `last` snapshot, where it ends.

    The plain mean over the grid is a mean over training time: the log-spaced snapshots after each waiting time crowd
    the start of a run and would outweigh its other snapshots. The last one counts in it like any other. Where `every`
    does not divide the length of the run, less than an interval lies before it, and a mean over S snapshots is by at
    most 1/S of its range nearer to the end of the run than the mean over time.
    """
    keep = is_on_grid(pairs["step"].to_numpy(), every, last)
    return pairs[keep].reset_index(drop=True), vectors[keep]


def alignment_table(
    pairs: pd.DataFrame,
    vectors: np.ndarray,
    steps: np.ndarray,
    gradients: np.ndarray,
    updates: np.ndarray,
    final: dict[int, np.ndarray],
) -> pd.DataFrame:
    """Alignment of each pair's vector with gradient and update of its step, and with the i-th vector at the end.

    `final`: i -> v_i (N,) at the last snapshot; a pair whose i is not in it has convergence NaN. `gradient_share` and
    `update_share` are |P_i d|^2/|d|^2 of the span of v_1..v_i, cumulative in i: NaN where one of these is missing.
    """
    at = {int(step): row for row, step in enumerate(steps)}
    rows = []
    columns = (pairs[name].to_numpy() for name in ("step", "i", "converged"))
    for step, i, converged, vector in zip(*columns, vectors, strict=True):
        row = at[int(step)]
        rows.append(
            (
                int(step),
                int(i),
                float(metrics.alignment(vector, gradients[row])),
                float(metrics.alignment(vector, updates[row])),
                float(metrics.overlap(vector, final[int(i)])) if int(i) in final else np.nan,
                int(converged),
                np.nan,
                np.nan,
            )
        )
    table = typed(rows, TABLES["alignment"].units)
    for _, here in table.groupby("step", sort=False):
        leading = here.sort_values("i")
        complete = leading["i"].to_numpy() == np.arange(1, len(leading) + 1)
        for name in ("gradient", "update"):
            found = metrics.span_share(leading[f"{name}_alignment"].to_numpy())
            table.loc[leading.index, f"{name}_share"] = significant(np.where(complete, found, np.nan))
    return table
