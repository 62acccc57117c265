"""Draw any figure of the catalogue: read its tables, call the function that the catalogue names."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from reproduction.experiment.importable import load
from reproduction.experiment.labels import Drawing, Layout, drawing_function
from reproduction.experiment.table_catalogue import TABLES
from reproduction.figures.panels import Drawn
from reproduction.files.arrays import ArrayFile
from reproduction.files.final_eigenvectors import KIND, read_final_eigenvectors
from reproduction.files.tables import RUN_KEY, WHOSE, read_header, read_tables


def sources(figure: Drawing, tables: Any) -> dict[str, Any]:
    """What a figure's own file says of its origin: the function that drew it, and every table that it read.

    Each table has its kind, whose it is, and the sha256 of its content, so that a point of the figure leads to the
    file that it comes from.
    """
    return {
        "drawn_by": drawing_function(figure["draw"]).replace(":", "."),
        "tables": [_source(path, kind) for kind in figure["kinds"] for path in getattr(tables, kind)],
    }


def _source(path: str, kind: str) -> dict[str, Any]:
    if path.endswith(".csv"):
        header = read_header(path, kind=kind)
        identity, sha256 = header["identity"], header["sha256"]
    else:
        file = ArrayFile(path, kind=kind)
        identity, sha256 = file.identity, file.sha256
    return {"kind": kind, **{key: identity[key] for key in RUN_KEY if key in identity}, "sha256": sha256}


def draw(figure: Drawing, tables: Any, layout: Layout) -> Drawn:
    """The figure and its numbers; `tables` has the paths of each kind of its tables as an attribute.

    Only the module that draws this figure is imported, so that an edit of it reruns the figures that it draws.
    """
    function = load(drawing_function(figure["draw"]))
    read = [_read(getattr(tables, kind), kind) for kind in figure["kinds"]]
    drawn: Drawn = function(*read, layout, **figure["options"])
    return drawn


def _read(paths: Sequence[str], kind: str) -> Any:
    """A table for all of its files, whose runs are there without a row too; of the eigenvectors a list.

    Of no file, which only unfinished or older results have, it is a table without rows.
    """
    if kind == KIND:
        return list(map(read_final_eigenvectors, paths))
    if not paths:
        return pd.DataFrame(columns=list(dict.fromkeys([*WHOSE, *TABLES[kind].units])))
    return read_tables(paths, kind=kind, keep_empty=True)
