"""Data sets that are published as one archive: EMNIST, CIFAR-10 and CIFAR-100. Nothing of them is unpickled.

Sources: G. Cohen, S. Afshar, J. Tapson and A. van Schaik, arXiv:1702.05373 (2017); A. Krizhevsky, Learning multiple
layers of features from tiny images (2009), in the binary version.
"""

import gzip
import os
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reproduction.data.download import Patience, fetch, mirrors_from_environment
from reproduction.data.idx_files import verify
from reproduction.data.prepared import RawData
from reproduction.errors import DataError
from reproduction.experiment.datasets import DatasetRecord
from reproduction.experiment.importable import load

# Seconds for each megabyte: slower mirrors are given up.
SLOWEST = 10.0
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def load_archive(
    record: DatasetRecord, root: str | os.PathLike[str], download: bool, mirrors: Sequence[str] | None = None
) -> RawData:
    """A data set of one `archive` in `root`/<name>; with `download` it is fetched if it is absent.

    Raises `DataError`, which names the file, for one that is missing, damaged or out of reach.
    """
    archive = record.archive
    assert archive is not None
    path = Path(root).expanduser() / record.name / archive.name
    if not path.is_file():
        if not download:
            raise DataError(f"{path}: no such file (md5 {archive.md5} expected); set data.download: true to fetch it")
        bases = mirrors if mirrors is not None else mirrors_from_environment()
        addresses = [f"{base.rstrip('/')}/{record.name}/{archive.name}" for base in bases] or list(archive.addresses)
        patience = Patience(attempt=max(Patience().attempt, SLOWEST * archive.megabytes))
        fetch(path, archive.md5, addresses, patience, largest=2 * archive.megabytes << 20)
    verify(path, archive.md5, record.name)
    try:
        arrays: Arrays = load(archive.reader)(path)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataError(f"{path}: is not what it was published as ({error})") from None
    provenance = {"source": record.name, "md5": {archive.name: archive.md5}}
    return RawData(record.name, *arrays, record.classes, record.image_shape, provenance)


def read_emnist_balanced(path: Path) -> Arrays:
    """The balanced split, whose images are stored transposed: here they are upright, as those of MNIST are."""
    found = []
    with zipfile.ZipFile(path) as file:
        for part in ("train", "test"):
            images, labels = (
                _idx(gzip.decompress(file.read(f"gzip/emnist-balanced-{part}-{kind}-ubyte.gz")))
                for kind in ("images-idx3", "labels-idx1")
            )
            found += [images.transpose(0, 2, 1).reshape(len(images), -1), labels.astype(np.int64)]
    return found[0], found[1], found[2], found[3]


def _idx(content: bytes) -> np.ndarray:
    """An array of the IDX format: two zero bytes, 8 for unsigned bytes, the rank, big-endian sizes, the content."""
    if content[:3] != b"\x00\x00\x08":
        raise ValueError("a member is no IDX file of bytes")
    rank = content[3]
    shape = np.frombuffer(content, ">u4", rank, 4).astype(int)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def read_cifar10(path: Path) -> Arrays:
    """Rows of a label and 3 x 32 x 32 grey levels, channel by channel."""
    folder = "cifar-10-batches-bin"
    return _cifar(path, [f"{folder}/data_batch_{n}.bin" for n in range(1, 6)], f"{folder}/test_batch.bin", 1)


def read_cifar100(path: Path) -> Arrays:
    """The same with two labels, of which the second is the class."""
    return _cifar(path, ["cifar-100-binary/train.bin"], "cifar-100-binary/test.bin", 2)


def _cifar(path: Path, train: Sequence[str], test: str, labels: int) -> Arrays:
    with tarfile.open(path) as file:

        def rows(names: Sequence[str]) -> np.ndarray:
            members = [file.extractfile(name) for name in names]
            content = b"".join(member.read() for member in members if member is not None)
            return np.frombuffer(content, np.uint8).reshape(-1, labels + 3072)

        both = [rows(train), rows([test])]
    found = [part for each in both for part in (each[:, labels:].copy(), each[:, labels - 1].astype(np.int64))]
    return found[0], found[1], found[2], found[3]
