"""How well the runs train and generalize (figures 4 and 5)."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reproduction.experiment.labels import Layout
from reproduction.figures.axes import (
    category_axis,
    line_with_range,
    linear_axis,
    no_data,
    panel_title,
    points,
    step_axis,
    value_axis,
)
from reproduction.figures.panels import Drawn, add_notes, bottom_legend, drawn, optimizer_handles, panel_grid
from reproduction.figures.style import NEUTRAL, line_width, optimizer_colors, styled
from reproduction.figures.summaries import in_order, incomplete_note, summarize


@styled
def training_loss(history: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 4: mean cross-entropy over the training set, mean and range over seeds, one panel a dataset.

    `history` has the main runs.
    """
    rows = in_order(history, layout)
    numbers = summarize(rows, ["dataset", "optimizer", "step"], ["train_loss"], spread=True)
    colors = optimizer_colors(layout.optimizers)
    grid = panel_grid(1, len(layout.datasets), 1.9)
    for column, (dataset, label) in enumerate(layout.datasets.items()):
        ax = grid.axes[0, column]
        panel_title(ax, label)
        chosen = numbers[numbers["dataset"] == dataset]
        if chosen.empty:
            no_data(ax)
        for position, (optimizer, color) in enumerate(colors.items()):
            look: dict[str, Any] = {"color": color, "linewidth": line_width(position)}
            line_with_range(ax, chosen[chosen["optimizer"] == optimizer], "step", "train_loss", **look)
    ends = pd.concat([numbers["train_loss_min"], numbers["train_loss_max"]])
    label = value_axis(grid.flat(), ends, "training loss (nat)", logarithmic=True)
    grid.labels(step_axis(grid.flat(), numbers["step"]), label)
    bottom_legend(grid.figure, optimizer_handles(layout))
    add_notes(grid.figure, incomplete_note(rows, layout))
    return drawn(grid.figure, numbers)


@styled
def final_accuracy(history: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 5: test accuracy at the end of each run, one point a seed, and the mean of the complete runs as a bar.

    A run that broke off is a hollow point at its last accuracy.
    """
    rows = in_order(history, layout)
    numbers = _last_accuracies(rows)
    grid = panel_grid(1, len(layout.datasets), 1.7, share_x=False, share_y=False)
    for column, (dataset, label) in enumerate(layout.datasets.items()):
        ax = grid.axes[0, column]
        panel_title(ax, label)
        _draw_accuracies(ax, numbers[numbers["dataset"] == dataset], layout)
        width = grid.figure.get_figwidth() / len(grid.axes) - 0.7
        named = category_axis(ax, list(layout.optimizers.values()), width)
        linear_axis(ax.yaxis, "", 1.0)
    grid.labels("", "final test accuracy (%)")
    mean_bar = Line2D([], [], color=NEUTRAL, linewidth=0.9, label="mean over seeds")
    seed_dot = Line2D([], [], color=NEUTRAL, marker="o", linestyle="none", label="one seed")
    bottom_legend(grid.figure, [*([] if named else optimizer_handles(layout)), seed_dot, mean_bar])
    hollow = "Hollow points, which the means leave out: accuracy where such a run ended."
    add_notes(grid.figure, [f"{note} {hollow}" for note in incomplete_note(rows, layout)])
    return drawn(grid.figure, numbers)


def _last_accuracies(history: pd.DataFrame) -> pd.DataFrame:
    """The last row of each run with its accuracy in percent, and the mean over the seeds whose run is complete."""
    known = history.dropna(subset=["step", "test_accuracy"]).sort_values(["dataset", "optimizer", "seed", "step"])
    last = known.groupby(["dataset", "optimizer", "seed"], observed=True).tail(1)
    numbers = last[["dataset", "optimizer", "seed", "step"]].astype({"dataset": str, "optimizer": str, "step": "int64"})
    numbers["test_accuracy"] = 100.0 * last["test_accuracy"]
    numbers["complete"] = (last["step"] >= last["steps"]).astype("int64")
    complete = numbers[numbers["complete"] == 1]
    means = complete.groupby(["dataset", "optimizer"])["test_accuracy"].mean().rename("test_accuracy_mean")
    return numbers.merge(means.reset_index(), how="left", on=["dataset", "optimizer"])


def _draw_accuracies(ax: Axes, numbers: pd.DataFrame, layout: Layout) -> None:
    if numbers.empty:
        no_data(ax)
    for position, (optimizer, color) in enumerate(optimizer_colors(layout.optimizers).items()):
        seeds = numbers[numbers["optimizer"] == optimizer]
        # Seeds side by side, so that equal accuracies do not hide each other.
        x = pd.Series(position + np.linspace(-0.22, 0.22, len(seeds)) * (len(seeds) > 1), index=seeds.index)
        points(ax, x, seeds["test_accuracy"], 1 - seeds["complete"], color=color, marker="o", clip_on=False)
        for mean in seeds["test_accuracy_mean"].dropna().unique():
            ax.plot([position - 0.32, position + 0.32], [mean, mean], color=color, linewidth=0.9, gid="mean")
