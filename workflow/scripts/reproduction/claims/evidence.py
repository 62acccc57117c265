"""The tables of one results folder, cleaned and with the paper's roles given to configured datasets and optimizers."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from reproduction.errors import ConfigError
from reproduction.experiment.labels import MAIN
from reproduction.files.final_eigenvectors import KIND, FinalEigenvectors, read_final_eigenvectors
from reproduction.files.tables import RUN_KEY, read_header, read_tables

DATASET_ROLES = ("MNIST", "FashionMNIST")
OPTIMIZER_ROLES = ("sgd", "adam", "sam")
DIVERGED = "diverged run"
UNCONVERGED = "row of an unconverged eigenpair"
_EIGEN_TABLES = ("ipr", "alignment", "displacement")
_RUN_TABLES = ("history", *_EIGEN_TABLES)
_DATASET_TABLES = ("baseline", "interpolation", "solutions")

RunKey = tuple[str, str, str, int]


@dataclass(frozen=True)
class Evidence:
    """What the claims are scored on.

    `history`, `ipr`, `alignment` and `displacement` hold one row a measurement, with the columns `files.tables.WHOSE`
    in front; rows of diverged runs and of unconverged eigenpairs are taken
    out. `weights` holds the displacement table's rows of i = 1 with those of unconverged eigenpairs kept, for the
    columns that need no eigenvector. `left_out` counts what was taken out: table, dataset, optimizer, variant, i
    (0: all), reason, rows. `dataset_of` and `optimizer_of` map the paper's roles to configured names.
    """

    history: pd.DataFrame
    ipr: pd.DataFrame
    alignment: pd.DataFrame
    displacement: pd.DataFrame
    weights: pd.DataFrame
    baseline: pd.DataFrame
    interpolation: pd.DataFrame
    solutions: pd.DataFrame
    vectors: tuple[FinalEigenvectors, ...]
    left_out: pd.DataFrame
    dataset_of: Mapping[str, str]
    optimizer_of: Mapping[str, str]
    dense_seed: int

    def main_steps(self) -> int:
        """The last step that the main runs have a snapshot of; 0 without any."""
        if self.history.empty:
            return 0
        steps = self.history.loc[self.history["variant"] == MAIN, "step"]
        return int(steps.max()) if len(steps) else 0


def load_evidence(
    tables: Mapping[str, Sequence[str | os.PathLike[str]]],
    *,
    datasets: Sequence[str],
    optimizer_roles: Mapping[str, str],
    dense_seed: int,
) -> Evidence:
    """Read the tables, kind -> paths.

    `datasets` are in configured order, `optimizer_roles` maps the paper's optimizers to configured names.
    """
    runs = [read_header(path, kind="history")["identity"] for path in tables["history"]]
    read = {kind: sorted(map(str, paths)) for kind, paths in tables.items() if paths and kind != KIND}
    return build_evidence(
        {kind: read_tables(paths, kind=kind) for kind, paths in read.items()},
        vectors=tuple(map(read_final_eigenvectors, tables.get(KIND, ()))),
        diverged=[_key(identity) for identity in runs if identity.get("diverged_at") is not None],
        datasets=datasets,
        optimizer_roles=optimizer_roles,
        dense_seed=dense_seed,
    )


def build_evidence(
    tables: Mapping[str, pd.DataFrame],
    *,
    vectors: Sequence[FinalEigenvectors],
    diverged: Iterable[RunKey] = (),
    datasets: Sequence[str],
    optimizer_roles: Mapping[str, str],
    dense_seed: int,
) -> Evidence:
    """Clean tables that are already read: take out diverged runs and unconverged pairs, and count both.

    Runs in `diverged`, and those with a training loss that is not finite, are taken out whole.
    """
    unknown = [role for role in optimizer_roles if role not in OPTIMIZER_ROLES]
    if unknown or not datasets:
        raise ConfigError(
            f"roles: {unknown[0] if unknown else 'no dataset'!r}; optimizer roles are {', '.join(OPTIMIZER_ROLES)}"
        )
    given = {kind: tables.get(kind, pd.DataFrame()) for kind in (*_RUN_TABLES, *_DATASET_TABLES)}
    lost = {*diverged, *_not_finite(given["history"])}
    moved = given["displacement"]
    given["weights"] = moved[moved["i"] == 1] if len(moved) else moved
    left_out: list[pd.DataFrame] = []
    for table in (*_RUN_TABLES, "weights"):
        kept = _without_runs(given[table], lost)
        left_out.append(_diverged_counts(table, lost))
        given[table] = _without_unconverged(kept, table, left_out) if table in _EIGEN_TABLES else kept
    return Evidence(
        **given,
        vectors=tuple(vector for vector in vectors if _key(vector.identity) not in lost and vector.last.size),
        left_out=pd.concat([_NOTHING_LEFT_OUT, *left_out], ignore_index=True),
        dataset_of=dict(zip(DATASET_ROLES, (datasets[0], datasets[-1]), strict=True)),
        optimizer_of=dict(optimizer_roles),
        dense_seed=dense_seed,
    )


_LEFT_OUT_COLUMNS = ["table", "dataset", "optimizer", "variant", "i", "reason", "rows"]
_NOTHING_LEFT_OUT = pd.DataFrame({column: pd.Series(dtype=object) for column in _LEFT_OUT_COLUMNS})


def _key(identity: Mapping[str, Any]) -> RunKey:
    return str(identity["dataset"]), str(identity["optimizer"]), str(identity["variant"]), int(identity["seed"])


def _not_finite(history: pd.DataFrame) -> set[RunKey]:
    if history.empty:
        return set()
    bad = history[~np.isfinite(history["train_loss"].to_numpy(dtype=float))]
    return {(str(d), str(o), str(v), int(s)) for d, o, v, s in zip(*(bad[name] for name in RUN_KEY), strict=True)}


def _without_runs(frame: pd.DataFrame, runs: set[RunKey]) -> pd.DataFrame:
    if frame.empty or not runs:
        return frame
    return frame[[key not in runs for key in zip(*(frame[name] for name in RUN_KEY), strict=True)]]


def _diverged_counts(table: str, runs: set[RunKey]) -> pd.DataFrame:
    # A diverged run is lost for every i: 0 stands for all of them.
    rows = [(table, dataset, optimizer, variant, 0, DIVERGED, 1) for dataset, optimizer, variant, _ in sorted(runs)]
    return pd.DataFrame(rows, columns=_LEFT_OUT_COLUMNS, dtype=object)


def _without_unconverged(frame: pd.DataFrame, table: str, left_out: list[pd.DataFrame]) -> pd.DataFrame:
    if frame.empty:
        return frame
    gone = (frame["converged"] != 1).to_numpy()
    counted = frame[gone].groupby(["dataset", "optimizer", "variant", "i"], sort=True).size().rename("rows")
    left_out.append(counted.reset_index().assign(table=table, reason=UNCONVERGED)[_LEFT_OUT_COLUMNS].astype(object))
    return frame[~gone]
