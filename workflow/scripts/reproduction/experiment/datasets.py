"""The data sets: one record each, from which sizes, labels, the schema's choices, costs and loading follow.

Read when the Snakefile is, so it imports neither torch nor NumPy; a record names its loader instead of importing it.
"""

import math
from dataclasses import dataclass


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


@dataclass(frozen=True)
class DatasetRecord:
    """What the reproduction knows of a data set before it reads the data.

    `samples` is the number of training images, each of `image_shape` pixels, and `classes` the number of classes.
    `label` is its name in figures, `name` if that is empty. The data come either from `files`, the four IDX files of
    a class of torchvision of the same name (images and labels for training, then for the test), or from `loader`, a
    function `package.module:name` without arguments that returns `RawData` from what is installed.
    """

    name: str
    samples: int
    image_shape: tuple[int, ...]
    classes: int = 10
    label: str = ""
    files: tuple[RawFile, ...] = ()
    loader: str = ""

    def __post_init__(self) -> None:
        """Refuse a record without a source, or with two."""
        if bool(self.files) == bool(self.loader):
            raise ValueError(f"data set {self.name}: give either files or loader, not {self.files} and {self.loader!r}")

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
)

DATASETS: dict[str, DatasetRecord] = {record.name: record for record in _ALL}


def loader_modules() -> list[str]:
    """The modules of all loaders, which no source imports, since records name them."""
    return sorted({record.loader.partition(":")[0] for record in DATASETS.values() if record.loader})
