"""Displacement of v_1 against the accuracy of its eigenpairs (figure S3)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from reproduction.experiment.labels import Layout
from reproduction.figures.axes import curve, linear_axis, log_axis, no_data
from reproduction.figures.panels import (
    Drawn,
    add_notes,
    band_handle,
    bottom_legend,
    drawn,
    panel_grid,
    waiting_time_handles,
)
from reproduction.figures.style import NEUTRAL, sequence_colors, styled
from reproduction.figures.summaries import in_order, notes, summarize

# Waiting times whose curves are drawn: more would hide each other's bands.
CURVES = 3


@styled
def displacement_and_accuracy(displacement: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure S3: D_1 with the range that the angle bounds leave open, by dataset and optimizer; means over seeds.

    The percentage is the share of all waiting times and lags at which v_1 has moved by no more than its bounds, so that
    the solver's errors alone could explain it.
    """
    rows = in_order(displacement[displacement["i"].isna() | displacement["i"].isin(layout.leading)], layout)
    low, high = open_range(rows["displacement"], rows["angle_bound"], rows["n_parameters"])
    rows = rows.assign(displacement_low=low, displacement_high=high, within=(low == 0).astype(float))
    values = ["displacement", "displacement_low", "displacement_high", "within"]
    numbers = summarize(rows, ["dataset", "optimizer", "i", "waiting_time", "lag"], values)
    waiting_times = sorted(map(int, numbers["waiting_time"].unique()))
    chosen = (
        waiting_times if len(waiting_times) <= CURVES else [waiting_times[j] for j in (0, len(waiting_times) // 2, -1)]
    )
    colors = sequence_colors(chosen)
    grid = panel_grid(len(layout.datasets), len(layout.optimizers), 1.0)
    first = numbers[numbers["i"] == 1]
    for row, dataset in enumerate(layout.datasets):
        for column, optimizer in enumerate(layout.optimizers):
            ax = grid.axes[row, column]
            own = first[(first["dataset"] == dataset) & (first["optimizer"] == optimizer)]
            if own.empty:
                no_data(ax)
                continue
            _curves(ax, own, colors)
            share = f"within {100 * own['within'].mean():.2g}%"
            ax.text(0.05, 0.95, share, transform=ax.transAxes, va="top", gid="share")
    top = float(np.nanmax(numbers["displacement_high"].to_numpy(float), initial=0.0))
    longest = float(numbers["lag"].max()) if len(numbers) else 10.0
    label = "$D_1$"
    for ax in grid.flat():
        ax.set_xscale("log")
        ax.set_xlim(0.8, max(1.25 * longest, 2.0))
        ax.set_ylim(0, 1.3 * top if top > 0 else 1.0)
        log_axis(ax.xaxis, ticks=4)
        label = linear_axis(ax.yaxis, "$D_1$", top)
    grid.heads(list(layout.datasets.values()), list(layout.optimizers.values()))
    grid.labels("lag $t$ (steps)", label)
    bottom_legend(grid.figure, [*waiting_time_handles(colors), band_handle(NEUTRAL, "left open by the solver")])
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


def _curves(ax: Axes, numbers: pd.DataFrame, colors: Mapping[int, str]) -> None:
    for waiting_time, color in colors.items():
        own = numbers[numbers["waiting_time"] == waiting_time]
        look: dict[str, Any] = {"color": color, "linewidth": 0.9}
        ax.fill_between(
            own["lag"], own["displacement_low"], own["displacement_high"], alpha=0.22, linewidth=0, color=color
        )
        curve(ax, own, "lag", "displacement", **look)
