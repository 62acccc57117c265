"""One self-contained HTML page about a track."""

import base64
import html
import io
import platform
from collections.abc import Callable, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import eigendrift
from eigendrift.tracking import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from eigendrift.tracking.track import Track

# Rows of the table of certificates: the first, the last, and snapshots evenly between them.
SHOWN = 12
# Pairs of each.
SHOWN_PAIRS = 3

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1d1d1f; margin: 0 auto; padding: 1rem; max-width: 60rem; }
h1 { font-size: 1.6rem; margin-bottom: 0.2rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
img { width: 100%; max-width: 40rem; height: auto; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 0.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.4rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.name { white-space: normal; text-align: left; }
.lead { font-size: 1.05rem; } .warning { color: #a33000; font-weight: 600; }
"""


def write_report(track: "Track", path: Path) -> Path:
    """Write the page; the file."""
    if not len(track):
        raise ValueError(f"{track.folder} has no solved snapshot to report")
    path.write_text(page(track), encoding="utf-8")
    return path


def page(track: "Track") -> str:
    """The page as a text of HTML."""
    title = f"Curvature of {track.folder.resolve().name}"
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="lead">{html.escape(summary(track))}</p>',
        *(f'<p class="warning">{html.escape(line)}</p>' for line in warnings_of(track)),
        "<h2>Spectrum, displacement, localization, alignment</h2>",
        "<p>Eigenvalues of the Hessian of the loss; how far each eigenvector has moved since the first snapshot, where "
        "1 is a right angle; on how few parameters it sits, from 1/N (evenly) to 1 (one parameter); and how far v1 "
        "points along gradient and update.</p>",
        _panels(track, plots.PANELS),
        "<h2>Where v1 lives</h2>",
        _image(plots.layers(track), "Share of the square of the first eigenvector within each layer against steps"),
        "<h2>Certificates</h2>",
        "<p>Residuals of true products, and bounds on the angle between each computed vector and the eigenvector. A "
        "bound of 1 says that nothing is known of the single vector, as where two eigenvalues nearly coincide.</p>",
        _panels(track, plots.CERTIFICATES),
        *_listed(track),
        "<h2>Provenance</h2>",
        _table(("what", "value"), provenance(track).items()),
    ]
    body = "\n".join(sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def summary(track: "Track") -> str:
    """What was found, in three sentences."""
    n = track.trajectory.n_parameters
    moved, ipr = track.displacement()[-1, 0] * n / 2, track.ipr()[-1, 0]
    angle = np.degrees(np.arccos(np.clip(1 - moved, 0, 1)))
    directions = len(np.unique(track.identity[:, 0]))
    return (
        f"{track.k} eigenpairs of {n} parameters at {len(track)} snapshots, from step {track.steps[0]} to "
        f"{track.steps[-1]}. The first eigenvalue ({track.which}) went from {track.values[0, 0]:.4g} to "
        f"{track.values[-1, 0]:.4g}, "
        f"and its eigenvector is now at {angle:.0f} degrees to the one at the start; {directions} "
        f"direction{'s have' if directions > 1 else ' has'} been the first in turn. At the last snapshot its inverse "
        f"participation ratio is {ipr:.3g}, that of a vector on {1 / ipr:.0f} parameters."
    )


def warnings_of(track: "Track") -> list[str]:
    """What a reader must know before the figures."""
    found = []
    left = int((~track.converged).sum())
    if left:
        found.append(f"{left} of {track.converged.size} pairs did not converge to {track.tol:g}.")
    unknown = int((track.angle_bounds >= 1).sum())
    if unknown:
        found.append(
            f"Of {unknown} of {track.angle_bounds.size} vectors the angle is not bounded: they are not certified."
        )
    estimated = sum(source == "surrogate" for source in track.bound_sources)
    if estimated:
        found.append(
            f"At {estimated} of {len(track)} snapshots the gap to the next eigenvalue is estimated, not bounded."
        )
    missing = len(track.trajectory) - len(track)
    if missing:
        found.append(f"{missing} of {len(track.trajectory)} recorded snapshots are not solved.")
    return found


def provenance(track: "Track") -> dict[str, str]:
    """Where the numbers come from."""
    return {
        "trajectory": str(track.folder),
        "parameters": f"{track.trajectory.n_parameters} in {len(track.trajectory.shapes)} tensors",
        "recorded": ", ".join(track.trajectory.recorded),
        "trained by": ", ".join(track.trajectory.optimizers) or "a loop that recorded by hand",
        "pairs": f"k = {track.k}, which = {track.which}, tolerance {track.tol:g}",
        "products": f"{int(track.matvecs.sum())} with all data, {track.matvecs.mean():.1f} a snapshot",
        **{f"meta: {name}": str(value) for name, value in track.trajectory.meta.items()},
        "written": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z} by eigendrift {eigendrift.__version__}, "
        f"PyTorch {version('torch')}, Python {platform.python_version()}",
    }


def _listed(track: "Track") -> list[str]:
    """The table of certificates, and what is left out of it."""
    head, body = _certificates(track)
    left_out = [f"{len(body)} of the {len(track)} snapshots"] if len(body) < len(track) else []
    left_out += [f"{min(track.k, SHOWN_PAIRS)} of the {track.k} pairs"] if track.k > SHOWN_PAIRS else []
    said = [f"<p>{' and '.join(left_out)} are listed; <code>to_pandas()</code> has all.</p>"] if left_out else []
    return [*said, _table(head, body)]


def _certificates(track: "Track") -> tuple[Sequence[str], list[list[str]]]:
    head = ["step", "loss", "|gradient|"]
    for i in range(1, min(track.k, SHOWN_PAIRS) + 1):
        head += [f"λ{i}", f"residual {i}", f"angle ≤ {i}"]
    rows = np.unique(np.linspace(0, len(track) - 1, SHOWN).round().astype(int))
    body = []
    for row in rows:
        line = [str(track.steps[row]), f"{track.losses[row]:.4g}", f"{track.gradient_norms[row]:.3g}"]
        for i in range(min(track.k, SHOWN_PAIRS)):
            line += [
                f"{track.values[row, i]:.5g}",
                f"{track.residuals[row, i]:.1e}",
                f"{track.angle_bounds[row, i]:.1e}",
            ]
        body.append(line)
    return head, body


def _table(head: Sequence[str], body: Any) -> str:
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    kind = ' class="name"' if len(head) == 2 else ""
    rows = "\n".join("<tr>" + "".join(f"<td{kind}>{html.escape(str(c))}</td>" for c in row) + "</tr>" for row in body)
    return f'<div class="wide"><table>\n<thead><tr>{cells}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'


def _panels(track: "Track", drawn: Sequence[Callable[["Track", "Axes"], None]]) -> str:
    """Figures side by side, and one below the other on a narrow screen."""
    images = (_image(plots.panel(track, draw), (draw.__doc__ or "").strip()) for draw in drawn)
    return f'<div class="panels">{"".join(images)}</div>'


def _image(figure: "Figure", words: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(words)}" src="data:image/png;base64,{data}">'
