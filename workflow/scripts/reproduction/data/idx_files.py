"""MNIST and its like from their raw files, read by torchvision after every byte has been verified.

Sources: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Proc. IEEE 86, 2278 (1998); H. Xiao, K. Rasul and R. Vollgraf,
arXiv:1708.07747 (2017).
"""

import gzip
import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reproduction.data.download import fetch, mirrors_from_environment
from reproduction.data.prepared import RawData
from reproduction.errors import DataError
from reproduction.experiment.datasets import DATASETS, DatasetRecord, RawFile


def load_idx_files(
    record: DatasetRecord, root: str | os.PathLike[str], download: bool, mirrors: Sequence[str] | None = None
) -> RawData:
    """A data set of `files` from `root`/<name>/raw, which holds the four files, unpacked or as .gz archives.

    With `download`, absent files are fetched into that folder; without anything to fetch, nothing is written there.
    Raises `DataError`, which names the file, for one that is missing, damaged, another data set's or out of reach.
    """
    name = record.name
    folder = Path(root).expanduser() / name / "raw"
    absent = [file for file in record.files if not _is_unpacked(folder, file) and not _is_file(folder / file.archive)]
    if absent and not download:
        wanted = f"md5 {absent[0].md5}" if absent[0].md5 else f"{absent[0].archive} of md5 {absent[0].archive_md5}"
        raise DataError(
            f"{folder / absent[0].name}: no such file ({wanted} expected); set data.download: true to fetch "
            f"it, or data.root to a folder that holds {name}/raw"
        )
    for file in absent:
        fetch(folder / file.archive, file.archive_md5, _addresses(name, file, mirrors))
    with tempfile.TemporaryDirectory(prefix="eigendrift-") as staging:
        _stage(record, folder, Path(staging) / name / "raw")
        return _read(record, staging)


def _addresses(name: str, file: RawFile, mirrors: Sequence[str] | None) -> list[str]:
    bases = mirrors if mirrors is not None else mirrors_from_environment()
    if bases:
        return [f"{base.rstrip('/')}/{name}/{file.archive}" for base in bases]
    return [f"{base}{file.archive}" for base in _torchvision_class(name).mirrors]


def _stage(record: DatasetRecord, folder: Path, staging: Path) -> None:
    # A folder of verified files only: torchvision would prefer a cache of an old version that lies beside them,
    # unverified, and the user's folder may be read-only where archives have to be unpacked.
    staging.mkdir(parents=True)
    for file in record.files:
        target = staging / file.name
        if _is_unpacked(folder, file):
            target.symlink_to((folder / file.name).resolve())
        else:
            archive = folder / file.archive
            verify(archive, file.archive_md5, record.name)
            try:
                with gzip.open(archive) as packed, open(target, "wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
            except OSError as error:
                raise DataError(
                    f"{target}: cannot be unpacked from {archive} ({error.strerror or error}); it needs 50 MB there, "
                    "or the unpacked file beside the archive"
                ) from None
        if file.md5:
            verify(target, file.md5, record.name, folder / file.name)


def verify(path: Path, expected: str, dataset: str, shown: Path | None = None) -> None:
    """`DataError` for a file that cannot be read or has another md5."""
    shown = shown or path
    try:
        with open(path, "rb") as handle:
            found = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DataError(f"{shown}: cannot be read ({error.strerror})") from None
    if found != expected:
        raise DataError(
            f"{shown}: md5 {found}, expected {expected}: {_identify(found) or 'damaged or not the published file'}; "
            f"delete it and let data.download: true fetch it, or set data.root to a folder that holds {dataset}/raw"
        )


def _identify(md5: str) -> str | None:
    owners = {
        each: f"it is {name}'s {file.name}"
        for name, record in DATASETS.items()
        for file in record.files
        for each in (file.md5, file.archive_md5)
    }
    return owners.get(md5)


def _read(record: DatasetRecord, root: str) -> RawData:
    name = record.name
    train, test = (_torchvision_class(name)(root, train=train) for train in (True, False))
    return RawData(
        name=name,
        train_inputs=train.data.numpy().reshape(len(train), -1),
        train_targets=train.targets.numpy(),
        test_inputs=test.data.numpy().reshape(len(test), -1),
        test_targets=test.targets.numpy(),
        n_classes=record.classes,
        image_shape=record.image_shape,
        provenance={"source": name, "md5": {file.name: file.md5 or file.archive_md5 for file in record.files}},
    )


def _torchvision_class(name: str) -> Any:
    import torchvision  # imported here, since that takes two seconds and the digits do not use it

    return getattr(torchvision.datasets, name)


def _is_unpacked(folder: Path, file: RawFile) -> bool:
    """Whether the unpacked file is there, and can be verified."""
    return bool(file.md5) and _is_file(folder / file.name)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
