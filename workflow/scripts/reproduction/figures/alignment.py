"""How much of gradient and update points along the leading eigenvectors (figures 2, 12, 13, 14, 17; equations 7 and 8).

A run mean is the mean over the run's snapshots at equal intervals, which the tables hold; one whose gradient or update
is zero has no direction and is left out (column n_nan).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reproduction.experiment.labels import Layout
from reproduction.figures.axes import (
    curve,
    diagonal,
    letter,
    linear_axis,
    no_data,
    panel_title,
    points,
    rank_line,
    square_axes,
    step_axis,
    top_of,
)
from reproduction.figures.panels import (
    Drawn,
    add_notes,
    bottom_legend,
    diagonal_handle,
    drawn,
    optimizer_handles,
    panel_grid,
    rank_handles,
)
from reproduction.figures.style import NEUTRAL, marker, optimizer_colors, styled
from reproduction.figures.summaries import HOLLOW, in_order, incomplete_note, notes, smooth, summarize, unconverged_note

GRADIENT, UPDATE = "gradient_alignment", "update_alignment"
LABELS = {GRADIENT: "gradient alignment", UPDATE: "update alignment"}
RUN_BY = ["dataset", "optimizer", "i", "seed"]
# Width of the Gaussian of figure 12, in snapshots.
SIGMA = 5.0


@styled
def update_against_gradient(alignment: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 2: run-mean update against run-mean gradient alignment, one point a seed, and the line where they agree.

    `alignment` has the main runs.
    """
    rows = _leading(alignment, layout)
    numbers = summarize(rows, RUN_BY, [GRADIENT, UPDATE])
    colors = optimizer_colors(layout.optimizers)
    grid = panel_grid(1, len(layout.datasets), 2.6)
    for column, (dataset, label) in enumerate(layout.datasets.items()):
        ax = grid.axes[0, column]
        panel_title(ax, label)
        diagonal(ax)
        for optimizer in layout.optimizers:
            for rank, i in enumerate(layout.leading):
                chosen = numbers[
                    (numbers["dataset"] == dataset) & (numbers["optimizer"] == optimizer) & (numbers["i"] == i)
                ]
                look: dict[str, Any] = {"color": colors[optimizer], "marker": marker(rank), "markersize": 4.5}
                points(ax, chosen[GRADIENT], chosen[UPDATE], chosen["n_unconverged"], **look)
    square_axes(grid.flat(), numbers[[GRADIENT, UPDATE]].to_numpy(float))
    grid.labels("gradient alignment (run mean)", "update alignment (run mean)")
    bottom_legend(grid.figure, [*optimizer_handles(layout), *_index_handles(layout.leading), diagonal_handle()])
    add_notes(grid.figure, notes(rows, layout, HOLLOW))
    return drawn(grid.figure, numbers)


@styled
def alignment_over_training(alignment: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 12: both alignments during the run of the dense seed, smoothed with a Gaussian of five snapshots.

    The rows are gradient and update, the columns the optimizers; of the one dataset given.
    """
    rows = _leading(alignment[alignment["seed"] == layout.dense_seed], layout)
    means = summarize(rows, ["dataset", "optimizer", "i", "step"], [GRADIENT, UPDATE])
    numbers = smooth(means, ["dataset", "optimizer", "i"], [GRADIENT, UPDATE], SIGMA)
    dataset = next(iter(rows["dataset"].astype(str)), "")
    colors = optimizer_colors(layout.optimizers)
    grid = panel_grid(2, len(layout.optimizers))
    for row, value in enumerate((GRADIENT, UPDATE)):
        for column, (optimizer, label) in enumerate(layout.optimizers.items()):
            ax = grid.axes[row, column]
            panel_title(ax, layout.datasets.get(dataset, dataset), label, value.split("_")[0])
            chosen = numbers[numbers["optimizer"] == optimizer]
            if chosen.empty:
                no_data(ax)
            for i in layout.leading:
                look = rank_line(colors[optimizer], i, layout.leading)
                curve(ax, chosen[chosen["i"] == i], "step", value, linewidth=0.9, **look)
    _from_zero(grid.flat(), numbers[[GRADIENT, UPDATE]].to_numpy(float))
    grid.labels(step_axis(grid.flat(), numbers["step"]), "alignment with $v_i$")
    bottom_legend(grid.figure, rank_handles(layout.leading))
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)


@styled
def run_means(alignment: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 13: run-mean alignments against i, one point a seed; gradient above update, one column a dataset."""
    rows = _leading(alignment, layout)
    numbers = summarize(rows, RUN_BY, [GRADIENT, UPDATE])
    colors = optimizer_colors(layout.optimizers)
    grid = panel_grid(2, len(layout.datasets), 1.6)
    count = len(layout.optimizers)
    for row, value in enumerate((GRADIENT, UPDATE)):
        for column, (dataset, label) in enumerate(layout.datasets.items()):
            ax = grid.axes[row, column]
            panel_title(ax, letter(row * len(layout.datasets) + column, label), LABELS[value])
            for position, optimizer in enumerate(layout.optimizers):
                chosen = numbers[(numbers["dataset"] == dataset) & (numbers["optimizer"] == optimizer)]
                # Optimizers side by side around each i.
                x = chosen["i"] + 0.6 * ((position + 0.5) / count - 0.5)
                look: dict[str, Any] = {"color": colors[optimizer], "marker": marker(position), "markersize": 4}
                points(ax, x, chosen[value], chosen["n_unconverged"], **look)
            ax.set_xticks(layout.leading)
            ax.set_xlim(0.5, len(layout.leading) + 0.5)
            ax.grid(visible=False, axis="x")
    _from_zero(grid.flat(), numbers[[GRADIENT, UPDATE]].to_numpy(float))
    grid.labels("eigenvector index $i$", "run mean")
    bottom_legend(grid.figure, _marked_handles(layout))
    add_notes(grid.figure, notes(rows, layout, HOLLOW))
    return drawn(grid.figure, numbers)


@styled
def means_of_many(alignment: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 14: run-mean alignments of the dense seed against i = 1..dense_k; gradient above update, by dataset.

    Means are over the snapshots that have all pairs, so that every i is averaged over the same ones.
    """
    dense = in_order(alignment[alignment["seed"] == layout.dense_seed], layout)
    rows = _with_all_pairs(dense)
    numbers = summarize(rows, RUN_BY, [GRADIENT, UPDATE])
    colors = optimizer_colors(layout.optimizers)
    grid = panel_grid(2, len(layout.datasets), 1.6)
    for row, value in enumerate((GRADIENT, UPDATE)):
        for column, (dataset, label) in enumerate(layout.datasets.items()):
            ax = grid.axes[row, column]
            panel_title(ax, letter(column, label), LABELS[value])
            for position, optimizer in enumerate(layout.optimizers):
                chosen = numbers[(numbers["dataset"] == dataset) & (numbers["optimizer"] == optimizer)]
                look: dict[str, Any] = {"color": colors[optimizer], "marker": marker(position), "markersize": 4}
                joined = look | {"linestyle": "-", "linewidth": 0.8}
                points(ax, chosen["i"], chosen[value], chosen["n_unconverged"], **joined)
            ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    _from_zero(grid.flat(), numbers[[GRADIENT, UPDATE]].to_numpy(float))
    grid.labels("eigenvector index $i$", "run mean")
    bottom_legend(grid.figure, _marked_handles(layout))
    add_notes(grid.figure, unconverged_note(rows, HOLLOW) + incomplete_note(dense, layout))
    return drawn(grid.figure, numbers)


def _leading(alignment: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    return in_order(alignment[alignment["i"].isna() | alignment["i"].isin(layout.leading)], layout)


def _with_all_pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the snapshots at which the most pairs of their run were taken, and those of runs without rows."""
    run = ["dataset", "optimizer", "seed"]
    count = rows.groupby([*run, "step"], observed=True, dropna=False)["i"].transform("count")
    most = count.groupby([rows[key] for key in run], observed=True).transform("max")
    return rows[count == most]


def _index_handles(indices: Sequence[int]) -> list[Artist]:
    look: dict[str, Any] = {"color": NEUTRAL, "linestyle": "none"}
    return [Line2D([], [], marker=marker(rank), label=f"$i = {i}$", **look) for rank, i in enumerate(indices)]


def _marked_handles(layout: Layout) -> list[Artist]:
    colors = optimizer_colors(layout.optimizers)
    return [
        Line2D([], [], color=colors[name], linestyle="none", marker=marker(position), label=label)
        for position, (name, label) in enumerate(layout.optimizers.items())
    ]


def _from_zero(axes: Sequence[Axes], values: np.ndarray) -> None:
    for ax in axes:
        ax.set_ylim(0, top_of(values))
        linear_axis(ax.yaxis, "", 1.0)
