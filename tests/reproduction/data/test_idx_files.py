"""MNIST and FashionMNIST from raw files: no byte is used before it is verified, and the user's folder is left alone."""

import gzip
import hashlib
import os
import resource
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from eigendrift.scaling import Scaling
from reproduction.data.prepared import read_prepared
from reproduction.data.sources import load_raw, prepare
from reproduction.errors import DataError
from reproduction.experiment.datasets import DATASETS, RawFile

FILES = {name: record.files for name, record in DATASETS.items() if record.files}
REPOSITORY = Path(__file__).resolve().parents[3]
REAL_DATA = Path(os.environ.get("EIGENDRIFT_DATA") or REPOSITORY.parent / "shared" / "data")
needs_real_data = pytest.mark.skipif(
    not REAL_DATA.is_dir() and "EIGENDRIFT_DATA" not in os.environ, reason=f"no data folder {REAL_DATA}"
)


# Raw files, on small stand-ins for MNIST and FashionMNIST with checksums of their own


def idx(array: np.ndarray) -> bytes:
    """The idx format: two zero bytes, 8 for unsigned bytes, the rank, big-endian sizes, the content."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def md5(content: bytes | bytearray) -> str:
    return hashlib.md5(content).hexdigest()


Contents = dict[str, list[bytes]]


@pytest.fixture
def contents(monkeypatch: pytest.MonkeyPatch) -> Contents:
    """The contents of the four files of both stand-ins; the checksums that the library knows are theirs."""
    random = np.random.RandomState(0)
    made: Contents = {}
    for name in FILES:
        images = [random.randint(0, 256, (n, 28, 28)).astype(np.uint8) for n in (20, 10)]
        labels = [random.randint(0, 10, n).astype(np.uint8) for n in (20, 10)]
        made[name] = [idx(images[0]), idx(labels[0]), idx(images[1]), idx(labels[1])]
        known = tuple(
            RawFile(file.name, md5(content), md5(gzip.compress(content, mtime=0)))
            for file, content in zip(FILES[name], made[name], strict=True)
        )
        monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], samples=20, files=known))
    return made


@pytest.fixture
def root(contents: Contents, tmp_path: Path) -> Path:
    """A data folder with both stand-ins, unpacked."""
    root = tmp_path / "data"
    for name, files in contents.items():
        (root / name / "raw").mkdir(parents=True)
        for file, content in zip(FILES[name], files, strict=True):
            (root / name / "raw" / file.name).write_bytes(content)
    return root


def listing(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


def pack(folder: Path) -> None:
    for file in list(folder.iterdir()):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), mtime=0))
        file.unlink()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_raw_files_are_read_and_nothing_is_written_beside_them(
    name: str, packed: bool, root: Path, contents: Contents
) -> None:
    if packed:
        pack(root / name / "raw")
    before = listing(root)
    raw = load_raw(name, root, download=True)
    assert raw.train_inputs.shape == (20, 784)
    assert raw.test_inputs.shape == (10, 784)
    assert raw.train_inputs.dtype == np.uint8
    assert raw.train_targets.dtype == np.int64
    assert raw.train_inputs.tobytes() == contents[name][0][16:]
    assert raw.train_targets.astype(np.uint8).tobytes() == contents[name][1][8:]
    assert raw.test_inputs.tobytes() == contents[name][2][16:]
    assert raw.test_targets.astype(np.uint8).tobytes() == contents[name][3][8:]
    assert (raw.name, raw.n_classes, raw.image_shape) == (name, 10, (28, 28))
    assert listing(root) == before


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize("which", range(4))
def test_one_flipped_bit_is_refused_with_both_checksums_and_what_to_do(
    which: int, download: bool, root: Path, contents: Contents
) -> None:
    path = root / "MNIST" / "raw" / FILES["MNIST"][which].name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_raw("MNIST", root, download)
    message = str(caught.value)
    checksums = (md5(content), md5(contents["MNIST"][which]))
    for part in (str(path), *checksums, "delete it", "data.download: true", "data.root"):
        assert part in message
    assert "\n" not in message
    assert path.read_bytes() == content, "the user's file is left alone"


@pytest.mark.parametrize("length", [0, 10, 15_000])
def test_a_truncated_file_is_refused(length: int, root: Path) -> None:
    path = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    os.truncate(path, length)
    with refused(DataError, "train-images-idx3-ubyte", "md5"):
        load_raw("MNIST", root, download=False)


def test_a_damaged_archive_is_refused_before_it_is_unpacked(root: Path) -> None:
    pack(root / "MNIST" / "raw")
    path = root / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with refused(DataError, "t10k-images-idx3-ubyte.gz", "md5"):
        load_raw("MNIST", root, download=False)


def test_files_of_the_other_data_set_are_named_as_such(root: Path) -> None:
    (root / "MNIST").rename(root / "other")
    (root / "FashionMNIST").rename(root / "MNIST")
    with pytest.raises(
        DataError, match=r"train-images-idx3-ubyte: md5 .* it is FashionMNIST's train-images-idx3-ubyte"
    ):
        load_raw("MNIST", root, download=False)


def test_swapped_training_and_test_labels_are_named_as_such(root: Path) -> None:
    train, test = (root / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte" for part in ("train", "t10k"))
    train.write_bytes(test.read_bytes())
    with refused(DataError, "train-labels-idx1-ubyte", "MNIST's t10k-labels-idx1-ubyte"):
        load_raw("MNIST", root, download=False)


@pytest.mark.parametrize("which", range(4))
def test_a_missing_file_is_named_with_what_to_do(which: int, root: Path, contents: Contents) -> None:
    path = root / "FashionMNIST" / "raw" / FILES["FashionMNIST"][which].name
    path.unlink()
    with pytest.raises(DataError) as caught:
        load_raw("FashionMNIST", root, download=False)
    for part in (f"{path}: no such file", md5(contents["FashionMNIST"][which]), "data.download: true", "data.root"):
        assert part in str(caught.value)


def test_a_missing_folder_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file"):
        prepare("MNIST", tmp_path / "nowhere", False, tmp_path / "results" / "MNIST.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that nobody, root included, can read")
def test_an_unreadable_file_is_one_error(root: Path) -> None:
    path = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.unlink()
    path.symlink_to("/proc/self/mem")
    with refused(DataError, "train-images-idx3-ubyte"):
        load_raw("MNIST", root, download=False)


def test_an_impossible_path_is_one_error(tmp_path: Path) -> None:
    with refused(DataError, "xxx/MNIST/raw/train-images-idx3-ubyte"):
        load_raw("MNIST", tmp_path / ("x" * 300), download=False)


def test_no_room_to_unpack_an_archive_is_one_error(root: Path) -> None:
    pack(root / "MNIST" / "raw")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # stands for the full disk
        with pytest.raises(
            DataError, match=r"train-images-idx3-ubyte: cannot be unpacked from .*\.gz \(File too large"
        ):
            load_raw("MNIST", root, download=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_an_unverified_cache_of_an_old_torchvision_is_not_used(root: Path, contents: Contents) -> None:
    import torch

    processed = root / "MNIST" / "processed"
    processed.mkdir()
    for file in ("training.pt", "test.pt"):
        torch.save((torch.zeros(5, 28, 28, dtype=torch.uint8), torch.zeros(5, dtype=torch.long)), processed / file)
    assert load_raw("MNIST", root, download=False).train_inputs.tobytes() == contents["MNIST"][0][16:]


# The real files


def test_the_archives_checksums_are_torchvisions() -> None:
    from torchvision import datasets

    for name, files in FILES.items():
        assert [(file.archive, file.archive_md5) for file in files] == getattr(datasets, name).resources


@needs_real_data
@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_real_data(name: str, tmp_path: Path) -> None:
    output = tmp_path / f"{name}.safetensors"
    prepare(name, REAL_DATA, False, output)
    raw = read_prepared(output)
    assert raw.train_inputs.shape == (60_000, 784)
    assert raw.test_inputs.shape == (10_000, 784)
    assert raw.test_targets.shape == (10_000,)
    assert set(raw.train_targets) == set(range(10))
    mean, deviation = {"MNIST": (0.1307, 0.3081), "FashionMNIST": (0.2860, 0.3530)}[name]
    scaling = Scaling.fit(raw.train_inputs, "standard")
    assert scaling.shift[0] / 255 == pytest.approx(mean, abs=5e-5)
    assert 1 / scaling.scale[0] / 255 == pytest.approx(deviation, abs=5e-5)


@needs_real_data
def test_one_flipped_bit_in_real_mnist_is_refused(tmp_path: Path) -> None:
    shutil.copytree(REAL_DATA / "MNIST", tmp_path / "MNIST", copy_function=shutil.copyfile)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    with open(path, "r+b") as handle:
        handle.seek(23_456_789)
        byte = handle.read(1)[0]
        handle.seek(23_456_789)
        handle.write(bytes([byte ^ 4]))
    with refused(DataError, "train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb"):
        load_raw("MNIST", tmp_path, download=False)
