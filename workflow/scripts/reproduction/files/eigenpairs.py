"""Files of eigenpairs: one row a pair, so that snapshots with 3 pairs and with 15 lie in the same arrays."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from reproduction.errors import DamagedFileError
from reproduction.files.arrays import ArrayFile, write_arrays

KIND = "eigenpairs"
UNITS = {
    "step": "training steps",
    "i": "1",
    "eigenvalue": "loss / parameter^2",
    "residual": "1",
    "gap": "loss / parameter^2",
    "angle_bound": "1",
    "clustered": "1",
    "span_bound": "1",
    "orthogonality": "1",
    "matvecs": "1",
    "converged": "1",
    "gradient_norm": "loss / parameter",
    "gradient_overlap": "1",
}
INTEGERS = ("step", "i", "clustered", "matvecs", "converged")


def write_pairs(
    path: str | os.PathLike[str], numbers: np.ndarray, vectors: np.ndarray, identity: Mapping[str, Any]
) -> None:
    """numbers (P, 13) in the order of UNITS, vectors (P, N): unit eigenvectors."""
    columns = {name: numbers[:, j].astype(np.int64 if name in INTEGERS else np.float64) for j, name in enumerate(UNITS)}
    write_arrays(path, {**columns, "vectors": vectors}, kind=KIND, identity=identity, units={**UNITS, "vectors": "1"})


def read_pairs(path: str | os.PathLike[str], largest_index: int | None = None) -> tuple[pd.DataFrame, np.ndarray]:
    """The numbers of each pair (P rows) and the vectors (P, N); `largest_index` leaves out pairs beyond the first i."""
    file = ArrayFile(path, kind=KIND)
    frame = pd.DataFrame({name: file[name] for name in UNITS})
    vectors = file["vectors"]
    if largest_index is not None:
        keep = (frame["i"] <= largest_index).to_numpy()
        frame, vectors = frame[keep].reset_index(drop=True), vectors[keep]
    return frame, vectors


def read_run(
    paths: Iterable[str | os.PathLike[str]], largest_index: int | None = None
) -> tuple[pd.DataFrame, np.ndarray]:
    """All chunks of a run as one, in order of step and i."""
    parts = [read_pairs(path, largest_index) for path in paths]
    frame = pd.concat([part[0] for part in parts], ignore_index=True)
    return frame, np.concatenate([part[1] for part in parts])


def map_run(paths: Iterable[str | os.PathLike[str]]) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """The numbers of all pairs of a run, in order of step and i, and the vectors of each chunk, mapped into memory.

    The rows of the frame are those of the chunks one after the other; a snapshot's pairs lie in one chunk.
    """
    files = [ArrayFile(path, kind=KIND) for path in paths]
    frames = [pd.DataFrame({name: file[name] for name in UNITS}) for file in files]
    return pd.concat(frames, ignore_index=True), [file.mapped("vectors") for file in files]


def run_identity(paths: Iterable[str | os.PathLike[str]]) -> dict[str, Any]:
    """Which run the chunks of eigenpairs belong to; `DamagedFileError` if they are not all of one."""
    first: dict[str, Any] | None = None
    for path in paths:
        found = {key: value for key, value in ArrayFile(path, kind=KIND).identity.items() if key != "chunk"}
        first = found if first is None else first
        if found != first:
            raise DamagedFileError(f"{path}: belongs to another run than the chunk before it; delete it and run again")
    if first is None:
        raise ValueError("a run has at least one chunk of eigenpairs")
    return first
