"""The record that every loader returns, and the checked file of it that all jobs read."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from reproduction.files.arrays import ArrayFile, write_arrays

KIND = "data"
UNITS = {
    "train_inputs": "grey level, 0 to 255",
    "train_targets": "class index",
    "test_inputs": "grey level, 0 to 255",
    "test_targets": "class index",
}


@dataclass(frozen=True)
class RawData:
    """Images and labels before any scaling.

    `train_inputs` (n, d) and `test_inputs` (m, d) are uint8 grey levels, one flattened image of `image_shape` a row;
    `train_targets` (n,) and `test_targets` (m,) are int64 class indices from 0 to `n_classes` - 1. `provenance` says
    what the data were made from (JSON values).
    """

    name: str
    train_inputs: np.ndarray
    train_targets: np.ndarray
    test_inputs: np.ndarray
    test_targets: np.ndarray
    n_classes: int
    image_shape: tuple[int, ...]
    provenance: Mapping[str, Any]


def write_prepared(path: str | os.PathLike[str], raw: RawData) -> None:
    """Write the data to an array file."""
    identity = {
        "dataset": raw.name,
        "n_classes": raw.n_classes,
        "image_shape": list(raw.image_shape),
        "provenance": dict(raw.provenance),
    }
    write_arrays(path, {name: getattr(raw, name) for name in UNITS}, kind=KIND, identity=identity, units=UNITS)


def read_prepared(path: str | os.PathLike[str]) -> RawData:
    """The data of a file, every array checked; `DamagedFileError` if one is not what it was."""
    file = ArrayFile(path, kind=KIND)
    identity = file.identity
    return RawData(
        name=identity["dataset"],
        **{name: file[name] for name in UNITS},
        n_classes=identity["n_classes"],
        image_shape=tuple(identity["image_shape"]),
        provenance=identity["provenance"],
    )
