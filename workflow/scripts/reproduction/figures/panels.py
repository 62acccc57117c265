"""The whole figure: its panels, legends, colour bars and notes."""

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reproduction.experiment.labels import Layout
from reproduction.figures.axes import number_label, panel_title, rank_line
from reproduction.figures.style import (
    COLUMN_WIDTH,
    FONT_SIZE,
    NEUTRAL,
    PAPER,
    PAPER_LINE,
    optimizer_colors,
    sequence,
    styled,
)

# More columns than this leave no room for tick labels.
MOST_COLUMNS = 3
# Inches that the panels of a page can share, with room left for the caption.
PAGE_HEIGHT = 8.0
LINE_HEIGHT = 1.5 * FONT_SIZE / 72


class Drawn(NamedTuple):
    """A figure, the numbers that it shows, and the unit of each of their columns ("1" for a pure number)."""

    figure: Figure
    numbers: pd.DataFrame
    units: dict[str, str]


_UNITS = {
    **dict.fromkeys(
        ("dataset", "optimizer", "variant", "sweep", "first", "second", "scaling", "init", "source", "reason"), "name"
    ),
    **dict.fromkeys(("step", "waiting_time", "lag"), "training steps"),
    **dict.fromkeys(("train_loss", "loss"), "nat"),
    **dict.fromkeys(("eigenvalue", "gap", "lambda_1"), "loss / parameter^2"),
    **dict.fromkeys(("test_accuracy", "late_test_accuracy", "sharpness"), "percent"),
    "batch_size": "samples",
}


def drawn(figure: Figure, numbers: pd.DataFrame) -> Drawn:
    """A figure with its numbers, whose columns have the same units in every figure."""
    columns = {column: re.sub("_(min|max|mean|error)$", "", column) for column in numbers.columns}
    return Drawn(figure, numbers, {column: _UNITS.get(base, "1") for column, base in columns.items()})


@styled
def not_applicable(layout: Layout, title: str, reason: str) -> Drawn:
    """A page in the place of a figure that does not apply to an experiment: its title, and why."""
    figure = new_figure(2 * COLUMN_WIDTH, 1.2)
    axes = figure.add_subplot()
    axes.set_axis_off()
    text = f"{title}: does not apply, since {reason}."
    axes.text(0.5, 0.5, "\n".join(textwrap.wrap(text, 70)), transform=axes.transAxes, ha="center", va="center")
    return drawn(figure, pd.DataFrame({"reason": [reason]}))


@dataclass(frozen=True)
class Grid:
    """A figure of panels; `axes[row, column]` as asked for, wherever the panel stands on the page."""

    figure: Figure
    axes: dict[tuple[int, int], Axes]

    def flat(self) -> list[Axes]:
        """All panels, row by row."""
        return list(self.axes.values())

    def labels(self, x: str = "", y: str = "") -> None:
        """Label x below the lowest panel of each column of the page, and y once, left of all panels."""
        taken = {_place(ax) for ax in self.flat()}
        for ax in self.flat():
            row, column = _place(ax)
            if x and (row + 1, column) not in taken:
                ax.set_xlabel(x)
        rows = 1 + max(row for row, _ in taken)
        for ax in self.flat():
            # In the middle of all rows: of an even number that is the upper end of a panel.
            if y and _place(ax) == (rows // 2, 0):
                ax.set_ylabel(y, y=0.5 if rows % 2 else 1.04)

    def heads(self, rows: Sequence[str], columns: Sequence[str], gap: float = 3.0) -> None:
        """Name each column above its first panel and each row right of its last, wherever they stand on the page.

        `gap` is the distance in points between a panel and the name right of it.
        """
        places = {_place(ax): key for key, ax in self.axes.items()}
        for (row, column), key in places.items():
            turned = (row, column) != key and len(rows) > 1
            above, beside = (rows[key[0]], columns[key[1]]) if turned else (columns[key[1]], rows[key[0]])
            ax = self.axes[key]
            # A long row goes on below itself: its panels have names of their own.
            if row == 0 or (len(rows) == 1 and not turned):
                panel_title(ax, *above.split("\n"))
            if (row, column + 1) not in places and beside:
                offset: dict[str, Any] = {"xytext": (gap, 0), "textcoords": "offset points", "rotation": 270}
                ax.annotate(beside, (1, 0.5), xycoords="axes fraction", va="center", ha="left", **offset)


def _place(ax: Axes) -> tuple[int, int]:
    spot = ax.get_subplotspec()
    assert isinstance(spot, SubplotSpec)
    return spot.rowspan.start, spot.colspan.start


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that lays itself out and never touches the user's backend."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panel_grid(rows: int, columns: int, height: float = 0.95, *, share_x: bool = True, share_y: bool = True) -> Grid:
    """rows x columns panels, each about `height` inches high; a long row is wrapped, a wide table turned.

    Shared axes have tick labels at the edge only.
    """
    page_rows, page_columns = rows, columns
    if columns > MOST_COLUMNS:
        page_rows, page_columns = (math.ceil(columns / 3), 3) if rows == 1 else (columns, rows)
    turned = columns > MOST_COLUMNS and rows > 1
    height = max(height, 1.2) if page_rows == 1 else min(height, PAGE_HEIGHT / page_rows)
    figure = new_figure(COLUMN_WIDTH, page_rows * height + 0.35)
    spec = figure.add_gridspec(page_rows, page_columns)
    axes: dict[tuple[int, int], Axes] = {}
    for row in range(rows):
        for column in range(columns):
            place = (column, row) if turned else (row + column // page_columns, column % page_columns)
            first = axes.get((0, 0))
            axes[row, column] = figure.add_subplot(
                spec[place], sharex=first if share_x else None, sharey=first if share_y else None
            )
    taken = {_place(ax) for ax in axes.values()}
    for ax in axes.values():
        row, column = _place(ax)
        if share_x and (row + 1, column) in taken:
            ax.tick_params(axis="x", which="both", labelbottom=False)
        if share_y and column > 0:
            ax.tick_params(axis="y", which="both", labelleft=False)
    return Grid(figure, axes)


def optimizer_handles(layout: Layout) -> list[Artist]:
    """A legend entry for each optimizer."""
    colors = optimizer_colors(layout.optimizers)
    return [Line2D([], [], color=colors[name], linewidth=1.8, label=label) for name, label in layout.optimizers.items()]


def rank_handles(indices: Sequence[int]) -> list[Artist]:
    """A legend entry for each eigenvector index of `axes.rank_line`, in grey, since colours stand for optimizers."""
    return [
        Line2D([], [], label=f"$i = {i}$", **(rank_line(NEUTRAL, i, indices) | {"linewidth": 1.8})) for i in indices
    ]


def band_handle(color: str, label: str) -> Artist:
    """A legend entry for a band."""
    return Patch(facecolor=color, alpha=0.3, linewidth=0, label=label)


def diagonal_handle() -> Artist:
    """The legend entry of `axes.diagonal`."""
    return Line2D([], [], color=NEUTRAL, linestyle="--", linewidth=0.8, label="update = gradient")


def paper_handle(label: str = "paper", **look: Any) -> Artist:
    """The legend entry of what the paper gives: a line, or the marker that `look` names."""
    line = {"color": PAPER, "linestyle": "none"} if "marker" in look else PAPER_LINE
    return Line2D([], [], label=label, **(line | look))


def waiting_time_handles(colors: Mapping[int, str]) -> list[Artist]:
    """A legend entry for the curve of each waiting time."""
    return [
        Line2D([], [], color=color, linewidth=1.8, label=f"$t_w = ${number_label(time)}")
        for time, color in colors.items()
    ]


def bottom_legend(figure: Figure, handles: Sequence[Artist], **kwargs: Any) -> None:
    """A legend below all panels, in as few lines as fit; the figure grows by its height."""
    if not handles:
        return
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    legend = None
    for columns in range(len(handles), 0, -1):
        if legend is not None:
            legend.remove()
        legend = figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, **kwargs)
        if legend.get_window_extent(renderer).width <= figure.bbox.width:
            break
    assert legend is not None
    figure.set_figheight(figure.get_figheight() + legend.get_window_extent(renderer).height / figure.dpi)


def add_notes(figure: Figure, notes: Sequence[str]) -> None:
    """Sentences above all panels: what the reader must know about the numbers of this figure."""
    if not notes:
        return
    characters = int(figure.get_figwidth() * 72 / (0.6 * FONT_SIZE))
    lines = [line for note in notes for line in textwrap.wrap(note, characters)]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", gid="notes", color="#333333")
    figure.set_figheight(figure.get_figheight() + len(lines) * LINE_HEIGHT)


def step_colorbar(
    figure: Figure, axes: Iterable[Axes], names: Sequence[str], label: str, colors: str = "viridis"
) -> None:
    """A colour bar below `axes` with one step for each name, in the colours of `style.sequence_colors`."""
    if not names:
        return
    every = math.ceil(len(names) / 6)
    norm = BoundaryNorm(np.arange(len(names) + 1) - 0.5, len(names))
    mappable = ScalarMappable(norm, sequence(len(names), colors))
    bar = figure.colorbar(mappable, ax=list(axes), location="bottom", label=label, aspect=60, pad=0.02, fraction=0.03)
    bar.set_ticks(list(range(0, len(names), every)), labels=list(names[::every]))
    bar.ax.tick_params(length=0, which="both")
    bar.ax.grid(visible=False)
