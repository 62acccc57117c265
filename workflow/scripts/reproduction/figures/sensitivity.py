"""What the answer owes to the choices that the paper leaves open: scaling, initialization, network (figure S1)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reproduction.experiment.labels import Layout
from reproduction.figures.axes import linear_axis, log_axis, no_data, panel_title, points
from reproduction.figures.panels import Drawn, Grid, add_notes, band_handle, bottom_legend, drawn, panel_grid
from reproduction.figures.style import BASELINE, NEUTRAL, marker, optimizer_colors, styled
from reproduction.figures.summaries import in_order, incomplete_note, unconverged_note
from reproduction.files.tables import RUN_KEY
from reproduction.statistics.localization import final_ipr
from reproduction.statistics.two_time import curves, final_step, last_third, late_waiting_time

# Figures 3 and 2 of the paper: Adam's final IPR and run-mean gradient alignment, for its own network and data alone.
PAPER_ADAM_IPR = 0.1
PAPER_ADAM_ALIGNMENT = {"MNIST": 0.26}
PAPER_PARAMETERS = 89_720
VALUES = ("ipr", "displacement", "gradient_alignment")

Settings = Mapping[str, Mapping[str, Any]]


@styled
def sensitivity(
    ipr: pd.DataFrame,
    displacement: pd.DataFrame,
    alignment: pd.DataFrame,
    baseline: pd.DataFrame,
    layout: Layout,
    settings: Settings,
) -> Drawn:
    """Figure S1: final IPR, late plateau of D_1 and run-mean gradient alignment of v_1 under each variant, one point a
    seed, a bar at their mean.

    `settings` is variant -> {scaling, ...}, with the keys of `model`, from the top down; the first three tables
    are those of its runs.
    """
    final = in_order(ipr[ipr["i"].isna() | (ipr["i"] == 1)], layout)
    moved, aligned = (in_order(table[table["i"] == 1], layout) for table in (displacement, alignment))
    numbers = _numbers(final, moved, aligned, settings)
    numbers["even_spread"] = 1.0 / numbers["n_parameters"]
    numbers["tau"] = numbers["dataset"].map(baseline[baseline["i"] == 1].set_index("dataset")["displacement"])
    papers = numbers["n_parameters"] == PAPER_PARAMETERS
    numbers["paper_adam_ipr"] = np.where(papers, PAPER_ADAM_IPR, np.nan)
    numbers["paper_adam_alignment"] = numbers["dataset"].map(PAPER_ADAM_ALIGNMENT).where(papers)
    grid = panel_grid(len(layout.datasets), len(VALUES), max(1.0, 0.3 + 0.26 * len(settings)), share_x=False)
    for row, (dataset, label) in enumerate(layout.datasets.items()):
        chosen = numbers[numbers["dataset"] == dataset]
        for column, value in enumerate(VALUES):
            ax = grid.axes[row, column]
            panel_title(ax, label)
            _draw(ax, chosen, value, layout, list(settings))
        panels = [grid.axes[row, column] for column in range(len(VALUES))]
        _references(panels, chosen, baseline[baseline["dataset"] == dataset])
    _axes(grid, numbers, settings)
    bottom_legend(grid.figure, _handles(numbers, layout))
    hollow = "Hollow points, which the means leave out: where such a run ended."
    ended = [f"{note} {hollow}" for note in incomplete_note(final, layout)]
    add_notes(grid.figure, unconverged_note(final, "left out") + ended)
    return drawn(grid.figure, numbers)


def plateaus(displacement: pd.DataFrame) -> pd.DataFrame:
    """Of each run: its late waiting time among those that all complete runs have, and the plateau of D_1 there.

    The plateau is that of the claims: the mean over the last third of log lag. Both are NaN for a run without one.
    """
    rows = displacement[displacement["converged"] == 1]
    runs = [
        (key, curves(run), final_step(run) >= run["steps"].max()) for key, run in rows.groupby(RUN_KEY, observed=True)
    ]
    whole = [set(found) for _, found, complete in runs if complete]
    shared = set.intersection(*whole) if whole else set()
    table = []
    for key, found, _ in runs:
        late = late_waiting_time({waiting_time: found[waiting_time] for waiting_time in shared & set(found)})
        lags, values = found.get(late, (np.array([1.0]), np.array([np.nan])))
        table.append((*key, late, float(values[last_third(lags)].mean())))
    return pd.DataFrame(table, columns=[*RUN_KEY, "waiting_time", "displacement"])


def final_ratios(ipr: pd.DataFrame) -> pd.DataFrame:
    """Of each run: its last step, whether that is its planned one, and the final IPR of v_1.

    That is the one of the claims: the geometric mean over the last tenth of the steps, of pairs that converged.
    """
    table = []
    for key, run in ipr.dropna(subset=["step"]).groupby(RUN_KEY, observed=True):
        ratio = final_ipr(run[run["converged"] == 1])
        reached = int(run["step"].max())
        table.append((*key, int(run["n_parameters"].iloc[0]), reached, int(reached >= run["steps"].max()), ratio))
    return pd.DataFrame(table, columns=[*RUN_KEY, "n_parameters", "step", "complete", "ipr"])


def mean_alignments(alignment: pd.DataFrame) -> pd.DataFrame:
    """Of each run, the mean gradient alignment of v_1 over its snapshots, of pairs that converged."""
    runs = alignment[alignment["converged"] == 1].groupby(RUN_KEY, observed=True)
    return runs["gradient_alignment"].mean().reset_index()


def _numbers(
    ipr: pd.DataFrame, displacement: pd.DataFrame, alignment: pd.DataFrame, settings: Settings
) -> pd.DataFrame:
    """One row a run: its variant, where it ends, its final IPR, its plateau, its alignment."""
    names = {"dataset": str, "optimizer": str, "variant": str}
    numbers = final_ratios(ipr).astype(names)
    for found in (plateaus(displacement), mean_alignments(alignment)):
        numbers = numbers.merge(found.astype(names), how="left", on=RUN_KEY)
    for name in ("init", "scaling"):
        numbers.insert(len(RUN_KEY), name, numbers["variant"].map({key: kept[name] for key, kept in settings.items()}))
    order = numbers["variant"].map({variant: rank for rank, variant in enumerate(settings)})
    return numbers.assign(order=order).sort_values(["dataset", "order", "optimizer", "seed"]).drop(columns="order")


def _draw(ax: Axes, numbers: pd.DataFrame, value: str, layout: Layout, variants: list[str]) -> None:
    if numbers[value].notna().sum() == 0:
        no_data(ax)
    shown = [name for name in layout.optimizers if name in set(numbers["optimizer"])]
    colors = optimizer_colors(layout.optimizers)
    for rank, variant in enumerate(variants):
        for position, optimizer in enumerate(shown):
            seeds = numbers[(numbers["variant"] == variant) & (numbers["optimizer"] == optimizer)]
            # Optimizers below each other within a variant, so that equal values do not hide each other.
            height = rank + 0.5 * (position - (len(shown) - 1) / 2) / max(len(shown), 1)
            y = pd.Series(height, index=seeds.index, dtype=float)
            broken = 1 - seeds["complete"]
            look: dict[str, Any] = {"marker": marker(list(layout.optimizers).index(optimizer)), "clip_on": False}
            points(ax, seeds[value], y, broken, color=colors[optimizer], **look)
            mean = seeds.loc[broken == 0, value].mean()
            if np.isfinite(mean):
                ax.plot([mean, mean], [height - 0.2, height + 0.2], color=colors[optimizer], linewidth=0.9, gid="mean")


def _references(panels: Sequence[Axes], numbers: pd.DataFrame, baseline: pd.DataFrame) -> None:
    localized, moved, aligned = panels
    for value in numbers["even_spread"].unique():
        localized.axvline(value, color=NEUTRAL, linestyle=":", linewidth=1.0, gid="even_spread")
    for ax, name in ((localized, "paper_adam_ipr"), (aligned, "paper_adam_alignment")):
        for value in numbers[name].dropna().unique():
            ax.axvline(value, color=NEUTRAL, linestyle="--", linewidth=1.0, gid="paper")
    for _, row in baseline[baseline["i"] == 1].iterrows():
        moved.axvline(row["displacement"], color=BASELINE, linestyle="--", linewidth=1.0, gid="baseline")
        moved.axvspan(row["displacement_low"], row["displacement_high"], color=BASELINE, alpha=0.25, linewidth=0)


def variant_labels(settings: Settings) -> list[str]:
    """Scaling and initialization of each variant, and what else it does not share with the first."""
    first = next(iter(settings.values()))
    labels = []
    for own in settings.values():
        if "module" in own:
            changed = own["args"] if own["args"] != first["args"] else {}
            labels.append(", ".join([own["scaling"], *(f"{key} {value}" for key, value in changed.items())]))
            continue
        parts = [own["scaling"], own["init"].replace("_", " ").capitalize()]
        if own["bias_init"] != first["bias_init"]:
            parts.append(f"{own['bias_init']} biases")
        if own["activation"] != first["activation"]:
            parts.append(own["activation"])
        if own["hidden"] != first["hidden"]:
            parts.append("-".join(map(str, own["hidden"])) or "no hidden layer")
        labels.append(", ".join(parts))
    return labels


def _axes(grid: Grid, numbers: pd.DataFrame, settings: Settings) -> None:
    names = variant_labels(settings)
    for ax in grid.flat():
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.grid(visible=False, axis="y")
    # Beside one or two variants the panels are lower than the label is long.
    grid.labels("", "scaling, initialization" if len(names) > 2 else "variant")
    for column, value in enumerate(VALUES):
        panels = [ax for (_, place), ax in grid.axes.items() if place == column]
        panels[-1].set_xlabel(_scale(panels, value, numbers))


def _scale(panels: Sequence[Axes], value: str, numbers: pd.DataFrame) -> str:
    """Give the panels of one value their common axis; its label."""
    if value == "ipr":
        shown = numbers[["ipr", "even_spread", "paper_adam_ipr"]].to_numpy(float)
        shown = shown[np.isfinite(shown) & (shown > 0)]
        for ax in panels if shown.size else []:
            ax.set_xscale("log")
            ax.set_xlim(shown.min() / 1.6, shown.max() * 1.6)
            log_axis(ax.xaxis)
        return "final IPR of $v_1$"
    reference, label = {
        "displacement": ("tau", "plateau of $D_1$"),
        "gradient_alignment": ("paper_adam_alignment", "gradient alignment of $v_1$"),
    }[value]
    top = np.nanmax(numbers[[value, reference]].to_numpy(float), initial=0.0)
    shown_label = label
    for ax in panels:
        ax.set_xlim(0, 1.06 * top if top > 0 else 1.0)
        shown_label = linear_axis(ax.xaxis, label, top)
    return shown_label


def _handles(numbers: pd.DataFrame, layout: Layout) -> list[Artist]:
    colors = optimizer_colors(layout.optimizers)
    handles: list[Artist] = []
    for position, (name, label) in enumerate(layout.optimizers.items()):
        if name in set(numbers["optimizer"]):
            handles.append(Line2D([], [], color=colors[name], marker=marker(position), linestyle="none", label=label))
    handles.append(Line2D([], [], color=NEUTRAL, linestyle=":", label="$1/N$"))
    if numbers["paper_adam_ipr"].notna().any():
        handles.append(Line2D([], [], color=NEUTRAL, linestyle="--", label="Adam in the paper"))
    if numbers["tau"].notna().any():
        handles.append(Line2D([], [], color=BASELINE, linestyle="--", label="random baseline $\\tau_1$"))
        handles.append(band_handle(BASELINE, "its 95% interval"))
    return handles
