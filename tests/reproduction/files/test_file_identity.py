"""Files that came from another run or another experiment: refused by name, whatever is in them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from refusals import refused

from reproduction.data.prepared import read_prepared
from reproduction.data.sources import prepare as prepare_data
from reproduction.errors import DamagedFileError
from reproduction.files.arrays import ArrayFile, write_arrays
from reproduction.files.eigenpairs import UNITS, read_pairs, run_identity, write_pairs
from reproduction.files.identity import check_agreement, check_place
from reproduction.files.tables import read_header, read_table, read_tables, write_table

RUN: dict[str, Any] = {"dataset": "digits", "optimizer": "sgd", "variant": "main", "seed": 1, "steps": 60}
FOLDER = "runs/digits/sgd/main/seed1"


@pytest.mark.parametrize(
    ("key", "other"), [("dataset", "MNIST"), ("optimizer", "sam"), ("variant", "batch_size-32"), ("seed", 10)]
)
def test_a_file_of_another_run_is_refused(tmp_path: Path, key: str, other: Any) -> None:
    path = tmp_path / FOLDER / "ipr.csv"
    frame, wrong = pd.DataFrame({"x": [1.0]}), {**RUN, key: other}
    write_table(path, frame, kind="ipr", identity=wrong, units={"x": "1"})
    arrays = tmp_path / FOLDER / "trajectory.safetensors"
    write_arrays(arrays, {"x": np.zeros(1)}, kind="trajectory", identity=wrong, units={"x": "1"})
    readers = (
        (path, lambda: read_table(path, kind="ipr")),
        (path, lambda: read_header(path, kind="ipr")),
        (path, lambda: read_tables([path], kind="ipr")),
        (arrays, lambda: ArrayFile(arrays, kind="trajectory")),
    )
    for named, read in readers:
        with pytest.raises(DamagedFileError) as refused:
            read()
        message = str(refused.value)
        assert message.startswith(f"{named}: belongs to {key} {other}, and lies where {key} {RUN[key]} belongs; ")
    write_table(path, frame, kind="ipr", identity=RUN, units={"x": "1"})
    assert read_table(path, kind="ipr")["x"].tolist() == [1.0]


def test_a_chunk_in_anothers_place_and_one_of_another_run_are_refused(tmp_path: Path) -> None:
    numbers, vectors = np.ones((1, len(UNITS))), np.ones((1, 4), np.float32)
    first, second = (tmp_path / FOLDER / f"eigenpairs-{chunk}.safetensors" for chunk in (0, 1))
    write_pairs(first, numbers, vectors, {**RUN, "chunk": 0})
    second.write_bytes(first.read_bytes())
    with refused(DamagedFileError, "eigenpairs-1.safetensors", "chunk 0", "chunk 1"):
        read_pairs(second)
    write_pairs(second, numbers, vectors, {**RUN, "chunk": 1, "steps": 70})
    with refused(DamagedFileError, "eigenpairs-1.safetensors"):
        run_identity([first, second])
    write_pairs(second, numbers, vectors, {**RUN, "chunk": 1})
    assert run_identity([first, second]) == RUN


def test_a_data_set_under_the_name_of_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data" / "digits.safetensors"
    prepare_data("digits_noisy", "not used", False, path)
    with pytest.raises(
        DamagedFileError, match="belongs to dataset digits_noisy, and lies where dataset digits belongs"
    ):
        read_prepared(path)


@pytest.mark.parametrize(
    "name", ["baseline/MNIST.csv", "baseline/MNIST.overlaps.csv", "interpolation/MNIST.solutions.csv"]
)
def test_a_table_of_a_data_set_under_the_name_of_another_is_refused(name: str) -> None:
    check_place(Path("results/x") / name, {"dataset": "MNIST"})
    with pytest.raises(DamagedFileError, match=f"{name}: belongs to dataset digits"):
        check_place(Path("results/x") / name, {"dataset": "digits"})


def test_a_baseline_of_another_variant_is_refused() -> None:
    path = Path("results/x/baseline/hidden-100/MNIST.overlaps.csv")
    check_place(path, {"dataset": "MNIST", "variant": "hidden-100"})
    with refused(DamagedFileError, "variant scaling-unit"):
        check_place(path, {"dataset": "MNIST", "variant": "scaling-unit"})


@pytest.mark.parametrize(
    "name", ["x.csv", "elsewhere/MNIST.csv", "seed1/ipr.csv", "figures/fig01.csv", "claims/claims.csv"]
)
def test_any_other_place_says_nothing(name: str) -> None:
    check_place(Path(name), RUN)


@pytest.mark.parametrize(
    ("one", "other", "fact"),
    [
        ({"n_parameters": 910}, {"n_parameters": 89610, "optimizer": "adam"}, "n_parameters"),
        ({"n_train": 1437}, {"n_train": 60000, "variant": "batch_size-32"}, "n_train"),
        ({"steps": 60}, {"steps": 2000}, "steps"),
        ({"learning_rate": 0.1}, {"learning_rate": 0.2}, "learning_rate"),
        ({"batch_size": 128}, {"batch_size": 64}, "batch_size"),
    ],
)
def test_tables_of_two_experiments_are_not_stacked(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any], fact: str
) -> None:
    base = {**RUN, "batch_size": 128, "learning_rate": 0.1, "n_parameters": 910, "n_train": 1437}
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path, changes in zip(paths, (one, {"seed": 2, **other}), strict=True):
        write_table(path, pd.DataFrame({"x": [1.0]}), kind="ipr", identity={**base, **changes}, units={"x": "1"})
    with pytest.raises(DamagedFileError) as refused:
        read_tables(paths, kind="ipr")
    said = f"{paths[1]}: has {fact} {other[fact]}, and {paths[0]} has {one[fact]}: one of them belongs to another"
    assert str(refused.value).startswith(said)


def test_runs_of_one_experiment_may_differ_where_they_should() -> None:
    base = {**RUN, "batch_size": 128, "learning_rate": 0.1, "n_parameters": 910, "n_train": 1437}
    changes: list[dict[str, Any]] = [
        {},
        {"seed": 2},
        {"optimizer": "adam", "learning_rate": 0.001},
        {"variant": "batch_size-32", "batch_size": 32, "steps": 10},
        {"variant": "hidden-100", "n_parameters": 7510},
        {"dataset": "MNIST", "n_train": 60000, "n_parameters": 89610},
    ]
    check_agreement({Path(str(number)): {**base, **change} for number, change in enumerate(changes)})
