"""One look for all figures: sizes, type, colours and markers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib import colormaps
from matplotlib.colors import ListedColormap, to_hex, to_rgb

# Every figure is as wide as a column of a two-column page, and its type is legible there at its own size.
COLUMN_WIDTH = 3.25
FONT_SIZE = 6.5
# Of the PNG, which pages show wider than a column.
DPI = 400

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
    "font.size": FONT_SIZE,
    **dict.fromkeys(
        (
            "axes.labelsize",
            "axes.titlesize",
            "figure.titlesize",
            "figure.labelsize",
            "legend.fontsize",
            "legend.title_fontsize",
            "xtick.labelsize",
            "ytick.labelsize",
        ),
        FONT_SIZE,
    ),
    # TrueType: publishers refuse Type 3 fonts, which is matplotlib's own choice.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "pdf.compression": 6,
    "axes.linewidth": 0.5,
    "axes.titlepad": 2.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.4,
    "lines.linewidth": 0.9,
    "lines.markersize": 3.2,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.0,
    "ytick.major.size": 2.0,
    "xtick.minor.size": 1.2,
    "ytick.minor.size": 1.2,
    "legend.frameon": False,
    "xtick.major.pad": 2.0,
    "ytick.major.pad": 2.0,
    "axes.labelpad": 2.0,
    "legend.handlelength": 1.5,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.0,
    "legend.borderpad": 0.2,
    "figure.constrained_layout.w_pad": 0.02,
    "figure.constrained_layout.h_pad": 0.02,
    "savefig.dpi": DPI,
    "figure.dpi": DPI,
}

# Okabe and Ito's palette, which stays distinct for colour-blind readers, without its vermilion (near BASELINE) and its
# yellow (pale on white), and two darker hues of Tol's muted palette in their place.
_KNOWN = {"sgd": "#0072B2", "adam": "#E69F00", "sam": "#009E73"}
_FURTHER = ("#CC79A7", "#56B4E9", "#332288", "#999933", "#882255")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "h", "<", ">")
BASELINE = "#CC3311"
NEUTRAL = "#555555"
# Numbers that the paper gives.
PAPER = "#7A3B8F"
PAPER_LINE: dict[str, Any] = {"color": PAPER, "linestyle": (0, (4, 1.5)), "linewidth": 0.9}
# The unit of an eigenvalue of the Hessian, for axis labels.
CURVATURE = "nat/param.$^2$"
UNCONVERGED = "#000000"

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's own defaults with ours on top, whatever a user's matplotlibrc says; restored on leaving."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function in our style."""

    @wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        with style():
            return function(*args, **kwargs)

    return inner


def optimizer_colors(optimizers: Iterable[str]) -> dict[str, str]:
    """Optimizer -> colour: fixed for the paper's three, by position for others, so that adding one recolours none."""
    names = list(optimizers)
    others = [name for name in names if name not in _KNOWN]
    further = {name: _FURTHER[position % len(_FURTHER)] for position, name in enumerate(others)}
    return {name: _KNOWN.get(name) or further[name] for name in names}


def line_width(position: int) -> float:
    """The width of the line at `position`: each thinner than the one that it is drawn over, so that both are seen."""
    return max(1.4 - 0.3 * position, 0.6)


def marker(position: int) -> str:
    """The marker of the series at `position`, counted from 0."""
    return _MARKERS[position % len(_MARKERS)]


def shade(color: str, rank: int, ranks: int) -> str:
    """A colour mixed with white: itself for rank 0, paler for each further rank."""
    white = 0.62 * rank / max(ranks - 1, 1)
    red, green, blue = (channel + (1.0 - channel) * white for channel in to_rgb(color))
    return to_hex((red, green, blue))


def sequence(count: int, name: str = "viridis") -> ListedColormap:
    """`count` colours from dark to light, one a step; the palest end of the colormap is left out, being hard to see."""
    positions = [0.0] if count == 1 else [0.9 * rank / (count - 1) for rank in range(count)]
    return ListedColormap([to_hex(colormaps[name](position)) for position in positions])


def sequence_colors(keys: Iterable[int], name: str = "viridis") -> Mapping[int, str]:
    """Key -> colour of `sequence`, in the given order."""
    listed = list(keys)
    return dict(zip(listed, map(to_hex, sequence(max(len(listed), 1), name)(range(len(listed)))), strict=True))
