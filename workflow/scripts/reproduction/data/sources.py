"""The datasets by name, and the rule that makes one checked file of each."""

import os
from collections.abc import Sequence

from reproduction.data.archives import load_archive
from reproduction.data.idx_files import load_idx_files
from reproduction.data.npz_file import load_npz_file
from reproduction.data.prepared import RawData, write_prepared
from reproduction.errors import DataError, nearest
from reproduction.experiment.datasets import DATASETS, DatasetRecord, records_of
from reproduction.experiment.importable import load


def load_raw(name: str, root: str | os.PathLike[str], download: bool, mirrors: Sequence[str] | None = None) -> RawData:
    """The unscaled data of the data set `name`, its raw files verified.

    `root` is the folder that holds, or will hold, MNIST/raw and FashionMNIST/raw; the embedded data sets do not use
    it. `mirrors` are base addresses, tried in order, each holding the folders MNIST and FashionMNIST with the four
    archives; without it the environment variable EIGENDRIFT_MIRRORS (separated by spaces), then torchvision's list.
    Raises `DataError` for an unknown name, for a file that is missing, damaged or cannot be fetched, and for data that
    are not what the record says.
    """
    if name not in DATASETS:
        raise DataError(f"unknown dataset {name!r}{nearest(name, DATASETS)} (known: {', '.join(DATASETS)})")
    record = DATASETS[name]
    raw: RawData
    if record.files:
        raw = load_idx_files(record, root, download, mirrors)
    elif record.archive:
        raw = load_archive(record, root, download, mirrors)
    else:
        raw = load(record.loader)()
    _check(raw, record)
    return raw


def load_own(name: str, file: str | os.PathLike[str]) -> RawData:
    """The unscaled data of a data set in a file of the user's own. Raises `ConfigError` for one that cannot be used."""
    record = records_of({"datasets": [{"name": name, "file": os.fspath(file)}]})[name]
    raw = load_npz_file(record)
    _check(raw, record)
    return raw


def _check(raw: RawData, record: DatasetRecord) -> None:
    """Sizes of networks, memory and time are computed from the record before there are data."""
    for key, found, expected in (
        ("training inputs", raw.train_inputs.shape, (record.samples, record.inputs)),
        ("test inputs", raw.test_inputs.shape[1:], (record.inputs,)),
        ("image_shape", tuple(raw.image_shape), record.image_shape),
        ("classes", raw.n_classes, record.classes),
    ):
        if found != expected:
            raise DataError(
                f"data set {record.name}: {key} {found}, but its record in experiment/datasets.py says {expected}"
            )


def prepare(
    name: str,
    root: str | os.PathLike[str],
    download: bool,
    output: str | os.PathLike[str],
    file: str | os.PathLike[str] | None = None,
) -> None:
    """Write the data set `name` to the array file `output` (kind "data"): uint8 pixels and int64 class indices.

    `file`: where its data are, if they are in a file of the user's own.
    """
    write_prepared(output, load_raw(name, root, download) if file is None else load_own(name, file))
