"""How much eigenvectors of unrelated networks overlap, against two other null models (figure S2)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from eigendrift.sphere import mean_overlap, overlap_quantiles
from reproduction.experiment import paper_numbers
from reproduction.experiment.labels import Layout
from reproduction.figures.axes import log_axis, no_data
from reproduction.figures.panels import Drawn, add_notes, bottom_legend, drawn, panel_grid, paper_handle
from reproduction.figures.style import NEUTRAL, PAPER_LINE, optimizer_colors, styled
from reproduction.figures.summaries import in_order, unconverged_note

PROBABILITIES = np.linspace(0.005, 0.995, 100)
INITIAL, SPHERE = "initialization", "sphere"


@styled
def null_models(initial: pd.DataFrame, permuted: pd.DataFrame, layout: Layout) -> Drawn:
    """Figure S2: distribution functions of |cos| of v_1 over all pairs of networks, one panel a dataset.

    `initial` holds the pairs of the baseline's initializations, `permuted` those of networks with permuted weights, by
    the optimizer that trained them. The numbers are those of v_2 and v_3 too.
    """
    rows = in_order(permuted, layout)
    numbers = pd.DataFrame(_curves(initial, rows, layout))
    grid = panel_grid(1, len(layout.datasets), 1.4)
    looks = _looks(layout)
    for column, dataset in enumerate(layout.datasets):
        ax = grid.axes[0, column]
        # The others look alike; their numbers are in the table.
        chosen = numbers[(numbers["dataset"] == dataset) & (numbers["i"] == 1)]
        if chosen.empty:
            no_data(ax)
        for source, curve in chosen.groupby("source", sort=False):
            ax.plot(curve["overlap"], curve["probability"], gid="data", **looks[str(source)])
            # Where the mean is, of each source.
            mean = float(curve["mean_overlap"].iloc[0])
            ax.plot([mean], [0.02], marker="^", markersize=4, clip_on=False, zorder=6, **(looks[str(source)]))
        if (theirs := paper_numbers.OVERLAP.get(dataset)) is not None:
            ax.axvline(theirs, gid="paper", **PAPER_LINE)
    positive = numbers.loc[numbers["overlap"] > 0, "overlap"]
    for ax in grid.flat():
        ax.set_xscale("log")
        # Below it there are the few pairs that happen to be orthogonal.
        ax.set_xlim(max(float(positive.min()), 1e-4) / 1.2, min(1.05, float(positive.max()) * 1.4))
        ax.set_ylim(0, 1)
        log_axis(ax.xaxis)
    grid.heads([""], list(layout.datasets.values()))
    grid.labels("$|\\cos|$ of two networks", "share of pairs below")
    shown = set(numbers["source"])
    handles: list[Artist] = [_handle(look) for source, look in looks.items() if source in shown]
    handles.append(Line2D([], [], color=NEUTRAL, marker="^", linestyle="none", label="mean"))
    if any(dataset in paper_numbers.OVERLAP for dataset in layout.datasets):
        handles.append(paper_handle("paper's mean $\\tau$"))
    bottom_legend(grid.figure, handles)
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
