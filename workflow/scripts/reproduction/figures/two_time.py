"""How far eigenvectors and weights get in a lag t after a waiting time t_w (figures 1, 9, 10, 11, 20, 21).

Figures 1, 9, 20 and 21 show the median over seeds with their range, at a few waiting times that can be distinguished;
the others the mean. The paper shows one curve for each waiting time and leaves open whether it averages.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter

from reproduction.experiment import paper_numbers
from reproduction.experiment.labels import Layout
from reproduction.figures.axes import curve, line_with_range, linear_axis, log_axis, no_data, number_label
from reproduction.figures.panels import (
    Drawn,
    Grid,
    add_notes,
    bottom_legend,
    drawn,
    panel_grid,
    paper_handle,
    step_colorbar,
    waiting_time_handles,
)
from reproduction.figures.style import BASELINE, PAPER, line_width, sequence_colors, styled
from reproduction.figures.summaries import in_order, notes, summarize
from reproduction.figures.sweeps import NAMES, sweep_looks, sweep_runs, value_handles
from reproduction.statistics.two_time import curves, late_waiting_time, plateau

# Waiting times whose curves one panel shows, and rows of panels by waiting time.
CURVES, AGES = 5, 3


@styled
def displacement_by_optimizer(displacement: pd.DataFrame, baseline: pd.DataFrame, layout: Layout) -> Drawn:
    """Figures 1 and 9: D_1(t_w, t_w + t) (equation 3) against lag, one panel an optimizer, of the one dataset given.

    The displacement of `baseline`, tau_1 (equation 4), is the dashed line and the unit of the right axis. Below each
    optimizer's name stands the plateau of the last of the curves, as the claims have it, mean over seeds.
    """
    rows = in_order(displacement[displacement["i"].isna() | (displacement["i"] == 1)], layout)
    dataset = next(iter(rows["dataset"].astype(str)), "")
    shown = rows[rows["waiting_time"].isna() | rows["waiting_time"].isin(some_waiting_times(rows["waiting_time"]))]
    by = ["dataset", "optimizer", "waiting_time", "lag"]
    numbers = _with_baseline(summarize(shown, by, ["displacement"], spread=True, median=True), baseline)
    colors = sequence_colors(sorted(map(int, numbers["waiting_time"].unique())))
    grid = panel_grid(1, len(layout.optimizers), 1.35)
    tau = float(numbers["tau"].iloc[0]) if len(numbers) else math.nan
    names = []
    for column, (optimizer, label) in enumerate(layout.optimizers.items()):
        ax = grid.axes[0, column]
        own = numbers[numbers["optimizer"] == optimizer]
        _curves(ax, own, "displacement", colors, spread=True)
        names.append(f"{label}\n{_late_plateau(rows[rows['optimizer'] == optimizer], tau)}")
    grid.heads([layout.datasets.get(dataset, dataset)], names, gap=15)
    handles = _draw_baseline(grid.flat(), baseline, dataset)
    _axes(grid, numbers, "displacement", "$D_1(t_w, t_w + t)$", numbers[["displacement_max", "tau_high"]])
    _in_units_of(grid, tau)
    bottom_legend(grid.figure, [*waiting_time_handles(colors), *handles])
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)


def some_waiting_times(waiting_times: Iterable[float], count: int = CURVES) -> list[int]:
    """At most `count` of the waiting times: 0, the last one, and those nearest to a hundredth of it, and so on."""
    every = sorted({int(time) for time in waiting_times if not math.isnan(time)})
    positive = [time for time in every if time > 0]
    chosen = {time for time in every if time == 0}
    wanted = count - len(chosen)
    if len(positive) <= wanted:
        return every
    for target in np.geomspace(positive[-1], positive[0], wanted + 1)[:wanted]:
        left = [time for time in positive if time not in chosen]
        chosen.add(min(left, key=lambda time: abs(math.log(time / target))))
    return sorted(chosen)


def _late_plateau(rows: pd.DataFrame, tau: float) -> str:
    """The plateau at the late waiting time in units of tau_1, mean over seeds, in a few characters."""
    known = rows.dropna(subset=["lag"])
    found = [curves(run) for _, run in known.groupby("seed")]
    found = [run for run in found if not math.isnan(late_waiting_time(run))]
    if not found or math.isnan(tau):
        return ""
    value = float(np.mean([plateau(run) for run in found])) / tau
    return f"ends at {value:.2g}$\\,\\tau_1$"


def _in_units_of(grid: Grid, tau: float) -> None:
    """An axis right of the last panel, in units of tau_1."""
    if math.isnan(tau):
        return
    last = max(grid.axes)
    ax = grid.axes[last].secondary_yaxis(
        "right", functions=(lambda y: np.divide(y, tau), lambda y: np.multiply(y, tau))
    )
    ax.yaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: {0: "0", 1: "$\\tau_1$"}.get(value, f"{value:g}")))
    ax.tick_params(labelright=True, pad=1)


@styled
def weight_displacement(displacement: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 10: D_w(t_w, t_w + t) = |theta(t_w + t) - theta(t_w)|^2 / N against lag, not divided by gradient noise."""
    # It involves no eigenvector, so pairs that did not converge do not matter.
    rows = _first(displacement, layout).drop(columns="converged")
    numbers = summarize(rows, _BY, ["weight_displacement"])
    colors = sequence_colors(sorted(map(int, numbers["waiting_time"].unique())))
    grid = _by_dataset(numbers, layout, "weight_displacement", colors, spread=False)
    _axes(grid, numbers, "weight_displacement", "$D_w(t_w, t_w + t)$", numbers[["weight_displacement"]], log=True)
    names = [number_label(time) for time in colors]
    step_colorbar(grid.figure, grid.flat(), names, "waiting time $t_w$ (steps)")
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)


@styled
def two_time_alignment(displacement: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 11: alignment of v_1(t_w) with the weight change over the lag after t_w (equation 6).

    Mean and range over seeds, at a few waiting times; the paper's value of the alignment of one step as a line.
    """
    rows = _first(displacement, layout)
    shown = rows[rows["waiting_time"].isna() | rows["waiting_time"].isin(some_waiting_times(rows["waiting_time"]))]
    numbers = summarize(shown, _BY, ["update_alignment"], spread=True)
    colors = sequence_colors(sorted(map(int, numbers["waiting_time"].unique())))
    grid = _by_dataset(numbers, layout, "update_alignment", colors, spread=True)
    handles = waiting_time_handles(colors)
    papers = [ax for (row, _), ax in grid.axes.items() if paper_numbers.is_the_papers(list(layout.datasets)[row])]
    for ax in papers:
        # Of one step, so at the left end alone.
        ax.plot([0.8, 4], [paper_numbers.ONE_STEP_ALIGNMENT] * 2, color=PAPER, linewidth=1.2, gid="paper")
    if papers:
        handles.append(paper_handle(f"paper, $t = 1$: about {paper_numbers.ONE_STEP_ALIGNMENT:g}"))
    _axes(grid, numbers, "update_alignment", "alignment with $v_1(t_w)$", numbers[["update_alignment_max"]])
    bottom_legend(grid.figure, handles)
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)


@styled
def displacement_by_value(displacement: pd.DataFrame, baseline: pd.DataFrame, layout: Layout, sweep: str) -> Drawn:
    """Figures 20 and 21: D_1 against lag, one curve for each value of `sweep`, batch_size or learning_rate.

    A row of panels is one waiting time, so that values are compared at equal age and lag; the columns are optimizers.
    """
    rows = sweep_runs(displacement[displacement["i"].isna() | (displacement["i"] == 1)], sweep)
    rows = in_order(rows, layout)
    ages = shared_ages(rows)
    shown = rows[rows["waiting_time"].isna() | rows["waiting_time"].isin(ages)]
    by = ["dataset", "value", "variant", "optimizer", "batch_size", "learning_rate", "waiting_time", "lag"]
    numbers = _with_baseline(summarize(shown, by, ["displacement"], spread=True, median=True), baseline)
    dataset = next(iter(rows["dataset"].astype(str)), "")
    looks = sweep_looks(rows)
    grid = panel_grid(len(ages), len(layout.optimizers), 0.95)
    for row, age in enumerate(ages):
        for column, optimizer in enumerate(layout.optimizers):
            ax = grid.axes[row, column]
            own = numbers[(numbers["waiting_time"] == age) & (numbers["optimizer"] == optimizer)]
            if own.empty:
                no_data(ax)
            for rank, (variant, look) in enumerate(looks.items()):
                width = line_width(rank)
                line_with_range(ax, own[own["variant"] == variant], "lag", "displacement", linewidth=width, **look)
    grid.heads([f"$t_w = ${number_label(age)}" for age in ages], list(layout.optimizers.values()))
    handles = _draw_baseline(grid.flat(), baseline, dataset)
    _axes(grid, numbers, "displacement", "$D_1$", numbers[["displacement_max", "tau_high"]])
    bottom_legend(grid.figure, [*value_handles(rows, sweep, looks), *handles], title=NAMES[sweep])
    add_notes(grid.figure, notes(rows, layout))
    return drawn(grid.figure, numbers)


def shared_ages(rows: pd.DataFrame) -> list[int]:
    """At most `AGES` waiting times at which values of a sweep can be compared, one of them the last that all have."""
    known = rows.dropna(subset=["waiting_time"])
    counts = known[known["waiting_time"] > 0].groupby("waiting_time")["variant"].nunique()
    several = counts[counts >= min(2, counts.max())] if len(counts) else counts
    chosen = some_waiting_times(several.index, AGES)
    if len(every := several.index[several == several.max()]) and int(every.max()) not in chosen:
        nearest = min(chosen, key=lambda time: abs(math.log(time / every.max())))
        chosen = sorted({*chosen, int(every.max())} - {nearest})
    return chosen or [0]


_BY = ["dataset", "optimizer", "waiting_time", "lag"]


def _first(displacement: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    return in_order(displacement[displacement["i"].isna() | (displacement["i"] == 1)], layout)


def _by_dataset(numbers: pd.DataFrame, layout: Layout, value: str, colors: Mapping[int, str], *, spread: bool) -> Grid:
    """One panel a dataset (row) and optimizer (column), one curve a waiting time."""
    grid = panel_grid(len(layout.datasets), len(layout.optimizers))
    for row, dataset in enumerate(layout.datasets):
        for column, optimizer in enumerate(layout.optimizers):
            own = numbers[(numbers["dataset"] == dataset) & (numbers["optimizer"] == optimizer)]
            _curves(grid.axes[row, column], own, value, colors, spread=spread)
    grid.heads(list(layout.datasets.values()), list(layout.optimizers.values()))
    return grid


def _with_baseline(numbers: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """Put tau_1 of the row's dataset and its interval beside each row."""
    first = baseline[baseline["i"] == 1].set_index("dataset")
    for name, column in (("tau", "displacement"), ("tau_low", "displacement_low"), ("tau_high", "displacement_high")):
        numbers[name] = numbers["dataset"].map(first[column]).astype(float)
    return numbers


def _draw_baseline(axes: Sequence[Axes], baseline: pd.DataFrame, dataset: str) -> list[Artist]:
    """Draw tau_1 in every panel; its legend entry with the paper's value, none if there is no such baseline."""
    chosen = baseline[(baseline["i"] == 1) & (baseline["dataset"] == dataset)].dropna(subset=["displacement"])
    if chosen.empty:
        return []
    tau = float(chosen["displacement"].iloc[0])
    for ax in axes:
        ax.axhline(tau, color=BASELINE, linestyle="--", linewidth=0.9, zorder=4, gid="baseline")
    label = "random baseline $\\tau_1$"
    if (theirs := paper_numbers.DISPLACEMENT.get(dataset)) is not None:
        label = f"$\\tau_1 = {tau * 1e5:.4f}$ (paper: {theirs * 1e5:.4f}) $\\times 10^{{-5}}$"
    return [Line2D([], [], color=BASELINE, linestyle="--", label=label)]


def _axes(
    grid: Grid, numbers: pd.DataFrame, value: str, label: str, in_sight: pd.DataFrame, *, log: bool = False
) -> None:
    """The same axes in all panels, logarithmic in the lag, from 0 in the value unless `log`."""
    values = in_sight.to_numpy(float)
    values = values[np.isfinite(values)]
    top = float(values.max()) if values.size else 1.0
    positive = values[values > 0]
    longest = float(numbers["lag"].max()) if len(numbers) else 10.0
    for ax in grid.flat():
        ax.set_xscale("log")
        ax.set_xlim(0.8, max(1.25 * longest, 2.0))
        log_axis(ax.xaxis, ticks=4)
        if log and positive.size:
            ax.set_yscale("log")
            ax.set_ylim(float(positive.min()) / 1.5, top * 1.5)
            log_axis(ax.yaxis, ticks=4)
        else:
            ax.set_ylim(0, top * 1.06 if top > 0 else 1.0)
    if not log:
        label = [linear_axis(ax.yaxis, label, top) for ax in grid.flat()][-1]
    grid.labels("lag $t$ (steps)", label)


def _curves(ax: Axes, rows: pd.DataFrame, value: str, colors: Mapping[int, str], *, spread: bool = False) -> None:
    if rows[value].notna().sum() == 0:
        no_data(ax)
    for waiting_time in sorted(rows["waiting_time"].unique()):
        chosen = rows[rows["waiting_time"] == waiting_time]
        draw = line_with_range if spread else curve
        draw(ax, chosen, "lag", value, color=colors[int(waiting_time)], linewidth=0.9)
