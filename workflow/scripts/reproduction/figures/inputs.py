"""Read the tables of a figure."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reproduction.files import final_eigenvectors
from reproduction.files.tables import read_header, read_run_tables, read_table

Paths = Iterable[str | os.PathLike[str]]

RUN_KEYS = ["dataset", "optimizer", "variant", "seed"]
RUN_FACTS = ["batch_size", "learning_rate", "steps", "n_parameters", "n_train"]


def read_runs(paths: Paths, kind: str) -> pd.DataFrame:
    """Stack one table a run, each row with RUN_KEYS and RUN_FACTS of its run in front (`steps` is the planned number).

    A run whose table has no rows (it diverged at once) is there as one row whose measured columns are missing.
    """
    listed = list(paths)
    runs = pd.DataFrame([read_header(path, kind=kind)["identity"] for path in listed])[RUN_KEYS + RUN_FACTS]
    rows = read_run_tables(listed, kind=kind).drop(columns=["batch_size", "learning_rate"])
    # Columns of an empty table have no type of their own.
    rows = rows.astype({"dataset": str, "optimizer": str, "variant": str})
    for column in rows.columns.difference(["dataset", "optimizer", "variant"], sort=False):
        rows[column] = pd.to_numeric(rows[column])
    return runs.merge(rows.astype({"seed": "int64"}), how="left", on=RUN_KEYS)


def read_datasets(paths: Paths, kind: str) -> pd.DataFrame:
    """Stack one table a dataset, each row with its `dataset` in front."""
    frames = []
    for path in paths:
        frame = read_table(path, kind=kind)
        frame.insert(0, "dataset", read_header(path, kind=kind)["identity"]["dataset"])
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True)
class LayerVector:
    """A unit vector (N,) over the parameters of one run's network, with (name, shape) of each in their order.

    The vector is empty if the run diverged before its first snapshot; `diverged_at` is None if it reached its end.
    """

    dataset: str
    optimizer: str
    seed: int
    layers: tuple[tuple[str, tuple[int, ...]], ...]
    vector: np.ndarray
    diverged_at: int | None


def read_final_eigenvectors(paths: Paths) -> list[LayerVector]:
    """Read v_1 at the last step, one file a run."""
    vectors = []
    for path in paths:
        found = final_eigenvectors.read_final_eigenvectors(path)
        identity = found.identity
        who = identity["dataset"], identity["optimizer"], identity["seed"]
        vectors.append(LayerVector(*who, found.layers, found.last, identity.get("diverged_at")))
    return vectors


def read_overlaps(paths: Paths, kind: str) -> pd.DataFrame:
    """Stack one table of |cos| between pairs a dataset, each row with `dataset` and `n_parameters` in front."""
    frames = []
    for path in paths:
        frame, identity = read_table(path, kind=kind), read_header(path, kind=kind)["identity"]
        for position, column in enumerate(("dataset", "n_parameters")):
            frame.insert(position, column, identity[column])
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
