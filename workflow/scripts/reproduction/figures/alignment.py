"""How much of gradient and update points along the leading eigenvectors (figures 2, 12, 13, 14; equations 7 and 8).

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

from reproduction.experiment import paper_numbers
from reproduction.experiment.labels import Layout
from reproduction.figures.axes import (
    diagonal,
    hollow_unconverged,
    linear_axis,
    no_data,
    points,
    rank_line,
    step_axis,
    top_of,
)
from reproduction.figures.localization import with_all_pairs
from reproduction.figures.panels import (
    Drawn,
    add_notes,
    bottom_legend,
    diagonal_handle,
    drawn,
    optimizer_handles,
    panel_grid,
    paper_handle,
    rank_handles,
)
from reproduction.figures.style import NEUTRAL, PAPER, PAPER_LINE, marker, optimizer_colors, styled
from reproduction.figures.summaries import (
    HOLLOW,
    in_order,
    incomplete_note,
    notes,
    standard_error,
    summarize,
    unconverged_note,
)

GRADIENT, UPDATE = "gradient_alignment", "update_alignment"
LABELS = {GRADIENT: "gradient", UPDATE: "update"}
RUN_BY = ["dataset", "optimizer", "i", "seed"]
# Figure 12: means over this many equal parts of the training.
PARTS = 10
ERROR: dict[str, Any] = {"linestyle": "none", "elinewidth": 0.6, "capsize": 0}


@styled
def update_against_gradient(alignment: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 2: run-mean gradient against run-mean update alignment, mean over seeds with its standard error.

    One point an optimizer and eigenvector, as in the paper, and the line where the two agree. `alignment` has the main
    runs.
    """
    rows = _leading(alignment, layout)
    runs = summarize(rows, RUN_BY, [GRADIENT, UPDATE])
    numbers = _over_seeds(runs)
    colors = optimizer_colors(layout.optimizers)
    grid = panel_grid(1, len(layout.datasets), 1.45)
    for column, dataset in enumerate(layout.datasets):
        ax = grid.axes[0, column]
        diagonal(ax)
        for optimizer in layout.optimizers:
            for rank, i in enumerate(layout.leading):
                own = numbers[(numbers["dataset"] == dataset) & (numbers["optimizer"] == optimizer)]
                own = own[own["i"] == i]
                bars: dict[str, Any] = {"xerr": own[f"{UPDATE}_error"], "yerr": own[f"{GRADIENT}_error"]}
                ax.errorbar(own[UPDATE], own[GRADIENT], ecolor=colors[optimizer], **bars, **ERROR)
                look: dict[str, Any] = {"color": colors[optimizer], "marker": marker(rank), "markersize": 3.6}
                points(ax, own[UPDATE], own[GRADIENT], own["n_unconverged"], **look)
        _paper_point(ax, dataset)
    theirs = [v for (d, _), v in paper_numbers.GRADIENT_ALIGNMENT.items() if d in layout.datasets]
    top = top_of(np.concatenate([numbers[[GRADIENT, UPDATE]].to_numpy(float).ravel(), theirs])) * 1.06
    for ax in grid.flat():
        ax.set_xlim(0, top)
        ax.set_ylim(0, top)
        linear_axis(ax.xaxis, "", 1.0)
        linear_axis(ax.yaxis, "", 1.0)
    grid.heads([""], list(layout.datasets.values()))
    grid.labels("update alignment", "gradient alignment")
    handles = [*optimizer_handles(layout), *_index_handles(layout.leading), diagonal_handle()]
    if theirs:
        handles.append(paper_handle("paper: Adam, $i = 1$", marker="x", markersize=4))
    bottom_legend(grid.figure, handles)
    add_notes(grid.figure, notes(rows, layout, HOLLOW))
    return drawn(grid.figure, numbers)


def _over_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of run means, with the standard error of each."""
    by = ["dataset", "optimizer", "i"]
    groups = runs.groupby(by, sort=False)
    numbers = groups[[GRADIENT, UPDATE]].mean()
    for value in (GRADIENT, UPDATE):
        numbers[f"{value}_error"] = groups[value].apply(standard_error)
    numbers["n"] = groups.size()
    for count in ("n_unconverged", "n_nan"):
        numbers[count] = groups[count].sum()
    return numbers.reset_index()


def _paper_point(ax: Axes, dataset: str) -> None:
    for (name, optimizer), gradient in paper_numbers.GRADIENT_ALIGNMENT.items():
        if name == dataset:
            update = paper_numbers.UPDATE_ALIGNMENT[name, optimizer]
            ax.plot([update], [gradient], color=PAPER, marker="x", markersize=4.5, linestyle="none", gid="paper")


@styled
def alignment_over_training(alignment: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 12: both alignments during the run of the dense seed: every snapshot of i = 1, and means of equal parts.

    The rows are gradient and update, the columns the optimizers; of the one dataset given. A bar is the standard error
    of the mean of a tenth of the training, of which the snapshots are taken to be independent.
    """
    rows = _leading(alignment[alignment["seed"] == layout.dense_seed], layout)
    numbers = summarize(rows, ["dataset", "optimizer", "i", "step"], [GRADIENT, UPDATE])
    last = float(rows["steps"].max()) if len(rows) else 1.0
    numbers["part"] = np.minimum(numbers["step"] * PARTS // last, PARTS - 1).astype("int64")
    groups = numbers.groupby(["optimizer", "i", "part"])
    for value in (GRADIENT, UPDATE):
        numbers[f"{value}_mean"] = groups[value].transform("mean")
        numbers[f"{value}_error"] = groups[value].transform(standard_error)
    dataset = next(iter(rows["dataset"].astype(str)), "")
    colors = optimizer_colors(layout.optimizers)
    grid = panel_grid(2, len(layout.optimizers), 1.05)
    for row, value in enumerate((GRADIENT, UPDATE)):
        for column, optimizer in enumerate(layout.optimizers):
            ax = grid.axes[row, column]
            chosen = numbers[numbers["optimizer"] == optimizer]
            if chosen.empty:
                no_data(ax)
            for rank, i in enumerate(layout.leading):
                own = chosen[chosen["i"] == i]
                look = rank_line(colors[optimizer], i, layout.leading)
                if rank == 0:
                    dots: dict[str, Any] = {"marker": ".", "markersize": 1.2, "linestyle": "none", "alpha": 0.45}
                    ax.plot(own["step"], own[value], color=look["color"], gid="data", zorder=2, **dots)
                    hollow_unconverged(
                        ax, own["step"], own[value], own["n_unconverged"], color=look["color"], marker="o", markersize=2
                    )
                parts = own.drop_duplicates("part")
                at = (parts["part"] + 0.5 + 0.16 * (rank - 1)) * last / PARTS
                line = {"linewidth": 1.0, "elinewidth": 0.7, "color": look["color"]}
                ax.errorbar(at, parts[f"{value}_mean"], yerr=parts[f"{value}_error"], zorder=4 - 0.1 * rank, **line)
    first = numbers[numbers["i"] == 1]
    shown = [first[[GRADIENT, UPDATE]].to_numpy(float).ravel(), numbers[[f"{GRADIENT}_mean"]].to_numpy(float).ravel()]
    _from_zero(grid.flat(), np.concatenate(shown))
    grid.heads(list(LABELS.values()), list(layout.optimizers.values()))
    grid.labels(step_axis(grid.flat(), numbers["step"]), "alignment with $v_i$")
    dot = Line2D([], [], color=NEUTRAL, marker=".", linestyle="none", label="snapshots, $i = 1$")
    bottom_legend(grid.figure, [*rank_handles(layout.leading), dot], title=layout.datasets.get(dataset, dataset))
    add_notes(grid.figure, notes(rows[rows["i"].isna() | (rows["i"] == 1)], layout, HOLLOW))
    return drawn(grid.figure, numbers)


@styled
def run_means(alignment: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 13: run-mean alignments against i, one point a seed and a bar at their mean; gradient above update."""
    rows = _leading(alignment, layout)
    numbers = summarize(rows, RUN_BY, [GRADIENT, UPDATE])
    by = ["dataset", "optimizer", "i"]
    for value in (GRADIENT, UPDATE):
        numbers[f"{value}_mean"] = numbers.groupby(by)[value].transform("mean")
    colors = optimizer_colors(layout.optimizers)
    grid = panel_grid(2, len(layout.datasets), 1.15)
    count = len(layout.optimizers)
    for row, value in enumerate((GRADIENT, UPDATE)):
        for column, dataset in enumerate(layout.datasets):
            ax = grid.axes[row, column]
            for position, optimizer in enumerate(layout.optimizers):
                own = numbers[(numbers["dataset"] == dataset) & (numbers["optimizer"] == optimizer)]
                # Optimizers side by side around each i, and the seeds of each too.
                center = own["i"] + 0.75 * ((position + 0.5) / count - 0.5)
                x = center + 0.6 / count * (own.groupby("i").cumcount() / max(own["seed"].nunique(), 1) - 0.4)
                look: dict[str, Any] = {"color": colors[optimizer], "marker": marker(position), "markersize": 2.8}
                points(ax, x, own[value], own["n_unconverged"], **look)
                for middle, mean in zip(center, own[f"{value}_mean"], strict=True):
                    half = 0.36 / count
                    ax.plot([middle - half, middle + half], [mean, mean], color=colors[optimizer], linewidth=0.9)
                theirs = paper_numbers.GRADIENT_ALIGNMENT if value == GRADIENT else paper_numbers.UPDATE_ALIGNMENT
                if (dataset, optimizer) in theirs and len(center):
                    at = 1 + 0.75 * ((position + 0.5) / count - 0.5)
                    cross: dict[str, Any] = {"marker": "x", "markersize": 4, "linestyle": "none"}
                    ax.plot([at], [theirs[dataset, optimizer]], color=PAPER, zorder=7, gid="paper", **cross)
            if paper_numbers.is_the_papers(dataset):
                ax.axhline(paper_numbers.ISOTROPIC_ALIGNMENT, color=NEUTRAL, linestyle=":", linewidth=0.8, zorder=1)
            ax.set_xticks(layout.leading)
            ax.set_xlim(0.5, len(layout.leading) + 0.5)
            ax.grid(visible=False, axis="x")
    _from_zero(grid.flat(), numbers[[GRADIENT, UPDATE]].to_numpy(float))
    grid.heads(list(LABELS.values()), list(layout.datasets.values()))
    grid.labels("eigenvector index $i$", "alignment, run mean")
    bottom_legend(grid.figure, [*_marked_handles(layout), *_paper_handles(layout)])
    add_notes(grid.figure, notes(rows, layout, HOLLOW))
    return drawn(grid.figure, numbers)


def _paper_handles(layout: Layout, *, point: bool = True) -> list[Artist]:
    if not any(map(paper_numbers.is_the_papers, layout.datasets)):
        return []
    line = Line2D([], [], color=NEUTRAL, linestyle=":", linewidth=0.8, label="$1/k = 0.1$")
    return [*([paper_handle("paper, Adam", marker="x", markersize=4)] if point else []), line]


@styled
def means_of_many(alignment: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 14: mean alignments of the dense seed against i = 1..dense_k, with their standard errors over snapshots.

    Means are over the snapshots that have all pairs, so that every i is averaged over the same ones, which are taken
    to be independent. Gradient above update, one column a dataset.
    """
    dense = in_order(alignment[alignment["seed"] == layout.dense_seed], layout)
    rows = with_all_pairs(dense)
    numbers = summarize(rows, RUN_BY, [GRADIENT, UPDATE])
    errors = rows.dropna(subset=["i"]).groupby(RUN_BY, observed=True)[[GRADIENT, UPDATE]].agg(standard_error)
    errors = errors.rename(columns=lambda value: f"{value}_error").reset_index()
    numbers = numbers.merge(errors.astype({"dataset": str, "optimizer": str}), how="left", on=RUN_BY)
    colors = optimizer_colors(layout.optimizers)
    grid = panel_grid(2, len(layout.datasets), 1.15)
    for row, value in enumerate((GRADIENT, UPDATE)):
        for column, dataset in enumerate(layout.datasets):
            ax = grid.axes[row, column]
            for position, optimizer in enumerate(layout.optimizers):
                own = numbers[(numbers["dataset"] == dataset) & (numbers["optimizer"] == optimizer)]
                x = own["i"] + 0.22 * (position - (len(layout.optimizers) - 1) / 2)
                ax.errorbar(x, own[value], yerr=own[f"{value}_error"], ecolor=colors[optimizer], **ERROR)
                look: dict[str, Any] = {"color": colors[optimizer], "marker": marker(position), "markersize": 2.6}
                joined = look | {"linestyle": "-", "linewidth": 0.6}
                points(ax, x, own[value], own["n_unconverged"], **joined)
            if paper_numbers.is_the_papers(dataset):
                ax.axhline(paper_numbers.ISOTROPIC_ALIGNMENT, color=NEUTRAL, linestyle=":", linewidth=0.8, zorder=1)
                # "A mild transition around i >= 10".
                ax.axvline(9.5, zorder=1, gid="paper", **PAPER_LINE)
            ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    _from_zero(grid.flat(), numbers[[GRADIENT, UPDATE]].to_numpy(float))
    grid.heads(list(LABELS.values()), list(layout.datasets.values()))
    grid.labels("eigenvector index $i$", "alignment, mean")
    handles = [*_marked_handles(layout), *_paper_handles(layout, point=False)]
    if any(map(paper_numbers.is_the_papers, layout.datasets)):
        handles.append(paper_handle("paper: transition"))
    bottom_legend(grid.figure, handles)
    add_notes(grid.figure, unconverged_note(rows, HOLLOW) + incomplete_note(dense, layout))
    return drawn(grid.figure, numbers)


def _leading(alignment: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    return in_order(alignment[alignment["i"].isna() | alignment["i"].isin(layout.leading)], layout)


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
