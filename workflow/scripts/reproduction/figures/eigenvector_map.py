"""Figure 16: the leading eigenvector at the end of training in the shape of the layers."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reproduction.experiment.labels import Layout
from reproduction.figures.axes import no_data, panel_title
from reproduction.figures.panels import Drawn, add_notes, drawn, new_figure
from reproduction.figures.style import COLUMN_WIDTH, styled
from reproduction.files.final_eigenvectors import FinalEigenvectors

# Blue, white, red: distinct for colour-blind readers, and white at 0.
COLORS = "RdBu_r"


@styled
def draw_eigenvector_map(vectors: Sequence[FinalEigenvectors], layout: Layout) -> Drawn:
    """Figure 16: v_1 as weights (output unit, input unit) with the bias beside them, by layer and optimizer.

    Each optimizer has its own colour range, symmetric about 0, from its largest entry. `vectors` has one
    run each; the optimizers are those of `mapped_optimizers`.
    """
    wanted = mapped_optimizers(layout.optimizers)
    shown = [v for name in wanted for v in vectors if v.identity["optimizer"] == name and v.last.size]
    parts = [split_layers(vector) for vector in shown]
    count = max(len(shown), 1)
    layers = max((len(part) for part in parts), default=1)
    heights = [_height(parts, layer) for layer in range(layers)]
    figure = new_figure(COLUMN_WIDTH * count, sum(heights) + 0.55 * layers + 0.6)
    spec = figure.add_gridspec(layers + 1, count, height_ratios=[*heights, 0.09])
    if not shown:
        no_data(figure.add_subplot(spec[0, 0]))
    for column, (vector, part) in enumerate(zip(shown, parts, strict=True)):
        largest = float(np.abs(vector.last).max(initial=0.0)) or 1.0
        for layer, (weight, bias) in enumerate(part):
            inner = spec[layer, column].subgridspec(1, 2, width_ratios=[24, 1], wspace=0.0)
            left, right = figure.add_subplot(inner[0]), figure.add_subplot(inner[1])
            image = _draw(left, weight, largest)
            _draw(right, bias[:, None], largest)
            names = layout.datasets[vector.identity["dataset"]], layout.optimizers[vector.identity["optimizer"]]
            panel_title(left, *names, f"layer {layer + 1}")
            _label(left, right, first=column == 0)
        if part:
            bar = figure.colorbar(image, cax=figure.add_subplot(spec[layers, column]), orientation="horizontal")
            bar.set_label("entry of $v_1$")
            bar.locator = MaxNLocator(5, symmetric=True)
            bar.ax.grid(visible=False)
    _note_missing(figure, vectors, layout)
    return drawn(figure, _numbers(shown, parts))


def _note_missing(figure: Figure, vectors: Sequence[FinalEigenvectors], layout: Layout) -> None:
    wanted = mapped_optimizers(layout.optimizers)
    given = {vector.identity["optimizer"]: vector for vector in vectors if vector.last.size}
    sentences = [
        f"{layout.optimizers[name]}: no eigenvector, the run diverged at once." for name in wanted if name not in given
    ]
    for name in wanted:
        if name in given and (step := given[name].identity.get("diverged_at")) is not None:
            text = f"the run diverged at step {step}; shown is the last eigenvector before"
            sentences.append(f"{layout.optimizers[name]}: {text}.")
    add_notes(figure, sentences)


def split_layers(vector: FinalEigenvectors) -> list[tuple[np.ndarray, np.ndarray]]:
    """(weight (out, in), bias (out,)) of each layer, in the network's parameter order; a missing bias is NaN."""
    layers: list[tuple[np.ndarray, np.ndarray]] = []
    for block in vector.blocks():
        if block.ndim == 1 and layers:
            layers[-1] = (layers[-1][0], block)
        else:
            weight = block.reshape(block.shape[0], -1)
            layers.append((weight, np.full(len(weight), np.nan)))
    return layers


def _height(parts: Sequence[list[tuple[np.ndarray, np.ndarray]]], layer: int) -> float:
    """Inches: enough for one output unit to be seen, not more than a page has."""
    outputs = max((len(part[layer][0]) for part in parts if layer < len(part)), default=1)
    return float(np.clip(outputs * 0.014, 0.75, 1.4))


def _draw(ax: Axes, values: np.ndarray, largest: float) -> Any:
    """Entries as they are: no interpolation between neighbours, which have nothing to do with each other.

    Not interpolation="none": it leaves a matrix in the PDF in which the sign of a zero changes from run to run.
    """
    ax.grid(visible=False)
    return ax.imshow(
        values, cmap=COLORS, vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest", gid="data"
    )


def _label(weights: Axes, bias: Axes, *, first: bool) -> None:
    for axis in (weights.xaxis, weights.yaxis):
        axis.set_major_locator(MaxNLocator(4, integer=True))
    bias.set_xticks([])
    bias.tick_params(labelleft=False, left=False)
    bias.yaxis.set_label_position("right")
    bias.set_ylabel("bias")
    weights.set_xlabel("input unit")
    if first:
        weights.set_ylabel("output unit")


def _numbers(shown: Sequence[FinalEigenvectors], parts: Sequence[list[tuple[np.ndarray, np.ndarray]]]) -> pd.DataFrame:
    """One row an entry; `input` is -1 for a bias."""
    frames = []
    for vector, part in zip(shown, parts, strict=True):
        for layer, (weight, bias) in enumerate(part):
            outputs, inputs = weight.shape
            both = np.column_stack([weight, bias])
            frame = pd.DataFrame(
                {
                    "layer": layer + 1,
                    "output": np.repeat(np.arange(outputs), inputs + 1),
                    "input": np.tile([*range(inputs), -1], outputs),
                    "entry": both.ravel(),
                }
            )
            for name in ("seed", "optimizer", "dataset"):
                frame.insert(0, name, vector.identity[name])
            frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=_COLUMNS)


_COLUMNS = ["dataset", "optimizer", "seed", "layer", "output", "input", "entry"]


def mapped_optimizers(optimizers: Iterable[str]) -> list[str]:
    """The optimizers whose eigenvectors figure 16 maps: adam and sgd, where both are, else the first two."""
    names = list(optimizers)
    paper: list[str] = [name for name in ("adam", "sgd") if name in names]
    return paper if len(paper) == 2 else names[:2]
