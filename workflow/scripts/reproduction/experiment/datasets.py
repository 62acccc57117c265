"""The data sets: one record each, from which sizes, labels, the schema's choices, costs and loading follow.

Read when the Snakefile is, so it imports neither torch nor NumPy; a record names its loader instead of importing it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reproduction.errors import ConfigError
from reproduction.experiment.data_file import contents


@dataclass(frozen=True)
class RawFile:
    """One file of a data set: its name and md5, and the md5 of its gzip archive (`name`.gz), as published.

    Where only that of the archive was published, `md5` is empty, and the file is read from its archive alone.
    """

    name: str
    md5: str
    archive_md5: str

    @property
    def archive(self) -> str:
        """The archive's name."""
        return f"{self.name}.gz"


@dataclass(frozen=True)
class RawArchive:
    """All of a data set in one file: its name, md5, addresses, size, and the `package.module:name` of its reader.

    The reader takes the path and gives training inputs (n, d) and classes, and those of the test.
    """

    name: str
    md5: str
    addresses: tuple[str, ...]
    megabytes: int
    reader: str


@dataclass(frozen=True)
class DatasetRecord:
    """What the reproduction knows of a data set before it reads the data.

    `samples` is the number of training images, each of `image_shape` pixels, and `classes` the number of classes.
    `label` is its name in figures, `name` if that is empty. The data come either from `files`, the four IDX files of
    a class of torchvision of the same name (images and labels for training, then for the test), or from `loader`, a
    function `package.module:name` without arguments that returns `RawData` from what is installed, or from one
    `archive`, or from `file`, one of the user's own (`data_file`).
    """

    name: str
    samples: int
    image_shape: tuple[int, ...]
    classes: int = 10
    label: str = ""
    files: tuple[RawFile, ...] = ()
    loader: str = ""
    archive: RawArchive | None = None
    file: str = ""

    def __post_init__(self) -> None:
        """Refuse a record without a source, or with two."""
        if sum(map(bool, (self.files, self.loader, self.archive, self.file))) != 1:
            given = f"{self.files}, {self.loader!r}, {self.archive} and {self.file!r}"
            raise ValueError(f"data set {self.name}: give one of files, loader, archive and file, not {given}")

    @property
    def inputs(self) -> int:
        """Pixels of an image."""
        return math.prod(self.image_shape)

    @property
    def title(self) -> str:
        """Its name in figures."""
        return self.label or self.name


_ALL = (
    DatasetRecord("digits", 1438, (8, 8), loader="reproduction.data.embedded:load_digits"),
    DatasetRecord(
        "digits_noisy", 1438, (8, 8), label="noisy digits", loader="reproduction.data.embedded:load_digits_noisy"
    ),
    DatasetRecord(
        "MNIST",
        60_000,
        (28, 28),
        files=(
            RawFile("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            RawFile("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"),
            RawFile("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"),
            RawFile("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"),
        ),
    ),
    DatasetRecord(
        "FashionMNIST",
        60_000,
        (28, 28),
        files=(
            RawFile("train-images-idx3-ubyte", "f4a8712d7a061bf5bd6d2ca38dc4d50a", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            RawFile("train-labels-idx1-ubyte", "9018921c3c673c538a1fc5bad174d6f9", "25c81989df183df01b3e8a0aad5dffbe"),
            RawFile("t10k-images-idx3-ubyte", "8181f5470baa50b63fa0f6fddb340f0a", "bef4ecab320f06d8554ea6380940ec79"),
            RawFile("t10k-labels-idx1-ubyte", "15d484375f8d13e6eb1aabb0c3f46965", "bb300cfdad3c16e7a12a480ee83cd310"),
        ),
    ),
    DatasetRecord(
        "KMNIST",
        60_000,
        (28, 28),
        files=(
            RawFile("train-images-idx3-ubyte", "", "bdb82020997e1d708af4cf47b453dcf7"),
            RawFile("train-labels-idx1-ubyte", "", "e144d726b3acfaa3e44228e80efcd344"),
            RawFile("t10k-images-idx3-ubyte", "", "5c965bf0a639b31b8f53240b1b52f4d7"),
            RawFile("t10k-labels-idx1-ubyte", "", "7320c461ea6c1c855c0b718fb2a4b134"),
        ),
    ),
    DatasetRecord(
        "EMNIST",
        112_800,
        (28, 28),
        classes=47,
        label="EMNIST balanced",
        archive=RawArchive(
            "gzip.zip",
            "58c8d27c78d21e728a6bc7b3cc06412e",
            ("https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",),
            562,
            "reproduction.data.archives:read_emnist_balanced",
        ),
    ),
    DatasetRecord(
        "CIFAR10",
        50_000,
        (3, 32, 32),
        archive=RawArchive(
            "cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
            ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            170,
            "reproduction.data.archives:read_cifar10",
        ),
    ),
    DatasetRecord(
        "CIFAR100",
        50_000,
        (3, 32, 32),
        classes=100,
        archive=RawArchive(
            "cifar-100-binary.tar.gz",
            "03b5dce01913d631647c71ecec9e9cb8",
            ("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
            169,
            "reproduction.data.archives:read_cifar100",
        ),
    ),
)

DATASETS: dict[str, DatasetRecord] = {record.name: record for record in _ALL}


def names_of(config: Mapping[str, Any]) -> list[str]:
    """The names of a configuration's data sets, in its order."""
    return [entry if isinstance(entry, str) else entry["name"] for entry in config["datasets"]]


def records_of(config: Mapping[str, Any]) -> dict[str, DatasetRecord]:
    """The record of each data set of a configuration, those in files of the user's own among them.

    Raises:
        ConfigError: A file cannot be used; the message names it.
    """
    found: dict[str, DatasetRecord] = {}
    for position, entry in enumerate(config["datasets"]):
        if isinstance(entry, str):
            found[entry] = DATASETS[entry]
            continue
        try:
            samples, shape, classes = contents(entry["file"])
        except ValueError as error:
            raise ConfigError(f"config: datasets.{position} ({entry['name']}): {error}") from None
        found[entry["name"]] = DatasetRecord(entry["name"], samples, shape, classes, file=entry["file"])
    return found


def loader_modules() -> list[str]:
    """The modules of all loaders, which no source imports, since records name them."""
    named = [record.archive.reader if record.archive else record.loader for record in DATASETS.values()]
    return sorted({name.partition(":")[0] for name in named if name})
