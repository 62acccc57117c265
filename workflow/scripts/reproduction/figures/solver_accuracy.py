"""Displacement of v_1 against the accuracy of its eigenpairs, and of the leading subspace beside it (figure S3)."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from reproduction.experiment.labels import Layout
from reproduction.figures.axes import curve, linear_axis, log_axis, no_data, number_label, panel_title, rank_line
from reproduction.figures.panels import (
    Drawn,
    Grid,
    add_notes,
    band_handle,
    bottom_legend,
    drawn,
    panel_grid,
    rank_handles,
)
from reproduction.figures.style import NEUTRAL, optimizer_colors, sequence_colors, styled
from reproduction.figures.summaries import in_order, notes, summarize

# Waiting times whose curves are drawn: more would hide each other's bands.
CURVES = 3
# Tick labels that a panel's axis has room for.
TICKS = 5


@styled
def displacement_and_accuracy(displacement: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure S3: two rows a dataset, one column an optimizer; means over seeds.

    Above, D_1 with the range that the angle bounds leave open, and the displacement of the span of the leading vectors;
    below, the share of each curve's lags at which v_i has moved by no more than its bounds.
    """
    rows = in_order(displacement[displacement["i"].isna() | displacement["i"].isin(layout.leading)], layout)
    low, high = open_range(rows["displacement"], rows["angle_bound"], rows["n_parameters"])
    rows = rows.assign(displacement_low=low, displacement_high=high, within=(low == 0).astype(float))
    values = ["displacement", "displacement_low", "displacement_high", "subspace_displacement", "within"]
    numbers = summarize(rows, ["dataset", "optimizer", "i", "waiting_time", "lag"], values)
    waiting_times = sorted(map(int, numbers["waiting_time"].unique()))
    chosen = (
        waiting_times if len(waiting_times) <= CURVES else [waiting_times[j] for j in (0, len(waiting_times) // 2, -1)]
    )
    grid = panel_grid(2 * len(layout.datasets), len(layout.optimizers), 1.4, share_x=False, share_y=False)
    for row, (dataset, label) in enumerate(layout.datasets.items()):
        for column, (optimizer, optimizer_label) in enumerate(layout.optimizers.items()):
            own = numbers[(numbers["dataset"] == dataset) & (numbers["optimizer"] == optimizer)]
            upper, lower = grid.axes[2 * row, column], grid.axes[2 * row + 1, column]
            panel_title(upper, label, optimizer_label)
            _curves(upper, own, chosen, layout)
            _shares(lower, own, waiting_times, optimizer_colors(layout.optimizers)[optimizer], layout)
    _axes(grid, numbers)
    bottom_legend(grid.figure, _handles(chosen, layout))
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)


def open_range(
    displacement: ArrayLike, angle_bound: ArrayLike, n_parameters: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The displacements between which the true one lies, elementwise; no unit.

    Two computed vectors at the angle theta, whose solver errors turn them by at most beta together, belong to true ones
    at an angle between theta - beta and theta + beta. `angle_bound` is the sum of the two sines, whose arcsine is at
    least beta. The lower end is 0 where theta is within beta: the solver's errors alone can explain the movement.
    """
    n = np.asarray(n_parameters, dtype=np.float64)
    # D N/2 = 1 - cos(theta) = 2 sin^2(theta/2), which keeps its digits for small angles.
    theta = 2.0 * np.arcsin(np.sqrt(np.clip(np.asarray(displacement, dtype=np.float64) * n / 4.0, 0.0, 0.5)))
    beta = np.arcsin(np.clip(np.asarray(angle_bound, dtype=np.float64), 0.0, 1.0))
    ends = (np.maximum(theta - beta, 0.0), np.minimum(theta + beta, np.pi / 2))
    low, high = (4.0 / n * np.sin(end / 2.0) ** 2 for end in ends)
    return low, high


def _curves(ax: Axes, numbers: pd.DataFrame, waiting_times: list[int], layout: Layout) -> None:
    first, widest = numbers[numbers["i"] == 1], numbers[numbers["i"] == max(layout.leading)]
    if first.empty:
        no_data(ax)
    colors = sequence_colors(waiting_times)
    for waiting_time in waiting_times:
        own, span = (rows[rows["waiting_time"] == waiting_time] for rows in (first, widest))
        look: dict[str, Any] = {"color": colors[waiting_time], "linewidth": 1.0}
        ax.fill_between(
            own["lag"], own["displacement_low"], own["displacement_high"], alpha=0.22, linewidth=0, color=look["color"]
        )
        curve(ax, own, "lag", "displacement", **look)
        ax.plot(span["lag"], span["subspace_displacement"], gid="span", linestyle="--", **look)


def _shares(ax: Axes, numbers: pd.DataFrame, waiting_times: list[int], color: str, layout: Layout) -> None:
    shares = numbers.groupby(["i", "waiting_time"])["within"].mean()
    for i in reversed(layout.leading):
        known = [(j, shares[i, tw]) for j, tw in enumerate(waiting_times) if (i, tw) in shares.index]
        look = rank_line(color, i, layout.leading)
        ax.plot(*zip(*known, strict=True) if known else ([], []), gid="share", marker="o", markersize=2.5, **look)
    ticks = range(0, len(waiting_times), max(1, -(-len(waiting_times) // TICKS)))
    ax.set_xticks(list(ticks), [number_label(waiting_times[j]) for j in ticks])
    ax.set_xlim(-0.5, max(len(waiting_times), 1) - 0.5)
    ax.set_ylim(-0.04, 1.04)


def _axes(grid: Grid, numbers: pd.DataFrame) -> None:
    upper = Grid(grid.figure, {place: ax for place, ax in grid.axes.items() if place[0] % 2 == 0})
    lower = Grid(grid.figure, {place: ax for place, ax in grid.axes.items() if place[0] % 2 == 1})
    top = float(np.nanmax(numbers[["displacement_high", "subspace_displacement"]].to_numpy(float), initial=0.0))
    longest = float(numbers["lag"].max()) if len(numbers) else 10.0
    label = "$D$"
    for ax in upper.flat():
        ax.set_xscale("log")
        ax.set_xlim(0.8, max(1.25 * longest, 2.0))
        ax.set_ylim(0, 1.06 * top if top > 0 else 1.0)
        log_axis(ax.xaxis)
        label = linear_axis(ax.yaxis, "$D$", top)
    upper.labels("lag $t$ (steps)", label)
    lower.labels("waiting time $t_w$ (steps)", "share within bounds")
    for ax in grid.flat():
        if not ax.get_ylabel():
            ax.tick_params(axis="y", which="both", labelleft=False)


def _handles(waiting_times: list[int], layout: Layout) -> list[Artist]:
    colors = sequence_colors(waiting_times)
    handles: list[Artist] = [
        Line2D([], [], color=colors[tw], linewidth=2.2, label=f"$t_w = ${number_label(tw)}") for tw in waiting_times
    ]
    handles.append(Line2D([], [], color=NEUTRAL, label="$v_1$"))
    handles.append(band_handle(NEUTRAL, "left open by the solver"))
    handles.append(Line2D([], [], color=NEUTRAL, linestyle="--", label=f"span of $v_1$ to $v_{max(layout.leading)}$"))
    return handles + (rank_handles(layout.leading) if len(layout.leading) > 1 else [])
