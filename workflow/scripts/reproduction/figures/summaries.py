"""What the figures draw of many rows: means and ranges over seeds or over a run, smoothing, and what is missing."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from reproduction.experiment.labels import MAIN, Layout
from reproduction.files.tables import RUN_KEY


def in_order(frame: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """The rows of the layout's datasets and optimizers, sortable in its order."""
    frame = frame.copy()
    for column, names in (("dataset", layout.datasets), ("optimizer", layout.optimizers)):
        if column in frame:
            frame[column] = pd.Categorical(frame[column], categories=list(names), ordered=True)
            frame = frame[frame[column].notna()]
    return frame


def summarize(
    frame: pd.DataFrame, by: Sequence[str], values: Sequence[str], *, spread: bool = False, median: bool = False
) -> pd.DataFrame:
    """One row for each combination of the columns `by`, sorted: the mean, or the median, of every column of `values`.

    `spread` adds the smallest and largest value (suffixes _min, _max). Missing values (a gradient that is zero has no
    direction) are left out of all three. `n` counts the rows that went in, `n_nan` those with a missing value, and
    `n_unconverged` those whose eigenpair did not converge, which do go in. A mean over seeds is taken where all of them
    have a snapshot (`shared_snapshots`).
    """
    rows = shared_snapshots(frame.dropna(subset=list(by)), by)
    groups = rows.groupby(list(by), sort=True, observed=True)
    columns: dict[str, pd.Series] = {}
    for value in values:
        columns[value] = groups[value].median() if median else groups[value].mean()
        if spread:
            columns[f"{value}_min"] = groups[value].min()
            columns[f"{value}_max"] = groups[value].max()
    missing = rows[list(values)].isna().any(axis=1)
    converged = rows["converged"] if "converged" in rows else pd.Series(1, index=rows.index)
    counts = {"n": ~missing, "n_unconverged": (converged == 0) & ~missing, "n_nan": missing}
    sums = rows.assign(**{name: flags.astype("int64") for name, flags in counts.items()})
    for name in counts:
        columns[name] = sums.groupby(list(by), sort=True, observed=True)[name].sum()
    result = pd.DataFrame(columns).reset_index()
    for column in by:
        if isinstance(result[column].dtype, pd.CategoricalDtype):
            result[column] = result[column].astype(str)
        elif column != "value":
            result[column] = result[column].astype("int64" if pd.api.types.is_numeric_dtype(result[column]) else str)
    return result


def shared_snapshots(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The rows at steps, or waiting times and lags, that all seeds have which got that far; all rows if `by` has seeds.

    One seed has more snapshots than the others. Where it stands alone, a mean over seeds would jump to its value.
    """
    along = [name for name in ("waiting_time", "lag") if name in by] or [name for name in ("step",) if name in by]
    if "seed" in by or "seed" not in frame or not along or frame.empty:
        return frame
    group = [name for name in by if name not in along]
    reach = frame["waiting_time"] + frame["lag"] if "lag" in by else frame["step"]
    rows = frame.assign(reach=reach)
    ends = rows.groupby([*group, "seed"], observed=True)["reach"].max()
    present = rows.groupby([*group, *along], observed=True).agg(seeds=("seed", "nunique"), reach=("reach", "first"))
    both = present.reset_index().merge(ends.rename("end").reset_index(), on=group)
    got_there = both[both["end"] >= both["reach"]].groupby([*group, *along], observed=True).size()
    shared = present.index[present["seeds"] == got_there.reindex(present.index)]
    return frame[pd.MultiIndex.from_frame(frame[[*group, *along]]).isin(shared)]


def summarize_runs(frame: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Means over each run first, then mean and range of these over seeds; `n` counts runs, the other counts rows."""
    runs = summarize(frame, [*by, "seed"], values)
    result = summarize(runs, by, values, spread=True)
    groups = runs.groupby(list(by), sort=False)
    sums = groups[["n_unconverged", "n_nan"]].sum().reset_index()
    return result.drop(columns=["n_unconverged", "n_nan"]).merge(sums, on=list(by), how="left")


def on_grid(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows at equal intervals of each run, and at its last step: those at lags after waiting times are left out.

    The interval is the smallest step all of whose multiples have a row. Rows without a step stay.
    """
    if frame.empty:
        return frame
    kept = frame["step"].isna()
    for _, steps in frame.groupby([key for key in RUN_KEY if key in frame], observed=True)["step"]:
        taken = np.unique(steps.dropna().to_numpy())
        if not taken.size:
            continue
        last = taken[-1]
        every = next((s for s in taken[taken > 0] if np.isin(np.arange(s, last + 1, s), taken).all()), 1)
        kept.loc[steps.index] = (steps % every == 0) | (steps == last)
    return frame[kept]


def standard_error(values: pd.Series) -> float:
    """Standard error of the mean of independent values; NaN for one."""
    known = values.dropna()
    return float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else float("nan")


CROSS = "\N{MULTIPLICATION SIGN}"
HOLLOW = "hollow"


def notes(rows: pd.DataFrame, layout: Layout, sign: str = CROSS) -> list[str]:
    """What a figure of `rows` must say: eigenpairs that did not converge, runs that end before their last step."""
    return unconverged_note(rows, sign) + incomplete_note(rows, layout)


def unconverged_note(rows: pd.DataFrame, sign: str = CROSS) -> list[str]:
    """One sentence on the eigenpairs that did not converge, and how they are marked; none if all did."""
    if "converged" not in rows:
        return []
    known = rows["converged"].dropna()
    count = int((known == 0).sum())
    return [f"{count} of {len(known)} values are of eigenpairs that did not converge ({sign})."] if count else []


def incomplete_note(rows: pd.DataFrame, layout: Layout) -> list[str]:
    """One sentence on the runs that diverged or are missing; none if there are none."""
    described = _incomplete_runs(rows, layout)
    if not described:
        return []
    more = f"; and {len(described) - 3} more" if len(described) > 3 else ""
    return [f"Incomplete runs: {'; '.join(described[:3])}{more}."]


def _incomplete_runs(rows: pd.DataFrame, layout: Layout) -> list[str]:
    """A description of every run whose last row lies before its planned last step."""
    described = []
    several = rows["dataset"].nunique() > 1
    reached = rows["waiting_time"] + rows["lag"] if "lag" in rows else rows["step"]
    runs = rows.assign(reached=reached).groupby(RUN_KEY, sort=True, observed=True)[["reached", "steps"]].max()
    for key, reach, steps in zip(runs.index, runs["reached"], runs["steps"], strict=True):
        dataset, optimizer, variant, seed = key
        if np.isnan(reach) or reach < steps:
            parts = [layout.datasets[dataset]] if several else []
            parts.append(layout.optimizers[optimizer])
            parts += [] if variant == MAIN else [variant.replace("_", " ").replace("-", " ")]
            end = "no data" if np.isnan(reach) else f"to step {int(reach)} only"
            described.append(f"{', '.join(parts)}, seed {seed}: {end}")
    return described
