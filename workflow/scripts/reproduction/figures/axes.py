"""One panel: its title, the scales of its axes, and the marks that several figures share."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogFormatterMathtext,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    SymmetricalLogLocator,
)

from reproduction.figures.style import FONT_SIZE, NEUTRAL, UNCONVERGED, shade

# A range of values wider than this ratio is drawn on a logarithmic axis.
WIDE = 30.0
# Characters that have room in the width of a figure without its axes, and those of mathtext that take none.
_TITLE = 54
_UNSEEN = str.maketrans("", "", "$_{}\\")


def letter(position: int, text: str) -> str:
    """A panel title with its letter: "(a) text" for position 0."""
    return f"({chr(ord('a') + position)}) {text}"


def panel_title(ax: Axes, *parts: str) -> None:
    """Title a panel with its parts, on as many lines as they take in the panel's width."""
    spot = ax.get_subplotspec()
    columns = spot.get_gridspec().ncols if spot else 1
    lines: list[str] = []
    for part in (part for part in parts if part):
        joined = f"{lines[-1]}, {part}" if lines else part
        fits = len(joined.translate(_UNSEEN)) <= _TITLE // columns
        # A formula is in one piece.
        words = [part] if "$" in part else textwrap.wrap(part, max(_TITLE // columns, 1))
        lines = [*lines[:-1], joined] if lines and fits else [*lines, *words]
    ax.set_title("\n".join(lines))


def no_data(ax: Axes) -> None:
    """Say so in a panel that has nothing to show."""
    ax.text(0.5, 0.5, "no data", transform=ax.transAxes, ha="center", va="center", color="#777777")


def number_label(number: float) -> str:
    """A number as a tick shows it: 0.003, 300, $10^4$, $5\\times10^4$."""
    if number == 0 or 1e-3 <= abs(number) < 1e4:
        return f"{number:g}"
    exponent = math.floor(math.log10(abs(number)) + 1e-9)
    mantissa = f"{number / 10.0**exponent:g}"
    if len(mantissa) > 3:
        return f"{number:.0f}" if abs(number) >= 1 else f"{number:g}"
    return f"$10^{{{exponent}}}$" if mantissa == "1" else f"${mantissa}{{\\times}}10^{{{exponent}}}$"


def linear_axis(axis: Axis, label: str, largest: float, *, ticks: int = 4) -> str:
    """Ticks in units of a power of ten where numbers are long; the axis label, which names that unit."""
    axis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]))
    if not np.isfinite(largest) or largest <= 0:
        return label
    exponent = math.floor(math.log10(largest) + 1e-9)
    if -2 <= exponent < 4:
        return label
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 10.0**exponent:.6g}"))
    return f"{label} ($10^{{{exponent}}}$)"


def log_axis(axis: Axis, *, ticks: int = 5) -> None:
    """Decades on an axis that is logarithmic already; minor ticks have labels only where there are too few decades."""
    low, high = sorted(axis.get_view_interval())
    axis.set_major_formatter(LogFormatterMathtext())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_locator(LogLocator(numticks=ticks))
    if low > 0 and math.floor(math.log10(high)) - math.ceil(math.log10(low)) < 1:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=ticks))
        axis.set_major_formatter(FuncFormatter(lambda value, _: number_label(value)))


def is_wide(values: Iterable[float]) -> bool:
    """Whether positive values span so many times their smallest that an axis should be logarithmic."""
    array = np.asarray(list(values), dtype=float)
    array = array[np.isfinite(array)]
    return bool(array.size and array.min() > 0 and array.max() > WIDE * array.min())


def value_axis(axes: Sequence[Axes], values: Iterable[float], label: str, *, logarithmic: bool | None = None) -> str:
    """Scale the y axes of panels by what they show, logarithmic if the range is wide or `log` says so; their label."""
    listed = [value for value in values if np.isfinite(value)]
    positive = [value for value in listed if value > 0]
    if positive and (is_wide(listed) if logarithmic is None else logarithmic):
        for ax in axes:
            ax.set_yscale("log")
            ax.set_ylim(min(positive) / 1.4, max(positive) * 1.4)
            log_axis(ax.yaxis)
        return label
    largest = max(map(abs, listed), default=0.0)
    return [linear_axis(ax.yaxis, label, largest) for ax in axes][-1]


def step_axis(axes: Sequence[Axes], steps: pd.Series, *, logarithmic: bool = False) -> str:
    """Scale the x axes of panels for training steps, which start at 0; their label."""
    largest = max(float(steps.max()), 1.0) if len(steps) else 1.0
    label = "training step"
    for ax in axes:
        if logarithmic:
            # Step 0 has no place on a logarithm: it is a tick left of step 1.
            decades = math.log10(largest)
            ax.set_xscale("symlog", linthresh=1, linscale=max(0.4, 0.16 * decades))
            ticks = [10.0**decade for decade in range(0, math.floor(decades) + 1, 1 if decades < 4.3 else 2)]
            ax.xaxis.set_major_locator(FixedLocator([0.0, *ticks]))
            ax.xaxis.set_minor_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=range(2, 10)))
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.set_xlim(-0.2, largest * 1.3)
        else:
            label = linear_axis(ax.xaxis, "training step", largest)
            ax.set_xlim(-0.03 * largest, 1.03 * largest)
    return label


def top_of(values: np.ndarray) -> float:
    """The upper end of an axis from 0 that has all of `values` in sight; 1 if there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.max()) * 1.06 if finite.size and finite.max() > 0 else 1.0


def square_axes(axes: Sequence[Axes], values: np.ndarray) -> None:
    """Both axes of all panels from 0 to the same end, at the same scale."""
    for ax in axes:
        ax.set_xlim(0, top_of(values))
        ax.set_ylim(0, top_of(values))
        ax.set_aspect("equal")
        linear_axis(ax.xaxis, "", 1.0)
        linear_axis(ax.yaxis, "", 1.0)


def diagonal(ax: Axes) -> None:
    """The line on which both axes are equal."""
    ax.axline((0, 0), slope=1, color=NEUTRAL, linestyle="--", linewidth=0.8, zorder=1)


def category_axis(ax: Axes, names: Sequence[str], width: float) -> bool:
    """Names at x = 0, 1, ...; without them, and False, if they have no room in an axis of `width` inches."""
    room = width * 72 / max(len(names), 1)
    fit = all(len(name) * 0.62 * FONT_SIZE < room for name in names)
    ax.set_xticks(range(len(names)), names if fit else [""] * len(names))
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.set_xlabel("optimizer")
    ax.grid(visible=False, axis="x")
    return fit


def cross_unconverged(ax: Axes, x: pd.Series, y: pd.Series, unconverged: pd.Series) -> None:
    """Cross the points of a line that an eigenpair which did not converge went into."""
    hit = (unconverged > 0) & y.notna()
    if hit.any():
        look: dict[str, Any] = {"linestyle": "none", "marker": "x", "markersize": 4, "markeredgewidth": 0.8}
        ax.plot(x[hit], y[hit], color=UNCONVERGED, gid="unconverged", zorder=6, **look)


def hollow_unconverged(
    ax: Axes, x: pd.Series, y: pd.Series, unconverged: pd.Series, *, color: str, **look: Any
) -> None:
    """Whiten the inside of those points, of the given look, that an eigenpair which did not converge went into."""
    hit = (unconverged > 0) & x.notna() & y.notna()
    if hit.any():
        look = look | {
            "linestyle": "none",
            "markerfacecolor": "white",
            "markeredgecolor": color,
            "markeredgewidth": 0.9,
        }
        ax.plot(x[hit], y[hit], gid="unconverged", zorder=5, **look)


def points(ax: Axes, x: pd.Series, y: pd.Series, unconverged: pd.Series, *, color: str, **look: Any) -> None:
    """Draw points, hollow where an eigenpair did not converge; a thin white rim parts points that overlap."""
    rim: dict[str, Any] = {"linestyle": "none", "markeredgecolor": "white", "markeredgewidth": 0.4}
    ax.plot(x, y, color=color, gid="data", **(rim | look))
    hollow_unconverged(ax, x, y, unconverged, color=color, **look)


def line_with_range(ax: Axes, rows: pd.DataFrame, x: str, y: str, **line: Any) -> None:
    """Draw `y` of `summarize(..., spread=True)` against `x`, its range as a band, its unconverged points."""
    known = rows.dropna(subset=[y])
    ax.fill_between(known[x], known[f"{y}_min"], known[f"{y}_max"], color=line["color"], alpha=0.13, linewidth=0)
    curve(ax, known, x, y, **line)


def curve(ax: Axes, rows: pd.DataFrame, x: str, y: str, **line: Any) -> None:
    """Draw `y` of `summarize(...)` against `x`, over missing values, with its unconverged points."""
    known = rows.dropna(subset=[y])
    # A line through one point would show nothing.
    dot: dict[str, Any] = {"marker": "o", "markersize": 3} if len(known) == 1 else {}
    ax.plot(known[x], known[y], gid="data", **(dot | line))
    cross_unconverged(ax, known[x], known[y], known["n_unconverged"])


def rank_line(color: str, index: int, indices: Sequence[int]) -> dict[str, Any]:
    """How eigenvector `index` of `indices` is drawn in an optimizer's colour: paler, and behind, for a higher index."""
    rank = list(indices).index(index)
    return {"color": shade(color, rank, len(indices)), "zorder": 3 - 0.1 * rank}
