"""The plots, from the tables that the parts of the benchmark wrote."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

from benchmarks.problem import OPTIMIZERS
from benchmarks.results import arguments, read
from reproduction.figures.style import BASELINE, NEUTRAL, marker, optimizer_colors, styled

METHOD_COLORS = ("#0072B2", "#E69F00", "#CC79A7", "#009E73", "#56B4E9", "#332288")
# Inches of the text of a page.
WIDTH = 6.75
NAMES = {"sgd": "SGD", "adam": "Adam", "sam": "SAM"}


def _axes(columns: int, height: float) -> tuple[Any, list[Any]]:
    size = (WIDTH, height)
    figure, axes = plt.subplots(1, columns, figsize=size, layout="constrained", squeeze=False, sharey=True)
    return figure, list(axes[0])


def _plain_ticks(axis: Any, at: Iterable[float] | None = None) -> None:
    """Numbers instead of powers of ten on a logarithmic axis, at given places or at 1, 2 and 5."""
    axis.set_major_locator(FixedLocator(sorted(set(at))) if at is not None else LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))


def solvers(tables: dict[str, pd.DataFrame]) -> Any:
    """Seconds a snapshot against the training step, one panel an optimizer, one series a library."""
    runs = tables["solvers_runs"]
    figure, panels = _axes(len(OPTIMIZERS), 2.6)
    methods = list(dict.fromkeys(runs["method"]))
    for panel, optimizer in zip(panels, OPTIMIZERS, strict=True):
        for position, method in enumerate(methods):
            chosen = runs[(runs["optimizer"] == optimizer) & (runs["method"] == method)].sort_values("step")
            panel.plot(
                chosen["step"], chosen["seconds"], color=METHOD_COLORS[position], marker=marker(position), label=method
            )
        panel.set(yscale="log", title=NAMES[optimizer], xlabel="training step")
        panel.ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
    panels[0].set_ylabel("time per snapshot (s)")
    _plain_ticks(panels[0].yaxis)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def scaling(tables: dict[str, pd.DataFrame]) -> Any:
    """Seconds a snapshot against samples, width and k, with the floor and the products at the machine's rate."""
    table = tables["scaling"]
    labels = {"samples": "samples", "width": "width of the first two layers", "k": "pairs $k$"}
    colors = optimizer_colors(OPTIMIZERS)
    figure, panels = _axes(len(labels), 2.8)
    for panel, (axis, label) in zip(panels, labels.items(), strict=True):
        part = table[table["axis"] == axis]
        for position, (optimizer, curve) in enumerate(part.groupby("optimizer", sort=False)):
            x, color = curve["value"], colors[str(optimizer)]
            panel.plot(x, curve["seconds"], color=color, marker=marker(position), label=NAMES[str(optimizer)])
            at_rate = curve["products_at_machine_rate_seconds"]
            panel.plot(
                x, at_rate, color=color, linestyle=":", label=f"{NAMES[str(optimizer)]}, its products at the limit"
            )
        floor = part.drop_duplicates("value")
        panel.plot(floor["value"], floor["floor_seconds"], color=BASELINE, linestyle="--", label="limit: $k$ products")
        panel.set(xscale="log", yscale="log", xlabel=label)
        _plain_ticks(panel.xaxis, part["value"])
    _plain_ticks(panels[0].yaxis)
    panels[0].set_ylabel("time per snapshot (s)")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    return figure


def product(tables: dict[str, pd.DataFrame]) -> Any:
    """Rate of the products, single and in blocks, and of the machine's matrix products."""
    table = tables["product"]
    figure, (panel,) = _axes(1, 2.8)
    ours = table["task"].str.startswith("H V")
    colors = [METHOD_COLORS[0] if own else NEUTRAL for own in ours]
    panel.barh(table["task"], table["GFLOP_per_second"], color=colors)
    panel.axvline(table["GFLOP_per_second"][~ours].max(), color=BASELINE, linestyle="--", label="machine's rate")
    panel.invert_yaxis()
    panel.grid(visible=False, axis="y")
    panel.set_xlabel("needed operations / time (GFLOP/s)")
    figure.legend(loc="outside lower right")
    return figure


def training(tables: dict[str, pd.DataFrame]) -> Any:
    """Milliseconds a step of each way of training, one panel an optimizer."""
    table = tables["training"]
    figure, panels = _axes(len(OPTIMIZERS), 2.2)
    for panel, optimizer in zip(panels, OPTIMIZERS, strict=True):
        part = table[table["optimizer"] == optimizer]
        colors = [METHOD_COLORS[0] if loop == "eigendrift" else NEUTRAL for loop in part["loop"]]
        panel.barh(part["loop"], part["ms_per_step"], color=colors)
        panel.axvline(part["ms_per_step"].iloc[0], color=BASELINE, linestyle="--")
        panel.grid(visible=False, axis="y")
        panel.set(title=NAMES[optimizer], xlabel="ms per step")
    # Once: the panels share the axis.
    panels[0].invert_yaxis()
    return figure


# Plot -> the function that draws it, and the tables that it reads.
PLOTS: dict[str, tuple[Callable[[dict[str, pd.DataFrame]], Any], tuple[str, ...]]] = {
    "solvers": (solvers, ("solvers_runs",)),
    "scaling": (scaling, ("scaling",)),
    "product": (product, ("product",)),
    "training": (training, ("training",)),
}


@styled
def draw(folder: Path) -> list[str]:
    """Draw all plots whose tables are there, as PDF and PNG without date or version; their names."""
    drawn = []
    for name, (function, needed) in PLOTS.items():
        tables = {each: table for each in needed if (table := read(folder, each)) is not None}
        if len(tables) < len(needed):
            continue
        figure = function(tables)
        figure.savefig(folder / f"{name}.pdf", metadata={"Creator": None, "Producer": None, "CreationDate": None})
        figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
        plt.close(figure)
        drawn.append(name)
    return drawn


def main(argv: Sequence[str] | None = None) -> None:
    """All plots."""
    given = arguments(__doc__, argv)
    print("drawn:", ", ".join(draw(given.output)), flush=True)


if __name__ == "__main__":
    main()
