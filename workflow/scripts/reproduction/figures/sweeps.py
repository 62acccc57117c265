"""The runs of a sweep over batch size or learning rate: their values, and what the figures call them."""

import pandas as pd

from reproduction.figures.axes import number_label

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
    """What a legend calls the value that these rows share; a learning rate as a factor on the optimizer's own."""
    value = float(rows["value"].iloc[0])
    if sweep == "learning_rate":
        return f"learning rate \N{MULTIPLICATION SIGN} {value:g}"
    return f"full batch ({value:.0f})" if is_full_batch(rows) else f"batch size {value:.0f}"


def value_title(rows: pd.DataFrame, sweep: str) -> str:
    """What a panel title calls the value that these rows of one optimizer share; a learning rate as it is."""
    if rows.empty:
        return ""
    if sweep == "batch_size":
        return value_label(rows, sweep)
    return f"lr {number_label(float(rows['learning_rate'].iloc[0]))}"
