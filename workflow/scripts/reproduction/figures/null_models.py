"""How much eigenvectors of unrelated networks overlap, against two other null models (figure S2)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from eigendrift.sphere import mean_overlap, overlap_quantiles
from reproduction.experiment.labels import Layout
from reproduction.figures.axes import log_axis, no_data, panel_title
from reproduction.figures.panels import Drawn, add_notes, bottom_legend, drawn, panel_grid
from reproduction.figures.style import NEUTRAL, optimizer_colors, styled
from reproduction.figures.summaries import in_order, unconverged_note

PROBABILITIES = np.linspace(0.005, 0.995, 100)
INITIAL, SPHERE = "initialization", "sphere"


@styled
def null_models(initial: pd.DataFrame, permuted: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure S2: distribution functions of |cos| over all pairs of networks, one panel a dataset and i.

    `initial` holds the pairs of the baseline's initializations, `permuted` those of networks with permuted weights, by
    the optimizer that trained them.
    """
    rows = in_order(permuted, layout)
    numbers = pd.DataFrame(_curves(initial, rows, layout))
    grid = panel_grid(len(layout.datasets), len(layout.leading), 1.6)
    looks = _looks(layout)
    for row, (dataset, label) in enumerate(layout.datasets.items()):
        for column, i in enumerate(layout.leading):
            ax = grid.axes[row, column]
            panel_title(ax, label, f"$i = {i}$")
            chosen = numbers[(numbers["dataset"] == dataset) & (numbers["i"] == i)]
            if chosen.empty:
                no_data(ax)
            for source, curve in chosen.groupby("source", sort=False):
                ax.plot(curve["overlap"], curve["probability"], gid="data", **looks[str(source)])
    positive = numbers.loc[numbers["overlap"] > 0, "overlap"]
    for ax in grid.flat():
        ax.set_xscale("log")
        # Below it there are the few pairs that happen to be orthogonal.
        ax.set_xlim(max(float(positive.min()), 1e-4) / 1.2, min(1.05, float(positive.max()) * 1.4))
        ax.set_ylim(0, 1)
        log_axis(ax.xaxis)
    grid.labels("$|\\cos|$ between $v_i$ of two networks", "share of pairs below")
    shown = set(numbers["source"])
    bottom_legend(grid.figure, [_handle(look) for source, look in looks.items() if source in shown])
    add_notes(grid.figure, unconverged_note(rows[rows["i"].isin(layout.leading)], "kept"))
    return drawn(grid.figure, numbers)


def _curves(initial: pd.DataFrame, permuted: pd.DataFrame, layout: Layout) -> Iterator[dict[str, Any]]:
    """Quantiles of |cos| of each dataset, index and source, at PROBABILITIES."""
    for dataset in layout.datasets:
        for i in layout.leading:
            found = initial[(initial["dataset"] == dataset) & (initial["i"] == i)]
            if found.empty:
                continue
            n = int(found["n_parameters"].iloc[0])
            samples = {INITIAL: found["overlap"].to_numpy()}
            for optimizer in layout.optimizers:
                own = permuted[(permuted["dataset"] == dataset) & (permuted["i"] == i)]
                own = own[own["optimizer"] == optimizer]
                if len(own):
                    samples[f"permuted {optimizer}"] = own["overlap"].to_numpy()
            curves = {name: (np.quantile(x, PROBABILITIES), x.mean(), len(x)) for name, x in samples.items()}
            curves[SPHERE] = (overlap_quantiles(PROBABILITIES, n), mean_overlap(n), 0)
            for source, (quantiles, mean, pairs) in curves.items():
                for probability, overlap in zip(PROBABILITIES, quantiles, strict=True):
                    yield {
                        "dataset": dataset,
                        "i": i,
                        "source": source,
                        "pairs": pairs,
                        "mean_overlap": float(mean),
                        "probability": float(probability),
                        "overlap": float(overlap),
                    }


def _looks(layout: Layout) -> dict[str, dict[str, Any]]:
    """How the curve of each source is drawn, with its name."""
    looks: dict[str, dict[str, Any]] = {INITIAL: {"color": "black", "linewidth": 1.8, "label": "initializations"}}
    for optimizer, color in optimizer_colors(layout.optimizers).items():
        label = f"permuted, {layout.optimizers[optimizer]}"
        looks[f"permuted {optimizer}"] = {"color": color, "linewidth": 1.2, "label": label}
    return looks | {SPHERE: {"color": NEUTRAL, "linestyle": "--", "linewidth": 1.0, "label": "uniform on the sphere"}}


def _handle(look: dict[str, Any]) -> Artist:
    return Line2D([], [], **look)
