"""Figures of a track; needs matplotlib."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from eigendrift.tracking.track import Track

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")


def overview(track: "Track") -> "Figure":
    """Eigenvalues, displacement, localization and alignment against the step, a panel each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 6.5), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    for draw, place in zip(PANELS, axes.flat, strict=True):
        draw(track, place)
    for each in axes[1]:
        each.set_xlabel("step t")
    return figure


def panel(track: "Track", draw: Callable[["Track", "Axes"], None]) -> "Figure":
    """One of `PANELS` or `CERTIFICATES` as a figure of its own."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.7, 3.3), layout="constrained")
    axes = figure.subplots()
    draw(track, axes)
    axes.set_xlabel("step t")
    return figure


def eigenvalues(track: "Track", axes: "Axes") -> None:
    """Eigenvalues, and the edge of stability of SGD where it is known and in sight."""
    _curves(axes, track.steps, track.values, "λ{}")
    edges = track.trajectory.edges[track.rows]
    if np.isfinite(edges).any() and np.nanmin(edges) < 3 * track.values.max():
        axes.plot(track.steps, edges, color="0.4", linestyle="--", linewidth=1, label="edge of stability")
    if (track.values > 0).all() and len(track):
        axes.set_yscale("log")
    _finish(axes, "eigenvalue of H")


def displacement(track: "Track", axes: "Axes") -> None:
    """Displacement since the first snapshot, as a fraction of its largest value 2/N."""
    if len(track):
        _curves(axes, track.steps, track.displacement() * track.trajectory.n_parameters / 2, "v{}")
    axes.set_ylim(-0.03, 1.03)
    _finish(axes, f"displacement since step {track.steps[0] if len(track) else 0}, over 2/N")


def localization(track: "Track", axes: "Axes") -> None:
    """Inverse participation ratio, with that of a random direction."""
    _curves(axes, track.steps, track.ipr(), "v{}")
    axes.axhline(3 / track.trajectory.n_parameters, color="0.4", linestyle="--", linewidth=1, label="random")
    axes.set_yscale("log")
    _finish(axes, "inverse participation ratio")


def alignment(track: "Track", axes: "Axes") -> None:
    """|cos| of v_1 with the gradient of the whole loss, the step's gradient and its update."""
    shown = {"gradient of all data": track.full_gradient_alignments[:, 0]}
    for part, name in (("gradients", "gradient of the step"), ("updates", "update")):
        if part in track.trajectory.recorded:
            shown[name] = track.alignment(part)[:, 0]
    for colour, (name, values) in zip(COLOURS, shown.items(), strict=False):
        axes.plot(track.steps, values, color=colour, marker=".", markersize=3, linewidth=1, label=name)
    axes.set_ylim(-0.03, 1.03)
    _finish(axes, "alignment of v1, |cos|")


def layers(track: "Track") -> "Figure":
    """Share of the square of v_1 within each layer, as a stack that adds up to 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    shares, names = track.layer_shares()[:, 0], track.layers
    # A legend of a hundred layers cannot be read: the largest are shown, and the others as one.
    order = np.argsort(-shares.mean(axis=0))[: len(COLOURS) - 1] if len(track) else np.arange(0)
    shown = sorted(order.tolist())
    columns = [shares[:, i] for i in shown]
    labels = [names[i] for i in shown]
    if len(shown) < len(names):
        columns.append(1 - shares[:, shown].sum(axis=1))
        labels.append(f"{len(names) - len(shown)} other layers")
    axes.stackplot(track.steps, columns, labels=labels, colors=COLOURS[: len(columns)], alpha=0.85)
    axes.set_ylim(0, 1)
    axes.set_xlabel("step t")
    axes.set_ylabel("share of the square of v1")
    axes.margins(x=0)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=8)
    return figure


def residuals(track: "Track", axes: "Axes") -> None:
    """Relative residuals of the solver, with the tolerance."""
    _curves(axes, track.steps, track.residuals, "v{}")
    axes.axhline(track.tol, color="0.4", linestyle="--", linewidth=1, label="tolerance")
    _logarithmic(axes)
    _finish(axes, "relative residual")


def angle_bounds(track: "Track", axes: "Axes") -> None:
    """Bounds on the sine of the angle between each computed vector and the eigenvector."""
    _curves(axes, track.steps, track.angle_bounds, "v{}")
    _logarithmic(axes)
    _finish(axes, "bound on the sine of the angle")


PANELS = (eigenvalues, displacement, localization, alignment)
CERTIFICATES = (residuals, angle_bounds)


def _logarithmic(axes: "Axes") -> None:
    if any(np.asarray(line.get_ydata(), dtype=float).max(initial=0) > 0 for line in axes.lines):
        axes.set_yscale("log")


def _curves(axes: "Axes", steps: Any, table: Any, label: str) -> None:
    for i in range(table.shape[1]):
        axes.plot(
            steps,
            table[:, i],
            color=COLOURS[i % len(COLOURS)],
            marker=".",
            markersize=3,
            linewidth=1,
            label=label.format(i + 1) if i < len(COLOURS) else None,
        )


def _finish(axes: "Axes", name: str) -> None:
    axes.set_ylabel(name)
    axes.grid(alpha=0.25)
    # Beside the curves, which it would hide.
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, frameon=False, fontsize=8, columnspacing=1.0)
