"""Figure 8: the loss between the optimizers' best solutions, and how sharp these are."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reproduction.experiment.labels import Layout
from reproduction.figures.axes import category_axis, log_axis, no_data, number_label, value_axis
from reproduction.figures.panels import MOST_COLUMNS, PAGE_HEIGHT, Drawn, Grid, bottom_legend, drawn, new_figure
from reproduction.figures.style import COLUMN_WIDTH, CURVATURE, NEUTRAL, marker, optimizer_colors, styled
from reproduction.figures.summaries import in_order

# Characters that have room below one end of a line.
ROOM = 9


@styled
def draw_interpolation(losses: pd.DataFrame, solutions: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 8: L(alpha theta_A + (1 - alpha) theta_B) on training and test set (equation 5), by dataset and pair.

    The ends of each line are named at alpha = 0 and 1. Below stand the largest eigenvalue and the epsilon-sharpness
    (Keskar et al. 2017, equation 4) of each solution. `losses` is the table interpolation.
    """
    losses, solutions = in_order(losses, layout), in_order(solutions, layout)
    pairs = list(losses[["first", "second"]].drop_duplicates().itertuples(index=False, name=None))
    turned = len(pairs) > MOST_COLUMNS
    count = max(len(pairs), 1)
    rows, columns = (count, len(layout.datasets)) if turned else (len(layout.datasets), count)
    height = min(0.95, PAGE_HEIGHT / rows)
    figure = new_figure(COLUMN_WIDTH, rows * height + 1.3)
    outer = figure.add_gridspec(2, 1, height_ratios=[rows * height, 1.1])
    upper, lower = outer[0].subgridspec(rows, columns), outer[1].subgridspec(1, 2)
    axes: dict[tuple[int, int], Axes] = {}
    for row, dataset in enumerate(layout.datasets):
        for column in range(count):
            place = (column, row) if turned else (row, column)
            ax = axes[row, column] = figure.add_subplot(upper[place])
            pair = pairs[column] if pairs else ("", "")
            own = losses[(losses["dataset"] == dataset) & (losses["first"] == pair[0]) & (losses["second"] == pair[1])]
            _draw_losses(ax, own, pair, layout)
    label = value_axis(list(axes.values()), losses["loss"], "loss, train + test (nat)")
    grid = Grid(figure, axes)
    for ax in axes.values():
        if ax.get_subplotspec().colspan.start:  # type: ignore[union-attr]
            ax.tick_params(axis="y", which="both", labelleft=False)
    grid.heads([*layout.datasets.values()], [""] * count)
    grid.labels("", label)
    epsilons = sorted(solutions["epsilon"].dropna().unique(), reverse=True)
    left, right = figure.add_subplot(lower[0]), figure.add_subplot(lower[1])
    _draw_solutions(left, solutions.drop_duplicates(["dataset", "optimizer"]), "lambda_1", [None], layout)
    left.set_ylabel(f"$\\lambda_1$ ({CURVATURE})")
    _draw_solutions(right, solutions, "sharpness", epsilons, layout)
    right.set_ylabel("$\\epsilon$-sharpness (%)")
    bottom_legend(figure, _handles(epsilons, layout))
    return drawn(figure, _numbers(losses, solutions))


_COLUMNS = ["dataset", "first", "second", "alpha", "loss", "optimizer", "seed", "lambda_1", "epsilon", "sharpness"]


def _numbers(losses: pd.DataFrame, solutions: pd.DataFrame) -> pd.DataFrame:
    """Both tables below each other; columns that a row does not have are empty."""
    parts = [losses[["dataset", "first", "second", "alpha", "loss"]]]
    parts.append(solutions[["dataset", "optimizer", "seed", "lambda_1", "epsilon", "sharpness"]])
    text = [part.astype({column: str for column in ("dataset", "optimizer") if column in part}) for part in parts]
    numbers = pd.concat(text, ignore_index=True)[_COLUMNS]
    numbers["seed"] = numbers["seed"].astype("Int64")
    return numbers


def _draw_losses(ax: Axes, losses: pd.DataFrame, pair: tuple[str, str], layout: Layout) -> None:
    colors = optimizer_colors(layout.optimizers)
    line = losses.sort_values("alpha")
    if line["loss"].notna().sum() == 0:
        no_data(ax)
    ax.plot(line["alpha"], line["loss"], color=NEUTRAL, linewidth=0.9, gid="data")
    # theta_A, at alpha = 1, is the first of the pair.
    for end, optimizer in ((0.0, pair[1]), (1.0, pair[0])):
        ax.axvline(end, color=colors.get(optimizer, NEUTRAL), linewidth=0.8, linestyle=":", zorder=1)
    ax.set_xticks([0.0, 1.0], [_short_name(pair[1], layout), _short_name(pair[0], layout)])


def _short_name(optimizer: str, layout: Layout) -> str:
    """The label of an optimizer, or its name in the configuration where the label has no room below a panel."""
    label = layout.optimizers.get(optimizer, "")
    return label if len(label) <= ROOM else optimizer


def _draw_solutions(ax: Axes, rows: pd.DataFrame, value: str, epsilons: "list[float | None]", layout: Layout) -> None:
    """One marker a solution: its shape is the dataset, filled for the first epsilon and hollow for the others."""
    colors = optimizer_colors(layout.optimizers)
    for place, dataset in enumerate(layout.datasets):
        for position, optimizer in enumerate(layout.optimizers):
            own = rows[(rows["dataset"] == dataset) & (rows["optimizer"] == optimizer)]
            for rank, epsilon in enumerate(epsilons):
                chosen = own if epsilon is None else own[own["epsilon"] == epsilon]
                fill = colors[optimizer] if rank == 0 else "white"
                look: dict[str, Any] = {"linestyle": "none", "marker": marker(place), "markerfacecolor": fill}
                x = position + 0.3 * (place - (len(layout.datasets) - 1) / 2)
                ax.plot(np.full(len(chosen), x), chosen[value], color=colors[optimizer], gid=value, **look)
    positive = rows.loc[rows[value] > 0, value]
    if len(positive):
        ax.set_yscale("log")
        ax.set_ylim(float(positive.min()) / 2, float(positive.max()) * 2)
        log_axis(ax.yaxis, ticks=4)
    category_axis(ax, list(layout.optimizers.values()), 1.15)


def _handles(epsilons: "list[float]", layout: Layout) -> list[Artist]:
    look: dict[str, Any] = {"color": NEUTRAL, "linestyle": "none"}
    handles: list[Artist] = [
        Line2D([], [], marker=marker(place), label=label, **look)
        for place, label in enumerate(layout.datasets.values())
    ]
    for rank, epsilon in enumerate(epsilons):
        fill = NEUTRAL if rank == 0 else "white"
        label = f"$\\epsilon = ${number_label(epsilon)}"
        handles.append(Line2D([], [], marker="D", markerfacecolor=fill, label=label, **look))
    return handles
