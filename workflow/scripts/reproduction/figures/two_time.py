"""How far eigenvectors and weights get in a lag t after a waiting time t_w (figures 1, 9, 10, 11, 20, 21).

Every curve is the mean over seeds. The paper shows one curve for each waiting time and leaves open whether it averages;
the mean uses all runs, and the tables hold the single ones.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reproduction.experiment.labels import Layout
from reproduction.figures.axes import curve, linear_axis, log_axis, no_data, number_label, panel_title
from reproduction.figures.panels import (
    Drawn,
    Grid,
    add_notes,
    band_handle,
    bottom_legend,
    drawn,
    panel_grid,
    step_colorbar,
)
from reproduction.figures.style import BASELINE, sequence_colors, styled
from reproduction.figures.summaries import in_order, notes, summarize
from reproduction.figures.sweeps import sweep_runs, sweep_variants, value_title


@styled
def displacement_by_optimizer(displacement: pd.DataFrame, baseline: pd.DataFrame, layout: Layout) -> Drawn:
    """Figures 1 and 9: D_1(t_w, t_w + t) (equation 3) against lag, one panel an optimizer, of the one dataset given.

    The displacement of `baseline`, tau_1 (equation 4), is the dashed line, and its 95% interval the band.
    """
    rows = in_order(displacement[displacement["i"].isna() | (displacement["i"] == 1)], layout)
    numbers = summarize(rows, ["dataset", "optimizer", "waiting_time", "lag"], ["displacement"])
    dataset = next(iter(rows["dataset"].astype(str)), "")
    numbers = _with_baseline(numbers, baseline)
    grid = panel_grid(1, len(layout.optimizers), 1.9)
    panels = []
    for column, (optimizer, label) in enumerate(layout.optimizers.items()):
        ax = grid.axes[0, column]
        panel_title(ax, layout.datasets.get(dataset, dataset), label)
        panels.append((ax, numbers[numbers["optimizer"] == optimizer]))
    handles = _draw_baseline(grid.flat(), baseline, dataset, band=True)
    _draw_curves(grid, panels, "displacement", "$D_1(t_w, t_w + t)$", numbers["tau_high"])
    bottom_legend(grid.figure, handles)
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)


@styled
def weight_displacement(displacement: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 10: D_w(t_w, t_w + t) = |theta(t_w + t) - theta(t_w)|^2 / N against lag, not divided by gradient noise."""
    return _by_dataset(displacement, layout, "weight_displacement", "$D_w(t_w, t_w + t)$", logarithmic=True)


@styled
def two_time_alignment(displacement: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 11: alignment of v_1(t_w) with the weight change over the lag after t_w (equation 6)."""
    return _by_dataset(displacement, layout, "update_alignment", "alignment with $v_1(t_w)$", logarithmic=False)


@styled
def displacement_by_value(displacement: pd.DataFrame, baseline: pd.DataFrame, layout: Layout, sweep: str) -> Drawn:
    """Figures 20 and 21: D_1 against lag for each value of `sweep`, batch_size or learning_rate, and optimizer."""
    rows = sweep_runs(displacement[displacement["i"].isna() | (displacement["i"] == 1)], sweep)
    rows = in_order(rows, layout)
    by = ["dataset", "value", "variant", "optimizer", "batch_size", "learning_rate", "waiting_time", "lag"]
    numbers = _with_baseline(summarize(rows, by, ["displacement"]), baseline)
    dataset = next(iter(rows["dataset"].astype(str)), "")
    variants = sweep_variants(rows)
    grid = panel_grid(len(variants), len(layout.optimizers), 1.3)
    panels = []
    for row, variant in enumerate(variants):
        for column, (optimizer, label) in enumerate(layout.optimizers.items()):
            ax = grid.axes[row, column]
            facts = rows[(rows["variant"] == variant) & (rows["optimizer"] == optimizer)]
            panel_title(ax, label, value_title(facts, sweep))
            panels.append((ax, numbers[(numbers["variant"] == variant) & (numbers["optimizer"] == optimizer)]))
    handles = _draw_baseline(grid.flat(), baseline, dataset, band=False)
    for handle in handles:
        # The panels have no room for the data set's name.
        handle.set_label(f"{handle.get_label()}, {layout.datasets.get(dataset, dataset)}")
    _draw_curves(grid, panels, "displacement", "$D_1$", numbers["tau"])
    bottom_legend(grid.figure, handles)
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)


def _by_dataset(displacement: pd.DataFrame, layout: Layout, value: str, label: str, *, logarithmic: bool) -> Drawn:
    rows = in_order(displacement[displacement["i"].isna() | (displacement["i"] == 1)], layout)
    if value == "weight_displacement":
        # It involves no eigenvector, so pairs that did not converge do not matter.
        rows = rows.drop(columns="converged")
    numbers = summarize(rows, ["dataset", "optimizer", "waiting_time", "lag"], [value])
    grid = panel_grid(len(layout.datasets), len(layout.optimizers))
    panels = []
    for row, (dataset, dataset_label) in enumerate(layout.datasets.items()):
        for column, (optimizer, optimizer_label) in enumerate(layout.optimizers.items()):
            ax = grid.axes[row, column]
            panel_title(ax, dataset_label, optimizer_label)
            panels.append((ax, numbers[(numbers["dataset"] == dataset) & (numbers["optimizer"] == optimizer)]))
    _draw_curves(grid, panels, value, label, (), logarithmic=logarithmic)
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)


def _with_baseline(numbers: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """Put tau_1 of the row's dataset and its interval beside each row."""
    first = baseline[baseline["i"] == 1].set_index("dataset")
    for name, column in (("tau", "displacement"), ("tau_low", "displacement_low"), ("tau_high", "displacement_high")):
        numbers[name] = numbers["dataset"].map(first[column]).astype(float)
    return numbers


def _draw_baseline(axes: Sequence[Axes], baseline: pd.DataFrame, dataset: str, *, band: bool) -> list[Artist]:
    """Draw tau_1 in every panel; its legend entries, none if there is no such baseline."""
    chosen = baseline[(baseline["i"] == 1) & (baseline["dataset"] == dataset)].dropna(subset=["displacement"])
    if chosen.empty:
        return []
    tau, low, high = (float(chosen[f"displacement{end}"].iloc[0]) for end in ("", "_low", "_high"))
    for ax in axes:
        ax.axhline(tau, color=BASELINE, linestyle="--", linewidth=1.0, zorder=4, gid="baseline")
        if band:
            ax.axhspan(low, high, color=BASELINE, alpha=0.25, linewidth=0, zorder=1)
    handles: list[Artist] = [Line2D([], [], color=BASELINE, linestyle="--", label="random baseline $\\tau_1$")]
    return handles + ([band_handle(BASELINE, "its 95% interval")] if band else [])


def _draw_curves(
    grid: Grid,
    panels: Sequence[tuple[Axes, pd.DataFrame]],
    value: str,
    label: str,
    also: Sequence[float] | pd.Series,
    *,
    logarithmic: bool = False,
) -> None:
    """One curve for each waiting time in each panel, with the same axes and colours in all; `also` must be in sight."""
    shown = pd.concat([rows for _, rows in panels])
    waiting_times = sorted(map(int, shown["waiting_time"].unique()))
    colors = sequence_colors(waiting_times)
    for ax, rows in panels:
        _curves(ax, rows, value, colors)
        ax.set_xscale("log")
    values = np.concatenate([shown[value].to_numpy(float), np.asarray(also, dtype=float)])
    values = values[np.isfinite(values)]
    top = float(values.max()) if values.size else 1.0
    positive = values[values > 0]
    longest = float(shown["lag"].max()) if len(shown) else 10.0
    for ax, _ in panels:
        ax.set_xlim(0.8, max(1.25 * longest, 2.0))
        log_axis(ax.xaxis)
        if logarithmic and positive.size:
            ax.set_yscale("log")
            ax.set_ylim(float(positive.min()) / 1.5, top * 1.5)
            log_axis(ax.yaxis)
        else:
            ax.set_ylim(0, top * 1.06 if top > 0 else 1.0)
    if not logarithmic:
        label = [linear_axis(ax.yaxis, label, top) for ax, _ in panels][-1]
    grid.labels("lag $t$ (steps)", label)
    step_colorbar(grid.figure, grid.flat(), [number_label(tw) for tw in waiting_times], "waiting time $t_w$ (steps)")


def _curves(ax: Axes, rows: pd.DataFrame, value: str, colors: Mapping[int, str]) -> None:
    if rows[value].notna().sum() == 0:
        no_data(ax)
    dots = {"linewidth": 1.0, "marker": "o", "markersize": 1.4, "markeredgewidth": 0}
    for waiting_time in sorted(rows["waiting_time"].unique()):
        chosen = rows[rows["waiting_time"] == waiting_time]
        curve(ax, chosen, "lag", value, color=colors[int(waiting_time)], **dots)
