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
    points,
    step_axis,
    value_axis,
)
from reproduction.figures.panels import Drawn, add_notes, bottom_legend, drawn, optimizer_handles, panel_grid
from reproduction.figures.style import NEUTRAL, line_width, optimizer_colors, styled
from reproduction.figures.summaries import in_order, incomplete_note, on_grid, summarize
from reproduction.statistics.localization import tail


@styled
def training_loss(history: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 4: mean cross-entropy over the training set, one panel a dataset: median and range over seeds on the grid.

    The thin lines are single seeds at all of their snapshots, so that jumps are seen. `history` has the main runs.
    """
    rows = in_order(history, layout)
    by = ["dataset", "optimizer", "step"]
    numbers = summarize(on_grid(rows), by, ["train_loss"], spread=True, median=True)
    colors = optimizer_colors(layout.optimizers)
    grid = panel_grid(1, len(layout.datasets), 1.5)
    for column, dataset in enumerate(layout.datasets):
        ax = grid.axes[0, column]
        chosen = numbers[numbers["dataset"] == dataset]
        if chosen.empty:
            no_data(ax)
        for position, (optimizer, color) in enumerate(colors.items()):
            seeds = rows[(rows["dataset"] == dataset) & (rows["optimizer"] == optimizer)]
            for _, seed in seeds.dropna(subset=["step"]).groupby("seed"):
                ordered = seed.sort_values("step")
                thin: dict[str, Any] = {"color": color, "linewidth": 0.25, "alpha": 0.7}
                ax.plot(ordered["step"], ordered["train_loss"], gid="seed", zorder=1.5, **thin)
            look: dict[str, Any] = {"color": color, "linewidth": line_width(position)}
            line_with_range(ax, chosen[chosen["optimizer"] == optimizer], "step", "train_loss", **look)
    label = value_axis(grid.flat(), rows["train_loss"], "training loss (nat)", logarithmic=True)
    grid.heads([""], list(layout.datasets.values()))
    grid.labels(step_axis(grid.flat(), numbers["step"]), label)
    seed_line = Line2D([], [], color=NEUTRAL, linewidth=0.4, label="one seed")
    bottom_legend(grid.figure, [*optimizer_handles(layout), seed_line])
    add_notes(grid.figure, incomplete_note(rows, layout))
    return drawn(grid.figure, numbers)


@styled
def final_accuracy(history: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 5: test accuracy at the end of each run, one point a seed, over the range of its last tenth.

    The bar is the mean over the complete runs of the mean of the last tenth. A run that broke off is a hollow point at
    its last accuracy.
    """
    rows = in_order(history, layout)
    numbers = _last_accuracies(rows)
    grid = panel_grid(1, len(layout.datasets), 1.4, share_x=False, share_y=False)
    for column, dataset in enumerate(layout.datasets):
        ax = grid.axes[0, column]
        _draw_accuracies(ax, numbers[numbers["dataset"] == dataset], layout)
        width = grid.figure.get_figwidth() / len(grid.axes) - 0.5
        named = category_axis(ax, list(layout.optimizers.values()), width)
        linear_axis(ax.yaxis, "", 1.0)
    grid.heads([""], list(layout.datasets.values()))
    grid.labels("", "test accuracy (%)")
    handles = [
        Line2D([], [], color=NEUTRAL, marker="o", linestyle="none", label="end of a seed"),
        Line2D([], [], color=NEUTRAL, linewidth=2.4, alpha=0.35, label="range of its last tenth"),
        Line2D([], [], color=NEUTRAL, linewidth=0.9, label="mean of the last tenth"),
    ]
    bottom_legend(grid.figure, [*([] if named else optimizer_handles(layout)), *handles])
    hollow = "Hollow points, which the means leave out: accuracy where such a run ended."
    add_notes(grid.figure, [f"{note} {hollow}" for note in incomplete_note(rows, layout)])
    return drawn(grid.figure, numbers)


def _last_accuracies(history: pd.DataFrame) -> pd.DataFrame:
    """The last row of each run with its accuracy in percent, the range and mean of its last tenth, and the mean of
    those over the seeds whose run is complete.
    """
    run = ["dataset", "optimizer", "seed"]
    known = history.dropna(subset=["step", "test_accuracy"]).sort_values([*run, "step"])
    last = known.groupby(run, observed=True).tail(1)
    numbers = last[[*run, "step"]].astype({"dataset": str, "optimizer": str, "step": "int64"})
    numbers["test_accuracy"] = 100.0 * last["test_accuracy"]
    late = pd.concat([tail(rows) for _, rows in on_grid(known).groupby(run, observed=True)] or [known])
    spread = 100.0 * late.groupby(run, observed=True)["test_accuracy"].agg(["min", "max", "mean"])
    columns = {"min": "test_accuracy_min", "max": "test_accuracy_max", "mean": "late_test_accuracy"}
    spread = spread.rename(columns=columns).reset_index().astype({"dataset": str, "optimizer": str})
    numbers["complete"] = (last["step"] >= last["steps"]).astype("int64")
    numbers = numbers.merge(spread, how="left", on=run)
    complete = numbers[numbers["complete"] == 1]
    means = complete.groupby(["dataset", "optimizer"])["late_test_accuracy"].mean().rename("late_test_accuracy_mean")
    return numbers.merge(means.reset_index(), how="left", on=["dataset", "optimizer"])


def _draw_accuracies(ax: Axes, numbers: pd.DataFrame, layout: Layout) -> None:
    if numbers.empty:
        no_data(ax)
    for position, (optimizer, color) in enumerate(optimizer_colors(layout.optimizers).items()):
        seeds = numbers[numbers["optimizer"] == optimizer]
        # Seeds side by side, so that equal accuracies do not hide each other.
        x = pd.Series(position + np.linspace(-0.25, 0.25, len(seeds)) * (len(seeds) > 1), index=seeds.index)
        ends = seeds["test_accuracy_min"], seeds["test_accuracy_max"]
        ax.vlines(x, *ends, color=color, linewidth=2.4, alpha=0.35)
        points(ax, x, seeds["test_accuracy"], 1 - seeds["complete"], color=color, marker="o", clip_on=False)
        for mean in seeds["late_test_accuracy_mean"].dropna().unique():
            ax.plot([position - 0.36, position + 0.36], [mean, mean], color=color, linewidth=0.9, gid="mean")
