"""The data sets: from their raw files to one checked file of uint8 pixels, and from there to scaled inputs.

`digits` and `digits_noisy` come with scikit-learn; `MNIST` and `FashionMNIST` come through torchvision, from a folder
or from a mirror. Only the reading of MNIST and FashionMNIST imports torch, and only when it happens.
"""

import os
from dataclasses import dataclass

import numpy as np

from eigendrift.scaling import Scaling
from reproduction.data.raw import RawData
from reproduction.files.arrays import ArrayFile

KIND = "data"
UNITS = {
    "train_inputs": "grey level, 0 to 255",
    "train_targets": "class index",
    "test_inputs": "grey level, 0 to 255",
    "test_targets": "class index",
}


@dataclass(frozen=True)
class Dataset:
    """Scaled data, ready for training.

    `train_inputs` (n, d) and `test_inputs` (m, d) are float32 without a unit, `train_targets` (n,) and `test_targets`
    (m,) int64 class indices. `scaling` is the affine map that made the inputs from grey levels, of which those for
    training are kept: `train_pixels` (n, d), uint8.
    """

    name: str
    train_inputs: np.ndarray
    train_targets: np.ndarray
    test_inputs: np.ndarray
    test_targets: np.ndarray
    n_classes: int
    image_shape: tuple[int, ...]
    train_pixels: np.ndarray
    scaling: Scaling


def read_prepared(path: str | os.PathLike[str]) -> RawData:
    """The unscaled data of a file of `prepare`, every array checked; `DamagedFileError` if one is not what it was."""
    file = ArrayFile(path, kind=KIND)
    identity = file.identity
    return RawData(
        name=identity["dataset"],
        train_inputs=file["train_inputs"],
        train_targets=file["train_targets"],
        test_inputs=file["test_inputs"],
        test_targets=file["test_targets"],
        n_classes=identity["n_classes"],
        image_shape=tuple(identity["image_shape"]),
        provenance=identity["provenance"],
    )


def load_dataset(path: str | os.PathLike[str], scaling: str) -> Dataset:
    """A file of `prepare` as float32 inputs; `scaling`, one of `SCALINGS`, is fitted on the training set."""
    raw = read_prepared(path)
    fitted = Scaling.fit(raw.train_inputs, scaling)
    return Dataset(
        name=raw.name,
        train_inputs=fitted(raw.train_inputs),
        train_targets=raw.train_targets,
        test_inputs=fitted(raw.test_inputs),
        test_targets=raw.test_targets,
        n_classes=raw.n_classes,
        image_shape=raw.image_shape,
        train_pixels=raw.train_inputs,
        scaling=fitted,
    )
