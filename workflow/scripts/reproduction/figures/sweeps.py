"""The runs of a sweep over batch size or learning rate: their values, how they are drawn and what they are called."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from reproduction.figures.axes import number_label
from reproduction.figures.style import sequence_colors

NAMES = {"batch_size": "batch size", "learning_rate": "learning rate"}


def sweep_runs(frame: pd.DataFrame, sweep: str) -> pd.DataFrame:
    """The rows of the main runs and of those of `sweep` (batch_size | learning_rate), with their `value`.

    It is the batch size in samples, or the factor on each optimizer's own learning rate; 1 for a main run.
    """
    rows = frame[(frame["variant"] == "main") | frame["variant"].str.startswith(f"{sweep}-")].copy()
    if sweep == "batch_size":
        rows["value"] = rows["batch_size"].astype(float)
    else:
        rows["value"] = [1.0 if v == "main" else float(v.removeprefix("learning_rate-")) for v in rows["variant"]]
    return rows


def sweep_variants(rows: pd.DataFrame) -> list[str]:
    """The variants in `rows` of `sweep_runs`, by ascending value."""
    values = rows[["value", "variant"]].drop_duplicates().sort_values(["value", "variant"])
    return [str(variant) for variant in values["variant"]]


def is_full_batch(rows: pd.DataFrame) -> bool:
    """Whether these rows are of runs whose every batch is the whole training set."""
    return bool((rows["batch_size"] == rows["n_train"]).all()) and len(rows) > 0


def value_label(rows: pd.DataFrame, sweep: str) -> str:
    """What a legend titled by the sweep calls the value that these rows share; a learning rate as a factor."""
    value = float(rows["value"].iloc[0])
    if sweep == "learning_rate":
        return f"\N{MULTIPLICATION SIGN} {value:g}"
    return f"full ({value:.0f})" if is_full_batch(rows) else f"{value:.0f}"


def sweep_looks(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Variant -> how its line is drawn, by ascending value; the full batch is black and dashed."""
    variants = sweep_variants(rows)
    colors = sequence_colors(range(len(variants)), "plasma")
    looks: dict[str, dict[str, Any]] = {variant: {"color": colors[rank]} for rank, variant in enumerate(variants)}
    for variant in variants:
        if is_full_batch(rows[rows["variant"] == variant]):
            looks[variant] = {"color": "black", "linestyle": "--"}
    return looks


def value_handles(rows: pd.DataFrame, sweep: str, looks: Mapping[str, Mapping[str, Any]]) -> list[Artist]:
    """A legend entry for each value; of runs that are shorter than the longest it says to which step they go."""
    longest = rows["steps"].max()
    handles: list[Artist] = []
    for variant, look in looks.items():
        facts = rows[rows["variant"] == variant]
        end = "" if facts["steps"].max() == longest else f", to step {number_label(float(facts['steps'].max()))}"
        handles.append(Line2D([], [], linewidth=1.6, label=f"{value_label(facts, sweep)}{end}", **look))
    return handles
