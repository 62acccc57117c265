"""The datasets by name, and the rule that makes one checked file of each."""

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from reproduction.data.embedded import load_digits, load_digits_noisy
from reproduction.data.idx_files import load_idx_files
from reproduction.data.prepared import KIND, UNITS
from reproduction.data.raw import RawData
from reproduction.errors import DataError
from reproduction.files.arrays import write_arrays

_EMBEDDED: Mapping[str, Callable[[], RawData]] = {"digits": load_digits, "digits_noisy": load_digits_noisy}


_FROM_FILES = ("MNIST", "FashionMNIST")


DATASETS = (*_EMBEDDED, *_FROM_FILES)


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
    arrays = {each: getattr(raw, each) for each in UNITS}
    identity = {
        "dataset": raw.name,
        "n_classes": raw.n_classes,
        "image_shape": list(raw.image_shape),
        "provenance": dict(raw.provenance),
    }
    write_arrays(output, arrays, kind=KIND, identity=identity, units=UNITS)


def _unknown(name: str) -> str:
    spelled = {known.lower(): known for known in DATASETS}
    nearest = difflib.get_close_matches(name.lower(), spelled, n=1)
    hint = f"; did you mean {spelled[nearest[0]]}?" if nearest else ""
    return f"unknown dataset {name!r}: known are {', '.join(DATASETS)}{hint}"
