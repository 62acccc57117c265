"""Localization: the inverse participation ratio sum_j v_j^4 of eigenvectors over training (figures 3, 15, 18, 19)."""

from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reproduction.experiment.labels import Layout
from reproduction.figures.axes import curve, letter, line_with_range, no_data, panel_title, step_axis, value_axis
from reproduction.figures.panels import (
    Drawn,
    add_notes,
    bottom_legend,
    drawn,
    optimizer_handles,
    panel_grid,
    step_colorbar,
)
from reproduction.figures.style import NEUTRAL, line_width, optimizer_colors, sequence_colors, styled
from reproduction.figures.summaries import in_order, notes, summarize
from reproduction.figures.sweeps import is_full_batch, sweep_runs, sweep_variants, value_label

# Figure 15 shows v_1..v_10 apart from the others, as the paper does.
UPPER = 10
# Runs whose lengths differ by more than this factor share a logarithmic step axis.
UNEQUAL = 3


@styled
def ipr_over_training(ipr: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 3: IPR of v_1, mean and range over seeds, one panel a dataset, with 1/N, the value of an even spread.

    `ipr` has the main runs.
    """
    rows = in_order(ipr[ipr["i"].isna() | (ipr["i"] == 1)], layout)
    numbers = summarize(rows, ["dataset", "optimizer", "step"], ["ipr"], spread=True)
    numbers["even_spread"] = 1.0 / numbers["dataset"].map(_parameters(rows))
    colors = optimizer_colors(layout.optimizers)
    grid = panel_grid(1, len(layout.datasets), 1.9, share_y=True)
    for column, (dataset, label) in enumerate(layout.datasets.items()):
        ax = grid.axes[0, column]
        panel_title(ax, label)
        chosen = numbers[numbers["dataset"] == dataset]
        for position, (optimizer, color) in enumerate(colors.items()):
            look: dict[str, Any] = {"color": color, "linewidth": line_width(position)}
            line_with_range(ax, chosen[chosen["optimizer"] == optimizer], "step", "ipr", **look)
        _even_spread(ax, chosen)
    _ipr_axes(grid.flat(), numbers)
    grid.labels(step_axis(grid.flat(), numbers["step"]), "IPR of $v_1$")
    bottom_legend(grid.figure, [*optimizer_handles(layout), _even_spread_handle()])
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)


@styled
def ipr_of_many(ipr: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 15: IPR of every eigenvector of the dense seed, v_1..v_10 above the others, by dataset and optimizer."""
    dense = in_order(ipr[ipr["seed"] == layout.dense_seed], layout)
    rows = dense[dense["step"].isna() | dense["i"].notna()]
    numbers = summarize(rows, ["dataset", "optimizer", "i", "step"], ["ipr"])
    indices = sorted(numbers["i"].unique())
    colors = sequence_colors(indices)
    parts = [part for part in (indices[:UPPER], indices[UPPER:]) if part] or [[]]
    grid = panel_grid(len(layout.datasets) * len(parts), len(layout.optimizers), 1.25)
    for position, (dataset, dataset_label) in enumerate(layout.datasets.items()):
        for column, (optimizer, optimizer_label) in enumerate(layout.optimizers.items()):
            chosen = numbers[(numbers["dataset"] == dataset) & (numbers["optimizer"] == optimizer)]
            for part, shown in enumerate(parts):
                ax = grid.axes[position * len(parts) + part, column]
                span = f"$v_{{{shown[0]}}}$ to $v_{{{shown[-1]}}}$" if shown else ""
                panel_title(ax, letter(position, dataset_label), optimizer_label, span)
                if chosen.empty:
                    no_data(ax)
                for i in reversed(shown):
                    curve(ax, chosen[chosen["i"] == i], "step", "ipr", color=colors[i], linewidth=0.6)
    _ipr_axes(grid.flat(), numbers, even_spread=False)
    grid.labels(step_axis(grid.flat(), numbers["step"]), "IPR of $v_i$")
    step_colorbar(grid.figure, grid.flat(), [str(i) for i in indices], "eigenvector index $i$")
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)


@styled
def ipr_by_value(ipr: pd.DataFrame, layout: Layout, sweep: str) -> Drawn:
    """Figures 18 and 19: IPR of v_1 for each value of `sweep`, batch_size or learning_rate; one panel an optimizer.

    Mean and range over seeds. Where the values' runs differ much in length, the step axis is logarithmic.
    """
    rows = in_order(sweep_runs(ipr[ipr["i"].isna() | (ipr["i"] == 1)], sweep), layout)
    by = ["dataset", "optimizer", "value", "variant", "batch_size", "learning_rate", "step"]
    numbers = summarize(rows, by, ["ipr"], spread=True)
    numbers["even_spread"] = 1.0 / numbers["dataset"].map(_parameters(rows))
    variants = sweep_variants(rows)
    ranks = sequence_colors(range(len(variants)), "plasma")
    looks: dict[str, dict[str, Any]] = {variant: {"color": ranks[rank]} for rank, variant in enumerate(variants)}
    for variant in variants:
        if is_full_batch(rows[rows["variant"] == variant]):
            looks[variant] = {"color": "black", "linestyle": "--"}
    dataset = next(iter(rows["dataset"].astype(str)), "")
    grid = panel_grid(1, len(layout.optimizers), 1.9)
    for column, (optimizer, label) in enumerate(layout.optimizers.items()):
        ax = grid.axes[0, column]
        panel_title(ax, layout.datasets.get(dataset, dataset), label)
        chosen = numbers[numbers["optimizer"] == optimizer]
        if chosen.empty:
            no_data(ax)
        for variant in variants:
            width = line_width(variants.index(variant))
            line_with_range(ax, chosen[chosen["variant"] == variant], "step", "ipr", linewidth=width, **looks[variant])
        _even_spread(ax, chosen)
    _ipr_axes(grid.flat(), numbers)
    lengths = rows["steps"]
    label = step_axis(grid.flat(), numbers["step"], logarithmic=bool(lengths.max() > UNEQUAL * lengths.min()))
    grid.labels(label, "IPR of $v_1$")
    handles: list[Artist] = []
    for variant in variants:
        facts = rows[rows["variant"] == variant]
        handles.append(Line2D([], [], linewidth=1.8, label=value_label(facts, sweep), **looks[variant]))
    bottom_legend(grid.figure, [*handles, _even_spread_handle()])
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
    value_axis(axes, pd.concat(shown) if even_spread else numbers["ipr"], "", logarithmic=True)
