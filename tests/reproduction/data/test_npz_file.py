"""A data set in a file of the user's own: what is read of it, and what is refused before any work."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiments import pinned
from refusals import refused

from reproduction.data.prepared import read_prepared
from reproduction.data.sources import prepare
from reproduction.errors import ConfigError
from reproduction.experiment.config import validate
from reproduction.experiment.runs import Experiment

RANDOM = np.random.RandomState(0)
ARRAYS: dict[str, Any] = {
    "x_train": RANDOM.randint(0, 256, (30, 3, 4, 5)).astype(np.uint8),
    "y_train": np.arange(30, dtype=np.int32) % 4,
    "x_test": RANDOM.randint(0, 256, (8, 3, 4, 5)).astype(np.uint8),
    "y_test": np.arange(8) % 4,
}


def write(path: Path, **changes: Any) -> Path:
    arrays = {name: array for name, array in {**ARRAYS, **changes}.items() if array is not None}
    np.savez_compressed(path, **arrays)
    return path


def configured(file: Path, **overlay: Any) -> dict[str, Any]:
    return pinned(
        {"datasets": ["digits", {"name": "mine", "file": str(file)}]},
        {"training": {"batch_size": 16}, "eigen": {"dense_k": 5}, **overlay},
    )


def test_sizes_follow_from_the_file_and_the_data_are_its_arrays(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.npz")
    config = validate(configured(file))
    assert validate(config) == config
    experiment = Experiment(config)
    assert experiment.datasets() == ["digits", "mine"]
    assert experiment.datasets("last") == ["mine"]
    assert experiment.data_file("mine") == [str(file)]
    assert experiment.data_file("digits") == []
    record = experiment.records["mine"]
    assert (record.samples, record.image_shape, record.classes) == (30, (3, 4, 5), 4)
    assert experiment.identity(experiment.of_dataset("mine")[0])["n_train"] == 30
    prepare("mine", "not used", False, tmp_path / "mine.safetensors", file)
    raw = read_prepared(tmp_path / "mine.safetensors")
    assert (raw.name, raw.image_shape, raw.n_classes) == ("mine", (3, 4, 5), 4)
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(raw, f"{part}_inputs"), ARRAYS[f"x_{part}"].reshape(-1, 60))
        np.testing.assert_array_equal(getattr(raw, f"{part}_targets"), ARRAYS[f"y_{part}"])


def test_the_number_of_classes_can_be_stated(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.npz", classes=np.array(7))
    assert Experiment(validate(configured(file))).records["mine"].classes == 7


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"x_test": None}, "x_test"),
        ({"x_train": ARRAYS["x_train"] / 255}, "float64"),
        ({"x_train": ARRAYS["x_train"][:, 0, 0, 0]}, "x_train"),
        ({"x_test": ARRAYS["x_test"][:, :2]}, "(2, 4, 5)"),
        ({"y_train": ARRAYS["y_train"][:-1]}, "(29,)"),
        ({"y_train": ARRAYS["y_train"] * 1.0}, "float64"),
        ({"y_train": ARRAYS["y_train"] - 1}, "-1"),
        ({"y_test": ARRAYS["y_test"] + 2}, "y_test"),
        ({"y_train": np.zeros(30, int), "y_test": np.zeros(8, int)}, "1 class"),
        ({"classes": np.array([4])}, "classes"),
        ({"classes": np.array(3)}, "3 classes"),
        ({"y_train": np.array(["a"] * 30, dtype=object)}, "mine.npz"),
    ],
)
def test_what_a_file_lacks_is_one_line(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    with refused(ConfigError, "datasets.1 (mine)", "mine.npz", named):
        validate(configured(write(tmp_path / "mine.npz", **changes)))


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with refused(ConfigError, "datasets.1 (mine)", "mine.npz"):
        validate(configured(tmp_path / "mine.npz"))
    (tmp_path / "mine.npz").write_text("x,y\n1,2\n")
    with refused(ConfigError, "datasets.1 (mine)", "mine.npz"):
        validate(configured(tmp_path / "mine.npz"))


@pytest.mark.parametrize("name", ["digits", "MNIST", "mnist", "first"])
def test_a_name_that_is_taken(name: str, tmp_path: Path) -> None:
    file = write(tmp_path / "mine.npz")
    with refused(ConfigError, "datasets", name):
        validate(pinned({"datasets": ["digits", {"name": name, "file": str(file)}]}))


def test_sizes_of_the_run_are_held_against_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.npz")
    with refused(ConfigError, "training.batch_size", 128, "mine", 30):
        validate(configured(file, training={"batch_size": 128}))
    validate(configured(file, sweeps={"dataset": "mine", "batch_size": {32: None}, "learning_rate": {3: None}}))
    with refused(ConfigError, "sweeps.dataset", "yours", "mine"):
        validate(configured(file, sweeps={"dataset": "yours"}))
