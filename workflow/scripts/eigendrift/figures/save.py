"""Write a figure as PDF and PNG, and its numbers as a table; the same figure gives the same bytes."""

import os
from typing import Any, Protocol

from eigendrift.figures import FIGURES
from eigendrift.figures.panels import Drawn
from eigendrift.figures.style import DPI, styled
from eigendrift.storage import atomic_path
from eigendrift.tables import write_table


class Outputs(Protocol):
    """The three files of a figure."""

    pdf: str
    png: str
    csv: str


@styled
def save(drawn: Drawn, number: int, output: Outputs) -> None:
    """Write figure `number`: no date and no program version goes into the files."""
    metadata: dict[str, dict[str, Any]] = {
        "pdf": {"Title": FIGURES[number]["title"], "Creator": None, "Producer": None, "CreationDate": None},
        "png": {"Software": None},
    }
    # Laid out once: the files cannot differ, and laying out is what takes the time.
    drawn.figure.draw_without_rendering()
    drawn.figure.set_layout_engine("none")
    for kind, path in (("pdf", output.pdf), ("png", output.png)):
        with atomic_path(os.fspath(path)) as part:
            drawn.figure.savefig(part, format=kind, dpi=DPI, metadata=metadata[kind])
    identity = {"figure": number, "title": FIGURES[number]["title"]}
    write_table(output.csv, drawn.numbers, kind=f"fig{number:02d}", identity=identity, units=drawn.units)
