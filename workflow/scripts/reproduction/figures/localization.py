"""Localization: the inverse participation ratio sum_j v_j^4 of eigenvectors over training (figures 3, 15, 18, 19)."""

import math

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reproduction.experiment import paper_numbers
from reproduction.experiment.labels import Layout
from reproduction.figures.axes import curve, line_with_range, no_data, step_axis, value_axis
from reproduction.figures.panels import (
    Drawn,
    add_notes,
    bottom_legend,
    drawn,
    optimizer_handles,
    panel_grid,
    paper_handle,
)
from reproduction.figures.style import NEUTRAL, PAPER_LINE, line_width, optimizer_colors, styled
from reproduction.figures.summaries import in_order, notes, on_grid, summarize
from reproduction.figures.sweeps import NAMES, sweep_looks, sweep_runs, value_handles
from reproduction.statistics.localization import FINAL_SHARE, final_ipr

# Figure 15: the outlier eigenvalues of a problem of k classes are k - 1 to k; the paper looks for a separation there.
GROUPS = ((1, 8), (9, 10), (11, 15))
GROUP_COLORS = ("#332288", "#DDAA33", "#CC6677")
# Runs whose lengths differ by more than this factor share a logarithmic step axis.
UNEQUAL = 3


@styled
def ipr_over_training(ipr: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 3: IPR of v_1 at the grid's snapshots, median and range over seeds, one panel a dataset, with 1/N.

    A bar at the end is the final IPR of the claims, geometric mean over the last tenth and over seeds.
    """
    rows = in_order(ipr[ipr["i"].isna() | (ipr["i"] == 1)], layout)
    numbers = summarize(on_grid(rows), ["dataset", "optimizer", "step"], ["ipr"], spread=True, median=True)
    numbers["even_spread"] = 1.0 / numbers["dataset"].map(_parameters(rows))
    numbers["final_ipr"] = _final(numbers, rows)
    colors = optimizer_colors(layout.optimizers)
    grid = panel_grid(1, len(layout.datasets), 1.5)
    for column, dataset in enumerate(layout.datasets):
        ax = grid.axes[0, column]
        chosen = numbers[numbers["dataset"] == dataset]
        for position, (optimizer, color) in enumerate(colors.items()):
            own = chosen[chosen["optimizer"] == optimizer]
            line_with_range(ax, own, "step", "ipr", color=color, linewidth=line_width(position))
            if len(own):
                last = float(own["step"].max())
                span, value = [(1 - FINAL_SHARE) * last, 1.04 * last], float(own["final_ipr"].iloc[0])
                ax.plot(span, [value, value], color="black", linewidth=2.4, zorder=6, solid_capstyle="butt")
                ax.plot(span, [value, value], color=color, linewidth=1.4, zorder=7, gid="final")
        _even_spread(ax, chosen)
        _papers(ax, dataset, list(colors))
    grid.heads([""], list(layout.datasets.values()))
    _ipr_axes(grid.flat(), numbers)
    grid.labels(step_axis(grid.flat(), numbers["step"]), "IPR of $v_1$")
    final = Line2D([], [], color=NEUTRAL, linewidth=2.4, label="final (geometric mean)")
    handles: list[Artist] = [*optimizer_handles(layout), final, _even_spread_handle()]
    if any(map(paper_numbers.is_the_papers, layout.datasets)):
        handles.append(paper_handle("paper: Adam, SGD at the end"))
    bottom_legend(grid.figure, handles)
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)


def _final(numbers: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    """The final IPR of each row's runs: the geometric mean over seeds of that of each run on the grid."""
    groups = on_grid(rows).groupby(["dataset", "optimizer"], observed=True)
    found = {}
    for (dataset, optimizer), group in groups:
        each = [final_ipr(run[run["converged"] == 1]) for _, run in group.dropna(subset=["ipr"]).groupby("seed")]
        known = [value for value in each if value > 0]
        found[str(dataset), str(optimizer)] = float(np.exp(np.mean(np.log(known)))) if known else math.nan
    keys = zip(numbers["dataset"].astype(str), numbers["optimizer"].astype(str), strict=True)
    return pd.Series([found.get(key, math.nan) for key in keys], index=numbers.index, dtype=float)


def _papers(ax: Axes, dataset: str, optimizers: list[str]) -> None:
    """The paper's orders of magnitude at the end of training, over the right part of a panel."""
    for optimizer, value in paper_numbers.FINAL_IPR.items():
        if paper_numbers.is_the_papers(dataset) and optimizer in optimizers:
            ax.axhline(value, xmin=0.6, zorder=5, gid="paper", **PAPER_LINE)


@styled
def ipr_of_many(ipr: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 15: IPR of every eigenvector of the dense seed, by dataset and optimizer, coloured by `GROUPS`.

    All indices are shown at the snapshots at which all pairs were taken.
    """
    dense = in_order(ipr[ipr["seed"] == layout.dense_seed], layout)
    rows = with_all_pairs(dense[dense["step"].isna() | dense["i"].notna()])
    numbers = summarize(rows, ["dataset", "optimizer", "i", "step"], ["ipr"])
    grid = panel_grid(len(layout.datasets), len(layout.optimizers), 1.1)
    for row, dataset in enumerate(layout.datasets):
        for column, optimizer in enumerate(layout.optimizers):
            ax = grid.axes[row, column]
            chosen = numbers[(numbers["dataset"] == dataset) & (numbers["optimizer"] == optimizer)]
            if chosen.empty:
                no_data(ax)
            for i in sorted(chosen["i"].unique(), reverse=True):
                width = 0.9 if i == 1 else 0.45
                curve(ax, chosen[chosen["i"] == i], "step", "ipr", color=_group_color(i), linewidth=width)
            _papers(ax, dataset, [optimizer])
    _ipr_axes(grid.flat(), numbers, even_spread=False)
    grid.heads(list(layout.datasets.values()), list(layout.optimizers.values()))
    grid.labels(step_axis(grid.flat(), numbers["step"]), "IPR of $v_i$")
    bottom_legend(grid.figure, _group_handles(int(numbers["i"].max()) if len(numbers) else 1, layout))
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)


def with_all_pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the snapshots at which the most pairs of their run were taken, and those of runs without rows."""
    run = ["dataset", "optimizer", "seed"]
    count = rows.groupby([*run, "step"], observed=True, dropna=False)["i"].transform("count")
    most = count.groupby([rows[key] for key in run], observed=True).transform("max")
    return rows[count == most]


def _group_color(i: int) -> str:
    return next((color for (_, last), color in zip(GROUPS, GROUP_COLORS, strict=True) if i <= last), GROUP_COLORS[-1])


def _group_handles(most: int, layout: Layout) -> list[Artist]:
    handles: list[Artist] = []
    for (first, last), color in zip(GROUPS, GROUP_COLORS, strict=True):
        if first <= most:
            label = f"$v_{{{first}}}$ to $v_{{{min(last, most)}}}$" if first < most else f"$v_{{{first}}}$"
            handles.append(Line2D([], [], color=color, linewidth=1.6, label=label))
    if any(map(paper_numbers.is_the_papers, layout.datasets)):
        handles.append(paper_handle("paper, order of magnitude"))
    return handles


@styled
def ipr_by_value(ipr: pd.DataFrame, layout: Layout, sweep: str) -> Drawn:
    """Figures 18 and 19: IPR of v_1 for each value of `sweep`, batch_size or learning_rate; one panel an optimizer.

    Median and range over seeds, at the snapshots that the runs of a value share. Where the values' runs differ much in
    length, the step axis is logarithmic: values are compared at equal step.
    """
    rows = in_order(sweep_runs(ipr[ipr["i"].isna() | (ipr["i"] == 1)], sweep), layout)
    by = ["dataset", "optimizer", "value", "variant", "batch_size", "learning_rate", "step"]
    unequal = bool(rows["steps"].max() > UNEQUAL * rows["steps"].min())
    numbers = summarize(rows if unequal else on_grid(rows), by, ["ipr"], spread=True, median=True)
    numbers["even_spread"] = 1.0 / numbers["dataset"].map(_parameters(rows))
    looks = sweep_looks(rows)
    dataset = next(iter(rows["dataset"].astype(str)), "")
    grid = panel_grid(1, len(layout.optimizers), 1.4)
    for column, optimizer in enumerate(layout.optimizers):
        ax = grid.axes[0, column]
        chosen = numbers[numbers["optimizer"] == optimizer]
        if chosen.empty:
            no_data(ax)
        for rank, (variant, look) in enumerate(looks.items()):
            line_with_range(ax, chosen[chosen["variant"] == variant], "step", "ipr", linewidth=line_width(rank), **look)
        _even_spread(ax, chosen)
        _papers(ax, dataset, [optimizer])
    grid.heads([layout.datasets.get(dataset, dataset)], list(layout.optimizers.values()))
    _ipr_axes(grid.flat(), numbers)
    grid.labels(step_axis(grid.flat(), numbers["step"], logarithmic=unequal), "IPR of $v_1$")
    handles = [*value_handles(rows, sweep, looks), _even_spread_handle()]
    if paper_numbers.is_the_papers(dataset):
        handles.append(paper_handle("paper, main runs"))
    bottom_legend(grid.figure, handles, title=NAMES[sweep])
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)


def _parameters(rows: pd.DataFrame) -> dict[str, float]:
    first = rows.groupby("dataset", observed=True)["n_parameters"].first()
    return {str(dataset): float(n) for dataset, n in first.items()}


def _even_spread(ax: Axes, rows: pd.DataFrame) -> None:
    if len(rows):
        ax.axhline(float(rows["even_spread"].iloc[0]), color=NEUTRAL, linestyle=":", linewidth=1.0, gid="even_spread")


def _even_spread_handle() -> Artist:
    return Line2D([], [], color=NEUTRAL, linestyle=":", label="$1/N$")


def _ipr_axes(axes: list[Axes], numbers: pd.DataFrame, *, even_spread: bool = True) -> None:
    shown = [numbers[column] for column in ("ipr", "ipr_min", "ipr_max", "even_spread") if column in numbers]
    if numbers["dataset"].map(paper_numbers.is_the_papers).any():
        shown.append(pd.Series(list(paper_numbers.FINAL_IPR.values())))
    value_axis(axes, pd.concat(shown if even_spread else [numbers["ipr"], *shown[1:]]), "", logarithmic=True)
