"""The data sets: from their raw files to one checked file of uint8 pixels, and from there to scaled inputs.

`digits` and `digits_noisy` come with scikit-learn; `MNIST` and `FashionMNIST` come through torchvision, from a folder
or from a mirror. Only the reading of MNIST and FashionMNIST imports torch, and only when it happens.
"""

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from eigendrift.data.embedded import load_digits, load_digits_noisy
from eigendrift.data.raw import RawData
from eigendrift.data.raw_files import load_idx_files
from eigendrift.data.scaling import SCALINGS, Scaling
from eigendrift.errors import DataError
from eigendrift.storage import ArrayFile, write_arrays

__all__ = [
    "DATASETS",
    "SCALINGS",
    "Dataset",
    "RawData",
    "Scaling",
    "load_dataset",
    "load_raw",
    "prepare",
    "read_prepared",
]

KIND = "data"
_EMBEDDED: Mapping[str, Callable[[], RawData]] = {"digits": load_digits, "digits_noisy": load_digits_noisy}
_FROM_FILES = ("MNIST", "FashionMNIST")
DATASETS = (*_EMBEDDED, *_FROM_FILES)
_UNITS = {
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


def load_raw(name: str, root: str | os.PathLike[str], download: bool, mirrors: Sequence[str] | None = None) -> RawData:
    """The unscaled data of the data set `name`, its raw files verified.

    `root` is the folder that holds, or will hold, MNIST/raw and FashionMNIST/raw; the embedded data sets do not use
    it. `mirrors` are base addresses, tried in order, each holding the folders MNIST and FashionMNIST with the four
    archives; without it the environment variable EIGENDRIFT_MIRRORS (separated by spaces), then torchvision's list.
    Raises `DataError` for an unknown name and for a file that is missing, damaged or cannot be fetched.
    """
    loaders = dict(_EMBEDDED)
    loaders.update({each: partial(load_idx_files, each, root, download, mirrors) for each in _FROM_FILES})
    if name not in loaders:
        raise DataError(_unknown(name))
    return loaders[name]()


def prepare(name: str, root: str | os.PathLike[str], download: bool, output: str | os.PathLike[str]) -> None:
    """Write the data set `name` to the array file `output` (kind "data"): uint8 pixels and int64 class indices."""
    raw = load_raw(name, root, download)
    arrays = {each: getattr(raw, each) for each in _UNITS}
    identity = {
        "dataset": raw.name,
        "n_classes": raw.n_classes,
        "image_shape": list(raw.image_shape),
        "provenance": dict(raw.provenance),
    }
    write_arrays(output, arrays, kind=KIND, identity=identity, units=_UNITS)


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


def _unknown(name: str) -> str:
    spelled = {known.lower(): known for known in DATASETS}
    nearest = difflib.get_close_matches(name.lower(), spelled, n=1)
    hint = f"; did you mean {spelled[nearest[0]]}?" if nearest else ""
    return f"unknown dataset {name!r}: known are {', '.join(DATASETS)}{hint}"
