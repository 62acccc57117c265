"""Finished tables kept in a store, and restored from it; no Snakemake is started."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused
from snakemake.persistence.file import FilePersistence
from synthetic_tables import Synthetic, small_config

from reproduction.errors import ConfigError, DamagedFileError, DataError
from reproduction.experiment.config import validate
from reproduction.experiment.runs import Experiment, Run
from reproduction.experiment.table_catalogue import DATASET_TABLES, RUN_TABLES
from reproduction.files.arrays import write_arrays
from reproduction.files.tables import read_header, read_table, write_table
from reproduction.jobs.snakemake_records import _record, is_locked
from reproduction.publication import kept
from reproduction.publication.finished import differences, parts
from reproduction.publication.kept import complaint, configured, keep, manifest_text, read_manifest, restorable, restore
from reproduction.publication.packed import packed_name

RESULTS, STORE = Path("results/unit"), Path("store")
RUNS = [Run("digits", "sgd", "main", 0), Run("digits", "sgd", "main", 1), Run("digits", "sgd", "batch_size-full", 0)]


def configuration(**changes: Any) -> dict[str, Any]:
    """Two main runs and one of a sweep, on a small network."""
    sweep = {"seeds": [0], "batch_size": {"full": 20}, "learning_rate": {}}
    small: dict[str, Any] = {
        "name": "unit",
        "datasets": ["digits"],
        "model": {"hidden": [4], "activation": "relu", "init": "xavier_uniform", "bias_init": "zero"},
        "optimizers": {"sgd": {"class": "SGD", "lr": 0.01}},
        "training": {"steps": 40, "seeds": [0, 1]},
        "snapshots": {"every": 20, "waiting_times": [0, 10], "lags_per_decade": 1},
        "eigen": {"dense_k": 3},
        "sweeps": {**sweep, "snapshots": {"every": 20, "waiting_times": [0], "lags_per_decade": 1}},
    }
    config = small_config(**{**small, **changes})
    config["sensitivity"]["optimizers"] = ["sgd"]
    return validate(config)


def make(config: dict[str, Any], results: Path = RESULTS, skip: str | None = None) -> None:
    """All tables of an experiment, but those whose path ends with `skip`."""
    experiment = Experiment(config)
    made = Synthetic(results, config)
    for run in [*experiment]:
        identity = experiment.identity(run)
        weights = np.full((1, identity["n_parameters"]), run.seed, dtype=np.float32)
        path = results / f"runs/{run.folder}/final_weights.safetensors"
        write_arrays(path, {"weights": weights}, kind="final_weights", identity=identity, units={"weights": "1"})
    for kind in RUN_TABLES:
        made.paths(kind, [{"variants": "all"}])
    for kind in DATASET_TABLES:
        made.paths(kind, [{}])
    for path in results.rglob("*"):
        if skip is not None and str(path).endswith(skip):
            path.unlink()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def times(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*") if p.is_file()}


def rewrite(path: Path, kind: str, column: str) -> None:
    """Another table under the name of one."""
    header, frame = read_header(path, kind=kind), read_table(path, kind=kind)
    frame[column] += 1
    write_table(path, frame, kind=kind, identity=header["identity"], units=header["units"])


def note(kind: str, output: str, **record: Any) -> None:
    """A record of Snakemake."""
    path = _record(Path(".snakemake") / kind, output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def config() -> dict[str, Any]:
    return configuration()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole experiment and a store of it, made once."""
    folder = tmp_path_factory.mktemp("made")
    with contextlib.chdir(folder):
        make(configuration())
        keep(configuration(), RESULTS, STORE)
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A store of the whole experiment, which is there too."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return STORE


# What is kept


def test_all_finished_tables_and_the_weights_of_main_runs_are_kept(store: Path, config: dict[str, Any]) -> None:
    expected = {f"runs/{run.folder}/{name}" for run in RUNS for name in RUN_TABLES.values()}
    expected |= {f"runs/{run.folder}/final_weights.safetensors" for run in RUNS[:2]}
    patterns = [*DATASET_TABLES.values()]
    expected |= {pattern.format(dataset="digits") for pattern in patterns}
    assert contents(store).keys() == {*map(packed_name, expected), "manifest.json"}
    manifest = read_manifest(store)
    assert manifest is not None
    assert manifest["files"].keys() == expected
    assert manifest["configuration"] == config
    assert list(manifest["n_parameters"].items()) == [("digits", 64 * 4 + 4 + 4 * 10 + 10)]
    assert {"torch", "numpy", "snakemake"} <= manifest["versions"].keys()


def test_the_manifest_has_a_line_for_each_file_and_keeps_the_order_of_the_optimizers(store: Path) -> None:
    lines = (store / "manifest.json").read_text(encoding="utf-8").splitlines()
    named = [line.split('"')[1] for line in lines if '"sha256"' in line]
    assert named == sorted(named)
    assert len(named) == len(contents(store)) - 1
    order = {"format": "x", "configuration": {"optimizers": {"sgd": 1, "adam": 2}}, "parts": {}, "files": {}}
    assert list(json.loads(manifest_text(order))["configuration"]["optimizers"]) == ["sgd", "adam"]


def test_a_second_keep_writes_nothing(store: Path, config: dict[str, Any]) -> None:
    before = times(store)
    assert keep(config, RESULTS, store)["written"] == []
    assert times(store) == before


def test_a_keep_elsewhere_writes_the_same_bytes(store: Path, config: dict[str, Any]) -> None:
    os.utime(RESULTS / "baseline/digits.csv", (1, 1))
    keep(config, RESULTS, Path("again"))
    assert contents(Path("again")) == contents(store)


def test_a_run_is_kept_once_all_its_tables_are_there(config: dict[str, Any]) -> None:
    make(config, skip="seed1/alignment.csv")
    first = keep(config, RESULTS, STORE)
    assert not [path for path in first["written"] if "main/seed1" in path]
    # Which is computed from that run too.
    assert "interpolation/digits.csv" not in first["written"]
    assert "runs/digits/sgd/main/seed1/alignment.csv" in first["unfinished"]["runs/digits/sgd/main/seed1"]
    before = times(STORE)
    Synthetic(RESULTS, config).paths("alignment", [{}])
    second = keep(config, RESULTS, STORE)
    run = {f"runs/digits/sgd/main/seed1/{name}" for name in (*RUN_TABLES.values(), "final_weights.safetensors")}
    assert {*second["written"]} == {*run, "interpolation/digits.csv", "interpolation/digits.solutions.csv"}
    del before[str(STORE / "manifest.json")]
    assert before.items() <= times(STORE).items()


def test_a_run_that_a_job_is_at_work_on_is_not_kept(config: dict[str, Any]) -> None:
    make(config)
    note("incomplete", "results/unit/runs/digits/sgd/main/seed0/ipr.csv", external_jobid=None)
    done = keep(config, RESULTS, STORE)
    assert "at work" in done["unfinished"]["runs/digits/sgd/main/seed0"]
    assert not [path for path in done["written"] if "main/seed0" in path]


@pytest.mark.parametrize(
    ("change", "is_kept"), [({"device": "cuda"}, True), ({"scaling": "unit"}, False)], ids=["device", "scaling"]
)
def test_tables_that_snakemake_would_make_again_for_other_parameters_are_not_kept(
    config: dict[str, Any], change: dict[str, str], is_kept: bool
) -> None:
    make(config)
    parameters = Experiment(config).train_parameters(RUNS[0]) | change
    note("metadata", f"results/unit/runs/{RUNS[0].folder}/history.csv", params=[repr("x"), repr(parameters)])
    done = keep(config, RESULTS, STORE)
    assert (f"runs/{RUNS[0].folder}" not in done["unfinished"]) == is_kept


def test_tables_of_another_experiment_are_not_kept(config: dict[str, Any]) -> None:
    make(configuration(optimizers={"sgd": {"class": "SGD", "lr": 0.5}}))
    done = keep(config, RESULTS, STORE)
    assert "another learning_rate" in done["unfinished"]["runs/digits/sgd/main/seed0"]
    assert not [path for path in done["written"] if path.startswith("runs/")]


def test_a_table_older_than_its_runs_is_not_kept(config: dict[str, Any]) -> None:
    make(config)
    os.utime(RESULTS / "interpolation/digits.csv", (1, 1))
    done = keep(config, RESULTS, STORE)
    assert "is newer" in done["unfinished"]["interpolation/digits.csv"]
    assert "interpolation/digits.solutions.csv" in done["written"]


def test_a_damaged_table_is_refused_by_name(config: dict[str, Any]) -> None:
    make(config)
    path = RESULTS / "runs/digits/sgd/main/seed0/ipr.csv"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DamagedFileError, match=r"seed0/ipr\.csv"):
        keep(config, RESULTS, STORE)
    assert not STORE.exists()


def test_another_content_than_the_kept_one_is_one_error_unless_it_is_to_replace_it(
    store: Path, config: dict[str, Any]
) -> None:
    path = RESULTS / "runs/digits/sgd/main/seed0/history.csv"
    rewrite(path, "history", "train_loss")
    before = contents(store)
    with refused(DataError, "seed0/history.csv") as error:
        keep(config, RESULTS, store)
    assert len(str(error.value).splitlines()) == 1
    assert contents(store) == before
    assert keep(config, RESULTS, store, replace=True)["written"] == ["runs/digits/sgd/main/seed0/history.csv"]
    restore(restorable(config, Path("new"), store), Path("new"), store)
    assert (Path("new") / path.relative_to(RESULTS)).read_bytes() == path.read_bytes()


def test_an_interrupted_keep_leaves_a_store_that_can_be_used(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(config, skip="seed1/alignment.csv")
    keep(config, RESULTS, STORE)
    Synthetic(RESULTS, config).paths("alignment", [{}])
    before, pack = contents(STORE), kept.pack

    def until_the_third(path: Path, content: bytes, left: list[int] = [3]) -> None:  # noqa: B006
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        pack(path, content)

    monkeypatch.setattr(kept, "pack", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        keep(config, RESULTS, STORE)
    assert len(contents(STORE)) == len(before) + 2
    found = restorable(config, Path("new"), STORE)
    assert not [path for path in found.files if "main/seed1" in path]
    assert "runs/digits/sgd/main/seed1" in found.due
    monkeypatch.setattr(kept, "pack", pack)
    keep(config, RESULTS, STORE)
    assert restorable(config, Path("new"), STORE).due == []


def test_hours_are_kept_with_the_runs(config: dict[str, Any]) -> None:
    make(config)
    measured = {
        "train/digits.sgd.main.0.tsv": 3,
        "eigensnapshot/digits.sgd.main.0.0.tsv": 4,
        "baseline/digits.tsv": 5,
        "prepare_data/digits.tsv": 6,
    }
    for name, value in measured.items():
        path = RESULTS / "benchmarks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\n{value}\t0:00:0{value}\n")
    keep(config, RESULTS, STORE)
    manifest = read_manifest(STORE)
    assert manifest is not None
    seconds = {name: part["seconds"] for name, part in manifest["parts"].items() if part["seconds"]}
    assert seconds == {
        "runs/digits/sgd/main/seed0": {"eigensnapshot": 4, "train": 3},
        "baseline/digits.csv": {"baseline": 5},
    }


# What is restored


def test_all_comes_back_to_the_byte(store: Path, config: dict[str, Any]) -> None:
    new = Path("new/results")
    found = restorable(config, new, store)
    restore(found, new, store)
    swept = "runs/digits/sgd/batch_size-full/seed0/final_weights.safetensors"
    assert contents(new) == {name: content for name, content in contents(RESULTS).items() if name != swept}
    assert found.due == []
    again = restorable(config, new, store)
    assert (again.missing, again.other) == ([], [])


@pytest.mark.parametrize("name", ["ipr.csv.gz", "final_weights.safetensors.xz", "final_eigenvector.safetensors.xz"])
@pytest.mark.parametrize("damage", ["cut", "altered", "another", "gone"])
def test_a_damaged_file_is_refused_by_name_before_anything_is_written(
    store: Path, config: dict[str, Any], name: str, damage: str
) -> None:
    path = store / "runs/digits/sgd/main/seed1" / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        altered = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
        another = (store / "runs/digits/sgd/main/seed0" / name).read_bytes()
        path.write_bytes({"cut": content[:-9], "altered": altered, "another": another}[damage])
    with pytest.raises(DataError) as error:
        restorable(config, Path("new"), store)
    assert str(error.value).startswith(f"{path}: damaged (")
    assert len(str(error.value).splitlines()) == 1
    assert not Path("new").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": "eigendrift-kept/1"}', '{"format": "eigendrift-kept/0"}'])
def test_a_damaged_or_foreign_manifest_is_refused_by_name(store: Path, config: dict[str, Any], text: str) -> None:
    (store / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"^store/manifest\.json: (damaged|format 'eigendrift-kept/0')"):
        restorable(config, Path("new"), store)


def test_nothing_kept_is_one_line(config: dict[str, Any]) -> None:
    with refused(DataError, "store"):
        restorable(config, Path("new"), STORE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"model": {"hidden": [5], "activation": "relu", "init": "xavier_uniform", "bias_init": "zero"}},
            "another network: identity.n_parameters 310 kept, 385 configured; model.hidden [4] kept, [5] configured",
        ),
        ({"eigen": {"dense_k": 3, "tolerance": 0.01}}, "eigen.tolerance 0.001 kept, 0.01 configured"),
        ({"snapshots": {"every": 10, "waiting_times": [0, 10], "lags_per_decade": 1}}, "schedule.every 20 kept, 10"),
        (
            {"optimizers": {"sgd": {"class": "SGD", "lr": 0.01, "momentum": 0.9}}},
            "optimizer.momentum nothing kept, 0.9",
        ),
    ],
    ids=["network", "tolerance", "snapshots", "optimizer"],
)
def test_other_parameters_are_refused_in_one_line_that_names_them(
    store: Path, change: dict[str, Any], words: str
) -> None:
    for attempt in (
        lambda: restorable(configuration(**change), Path("new"), store),
        lambda: keep(configuration(**change), RESULTS, store),
    ):
        with pytest.raises(DataError) as error:
            attempt()
        assert str(error.value).startswith("store: runs/digits/sgd/main/seed0 has other parameters")
        assert words in str(error.value)
        assert len(str(error.value).splitlines()) == 1


def test_another_baseline_is_refused(store: Path) -> None:
    config = configuration()
    config["baseline"]["initializations"] += 1
    with refused(DataError, "baseline/digits.csv", "initializations 60", 61):
        restorable(config, Path("new"), store)


def test_where_a_run_is_computed_and_what_it_keeps_is_no_matter(store: Path, config: dict[str, Any]) -> None:
    config["training"]["device"] = "cpu"
    config["storage"]["keep_arrays"] = False
    config["data"]["root"] = "elsewhere"
    assert restorable(config, Path("new"), store).due == []


def test_a_run_more_is_due_with_what_is_computed_from_all(store: Path) -> None:
    found = restorable(configuration(training={"steps": 40, "seeds": [0, 1, 2]}), Path("new"), store)
    added = ["runs/digits/sgd/main/seed2", "interpolation/digits.csv", "interpolation/digits.solutions.csv"]
    assert found.due == added
    assert not [path for path in found.files if path.startswith("interpolation")]
    assert "baseline/digits.permuted.csv" in found.files


def test_of_fewer_runs_only_theirs_is_restored(store: Path) -> None:
    found = restorable(configuration(training={"steps": 40, "seeds": [0]}), Path("new"), store)
    assert not [path for path in found.files if "seed1" in path]
    assert found.due == ["interpolation/digits.csv", "interpolation/digits.solutions.csv"]


def test_keep_goes_on_with_a_run_more_and_takes_what_is_computed_from_all_again(store: Path) -> None:
    more = configuration(training={"steps": 40, "seeds": [0, 1, 2]})
    make(more)
    rewrite(RESULTS / "interpolation/digits.solutions.csv", "solutions", "sharpness")
    os.utime(RESULTS / "interpolation/digits.csv")
    written = keep(more, RESULTS, store)["written"]
    assert {path for path in written if not path.startswith("runs/digits/sgd/main/seed2/")} == {
        "interpolation/digits.solutions.csv"
    }
    assert restorable(more, Path("new"), store).due == []
    with refused(DataError, "runs/digits/sgd/main/seed2"):
        keep(configuration(), RESULTS, store)


def test_files_in_the_way_are_refused_by_name_unless_they_may_go(store: Path, config: dict[str, Any]) -> None:
    path, weights = RESULTS / f"runs/{RUNS[0].folder}/history.csv", RESULTS / f"runs/{RUNS[1].folder}/ipr.csv"
    before = contents(RESULTS)
    arrays = [path.with_name(name) for name in ("trajectory.safetensors", "eigenpairs-0.safetensors")]
    others = [weights.with_name(array.name) for array in arrays]
    for array in (*arrays, *others):
        array.write_bytes(b"large")
    rewrite(path, "history", "train_loss")
    with pytest.raises(
        DataError, match=r"^results/unit/runs/digits/sgd/main/seed0/history\.csv: is there with another"
    ):
        restorable(config, RESULTS, store)
    restore(restorable(config, RESULTS, store, force=True), RESULTS, store)
    # Those arrays belong to the table that was in the way; those of the other run to the one that is kept.
    assert not any(array.exists() for array in arrays)
    assert all(other.exists() for other in others)
    assert {name: content for name, content in contents(RESULTS).items() if content != b"large"} == before


# Configuration, records


def test_the_configuration_of_a_name_is_the_one_that_its_overlay_makes(tmp_path: Path) -> None:
    assert configured("cpu", [])["name"] == "cpu"
    assert configured("demo", [])["name"] == "demo"
    overlay = tmp_path / "mine.yaml"
    overlay.write_text("name: mine\ntraining: {seeds: [0, 7]}\n")
    assert configured("mine", [overlay])["training"]["seeds"] == [0, 7]
    with refused(ConfigError, "config.yaml", "'demo'", "'mine'", "CONFIG="):
        configured("mine", [])
    with refused(ConfigError, "none.yaml"):
        configured("mine", [tmp_path / "none.yaml"])


@pytest.mark.parametrize("name", ["cpu", "paper"])
def test_every_table_of_the_shipped_configurations_belongs_to_one_part(name: str) -> None:
    config = configured(name, [])
    found = [path for part in parts(Experiment(config)).values() for path in part.files]
    assert len(found) == len({*found})
    # With the runs of figure S1.
    assert any("/init-" in path for path in found)
    kinds = {kind for part in parts(Experiment(config)).values() for kind in part.files.values()}
    assert kinds == {*RUN_TABLES, *DATASET_TABLES, "final_weights"}


def test_differences_name_the_leaf() -> None:
    here, there = {"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"b": 2, "c": [1]}, "e": 1}
    assert list(differences(here, there)) == [
        "a.b 1 kept, 2 configured",
        "d 1 kept, nothing configured",
        "e nothing kept, 1 configured",
    ]


@pytest.mark.parametrize("output", ["a.csv", "results/unit/" + "long/" * 80 + "ipr.csv"], ids=["short", "long"])
def test_records_are_found_where_snakemake_writes_them(tmp_path: Path, output: str) -> None:
    theirs = FilePersistence(path=tmp_path / ".snakemake")
    folder = tmp_path / ".snakemake" / "metadata"
    assert str(_record(folder, output)) == theirs._record_path(str(folder), output)


def test_a_lock_is_noticed_where_it_is_of_these_results() -> None:
    lock = Path(".snakemake/locks/0.output.lock")
    lock.parent.mkdir(parents=True)
    lock.write_text("results/unity/a.csv\nresults/demo/a.csv\n")
    assert not is_locked(RESULTS)
    lock.write_text("results/demo/a.csv\nresults/unit/runs/a.csv\n")
    assert is_locked(RESULTS)


def test_of_what_a_failed_snakemake_says_one_line_is_shown() -> None:
    reported = "prepare_data: x/MNIST/raw: no such file; set data.download: true (log: results/unit/logs/MNIST.log)"
    said = f"    input: errors.py\n{reported}\nError in rule prepare_data:\n    log: a.log (check it)\n\nFailed.\n"
    assert complaint(said) == reported
    assert complaint("Building DAG of jobs...\nNo rule to produce a.csv.\n\n") == "No rule to produce a.csv."
    assert complaint("") == "no word of why"
