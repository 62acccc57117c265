"""Figure 17: gradient and update alignment for varying batch size and learning rate."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reproduction.experiment.labels import Layout
from reproduction.figures.alignment import GRADIENT, UPDATE
from reproduction.figures.axes import hollow_unconverged, linear_axis, no_data, number_label, top_of
from reproduction.figures.panels import Drawn, add_notes, bottom_legend, drawn, optimizer_handles, panel_grid
from reproduction.figures.style import NEUTRAL, optimizer_colors, styled
from reproduction.figures.summaries import HOLLOW, in_order, notes, summarize_runs
from reproduction.figures.sweeps import NAMES, is_full_batch, sweep_runs, sweep_variants

SWEEPS = ("batch_size", "learning_rate")
BY = ["dataset", "optimizer", "value", "variant", "batch_size", "learning_rate", "i"]
LOOKS: dict[str, dict[str, Any]] = {
    GRADIENT: {"marker": "o", "markersize": 3.0, "linestyle": "-"},
    UPDATE: {"marker": "s", "markersize": 3.0, "linestyle": "--"},
}


@styled
def update_against_gradient_by_value(alignment: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 17: run-mean alignments over (a) batch sizes and (b) learning rates, mean and range over seeds.

    The columns are the leading eigenvectors. The full batch stands apart: its runs are shorter, so that its mean is
    over younger snapshots, and no line joins it to the others. `alignment` has the runs of both sweeps.
    """
    leading = in_order(alignment[alignment["i"].isna() | alignment["i"].isin(layout.leading)], layout)
    grid = panel_grid(len(SWEEPS), len(layout.leading), 1.1, share_x=False)
    frames = []
    for row, sweep in enumerate(SWEEPS):
        rows = sweep_runs(leading, sweep)
        numbers = summarize_runs(rows, BY, [GRADIENT, UPDATE])
        variants = sweep_variants(rows)
        full = [v for v in variants if is_full_batch(rows[rows["variant"] == v]) and len(variants) > 1]
        for column, i in enumerate(layout.leading):
            ax = grid.axes[row, column]
            own = numbers[numbers["i"] == i]
            if own.empty:
                no_data(ax)
            for optimizer, color in optimizer_colors(layout.optimizers).items():
                _draw(ax, own[own["optimizer"] == optimizer], variants, full, color)
            ax.set_xticks(range(len(variants)), [_tick(rows[rows["variant"] == v], sweep) for v in variants])
            ax.set_xlim(-0.4, len(variants) - 0.6)
            ax.set_xlabel(NAMES[sweep])
            ax.tick_params(axis="x", labelbottom=True)
        numbers.insert(0, "sweep", sweep)
        frames.append(numbers)
    numbers = pd.concat(frames, ignore_index=True)
    top = top_of(numbers[[f"{value}_max" for value in (GRADIENT, UPDATE)]].to_numpy(float))
    for ax in grid.flat():
        ax.set_ylim(0, top)
        linear_axis(ax.yaxis, "", 1.0)
    grid.heads(["", ""], [f"$i = {i}$" for i in layout.leading])
    grid.labels("", "alignment, run mean")
    bottom_legend(grid.figure, [*optimizer_handles(layout), *_kinds()])
    add_notes(grid.figure, notes(leading, layout, HOLLOW))
    return drawn(grid.figure, numbers)


def _draw(ax: Axes, numbers: pd.DataFrame, variants: Sequence[str], full: Sequence[str], color: str) -> None:
    order = {variant: rank for rank, variant in enumerate(variants)}
    rows = numbers.assign(x=numbers["variant"].map(order)).sort_values("x")
    for value, look in LOOKS.items():
        for apart in (True, False):
            own = rows[rows["variant"].isin(full) == apart]
            line = look | {"linestyle": "none"} if apart else look
            ax.plot(own["x"], own[value], color=color, linewidth=0.8, markeredgewidth=0, gid="data", **line)
            if apart:
                ax.vlines(own["x"], own[f"{value}_min"], own[f"{value}_max"], color=color, linewidth=0.7)
            else:
                low, high = (own[f"{value}{end}"].to_numpy(float) for end in ("_min", "_max"))
                ax.fill_between(own["x"], low, high, color=color, alpha=0.13, linewidth=0)
        shape = {"marker": look["marker"], "markersize": look["markersize"]}
        hollow_unconverged(ax, rows["x"], rows[value], rows["n_unconverged"], color=color, **shape)


def _tick(rows: pd.DataFrame, sweep: str) -> str:
    value = float(rows["value"].iloc[0])
    if sweep == "learning_rate":
        return f"\N{MULTIPLICATION SIGN}{value:g}"
    return "full" if is_full_batch(rows) else number_label(value)


def _kinds() -> list[Artist]:
    names = {GRADIENT: "gradient", UPDATE: "update"}
    return [Line2D([], [], color=NEUTRAL, label=names[value], **look) for value, look in LOOKS.items()]
