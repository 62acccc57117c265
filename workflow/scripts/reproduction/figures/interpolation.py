"""Figure 8: the loss between the optimizers' best solutions, and how sharp these are."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D

from reproduction.experiment.labels import Layout
from reproduction.figures.axes import category_axis, letter, no_data, number_label, panel_title, top_of, value_axis
from reproduction.figures.panels import Drawn, bottom_legend, drawn, new_figure
from reproduction.figures.style import CURVATURE, NEUTRAL, TEXT_WIDTH, marker, optimizer_colors, styled
from reproduction.figures.summaries import in_order

WIDTHS = (2.2, 1.0, 1.25)
LINES: tuple[Any, ...] = ("-", "--", ":", "-.")


@styled
def draw_interpolation(losses: pd.DataFrame, solutions: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure 8: L(alpha theta_A + (1 - alpha) theta_B) on training and test set (equation 5), one row a dataset.

    Beside it the largest eigenvalue and the epsilon-sharpness (Keskar et al. 2017, equation 4) of each solution. Each
    line has B's colour up to alpha = 1/2 and A's from there. `losses` is the table interpolation.
    """
    losses, solutions = in_order(losses, layout), in_order(solutions, layout)
    rows = len(layout.datasets)
    figure = new_figure(TEXT_WIDTH, 1.9 * rows + 0.2)
    spec = figure.add_gridspec(rows, len(WIDTHS), width_ratios=WIDTHS)
    epsilons = sorted(solutions["epsilon"].dropna().unique(), reverse=True)
    pairs = losses[["first", "second"]].drop_duplicates().itertuples(index=False, name=None)
    looks = {pair: LINES[position % len(LINES)] for position, pair in enumerate(pairs)}
    for row, (dataset, label) in enumerate(layout.datasets.items()):
        left, middle, right = (figure.add_subplot(spec[row, column]) for column in range(len(WIDTHS)))
        panel_title(left, letter(row, label))
        _draw_losses(left, losses[losses["dataset"] == dataset], layout, looks)
        chosen = solutions[solutions["dataset"] == dataset]
        _draw_solutions(middle, chosen.drop_duplicates("optimizer"), "lambda_1", 0, layout)
        middle.set_ylabel(_value_axis(middle, chosen["lambda_1"], f"$\\lambda_1$ ({CURVATURE})"))
        for rank, epsilon in enumerate(epsilons):
            _draw_solutions(right, chosen[chosen["epsilon"] == epsilon], "sharpness", rank, layout)
        right.set_ylabel(_value_axis(right, chosen["sharpness"], "$\\epsilon$-sharpness (%)"))
    _legend(figure, losses, layout, looks, epsilons)
    return drawn(figure, _numbers(losses, solutions))


_COLUMNS = ["dataset", "first", "second", "alpha", "loss", "optimizer", "seed", "lambda_1", "epsilon", "sharpness"]


def _numbers(losses: pd.DataFrame, solutions: pd.DataFrame) -> pd.DataFrame:
    """Both tables below each other; columns that a row does not have are empty."""
    parts = [losses[["dataset", "first", "second", "alpha", "loss"]]]
    parts.append(solutions[["dataset", "optimizer", "seed", "lambda_1", "epsilon", "sharpness"]])
    text = [part.astype({column: str for column in ("dataset", "optimizer") if column in part}) for part in parts]
    numbers = pd.concat(text, ignore_index=True)[_COLUMNS]
    numbers["seed"] = numbers["seed"].astype("Int64")
    return numbers


def _value_axis(ax: Axes, values: pd.Series, label: str) -> str:
    """Scale a y axis; from 0, so that heights compare, unless it is logarithmic."""
    label = value_axis([ax], values, label)
    if ax.get_yscale() == "linear":
        ax.set_ylim(min(0.0, float(values.min())) if values.notna().any() else 0.0, top_of(values.to_numpy(float)))
    return label


def _draw_losses(ax: Axes, losses: pd.DataFrame, layout: Layout, looks: Mapping[tuple[str, str], Any]) -> None:
    colors = optimizer_colors(layout.optimizers)
    for (first, second), look in looks.items():
        line = losses[(losses["first"] == first) & (losses["second"] == second)].sort_values("alpha")
        alpha = line["alpha"]
        # The two halves meet at the grid point nearest to the middle.
        middle = float(alpha.iloc[(alpha - 0.5).abs().argmin()]) if len(alpha) else 0.5
        for optimizer, half in ((second, line[alpha <= middle]), (first, line[alpha >= middle])):
            ax.plot(half["alpha"], half["loss"], color=colors.get(optimizer, NEUTRAL), linestyle=look, gid="data")
    if losses["loss"].notna().sum() == 0:
        no_data(ax)
    for end in (0.0, 1.0):
        ax.axvline(end, color=NEUTRAL, linewidth=0.6, linestyle=":", zorder=1)
    ax.set_xlabel("$\\alpha$ (arrow: from 0 to 1)")
    ax.set_ylabel(value_axis([ax], losses["loss"], "loss, train + test (nat)"))


def _draw_solutions(ax: Axes, rows: pd.DataFrame, value: str, rank: int, layout: Layout) -> None:
    colors = optimizer_colors(layout.optimizers)
    for position, optimizer in enumerate(layout.optimizers):
        chosen = rows[rows["optimizer"] == optimizer]
        look: dict[str, Any] = {"linestyle": "none", "marker": marker(rank), "markersize": 5}
        ax.plot(np.full(len(chosen), position), chosen[value], color=colors[optimizer], gid=value, **look)
    category_axis(ax, list(layout.optimizers.values()), 1.1)


def _legend(
    figure: Any, losses: pd.DataFrame, layout: Layout, looks: Mapping[tuple[str, str], Any], epsilons: list[float]
) -> None:
    colors = optimizer_colors(layout.optimizers)
    handles: list[Any] = []
    names: list[str] = []
    for (first, second), look in looks.items():
        halves = [Line2D([], [], color=colors.get(name, NEUTRAL), linestyle=look) for name in (second, first)]
        handles.append(tuple(halves))
        names.append(" \N{RIGHTWARDS ARROW} ".join(layout.optimizers.get(name, name) for name in (second, first)))
    handles += [Line2D([], [], color=NEUTRAL, linestyle="none", marker=marker(r)) for r in range(len(epsilons))]
    names += [f"$\\epsilon = ${number_label(epsilon)}" for epsilon in epsilons]
    bottom_legend(figure, handles, labels=names, handler_map={tuple: HandlerTuple(ndivide=None, pad=0)}, handlelength=3)
