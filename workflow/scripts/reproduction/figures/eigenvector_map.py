"""Figure 16: the leading eigenvector at the end of training in the shape of the layers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from eigendrift.localization import layers_of
from reproduction.experiment.labels import Layout
from reproduction.figures.axes import no_data, panel_title
from reproduction.figures.panels import Drawn, add_notes, drawn, new_figure
from reproduction.figures.style import COLUMN_WIDTH, styled
from reproduction.files.final_eigenvectors import FinalEigenvectors

# Blue, white, red: distinct for colour-blind readers, and white at 0.
COLORS = "RdBu_r"
# Of a deeper network the layers with the largest share of the vector are shown.
MOST_LAYERS = 8


@dataclass(frozen=True)
class LayerMap:
    """One layer of an eigenvector: its number from 1, its name, its weights (out, in), its bias (out,), NaN without."""

    number: int
    name: str
    weight: np.ndarray
    bias: np.ndarray

    @property
    def share(self) -> float:
        """Its part of the vector's square."""
        return float((self.weight**2).sum() + np.nansum(self.bias**2))

    @property
    def title(self) -> str:
        """Its name where it has one; a network in a row has numbers only."""
        return self.name if any(map(str.isalpha, self.name)) else f"layer {self.number}"


@styled
def draw_eigenvector_map(vectors: Sequence[FinalEigenvectors], layout: Layout) -> Drawn:
    """Figure 16: v_1 as weights (output unit, input unit) with the bias beside them, by layer and optimizer.

    Each optimizer has its own colour range, symmetric about 0, from its largest entry. `vectors` has one
    run each; the optimizers are those of `mapped_optimizers`.
    """
    wanted = mapped_optimizers(layout.optimizers)
    shown = [v for name in wanted for v in vectors if v.identity["optimizer"] == name and v.last.size]
    parts = [_largest(split_layers(vector)) for vector in shown]
    count = max(len(shown), 1)
    layers = max((len(part) for part in parts), default=1)
    heights = [_height(parts, layer) for layer in range(layers)]
    figure = new_figure(COLUMN_WIDTH * count, sum(heights) + 0.55 * layers + 0.6)
    spec = figure.add_gridspec(layers + 1, count, height_ratios=[*heights, 0.09])
    if not shown:
        no_data(figure.add_subplot(spec[0, 0]))
    for column, (vector, part) in enumerate(zip(shown, parts, strict=True)):
        largest = float(np.abs(vector.last).max(initial=0.0)) or 1.0
        for row, layer in enumerate(part):
            inner = spec[row, column].subgridspec(1, 2, width_ratios=[24, 1], wspace=0.0)
            left, right = figure.add_subplot(inner[0]), figure.add_subplot(inner[1])
            image = _draw(left, layer.weight, largest)
            _draw(right, layer.bias[:, None], largest)
            names = layout.datasets[vector.identity["dataset"]], layout.optimizers[vector.identity["optimizer"]]
            panel_title(left, *names, layer.title)
            _label(left, right, first=column == 0)
        if part:
            bar = figure.colorbar(image, cax=figure.add_subplot(spec[layers, column]), orientation="horizontal")
            bar.set_label("entry of $v_1$")
            bar.locator = MaxNLocator(5, symmetric=True)
            bar.ax.grid(visible=False)
    depth = max((len(layers_of(vector.layers)) for vector in shown), default=0)
    largest_only = [f"Of {depth} layers the {MOST_LAYERS} with the largest share of $v_1$ are shown."]
    add_notes(figure, _missing(vectors, layout) + largest_only * (depth > MOST_LAYERS))
    return drawn(figure, _numbers(shown, parts))


def _missing(vectors: Sequence[FinalEigenvectors], layout: Layout) -> list[str]:
    wanted = mapped_optimizers(layout.optimizers)
    given = {vector.identity["optimizer"]: vector for vector in vectors if vector.last.size}
    sentences = [
        f"{layout.optimizers[name]}: no eigenvector, the run diverged at once." for name in wanted if name not in given
    ]
    for name in wanted:
        if name in given and (step := given[name].identity.get("diverged_at")) is not None:
            text = f"the run diverged at step {step}; shown is the last eigenvector before"
            sentences.append(f"{layout.optimizers[name]}: {text}.")
    return sentences


def split_layers(vector: FinalEigenvectors) -> list[LayerMap]:
    """The layers of a vector (`eigendrift.localization.layers_of`), in the network's order; a missing bias is NaN."""
    names = iter(vector.layers)
    found: list[LayerMap] = []
    for number, layer in enumerate(layers_of(vector.layers), start=1):
        name = next(names)[0]
        weight = vector.last[layer.start : layer.bias].reshape(layer.units, layer.inputs)
        bias = vector.last[layer.bias : layer.stop] if layer.biased else np.full(layer.units, np.nan)
        if layer.biased:
            next(names)
        found.append(LayerMap(number, name.removesuffix(".weight"), weight, bias))
    return found


def _largest(layers: Sequence[LayerMap]) -> list[LayerMap]:
    """At most `MOST_LAYERS` of the layers, in their order."""
    chosen = sorted(layers, key=lambda layer: -layer.share)[:MOST_LAYERS]
    return sorted(chosen, key=lambda layer: layer.number)


def _height(parts: Sequence[Sequence[LayerMap]], row: int) -> float:
    """Inches: enough for one output unit to be seen, not more than a page has."""
    outputs = max((len(part[row].weight) for part in parts if row < len(part)), default=1)
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


def _numbers(shown: Sequence[FinalEigenvectors], parts: Sequence[Sequence[LayerMap]]) -> pd.DataFrame:
    """One row an entry; `input` is -1 for a bias."""
    frames = []
    for vector, part in zip(shown, parts, strict=True):
        for layer in part:
            outputs, inputs = layer.weight.shape
            both = np.column_stack([layer.weight, layer.bias])
            frame = pd.DataFrame(
                {
                    "layer": layer.number,
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
