"""Draw any figure of the catalogue: read its tables, call the function that the catalogue names."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from reproduction.experiment.labels import Drawing, Layout
from reproduction.figures.inputs import read_datasets, read_final_eigenvectors, read_overlaps, read_runs
from reproduction.figures.panels import Drawn

_READERS: Mapping[str, Callable[[Any, str], Any]] = {
    **dict.fromkeys(("history", "ipr", "alignment", "displacement"), read_runs),
    **dict.fromkeys(("baseline", "interpolation", "solutions"), read_datasets),
    **dict.fromkeys(("baseline_overlaps", "permuted_overlaps"), read_overlaps),
    "final_eigenvector": lambda paths, kind: read_final_eigenvectors(paths),
}


def draw(figure: Drawing, tables: Any, layout: Layout) -> Drawn:
    """The figure and its numbers; `tables` has the paths of each kind of its tables as an attribute.

    Only the module that draws this figure is imported, so that an edit of it reruns the figures that it draws.
    """
    module, _, name = figure["draw"].partition(".")
    function = getattr(import_module(f"reproduction.figures.{module}"), name)
    read = [_READERS[kind](getattr(tables, kind), kind) for kind in figure["kinds"]]
    drawn: Drawn = function(*read, layout, **figure["options"])
    return drawn
