"""Leading eigenvalues, and how early the eigenvectors take their final direction (figures 6 and 7)."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from reproduction.experiment import paper_numbers
from reproduction.experiment.labels import Layout
from reproduction.figures.axes import (
    curve,
    line_with_range,
    linear_axis,
    no_data,
    number_label,
    rank_line,
    step_axis,
    value_axis,
)
from reproduction.figures.panels import (
    Drawn,
    add_notes,
    bottom_legend,
    drawn,
    panel_grid,
    paper_handle,
    rank_handles,
)
from reproduction.figures.style import CURVATURE, PAPER_LINE, optimizer_colors, styled
from reproduction.figures.summaries import in_order, notes, on_grid, summarize
from reproduction.files.tables import RUN_KEY

BY = ["dataset", "optimizer", "i", "step"]


@styled
def eigenvalues(ipr: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 6: lambda_1..lambda_3 over training, and below each dataset their gaps; median and range over seeds.

    The line in the panels of the gaps is the paper's 1e-3, and the percentage the share of all snapshots, of all seeds,
    at which lambda_1 - lambda_2 lies below it. `ipr` has the main runs, and their eigenvalues too.
    """
    rows = in_order(ipr[ipr["i"].isna() | ipr["i"].isin(layout.leading)], layout)
    rows = rows.assign(gap=_gaps(rows))
    values = ["eigenvalue", "gap"]
    numbers = summarize(on_grid(rows), BY, values, spread=True, median=True)
    grid = panel_grid(2 * len(layout.datasets), len(layout.optimizers), 0.8, share_y=False)
    colors = optimizer_colors(layout.optimizers)
    for row, dataset in enumerate(layout.datasets):
        for column, optimizer in enumerate(layout.optimizers):
            chosen = numbers[(numbers["dataset"] == dataset) & (numbers["optimizer"] == optimizer)]
            for part, value in enumerate(values):
                ax = grid.axes[2 * row + part, column]
                known = chosen[chosen[value].notna()]
                if known.empty:
                    no_data(ax)
                for i in layout.leading[: len(layout.leading) - part]:
                    look = rank_line(colors[optimizer], i, layout.leading)
                    line_with_range(ax, known[known["i"] == i], "step", value, **look)
                if part:
                    ax.axhline(paper_numbers.SMALL_GAP, gid="paper", **PAPER_LINE)
                    first = rows[(rows["dataset"] == dataset) & (rows["optimizer"] == optimizer) & (rows["i"] == 1)]
                    first = first.dropna(subset=["gap"])
                    if len(first):
                        share = float((first["gap"] < paper_numbers.SMALL_GAP).mean())
                        where: dict[str, Any] = {"transform": ax.transAxes, "ha": "left", "va": "bottom"}
                        ax.text(0.05, 0.05, f"below: {100 * share:.2g}%", **where)
    places: Sequence[tuple[int, str]] = ((0, f"$\\lambda_i$ ({CURVATURE})"), (1, "$\\lambda_i - \\lambda_{i+1}$"))
    for part, label in places:
        panels = {place: ax for place, ax in grid.axes.items() if place[0] % 2 == part}
        value = values[part]
        ends = [numbers[f"{value}_min"], numbers[f"{value}_max"], pd.Series([paper_numbers.SMALL_GAP] * part)]
        named = value_axis(list(panels.values()), pd.concat(ends), label, logarithmic=True)
        for (_, column), ax in panels.items():
            if column == 0 or len(layout.optimizers) > 3:
                ax.set_ylabel(named)
            else:
                ax.tick_params(axis="y", which="both", labelleft=False)
    names = [name for label in layout.datasets.values() for name in (label, "gaps")]
    grid.heads(names, list(layout.optimizers.values()))
    grid.labels(step_axis(grid.flat(), numbers["step"]))
    bottom_legend(
        grid.figure,
        [*rank_handles(layout.leading), paper_handle(f"paper: gaps below {number_label(paper_numbers.SMALL_GAP)}")],
    )
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)


def _gaps(rows: pd.DataFrame) -> pd.Series:
    """lambda_i - lambda_{i+1} of each row; missing for the last of its snapshot."""
    ordered = rows.sort_values([*RUN_KEY, "step", "i"])
    following = ordered.groupby([*RUN_KEY, "step"], observed=True)["eigenvalue"].shift(-1)
    return (ordered["eigenvalue"] - following).reindex(rows.index)


@styled
def convergence(alignment: pd.DataFrame, displacement: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 7: |v_i(t_final) . v_i(t)|, mean over seeds, without smoothing, on a logarithmic step axis.

    Before the first step of the grid the points are those of `displacement` whose lag ends at the last step. Both
    tables have the main runs.
    """
    rows = in_order(alignment[alignment["i"].isna() | alignment["i"].isin(layout.leading)], layout)
    early = in_order(displacement[displacement["i"].isin(layout.leading)], layout)
    early = early[early["waiting_time"] + early["lag"] == early["steps"]]
    columns = [*RUN_KEY, "i", "step", "converged", "convergence"]
    early = early.assign(step=early["waiting_time"], convergence=early["overlap"])[columns]
    both = pd.concat([rows[columns], early]).dropna(subset=["i"]).drop_duplicates([*RUN_KEY, "i", "step"])
    numbers = summarize(in_order(both, layout), BY, ["convergence"])
    colors = optimizer_colors(layout.optimizers)
    grid = panel_grid(len(layout.datasets), len(layout.optimizers))
    for row, dataset in enumerate(layout.datasets):
        for column, optimizer in enumerate(layout.optimizers):
            ax = grid.axes[row, column]
            chosen = numbers[(numbers["dataset"] == dataset) & (numbers["optimizer"] == optimizer)]
            if chosen.empty:
                no_data(ax)
            for i in layout.leading:
                look = rank_line(colors[optimizer], i, layout.leading)
                curve(ax, chosen[chosen["i"] == i], "step", "convergence", linewidth=0.8, **look)
            ax.axhline(paper_numbers.EARLY_OVERLAP, gid="paper", **PAPER_LINE)
    for ax in grid.flat():
        linear_axis(ax.yaxis, "", 1.0)
        ax.set_ylim(0, 1.04)
    label = step_axis(grid.flat(), numbers["step"], logarithmic=True)
    grid.heads(list(layout.datasets.values()), list(layout.optimizers.values()))
    grid.labels(label, "$|v_i(t_{\\mathrm{final}}) \\cdot v_i(t)|$")
    bottom_legend(
        grid.figure, [*rank_handles(layout.leading), paper_handle(f"{paper_numbers.EARLY_OVERLAP} (paper: early)")]
    )
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)
