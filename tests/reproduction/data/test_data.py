"""Data sets: what the embedded ones hold, the prepared file, and the scalings."""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments import PACKAGES
from refusals import refused

from eigendrift.scaling import SCALINGS, Scaling
from reproduction.data import embedded
from reproduction.data.prepared import RawData, read_prepared
from reproduction.data.sources import load_raw, prepare
from reproduction.errors import DamagedFileError, DataError
from reproduction.experiment.datasets import DATASETS
from reproduction.measure.inputs import load_samples

REPOSITORY = Path(__file__).resolve().parents[3]


# The embedded data sets


@pytest.mark.parametrize("name", ["digits", "digits_noisy"])
def test_embedded_data_have_the_documented_shapes_types_and_split(name: str) -> None:
    raw = load_raw(name, "not used", download=False)
    assert raw.name == name
    assert raw.n_classes == 10
    assert raw.image_shape == (8, 8)
    assert raw.train_inputs.shape == (1438, 64)
    assert raw.test_inputs.shape == (359, 64)
    assert raw.train_inputs.dtype == raw.test_inputs.dtype == np.uint8
    assert raw.train_targets.dtype == raw.test_targets.dtype == np.int64
    train, test = np.bincount(raw.train_targets), np.bincount(raw.test_targets)
    np.testing.assert_allclose(test / (train + test), 0.2, atol=0.003)
    assert (raw.train_inputs.min(), raw.train_inputs.max()) == (0, 255)


def test_the_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    images, targets = load_digits(return_X_y=True)
    raw = load_raw("digits", "not used", download=False)
    inputs = np.concatenate([raw.train_inputs, raw.test_inputs]) / 255 * 16
    labels = np.concatenate([raw.train_targets, raw.test_targets])
    ours = sorted(zip(inputs.round().tolist(), labels.tolist(), strict=True))
    assert ours == sorted(zip(images.tolist(), targets.tolist(), strict=True))


def test_altered_bundled_digits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.datasets

    images, targets = sklearn.datasets.load_digits(return_X_y=True)
    images[100, 20] += 1
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda return_X_y: (images, targets))
    for name in ("digits", "digits_noisy"):
        with refused(DataError, "sha256", "scikit-learn"):
            load_raw(name, "not used", download=False)


def test_the_twin_has_the_same_labels_and_split_and_other_images() -> None:
    plain, twin = (load_raw(name, "not used", download=False) for name in ("digits", "digits_noisy"))
    np.testing.assert_array_equal(plain.train_targets, twin.train_targets)
    np.testing.assert_array_equal(plain.test_targets, twin.test_targets)
    assert (plain.train_inputs != twin.train_inputs).any(axis=1).all()
    similarity = [np.corrcoef(a, b)[0, 1] for a, b in zip(plain.train_inputs, twin.train_inputs, strict=True)]
    assert np.median(similarity) > 0.6, "a twin shows the same digits"
    assert np.unique(twin.train_inputs).tolist() == [0, 85, 170, 255]
    blocks = twin.train_inputs.reshape(-1, 4, 2, 4, 2)
    assert (blocks == blocks[:, :, :1, :, :1]).all()


def lowest_possible_loss(raw: RawData) -> float:
    """The mean cross-entropy that no function of the training images can go below (equal images, other labels)."""
    labels = defaultdict(list)
    for image, target in zip(raw.train_inputs, raw.train_targets, strict=True):
        labels[image.tobytes()].append(target)
    counts = [np.bincount(each)[np.bincount(each) > 0] for each in labels.values()]
    return float(-sum((c * np.log(c / c.sum())).sum() for c in counts) / len(raw.train_targets))


def test_the_twin_cannot_be_learned_by_heart_and_the_digits_can() -> None:
    assert lowest_possible_loss(load_raw("digits", "not used", download=False)) == 0
    assert lowest_possible_loss(load_raw("digits_noisy", "not used", download=False)) == pytest.approx(0.031, abs=0.001)


def trained(raw: RawData, steps: int) -> tuple[float, float]:
    """Training loss and test accuracy of a 64-100-100-10 network after `steps` steps of Adam."""
    import torch

    torch.manual_seed(0)
    scaling = Scaling.fit(raw.train_inputs, "standard")
    inputs, targets = torch.from_numpy(scaling(raw.train_inputs)), torch.from_numpy(raw.train_targets)
    sizes = [(64, 100), (100, 100), (100, 10)]
    layers = [layer for size in sizes for layer in (torch.nn.Linear(*size), torch.nn.ReLU())]
    network = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(steps):
        batch = torch.randint(len(targets), (128,))
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(inputs[batch]), targets[batch])
        torch.autograd.backward(loss)
        optimizer.step()
    with torch.no_grad():
        final = float(torch.nn.functional.cross_entropy(network(inputs), targets))
        predicted = network(torch.from_numpy(scaling(raw.test_inputs))).argmax(1).numpy()
    return final, float((predicted == raw.test_targets).mean())


def test_the_twin_is_harder_to_train_on_and_still_learnable() -> None:
    plain_loss, plain_accuracy = trained(load_raw("digits", "not used", download=False), 600)
    twin_loss, twin_accuracy = trained(load_raw("digits_noisy", "not used", download=False), 600)
    assert plain_loss < 0.02
    assert twin_loss > 0.1
    assert plain_accuracy > 0.96
    assert 0.7 < twin_accuracy < 0.9


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    for name, nearest in (("mnist", "MNIST"), ("digit-noisy", "digits_noisy"), ("xyz", None)):
        with pytest.raises(DataError) as caught:
            load_raw(name, "not used", download=False)
        assert all(repr(name) in str(caught.value) and known in str(caught.value) for known in DATASETS)
        assert nearest is None or repr(nearest) in str(caught.value)


# The prepared file


def test_a_prepared_file_gives_back_the_data(tmp_path: Path) -> None:
    output = tmp_path / "digits_noisy.safetensors"
    prepare("digits_noisy", "not used", False, output)
    raw, read = load_raw("digits_noisy", "not used", download=False), read_prepared(output)
    for field in ("train_inputs", "train_targets", "test_inputs", "test_targets"):
        np.testing.assert_array_equal(getattr(raw, field), getattr(read, field), strict=True)
    assert (read.name, read.n_classes, read.image_shape) == ("digits_noisy", 10, (8, 8))
    assert read.provenance == raw.provenance
    assert read.provenance["noise_seed"] == embedded.NOISE_SEED


def test_a_damaged_prepared_file_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "digits.safetensors"
    prepare("digits", "not used", False, output)
    content = bytearray(output.read_bytes())
    content[-1000] ^= 1
    output.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"digits.safetensors"):
        read_prepared(output)


def test_prepared_files_are_identical_byte_for_byte_in_any_environment(tmp_path: Path) -> None:
    contents = set()
    for seed in range(4):
        output = tmp_path / f"{seed}.safetensors"
        environment = {"PYTHONPATH": PACKAGES, "PYTHONHASHSEED": str(seed), "TZ": ["UTC", "Asia/Tokyo"][seed % 2]}
        environment |= {"LC_ALL": ["C", "C.UTF-8"][seed % 2], "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
        call = f"prepare('digits_noisy', 'x', False, {str(output)!r})"
        code = f"from reproduction.data.sources import prepare; {call}"
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        contents.add(output.read_bytes())
    assert len(contents) == 1


def test_the_digits_need_no_torch(tmp_path: Path) -> None:
    file = str(tmp_path / "digits.safetensors")
    code = (
        "import sys; from reproduction.data.prepared import read_prepared; "
        "from reproduction.data.sources import prepare;"
        f"prepare('digits_noisy', 'x', False, {file!r}); read_prepared({file!r});"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PACKAGES}, check=True)


# Scaling


@pytest.fixture
def pixels() -> np.ndarray:
    """Random grey levels (500, 12) whose third pixel is constant."""
    pixels = np.random.RandomState(0).randint(0, 256, (500, 12)).astype(np.uint8)
    pixels[:, 2] = 77
    return pixels


def test_standard_gives_mean_0_and_deviation_1_over_all_pixels(pixels: np.ndarray) -> None:
    scaled = Scaling.fit(pixels, "standard")(pixels)
    np.testing.assert_allclose(scaled, (pixels - pixels.mean()) / pixels.std(), rtol=1e-5, atol=1e-6)
    assert scaled.mean(dtype=float) == pytest.approx(0, abs=1e-6)
    assert scaled.std(dtype=float) == pytest.approx(1, rel=1e-6)


def test_pixelwise_gives_every_pixel_mean_0_and_deviation_1_and_a_constant_pixel_0(pixels: np.ndarray) -> None:
    scaled = Scaling.fit(pixels, "pixelwise")(pixels)
    varying = np.arange(12) != 2
    np.testing.assert_allclose(scaled.mean(axis=0, dtype=float), 0, atol=1e-6)
    np.testing.assert_allclose(scaled[:, varying].std(axis=0, dtype=float), 1, rtol=1e-6)
    assert (scaled[:, 2] == 0).all()
    assert (Scaling.fit(pixels, "pixelwise")(np.full((3, 12), 200, np.uint8))[:, 2] == 0).all(), "nor in the test set"


@pytest.mark.parametrize(("name", "ends"), [("unit", [0, 1]), ("symmetric", [-1, 1])])
def test_fixed_ranges(name: str, ends: list[float], pixels: np.ndarray) -> None:
    scaled = Scaling.fit(pixels, name)(np.array([[0] * 12, [255] * 12], np.uint8))
    np.testing.assert_allclose(scaled, np.repeat(ends, 12).reshape(2, 12), atol=1e-7)


@pytest.mark.parametrize("name", SCALINGS)
def test_every_scaling_is_the_affine_map_that_it_exposes(name: str, pixels: np.ndarray) -> None:
    scaling = Scaling.fit(pixels, name)
    assert scaling.shift.shape == scaling.scale.shape == (12,)
    assert scaling.shift.dtype == scaling.scale.dtype == scaling(pixels).dtype == np.float32
    np.testing.assert_array_equal(scaling(pixels), (pixels.astype(np.float32) - scaling.shift) * scaling.scale)


def test_statistics_are_exact_beyond_the_range_of_float32_and_int64() -> None:
    pixels = np.full((60_000, 400), 255, np.uint8)
    pixels[0, 0] = 0
    scaling = Scaling.fit(pixels, "standard")
    p = 1 / pixels.size
    assert 1 / float(scaling.scale[0]) == pytest.approx(255 * np.sqrt(p * (1 - p)), rel=1e-6)


@pytest.mark.parametrize("name", ["standard", "pixelwise"])
def test_one_black_image_becomes_zeros(name: str) -> None:
    image = np.zeros((1, 4), np.uint8)
    assert (Scaling.fit(image, name)(image) == 0).all()


def test_an_unknown_scaling_is_refused(pixels: np.ndarray) -> None:
    with refused(ValueError, "scaling", "'zscore'", "standard, unit, symmetric, pixelwise"):
        Scaling.fit(pixels, "zscore")


def test_the_test_set_is_scaled_with_the_training_sets_statistics(tmp_path: Path) -> None:
    prepare("digits", "not used", False, tmp_path / "digits.safetensors")
    raw = load_raw("digits", "not used", download=False)
    data, train, test = load_samples(str(tmp_path / "digits.safetensors"), "standard", torch.device("cpu"))
    expected = (raw.test_inputs - raw.train_inputs.mean()) / raw.train_inputs.std()
    np.testing.assert_allclose(test.inputs.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert train.inputs.dtype == test.inputs.dtype == torch.float32
    assert float(train.inputs.double().mean()) == pytest.approx(0, abs=1e-6)
    assert (data.name, data.n_classes, data.image_shape) == ("digits", 10, (8, 8))
