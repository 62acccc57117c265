"""SIGKILL at any moment: started again, the work goes on where it was and ends with the same bytes."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import TinyRun
from experiments import PACKAGES, SUPPORT, script_of
from snakemake_process import TINY, environment, jobs_begun, kill_group, planned_jobs, run_snakemake, start_snakemake

from reproduction.data.sources import prepare
from reproduction.experiment.config import validate
from reproduction.experiment.figure_catalogue import drawing
from reproduction.experiment.runs import Experiment, Run

RUN = Run("digits", "adam", "main", 0)
# Enough work that a kill hits it and not the imports: a second or two of each script.
CHANGES = {
    "training": {"steps": 1000},
    "snapshots": {"every": 50, "waiting_times": [0, 100], "lags_per_decade": 4},
    "model": {"hidden": [40, 40]},
}


@dataclass
class Work:
    """One script in one folder: how it is started, and what it leaves."""

    folder: Path
    script: Path
    job: dict[str, Any]
    # Reads how many snapshots are done, from the job's scratch folder.
    done: Callable[[Path], int]

    @property
    def log(self) -> str:
        return Path(self.job["log"]).read_text(encoding="utf-8")

    @property
    def scratch(self) -> Path:
        """The scratch folder; its last part is a key that only the script knows."""
        (found,) = (Path(self.job["params"]["scratch"]) / self.job["params"]["job"]).iterdir()
        return found

    def start(self) -> "subprocess.Popen[bytes]":
        description = self.folder / f"{self.job['rule']}.json"
        description.write_text(json.dumps(self.job), encoding="utf-8")
        program = SUPPORT / "run_script.py"
        library = environment(PYTHONPATH=PACKAGES)
        return subprocess.Popen([sys.executable, str(program), str(description), str(self.script)], env=library)

    def finish(self) -> None:
        assert self.start().wait(timeout=120) == 0, self.log

    def progress(self) -> int:
        """Number of snapshots done so far; 0 where the script has not come that far."""
        try:
            return self.done(self.scratch)
        except (OSError, ValueError):
            return 0

    def kill_at(self, snapshots: int, delay: float) -> None:
        """Start it, and kill it some time after that many snapshots are done."""
        process = self.start()
        deadline = time.monotonic() + 120
        while self.progress() < snapshots:
            assert process.poll() is None, "ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    def killed_after(self, seconds: float) -> bool:
        """Start it, and kill it then; False if it had ended before."""
        process = self.start()
        try:
            assert process.wait(timeout=seconds) == 0, self.log
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return process.wait() == -signal.SIGKILL
        return False

    def outputs(self) -> dict[str, bytes]:
        return {name: Path(path).read_bytes() for name, path in self.job["output"].items()}


def trained_snapshots(scratch: Path) -> int:
    """Snapshots of training: a history row is filled with the losses, which are above zero."""
    return int((np.load(scratch / "history.npy", mmap_mode="r")[:, 0] > 0).sum())


def solved_snapshots(scratch: Path) -> int:
    return int(np.load(scratch / "done.npy", mmap_mode="r")[0])


@pytest.fixture(scope="module")
def experiment(root: Path) -> Experiment:
    config = yaml.safe_load((root / "config.yaml").read_text(encoding="utf-8"))
    for section, keys in CHANGES.items():
        config[section].update(keys)
    return Experiment(validate(config))


def training(folder: Path, root: Path, experiment: Experiment) -> Work:
    names = {"trajectory": "trajectory.safetensors", "final_weights": "weights.safetensors", "history": "history.csv"}
    job = {
        "rule": "train",
        "input": {"data": str(folder / "data.safetensors")},
        "output": {name: str(folder / "run" / file) for name, file in names.items()},
        "log": str(folder / "logs" / "train.log"),
        "params": {
            "run": experiment.train_parameters(RUN),
            "scratch": str(folder / ".scratch"),
            "job": f"train/{RUN.folder}",
        },
        "wildcards": {},
    }
    return Work(folder, root / "workflow" / "scripts" / "train.py", job, trained_snapshots)


def eigenpairs(folder: Path, root: Path, experiment: Experiment) -> Work:
    job = {
        "rule": "eigensnapshot",
        "input": {
            "data": str(folder / "data.safetensors"),
            "trajectory": str(folder / "run" / "trajectory.safetensors"),
        },
        "output": {"pairs": str(folder / "run" / "eigenpairs-0.safetensors")},
        "log": str(folder / "logs" / "eigensnapshot.log"),
        "params": {
            "eigen": experiment.eigen_parameters(RUN),
            "identity": experiment.identity(RUN),
            "scratch": str(folder / ".scratch"),
            "job": f"eigensnapshot/{RUN.folder}/0",
            "finished": f"train/{RUN.folder}",
        },
        "wildcards": {"chunk": "0"},
    }
    return Work(folder, root / "workflow" / "scripts" / "eigensnapshot.py", job, solved_snapshots)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, root: Path, experiment: Experiment) -> dict[str, Work]:
    """Training and eigenpairs, never killed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    prepare("digits", "not used", False, folder / "data.safetensors")
    works = {"train": training(folder, root, experiment), "eigensnapshot": eigenpairs(folder, root, experiment)}
    for work in works.values():
        work.finish()
        assert "going on" not in work.log
    return works


@pytest.mark.parametrize("rule", ["train", "eigensnapshot"])
def test_a_killed_script_goes_on_and_ends_with_the_same_bytes(
    undisturbed: dict[str, Work], tmp_path: Path, root: Path, experiment: Experiment, rule: str
) -> None:
    reference = undisturbed[rule]
    (tmp_path / "data.safetensors").write_bytes((reference.folder / "data.safetensors").read_bytes())
    if rule == "train":
        work = training(tmp_path, root, experiment)
    else:
        work = eigenpairs(tmp_path, root, experiment)
        (tmp_path / "run").mkdir()
        trajectory = "run/trajectory.safetensors"
        (tmp_path / trajectory).write_bytes((reference.folder / trajectory).read_bytes())
    snapshots = len(experiment.snapshots(RUN))
    chance = random.Random(f"kills of {rule}")
    moments = sorted(chance.sample(range(1, snapshots - 3), 3))
    for moment in moments:
        work.kill_at(moment, chance.uniform(0, 0.02))
        assert not any(Path(path).exists() for path in work.job["output"].values())
        before = work.progress()
        assert moment <= before < snapshots
        # What a kill in the middle of a write leaves beside the files.
        Path(work.job["output"][next(iter(work.job["output"]))]).parent.mkdir(exist_ok=True)
        for path in work.job["output"].values():
            Path(path).with_name(f".{Path(path).name}.part").write_bytes(b"half a file")
        for name in ("checkpoint.pt.part", ".numbers.npy.part"):
            (work.scratch / name).write_bytes(b"half a file")
    work.finish()
    found = work.log.split("going on at ")
    assert len(found) == 2, work.log
    # Training counts steps, the solver snapshots; the row that a kill cut off is made again.
    reached, total = map(int, found[1].split("\n")[0].split(" of "))
    if rule == "train":
        steps = experiment.snapshots(RUN)
        assert total == steps[-1] + 1
        assert reached in [steps[row] + 1 for row in range(moments[-1] - 2, snapshots)]
    else:
        assert total == snapshots
        assert reached >= moments[-1]
    assert work.outputs() == reference.outputs()
    assert not list((tmp_path / "run").glob(".*.part"))


def test_other_parameters_never_go_on_from_old_progress(
    undisturbed: dict[str, Work], tmp_path: Path, root: Path, experiment: Experiment
) -> None:
    (tmp_path / "data.safetensors").write_bytes((undisturbed["train"].folder / "data.safetensors").read_bytes())
    work = training(tmp_path, root, experiment)
    work.job["params"]["run"]["optimizer"] = {**work.job["params"]["run"]["optimizer"], "lr": 0.002}
    work.kill_at(5, 0)
    old = work.scratch
    work = training(tmp_path, root, experiment)
    work.finish()
    assert "going on" not in work.log
    assert work.scratch != old
    assert work.outputs() == undisturbed["train"].outputs()


def test_a_killed_workflow_goes_on_after_unlock(
    tiny_run: TinyRun, checkout: Path, overlay: Callable[[str], str]
) -> None:
    # Chunks of a run's eigenpairs and temporary arrays change how the work is done, never what comes out of it.
    path = overlay("eigen: {snapshots_per_job: 8}\nstorage: {keep_arrays: false}")
    runs = [f"results/tiny/runs/{run}" for run in ("digits/adam/main/seed0", "digits_noisy/sgd/main/seed1")]
    targets = [f"{run}/{name}" for run in runs for name in ("displacement.csv", "alignment.csv", "ipr.csv")]
    arguments = ("--cores", "2", *TINY, path, "--", *targets)
    process = start_snakemake(checkout, *arguments)
    # Its log shows that Snakemake has taken the training before it as finished.
    begun = checkout / "results" / "tiny" / "logs" / "eigensnapshot"
    deadline = time.monotonic() + 300
    while not any(begun.glob("*.log")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(random.Random("kill of the workflow").uniform(0, 2))
    dataset, optimizer, variant, seed, *_ = min(begun.glob("*.log")).name.split(".")
    kill_group(process)
    trained = checkout / "results" / "tiny" / "runs" / dataset / optimizer / variant / f"seed{seed}" / "history.csv"
    kept = trained.stat().st_mtime_ns

    refused = run_snakemake(checkout, *arguments, check=False)
    assert refused.status != 0
    assert "--unlock" in refused.output
    run_snakemake(checkout, "--unlock")
    begun_before = jobs_begun(checkout, "train")
    run_snakemake(checkout, *arguments)
    assert trained.stat().st_mtime_ns == kept, "a finished training was done again"
    assert jobs_begun(checkout, "train") - begun_before <= 1
    for target in targets:
        assert (checkout / target).read_bytes() == (tiny_run.folder / target).read_bytes(), target
    left = {item.name for run in runs for item in (checkout / run).iterdir()}
    assert not {name for name in left if name.startswith(("trajectory", "eigenpairs"))}
    # The arrays are gone, and nobody wants them back.
    assert planned_jobs(run_snakemake(checkout, "-n", *TINY, path, "--", *targets)) == []


# Scripts of seconds, killed at any moment: while they import, read, compute or write


def tiny_experiment(root: Path) -> Experiment:
    config = yaml.safe_load((root / "config.yaml").read_text(encoding="utf-8"))
    return Experiment(validate(merged(config, yaml.safe_load((root / "tests" / "tiny.yaml").read_text()))))


def merged(config: dict[Any, Any], overlay: dict[Any, Any]) -> dict[Any, Any]:
    both = {**config, **overlay}
    return both | {key: merged(config[key], overlay[key]) for key in overlay if isinstance(config.get(key), dict)}


def small_jobs(rule: str, folder: Path, tiny: TinyRun, experiment: Experiment) -> dict[str, Any]:
    """Inputs (of the finished tiny run), outputs, parameters and wildcards of one job of a rule."""
    results, wildcards = tiny.results, {"dataset": "digits"}
    mains = sorted((results / "runs" / "digits").glob("*/main/seed*"))
    data = str(results / "data" / "digits.safetensors")

    def of_runs(name: str) -> list[str]:
        return [str(run / name) for run in mains]

    def outputs(*names: str) -> dict[str, str]:
        return {name.partition(".")[0]: str(folder / "out" / name) for name in names}

    if rule == "prepare_data":
        return {
            "input": {"file": []},
            "output": outputs("digits.safetensors"),
            "params": {},
            "config": {"data": {"root": "not used", "download": False}},
            "wildcards": {"dataset": "digits_noisy"},
        }
    if rule == "baseline":
        parameters = {**experiment.baseline_parameters(), "initializations": 10}
        return {
            "input": {"data": data},
            "output": outputs("baseline.csv", "overlaps.csv"),
            "params": {"baseline": parameters, "scratch": str(folder / ".scratch"), "job": "baseline/digits"},
            "wildcards": wildcards,
        }
    if rule == "interpolation":
        names = {"final_weights": "final_weights.safetensors", "history": "history.csv", "ipr": "ipr.csv"}
        return {
            "input": {"data": data, **{kind: of_runs(name) for kind, name in names.items()}},
            "output": outputs("interpolation.csv", "solutions.csv"),
            "params": {"interpolation": experiment.interpolation_parameters()},
            "wildcards": wildcards,
        }
    eigenvectors = [str(path) for path in (results / "runs").glob("*/*/main/seed0/final_eigenvector.safetensors")]
    inputs = {"fig03": {"ipr": of_runs("ipr.csv")}, "fig16": {"final_eigenvector": sorted(eigenvectors)}}
    return {
        "input": inputs[rule],
        "output": outputs("pdf", "png", "csv"),
        "params": {"layout": experiment.layout(), "figure": drawing(int(rule[3:]), {})},
        "wildcards": {},
    }


@pytest.mark.parametrize(
    ("rule", "kills"), [("prepare_data", 2), ("baseline", 3), ("interpolation", 2), ("fig03", 2), ("fig16", 2)]
)
def test_a_script_killed_at_any_moment_ends_with_the_same_bytes(
    tiny_run: TinyRun, tmp_path: Path, root: Path, rule: str, kills: int
) -> None:
    experiment, script = tiny_experiment(root), script_of(rule)

    def work(name: str) -> Work:
        folder = tmp_path / name
        folder.mkdir()
        parts = small_jobs(rule, folder, tiny_run, experiment)
        return Work(folder, script, {"rule": rule, "log": str(folder / "log"), **parts}, solved_snapshots)

    reference = work("undisturbed")
    started = time.monotonic()
    reference.finish()
    lasted = time.monotonic() - started
    expected, chance = reference.outputs(), random.Random(f"kills of {rule}")
    killed, hit = work("killed"), 0
    while hit < kills:
        hit += killed.killed_after(chance.uniform(0.1, 1.0) * lasted)
        # Whatever the moment: a file has its bytes, or is not there.
        for name, path in killed.job["output"].items():
            assert not Path(path).exists() or Path(path).read_bytes() == expected[name], name
    killed.finish()
    assert killed.outputs() == expected
    assert not [path for path in killed.folder.rglob("*") if path.name.endswith((".part", ".lock"))]
