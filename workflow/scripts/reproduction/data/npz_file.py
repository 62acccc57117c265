"""A data set in a file of the user's own; `experiment.data_file` says what it holds and has checked it."""

import hashlib
from pathlib import Path

import numpy as np

from reproduction.data.prepared import RawData
from reproduction.experiment.data_file import ARRAYS
from reproduction.experiment.datasets import DatasetRecord


def load_npz_file(record: DatasetRecord) -> RawData:
    """The data of a record with a `file`, one flattened sample a row."""
    path = Path(record.file).expanduser()
    with np.load(path, allow_pickle=False) as file:
        x_train, y_train, x_test, y_test = (np.ascontiguousarray(file[name]) for name in ARRAYS)
    with open(path, "rb") as handle:
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
    return RawData(
        name=record.name,
        train_inputs=x_train.reshape(len(x_train), -1),
        train_targets=y_train.astype(np.int64),
        test_inputs=x_test.reshape(len(x_test), -1),
        test_targets=y_test.astype(np.int64),
        n_classes=record.classes,
        image_shape=record.image_shape,
        provenance={"source": path.name, "sha256": sha256},
    )
