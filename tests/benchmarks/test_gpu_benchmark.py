"""The GPU's benchmark, run on a CPU: its tables, what they say of precision and counts, and what it reads."""

import gzip
import json
import lzma
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from experiments import PACKAGES, overlaid

from reproduction.experiment.config import validate
from reproduction.experiment.datasets import DATASETS
from reproduction.experiment.runs import Experiment
from reproduction.measure.eigenpairs import requests

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import PAPER_RUNS, SNAPSHOTS, STEPS, mean_solve, raw_files  # noqa: E402
from benchmarks.gpu_measures import OPPONENT, WAYS, attempted  # noqa: E402
from benchmarks.gpu_whole import SCHEDULE  # noqa: E402

# What a machine with a GPU and torch may well lack.
ABSENT = ("jsonschema", "snakemake", "curvlinops", "pyhessian", "hessian_eigenthings")
PROGRAM = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({ABSENT!r}))
sys.argv[0] = "gpu"
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = ["--quick", "--device", "cpu", "--threads", "1", "--output", str(folder)]
    command = [sys.executable, "-c", PROGRAM, *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    # The end of the output is what a remote machine shows.
    assert "30 main runs" in "".join(done.stdout.splitlines()[-6:])
    return folder


def table(results: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(results / f"gpu_{name}.csv")


def test_errors_follow_the_precision(results: Path) -> None:
    for name in ("matrices", "products"):
        errors = table(results, name).dropna(subset=["error"]).groupby("precision")["error"].max()
        assert errors["float32"] < 2e-6
    assert set(table(results, "products")["b"]) == {1, 3}


def test_nothing_went_wrong(results: Path) -> None:
    for path in results.glob("gpu_*.csv"):
        assert "problem" not in pd.read_csv(path).columns


def test_what_goes_wrong_is_a_row() -> None:
    assert attempted({"task": "a"}, lambda: {"ms": 1.0}) == {"task": "a", "ms": 1.0}
    assert attempted({"task": "b"}, lambda: {"ms": 1 / 0}) == {
        "task": "b",
        "problem": "ZeroDivisionError: division by zero",
    }


def test_a_device_is_held_against_the_cpu(results: Path) -> None:
    found = table(results, "correctness")
    assert bool(found["found"].notna().all())
    assert found["within"].all()
    kinds = (
        "of the weights",
        "float32: relative",
        "float64: relative",
        "eigenvalues",
        "eigenvectors",
        "true residuals",
    )
    for kind in kinds:
        assert found["what"].str.contains(kind, regex=False).sum() == 3, kind
    # Not compared with itself: float32 differs from float64.
    assert found[found["what"].str.contains("float32: relative")]["found"].min() > 1e-9
    assert found["what"].iloc[-1].startswith("failed tests marked gpu")


def test_jobs_that_share_a_device_are_timed_together(results: Path) -> None:
    shared = table(results, "sharing")
    assert list(shared["jobs at once"]) == [1, 2]
    assert shared["work per second, relative to one"].iloc[0] == 1
    assert bool((shared[["start_seconds", "seconds", "work per second, relative to one"]] > 0).all(axis=None))


def test_whole_runs_have_all_their_snapshots(results: Path) -> None:
    whole = table(results, "whole").set_index("optimizer")
    assert set(whole.index) == {"sgd", "adam", "sam"}
    assert bool((whole["snapshots"] == whole["of"]).all())
    assert bool(whole["all_converged"].all())
    assert whole["worst_residual"].max() <= 1e-3


def test_the_workflow_needs_its_time(tmp_path: Path) -> None:
    options = ["--quick", "--device", "cpu", "--output", str(tmp_path), "--parts", "workflow"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "--parts workflow: needs --workflow SECONDS, the time that it may take"


def test_the_workflow_leaves_the_tables_that_it_finished(checkout: Path, tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, torch\n"
        "from benchmarks.gpu_whole import workflow_rows\n"
        "print(list(workflow_rows(pathlib.Path(sys.argv[1]), '', float(sys.argv[2]), True, torch.device('cpu'))))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{checkout}:{PACKAGES}"}
    command = [sys.executable, "-c", program, str(tmp_path)]
    for seconds, said, tables in (("3", "'seed 0: stopped'", 0), ("300", "'seed 0: exit status 0'", 3)):
        done = subprocess.run(
            [*command, seconds], cwd=checkout, env=environment, capture_output=True, text=True, check=True
        )
        assert said in done.stdout
        with tarfile.open(tmp_path / "gpu_tables.tar.xz") as archive:
            names = {Path(name).name for name in archive.getnames()}
        # Training leaves the history.
        assert len(names - {"history.csv"}) == tables, names


def test_every_way_solves_and_is_judged(results: Path) -> None:
    solves = table(results, "solves")
    assert set(solves["method"]) == {*WAYS, OPPONENT}
    ours = solves[solves["method"] != OPPONENT]
    assert bool((ours["worst_true_residual"] <= 1.001 * ours["tolerance"]).all())
    assert bool((ours["ms"] > 0).all())
    assert ours[ours["k"] == 3]["worst_overlap"].min() > 0.9999
    assert solves[solves["method"] == OPPONENT]["products"].min() >= 20


def test_the_thirty_runs_are_reckoned_from_the_tables(results: Path) -> None:
    runs, steps = table(results, "runs"), table(results, "steps").set_index("optimizer")
    assert runs["runs"].sum() == 30
    sgd = runs[runs["optimizer"] == "sgd"].iloc[0]
    per_run = STEPS * steps.loc["sgd", "ms_per_step"] + SNAPSHOTS * steps.loc["sgd", "ms_per_evaluation"]
    assert sgd["training_minutes"] == pytest.approx(8 * per_run / 6e4, rel=1e-4)
    assert sgd["eigenpairs_minutes"] == pytest.approx(8 * SNAPSHOTS * sgd["ms_per_solve"] / 6e4, rel=1e-4)
    total = table(results, "summary").iloc[0]["measured"]
    assert total == pytest.approx(runs[["training_minutes", "eigenpairs_minutes"]].sum().sum(), rel=1e-4)


def test_counts_and_facts_name_no_place(results: Path) -> None:
    launches = table(results, "launches").set_index("task")
    assert launches.loc["one product", "numbers_read"] == 0
    assert launches.loc["one product", "operations"] > 30
    facts = json.loads((results / "gpu_machine.json").read_text(encoding="utf-8"))
    assert facts["device"] == "cpu"
    for path in results.iterdir():
        assert str(ROOT) not in path.read_text(encoding="utf-8")
        assert os.uname().nodename not in path.read_text(encoding="utf-8")


def test_the_runs_are_those_of_the_paper_s_configuration() -> None:
    with open(ROOT / "config" / "paper.yaml", encoding="utf-8") as file:
        experiment = Experiment(validate(overlaid(yaml.safe_load(file))))
    found: Counter[tuple[str, int, float]] = Counter()
    for run in experiment.select():
        own = experiment.eigen_parameters(run)
        wanted = requests(experiment.snapshots(run), own["k"], own["tolerance"], own.get("dense"))
        assert len(wanted) == SNAPSHOTS
        # The rare snapshots off the grid, in a run of fifteen pairs, count as the others.
        (k, tolerance), _ = Counter((request.k, request.tolerance) for request in wanted).most_common(1)[0]
        found[run.optimizer, k, tolerance] += 1
        assert experiment.identity(run)["steps"] == STEPS
    block = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text(encoding="utf-8"))["snapshots"]
    assert block == SCHEDULE
    assert found == {(optimizer, k, tolerance): count for optimizer, k, tolerance, count in PAPER_RUNS}


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_raw_files_are_found_however_they_are_packed(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EIGENDRIFT_DATA", "elsewhere")
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix]
    for dataset in ("FashionMNIST", "some/MNIST"):
        folder = tmp_path / dataset
        folder.mkdir(parents=True)
        for file in DATASETS["MNIST"].files:
            (folder / f"{file.name}{suffix}").write_bytes(pack(f"{dataset} {file.name}".encode()))
    with raw_files(tmp_path):
        read = Path(os.environ["EIGENDRIFT_DATA"]) / "MNIST" / "raw"
        for file in DATASETS["MNIST"].files:
            assert (read / file.name).read_text(encoding="utf-8") == f"some/MNIST {file.name}"
    assert os.environ["EIGENDRIFT_DATA"] == "elsewhere"
    assert not read.exists()


def test_a_mean_over_snapshots_takes_what_it_asks_for() -> None:
    rows = [
        {"method": "a", "optimizer": "sgd", "k": 3, "tolerance": 1e-3, "step": step, "ms": ms}
        for step, ms in ((0, 1.0), (50, 2.0), (100, 3.0))
    ]
    rows.append({**rows[0], "k": 15, "step": 100, "ms": 9.0})
    solved = pd.DataFrame(rows)
    assert mean_solve(solved, "a", "sgd", 3, 1e-3, 100) == pytest.approx(2.0)
    assert mean_solve(solved, "a", "sgd", 15, 1e-3, 100) == 9.0
    assert torch.isnan(torch.tensor(mean_solve(solved, "a", "adam", 3, 1e-3, 100)))
