"""How much of the displacement of v_1 is an exchange of order (figure S4)."""

import math
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from reproduction.experiment.labels import Layout
from reproduction.figures.axes import curve, log_axis, no_data
from reproduction.figures.panels import Drawn, add_notes, bottom_legend, drawn, panel_grid
from reproduction.figures.style import BASELINE, NEUTRAL, optimizer_colors, styled
from reproduction.figures.summaries import in_order, notes, summarize
from reproduction.statistics.exchanges import (
    D_1,
    DECIDED,
    FOUND,
    IDENTITY,
    PLANE,
    SPAN,
    late_plateaus,
    without_exchanges,
)

LOOKS: dict[str, dict[str, Any]] = {
    "displacement": {"linestyle": "-", "linewidth": 1.2},
    "direction": {"linestyle": "--", "linewidth": 0.9, "dashes": (3, 1.2)},
    "plane": {"linestyle": ":", "linewidth": 1.0},
    "span": {"linestyle": "-.", "linewidth": 0.8},
}
NAMES = {
    "displacement": "$v_1$",
    "direction": "the direction that $v_1$ was",
    "plane": "span of $v_1$, $v_2$",
    "span": "span of $v_1$ to $v_3$",
}
# Of each run's late plateau: column of the numbers -> of `late_plateaus`.
PLATEAUS = {"late_v1": D_1, "late_direction": IDENTITY, "late_plane": PLANE, "late_span": SPAN}
SHARES = {"found": FOUND, "decided": DECIDED}


@styled
def displacement_and_identity(
    displacement: pd.DataFrame, identity: pd.DataFrame, baseline: pd.DataFrame, layout: Layout
) -> Drawn:
    """Figure S4: displacements in units of tau_1 at the late waiting time, mean over seeds, by dataset and optimizer.

    Of v_1; of the direction that it was, found again among the later vectors whatever its place in the order; of the
    spans of two and three. The percentages are the share of the late plateau that goes with the order alone, and the
    share of its lags at which the solver's bounds decide what became of the direction. Runs without the table
    `identity` have no dashed line and no percentage.
    """
    columns = ["dataset", "optimizer", "variant", "seed", "waiting_time", "lag", "i"]
    rows = in_order(displacement[displacement["i"].isna() | (displacement["i"] <= max(layout.leading))], layout)
    named = in_order(identity, layout) if len(identity) else identity
    ends = late_plateaus(rows, named if len(named) else None)
    unit = baseline[baseline["i"] == 1].set_index("dataset")["displacement"]
    wide = _wide(rows, named, columns)
    late = dict(ends.groupby(["dataset", "optimizer"], observed=True)["waiting_time"].max()) if len(ends) else {}
    keys = list(zip(wide["dataset"], wide["optimizer"], strict=True))
    # Of runs without a late waiting time it is the last one.
    late = {key: wide["waiting_time"].max() if math.isnan(time) else time for key, time in late.items()}
    wide = wide[[late.get(key, math.nan) == time for key, time in zip(keys, wide["waiting_time"], strict=True)]]
    numbers = summarize(wide, ["dataset", "optimizer", "waiting_time", "lag"], list(LOOKS))
    tau = numbers["dataset"].map(unit)
    numbers[list(LOOKS)] = numbers[list(LOOKS)].div(tau, axis=0)
    numbers = numbers.assign(tau=tau).merge(_ends(ends, unit), how="left", on=["dataset", "optimizer"])
    colors = optimizer_colors(layout.optimizers)
    grid = panel_grid(len(layout.datasets), len(layout.optimizers), 1.05)
    for row, dataset in enumerate(layout.datasets):
        for column, optimizer in enumerate(layout.optimizers):
            ax = grid.axes[row, column]
            own = numbers[(numbers["dataset"] == dataset) & (numbers["optimizer"] == optimizer)]
            if own.empty:
                no_data(ax)
                continue
            for value, look in LOOKS.items():
                curve(ax, own, "lag", value, color=colors[optimizer], **look)
            ax.axhline(1, color=BASELINE, linestyle="--", linewidth=0.8, gid="baseline", zorder=1)
            ax.text(0.05, 0.93, _said(own.iloc[0]), transform=ax.transAxes, va="top", linespacing=1.15)
    longest = float(numbers["lag"].max()) if len(numbers) else 10.0
    for ax in grid.flat():
        ax.set_xscale("log")
        ax.set_xlim(0.8, max(1.25 * longest, 2.0))
        ax.set_ylim(0, 1.45)
        ax.set_yticks([0, 0.5, 1])
        log_axis(ax.xaxis, ticks=4)
    grid.heads(list(layout.datasets.values()), list(layout.optimizers.values()))
    grid.labels("lag $t$ (steps)", "displacement / $\\tau_1$")
    handles: list[Artist] = [Line2D([], [], color=NEUTRAL, label=NAMES[value], **look) for value, look in LOOKS.items()]
    bottom_legend(grid.figure, [*handles, Line2D([], [], color=BASELINE, linestyle="--", label="random baseline")])
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)


def _wide(rows: pd.DataFrame, identity: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """One row a run, waiting time and lag with the four displacements."""
    key = columns[:-1]
    known = rows.dropna(subset=["i"])
    wide = known[known["i"] == 1].set_index(key)[["displacement", "converged"]]
    for i, name in ((2, "plane"), (3, "span")):
        wide[name] = known[known["i"] == i].set_index(key)["subspace_displacement"]
    own = identity[identity["i"] == 1] if len(identity) else identity
    wide["direction"] = (
        own.assign(direction=without_exchanges(own)).set_index(key)["direction"] if len(own) else math.nan
    )
    return wide.reset_index()


def _ends(ends: pd.DataFrame, unit: "pd.Series[float]") -> pd.DataFrame:
    """By dataset and optimizer: plateaus over tau_1, the share of exchange, and its certainty: mean and range."""
    if ends.empty:
        return pd.DataFrame(columns=["dataset", "optimizer"])
    found = ends[["dataset", "optimizer"]].astype(str)
    tau = found["dataset"].map(unit)
    for name, column in PLATEAUS.items():
        found[name] = ends[column] / tau
    for name, column in SHARES.items():
        found[name] = ends[column]
    found["exchange"] = 1.0 - found["late_direction"] / found["late_v1"]
    groups = found.groupby(["dataset", "optimizer"])
    table = groups.mean()
    for end in ("min", "max"):
        table = table.join(groups.agg(end).add_suffix(f"_{end}"))
    return table.assign(n_seeds=groups.size()).reset_index()


def _said(row: "pd.Series[Any]") -> str:
    if math.isnan(row["exchange"]):
        return ""
    # Plus 0, so that less than half a percent below it is not -0.
    return f"exchange {round(100 * row['exchange']) + 0}%\ndecided {100 * row['decided']:.0f}%"
