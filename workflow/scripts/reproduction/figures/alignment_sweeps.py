"""Figure 17: update against gradient alignment for varying batch size and learning rate."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reproduction.experiment.labels import Layout
from reproduction.figures.alignment import GRADIENT, UPDATE
from reproduction.figures.axes import diagonal, hollow_unconverged, letter, panel_title, square_axes
from reproduction.figures.panels import (
    Drawn,
    add_notes,
    bottom_legend,
    diagonal_handle,
    drawn,
    optimizer_handles,
    panel_grid,
)
from reproduction.figures.style import NEUTRAL, marker, optimizer_colors, styled
from reproduction.figures.summaries import HOLLOW, in_order, notes, summarize_runs
from reproduction.figures.sweeps import NAMES, is_full_batch, sweep_runs, sweep_variants, value_label

SWEEPS = ("batch_size", "learning_rate")
BY = ["dataset", "optimizer", "value", "variant", "batch_size", "learning_rate", "i"]


@styled
def update_against_gradient_by_value(alignment: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 17: run-mean alignments, mean over seeds with their range as bars; (a) batch sizes, (b) learning rates.

    The columns are the leading eigenvectors; a large star is the full batch. `alignment` has the runs of both sweeps.
    """
    leading = in_order(alignment[alignment["i"].isna() | alignment["i"].isin(layout.leading)], layout)
    grid = panel_grid(len(SWEEPS), len(layout.leading), 1.75)
    frames = []
    for row, sweep in enumerate(SWEEPS):
        rows = sweep_runs(leading, sweep)
        numbers = summarize_runs(rows, BY, [GRADIENT, UPDATE])
        looks = _looks(rows)
        for column, i in enumerate(layout.leading):
            ax = grid.axes[row, column]
            panel_title(ax, letter(row, NAMES[sweep]), f"$i = {i}$")
            diagonal(ax)
            _draw(ax, numbers[numbers["i"] == i], layout, looks)
        last = grid.axes[row, len(layout.leading) - 1]
        dataset = ", ".join(layout.datasets[str(name)] for name in rows["dataset"].unique())
        handles = _handles(rows, sweep, looks)
        last.legend(handles=handles, title=dataset, loc="center left", bbox_to_anchor=(1.02, 0.5))
        numbers.insert(0, "sweep", sweep)
        frames.append(numbers)
    numbers = pd.concat(frames, ignore_index=True)
    ends = [f"{value}{end}" for value in (GRADIENT, UPDATE) for end in ("", "_max")]
    square_axes(grid.flat(), numbers[ends].to_numpy(float))
    grid.labels("gradient alignment", "update alignment")
    bottom_legend(grid.figure, [*optimizer_handles(layout), diagonal_handle()])
    add_notes(grid.figure, notes(leading, layout, HOLLOW))
    return drawn(grid.figure, numbers)


def _looks(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Variant -> marker: a shape for each value, and for the full batch a large star with a black edge."""
    looks: dict[str, dict[str, Any]] = {}
    for position, variant in enumerate(sweep_variants(rows)):
        plain = {"marker": marker(position), "markersize": 5.0, "markeredgecolor": "white", "markeredgewidth": 0.4}
        # Behind the others, which are smaller.
        star = {"marker": "*", "markersize": 9.0, "markeredgecolor": "black", "markeredgewidth": 0.6, "zorder": 1.9}
        looks[variant] = star if is_full_batch(rows[rows["variant"] == variant]) else plain
    return looks


def _draw(ax: Axes, numbers: pd.DataFrame, layout: Layout, looks: Mapping[str, Mapping[str, Any]]) -> None:
    colors = optimizer_colors(layout.optimizers)
    for optimizer, color in colors.items():
        for variant, look in looks.items():
            chosen = numbers[(numbers["optimizer"] == optimizer) & (numbers["variant"] == variant)]
            bars = [
                np.vstack([chosen[value] - chosen[f"{value}_min"], chosen[f"{value}_max"] - chosen[value]])
                for value in (GRADIENT, UPDATE)
            ]
            container = ax.errorbar(
                chosen[GRADIENT], chosen[UPDATE], xerr=bars[0], yerr=bars[1], color=color, linestyle="none",
                elinewidth=0.7, **look,
            )  # fmt: skip
            container.lines[0].set_gid("data")
            shape = {"marker": look["marker"], "markersize": look["markersize"]}
            hollow_unconverged(ax, chosen[GRADIENT], chosen[UPDATE], chosen["n_unconverged"], color=color, **shape)


def _handles(rows: pd.DataFrame, sweep: str, looks: Mapping[str, Mapping[str, Any]]) -> list[Artist]:
    names = {variant: value_label(rows[rows["variant"] == variant], sweep) for variant in looks}
    return [Line2D([], [], color=NEUTRAL, linestyle="none", label=names[v], **look) for v, look in looks.items()]
