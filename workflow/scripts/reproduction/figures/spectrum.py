"""Leading eigenvalues, and how early the eigenvectors take their final direction (figures 6 and 7)."""

import pandas as pd

from reproduction.experiment.labels import Layout
from reproduction.figures.axes import (
    curve,
    line_with_range,
    linear_axis,
    no_data,
    panel_title,
    rank_line,
    step_axis,
    value_axis,
)
from reproduction.figures.panels import Drawn, Grid, add_notes, bottom_legend, drawn, panel_grid, rank_handles
from reproduction.figures.style import CURVATURE, optimizer_colors, styled
from reproduction.figures.summaries import in_order, notes, smooth, summarize

BY = ["dataset", "optimizer", "i", "step"]
# Width of the Gaussian of figure 7, in snapshots.
SIGMA = 2.0


@styled
def eigenvalues(ipr: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 6: lambda_1..lambda_3 over training, mean and range over seeds, one panel a dataset and optimizer.

    `ipr` has the main runs, and their eigenvalues too.
    """
    rows = in_order(ipr[ipr["i"].isna() | ipr["i"].isin(layout.leading)], layout)
    numbers = summarize(rows, BY, ["eigenvalue"], spread=True)
    grid = _panels(numbers, layout, "eigenvalue", spread=True)
    ends = pd.concat([numbers["eigenvalue_min"], numbers["eigenvalue_max"]])
    label = value_axis(grid.flat(), ends, f"$\\lambda_i$ ({CURVATURE})")
    grid.labels(step_axis(grid.flat(), numbers["step"]), label)
    bottom_legend(grid.figure, rank_handles(layout.leading))
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)


@styled
def convergence(alignment: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 7: |v_i(t_final) . v_i(t)|, mean over seeds, smoothed with a Gaussian of two snapshots.

    `alignment` has the main runs.
    """
    rows = in_order(alignment[alignment["i"].isna() | alignment["i"].isin(layout.leading)], layout)
    means = summarize(rows, BY, ["convergence"])
    numbers = smooth(means, ["dataset", "optimizer", "i"], ["convergence"], SIGMA)
    grid = _panels(numbers, layout, "convergence", spread=False)
    for ax in grid.flat():
        linear_axis(ax.yaxis, "", 1.0)
        ax.set_ylim(0, 1.04)
    grid.labels(step_axis(grid.flat(), numbers["step"]), "$|v_i(t_{\\mathrm{final}}) \\cdot v_i(t)|$")
    bottom_legend(grid.figure, rank_handles(layout.leading))
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)


def _panels(numbers: pd.DataFrame, layout: Layout, value: str, *, spread: bool) -> Grid:
    """One panel a dataset (row) and optimizer (column), one line an eigenvector index."""
    colors = optimizer_colors(layout.optimizers)
    grid = panel_grid(len(layout.datasets), len(layout.optimizers))
    for row, (dataset, dataset_label) in enumerate(layout.datasets.items()):
        for column, (optimizer, optimizer_label) in enumerate(layout.optimizers.items()):
            ax = grid.axes[row, column]
            panel_title(ax, dataset_label, optimizer_label)
            chosen = numbers[(numbers["dataset"] == dataset) & (numbers["optimizer"] == optimizer)]
            if chosen.empty:
                no_data(ax)
            for i in layout.leading:
                look = rank_line(colors[optimizer], i, layout.leading)
                draw = line_with_range if spread else curve
                draw(ax, chosen[chosen["i"] == i], "step", value, **look)
    return grid
