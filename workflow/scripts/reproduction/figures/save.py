"""Write a figure as PDF and PNG, and its numbers as a table; the same figure gives the same bytes."""

from collections.abc import Mapping
from typing import Any, Protocol

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf

from reproduction.experiment.labels import Drawing
from reproduction.figures.panels import Drawn
from reproduction.figures.style import DPI, styled
from reproduction.files.atomic import atomic_path
from reproduction.files.tables import write_table

# Of the images within a PDF: several pixels for each entry of a vector, so that none is lost.
IMAGE_DPI = 600


class Outputs(Protocol):
    """The three files of a figure."""

    pdf: str
    png: str
    csv: str


@styled
def save(drawn: Drawn, drawing: Drawing, output: Outputs, sources: Mapping[str, Any]) -> None:
    """Write a drawn figure: no date and no program version goes into the files.

    `sources` (`draw.sources`) go into the header of the plotted numbers.
    """
    title, figure = drawing["title"], drawn.figure
    # Straight to the canvases: Figure.savefig would draw everything five times, and lay it out for each file anew.
    figure.set_dpi(DPI)
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")
    # The layout's solver leaves rounding of its own, which differs from process to process: it would show in the pixels
    # of an image, and as -0 in a PDF.
    for axes in figure.axes:
        left, bottom, width, height = (round(value, 6) for value in axes.get_position(original=True).bounds)
        axes.set_position((left, bottom, width, height))
    with atomic_path(output.png) as part:
        FigureCanvasAgg(figure).print_png(part, metadata={"Software": None})  # type: ignore[no-untyped-call]
    figure.set_dpi(IMAGE_DPI)
    metadata = {"Title": title, "Creator": None, "Producer": None, "CreationDate": None}
    with atomic_path(output.pdf) as part:
        FigureCanvasPdf(figure).print_pdf(part, metadata=metadata)  # type: ignore[no-untyped-call]
    identity = {"figure": drawing["number"], "title": title, **sources}
    write_table(output.csv, drawn.numbers, kind=drawing["name"], identity=identity, units=drawn.units)
