"""MNIST and FashionMNIST from their raw files, read by torchvision after every byte has been verified.

Sources: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Proc. IEEE 86, 2278 (1998); H. Xiao, K. Rasul and R. Vollgraf,
arXiv:1708.07747 (2017).
"""

import gzip
import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.data.download import fetch, mirrors_from_environment
from reproduction.data.raw import RawData
from reproduction.errors import DataError

N_CLASSES = 10
IMAGE_SHAPE = (28, 28)


@dataclass(frozen=True)
class RawFile:
    """One file of a data set: its name and md5, and the md5 of its gzip archive (`name`.gz), as published."""

    name: str
    md5: str
    archive_md5: str

    @property
    def archive(self) -> str:
        """The archive's name."""
        return f"{self.name}.gz"


FILES: dict[str, tuple[RawFile, ...]] = {
    "MNIST": (
        RawFile("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        RawFile("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"),
        RawFile("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"),
        RawFile("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
    "FashionMNIST": (
        RawFile("train-images-idx3-ubyte", "f4a8712d7a061bf5bd6d2ca38dc4d50a", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        RawFile("train-labels-idx1-ubyte", "9018921c3c673c538a1fc5bad174d6f9", "25c81989df183df01b3e8a0aad5dffbe"),
        RawFile("t10k-images-idx3-ubyte", "8181f5470baa50b63fa0f6fddb340f0a", "bef4ecab320f06d8554ea6380940ec79"),
        RawFile("t10k-labels-idx1-ubyte", "15d484375f8d13e6eb1aabb0c3f46965", "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
}


def load_idx_files(
    name: str, root: str | os.PathLike[str], download: bool, mirrors: Sequence[str] | None = None
) -> RawData:
    """MNIST or FashionMNIST from `root`/`name`/raw, which holds the four files, unpacked or as .gz archives.

    With `download`, absent files are fetched into that folder; without anything to fetch, nothing is written there.
    Raises `DataError`, which names the file, for one that is missing, damaged, another data set's or out of reach.
    """
    folder = Path(root).expanduser() / name / "raw"
    absent = [file for file in FILES[name] if not _is_file(folder / file.name) and not _is_file(folder / file.archive)]
    if absent and not download:
        raise DataError(
            f"{folder / absent[0].name}: no such file (md5 {absent[0].md5} expected); set data.download: true to fetch "
            f"it, or data.root to a folder that holds {name}/raw"
        )
    for file in absent:
        fetch(folder / file.archive, file.archive_md5, _addresses(name, file, mirrors))
    with tempfile.TemporaryDirectory(prefix="eigendrift-") as staging:
        _stage(name, folder, Path(staging) / name / "raw")
        return _read(name, staging)


def _addresses(name: str, file: RawFile, mirrors: Sequence[str] | None) -> list[str]:
    bases = mirrors if mirrors is not None else mirrors_from_environment()
    if bases:
        return [f"{base.rstrip('/')}/{name}/{file.archive}" for base in bases]
    return [f"{base}{file.archive}" for base in _torchvision_class(name).mirrors]


def _stage(name: str, folder: Path, staging: Path) -> None:
    # A folder of verified files only: torchvision would prefer a cache of an old version that lies beside them,
    # unverified, and the user's folder may be read-only where archives have to be unpacked.
    staging.mkdir(parents=True)
    for file in FILES[name]:
        target = staging / file.name
        if _is_file(folder / file.name):
            target.symlink_to((folder / file.name).resolve())
        else:
            archive = folder / file.archive
            _verify(archive, file.archive_md5, name)
            try:
                with gzip.open(archive) as packed, open(target, "wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
            except OSError as error:
                raise DataError(
                    f"{target}: cannot be unpacked from {archive} ({error.strerror or error}); it needs 50 MB there, "
                    "or the unpacked file beside the archive"
                ) from None
        _verify(target, file.md5, name, folder / file.name)


def _verify(path: Path, expected: str, dataset: str, shown: Path | None = None) -> None:
    shown = shown or path
    try:
        with open(path, "rb") as handle:
            found = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DataError(f"{shown}: cannot be read ({error.strerror})") from None
    if found != expected:
        raise DataError(
            f"{shown}: md5 {found}, expected {expected}: {_identify(found) or 'damaged or not the published file'}; "
            f"delete it and set data.download: true, or set data.root to a folder that holds {dataset}/raw"
        )


def _identify(md5: str) -> str | None:
    owners = {
        each: f"it is {name}'s {file.name}"
        for name in FILES
        for file in FILES[name]
        for each in (file.md5, file.archive_md5)
    }
    return owners.get(md5)


def _read(name: str, root: str) -> RawData:
    train, test = (_torchvision_class(name)(root, train=train) for train in (True, False))
    return RawData(
        name=name,
        train_inputs=train.data.numpy().reshape(len(train), -1),
        train_targets=train.targets.numpy(),
        test_inputs=test.data.numpy().reshape(len(test), -1),
        test_targets=test.targets.numpy(),
        n_classes=N_CLASSES,
        image_shape=IMAGE_SHAPE,
        provenance={"source": name, "md5": {file.name: file.md5 for file in FILES[name]}},
    )


def _torchvision_class(name: str) -> Any:
    import torchvision  # two seconds to import: the digits do without

    return getattr(torchvision.datasets, name)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
