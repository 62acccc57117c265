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
from reproduction.figures.axes import no_data, number_label
from reproduction.figures.panels import Drawn, add_notes, drawn, new_figure
from reproduction.figures.style import COLUMN_WIDTH, styled
from reproduction.files.final_eigenvectors import FinalEigenvectors

# Blue, white, red: distinct for colour-blind readers, and white at 0.
COLORS = "RdBu_r"
# Of a deeper network the layers with the largest share of the vector are shown.
MOST_LAYERS = 8
LONGEST_NAME = 14  # characters of a layer's name


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
        """The end of its name, where it has one, that a panel has room for; a network in a row has numbers only."""
        if not any(map(str.isalpha, self.name)):
            return f"layer {self.number}"
        parts = self.name.split(".")
        while len(".".join(parts)) > LONGEST_NAME and len(parts) > 1:
            del parts[0]
        return ".".join(parts)


@styled
def draw_eigenvector_map(vectors: Sequence[FinalEigenvectors], layout: Layout) -> Drawn:
    """Figure 16: v_1 as weights (output unit, input unit) with the bias beside them, by layer and optimizer.

    Of each optimizer of `mapped_optimizers` the seed with the median IPR is shown (`typical`). Each panel has its own
    colour range, symmetric about 0, from its largest entry; its title gives that and the layer's share of the squares.
    """
    wanted = mapped_optimizers(layout.optimizers)
    found = [typical([v for v in vectors if v.identity["optimizer"] == name and v.last.size]) for name in wanted]
    shown = [vector for vector in found if vector is not None]
    parts = _largest([split_layers(vector) for vector in shown])
    count = max(len(shown), 1)
    layers = max((len(part) for part in parts), default=1)
    figure = new_figure(COLUMN_WIDTH, 0.85 * layers + 0.75)
    spec = figure.add_gridspec(layers + 1, count, height_ratios=[*[1.0] * layers, 0.06])
    if not shown:
        no_data(figure.add_subplot(spec[0, 0]))
    for column, (vector, part) in enumerate(zip(shown, parts, strict=True)):
        for row, layer in enumerate(part):
            inner = spec[row, column].subgridspec(1, 2, width_ratios=[24, 1], wspace=0.0)
            left, right = figure.add_subplot(inner[0]), figure.add_subplot(inner[1])
            largest = max(float(np.abs(layer.weight).max()), float(np.nanmax(np.abs(layer.bias), initial=0.0))) or 1.0
            image = _draw(left, layer.weight, largest)
            _draw(right, layer.bias[:, None], largest)
            names = [f"{layer.title}: {100 * layer.share:.0f}%", f"$\\pm${number_label(float(f'{largest:.2g}'))}"]
            heads = [_name(vector, layout)] if row == 0 else []
            left.set_title("\n".join([*heads, ", ".join(names)]))
            _label(left, right, first=column == 0)
        if part:
            bar = figure.colorbar(image, cax=figure.add_subplot(spec[layers, column]), orientation="horizontal")
            bar.set_label("entry of $v_1$ / largest")
            bar.set_ticks([-largest, 0, largest], labels=["-1", "0", "1"])
            bar.ax.grid(visible=False)
    depth = max((len(layers_of(vector.layers)) for vector in shown), default=0)
    largest_only = [f"Of {depth} layers the {MOST_LAYERS} with the largest share of $v_1$ are shown."]
    add_notes(figure, _missing(vectors, shown, layout) + largest_only * (depth > MOST_LAYERS))
    return drawn(figure, _numbers(shown, parts))


def typical(vectors: Sequence[FinalEigenvectors]) -> FinalEigenvectors | None:
    """The run with the median IPR, each at its snapshot with the median IPR of the last tenth; None of none.

    Of an even number it is the one with the lower of the two middle values. A file that holds the last snapshot alone
    is taken at that one.
    """
    if not vectors:
        return None
    ordered = sorted(vectors, key=lambda vector: float((vector.shown**4).sum()))
    return ordered[(len(ordered) - 1) // 2]


def _name(vector: FinalEigenvectors, layout: Layout) -> str:
    dataset, optimizer = (str(vector.identity[key]) for key in ("dataset", "optimizer"))
    return f"{layout.datasets[dataset]}, {layout.optimizers[optimizer]}, seed {vector.identity['seed']}"


def _missing(vectors: Sequence[FinalEigenvectors], shown: Sequence[FinalEigenvectors], layout: Layout) -> list[str]:
    sentences = []
    for vector in vectors:
        name, step = vector.identity["optimizer"], vector.identity.get("diverged_at")
        whose = f"{layout.optimizers[name]}, seed {vector.identity['seed']}"
        if name in mapped_optimizers(layout.optimizers) and not vector.last.size:
            sentences.append(f"{whose}: no eigenvector, the run diverged at once.")
        elif step is not None and any(vector is one for one in shown):
            sentences.append(f"{whose}: the run diverged at step {step}; shown is an eigenvector before.")
    return sentences


def split_layers(vector: FinalEigenvectors) -> list[LayerMap]:
    """The layers of a vector (`eigendrift.localization.layers_of`), in the network's order; a missing bias is NaN."""
    names = iter(vector.layers)
    found: list[LayerMap] = []
    for number, layer in enumerate(layers_of(vector.layers), start=1):
        name = next(names)[0]
        weight = vector.shown[layer.start : layer.bias].reshape(layer.units, layer.inputs)
        bias = vector.shown[layer.bias : layer.stop] if layer.biased else np.full(layer.units, np.nan)
        if layer.biased:
            next(names)
        found.append(LayerMap(number, name.removesuffix(".weight"), weight, bias))
    return found


def _largest(networks: Sequence[Sequence[LayerMap]]) -> list[list[LayerMap]]:
    """At most `MOST_LAYERS` layers, the same ones of each network and in their order: those of the largest shares."""
    shares: dict[int, float] = {}
    for layer in (layer for layers in networks for layer in layers):
        shares[layer.number] = max(layer.share, shares.get(layer.number, 0.0))
    chosen = sorted(shares, key=lambda number: -shares[number])[:MOST_LAYERS]
    return [[layer for layer in layers if layer.number in chosen] for layers in networks]


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
    if first:
        weights.set_ylabel("output")


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
