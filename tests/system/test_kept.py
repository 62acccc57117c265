"""The tiny run kept in the repository and restored in another checkout, as Snakemake sees it."""

import json
import os
import re
import shutil
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TinyRun
from experiments import FIGURE_NAMES, RUN_RULES
from snakemake_process import TINY, copy_checkout, environment, planned_jobs, planned_rules, run_snakemake

DRAWN = {*FIGURE_NAMES, "claims", "figure_set"}
RUN = "results/tiny/runs/digits/adam/main/seed1"


def call(folder: Path, command: str, *overlays: str) -> "subprocess.CompletedProcess[str]":
    """python -m reproduction.publication.kept in a checkout, with that checkout's library."""
    return subprocess.run(
        [sys.executable, "-m", "reproduction.publication.kept", command, "tiny", *TINY, *overlays],
        cwd=folder,
        env=environment(PYTHONPATH=str(folder / "workflow" / "scripts")),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def record(folder: Path, kind: str, output: str) -> Path:
    return folder / ".snakemake" / kind / urlsafe_b64encode(output.encode()).decode()


@pytest.fixture(scope="module")
def kept(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run's checkout, its tables kept."""
    folder = shutil.copytree(tiny_run.folder, tmp_path_factory.mktemp("kept") / "checkout", symlinks=True)
    done = call(folder, "keep")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def restored(kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another checkout in which the kept tables are restored; a run of other code and parameters has left traces."""
    folder = copy_checkout(tmp_path_factory.mktemp("restored") / "checkout")
    shutil.copytree(kept / "paper" / "runs" / "tiny", folder / "paper" / "runs" / "tiny")
    shutil.copytree(kept / ".snakemake" / "metadata", folder / ".snakemake" / "metadata")
    for output in (f"{RUN}/history.csv", f"{RUN}/trajectory.safetensors", f"{RUN}/ipr.csv"):
        noted = json.loads(record(folder, "metadata", output).read_text(encoding="utf-8"))
        record(folder, "metadata", output).write_text(json.dumps({**noted, "params": ["'other'"], "input": ["other"]}))
    incomplete = record(folder, "incomplete", f"{RUN}/alignment.csv")
    incomplete.parent.mkdir()
    incomplete.write_text("{}")
    # Snakemake counts it among a job's outputs.
    benchmark = folder / "results/tiny/benchmarks/train/digits.adam.main.1.tsv"
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\n1\n")
    os.utime(benchmark, (1, 1))
    done = call(folder, "restore")
    assert done.returncode == 0, done.stderr
    found = re.search(r"(\d+) tables restored of (\d+)", done.stdout)
    assert found is not None, done.stdout
    manifest = json.loads((folder / "paper" / "runs" / "tiny" / "manifest.json").read_text(encoding="utf-8"))
    assert found[1] == found[2] == str(len(manifest["files"]))
    return folder


def test_only_figures_and_claims_are_due_whether_arrays_are_kept_or_not(
    restored: Path, overlay: Callable[[str], str]
) -> None:
    assert not [*(restored / "results").rglob("trajectory.safetensors"), *(restored / "results").rglob("eigenpairs*")]
    for keep_arrays in ("true", "false"):
        finished = run_snakemake(restored, "-n", *TINY, overlay(f"storage: {{keep_arrays: {keep_arrays}}}"))
        assert planned_rules(finished) == dict.fromkeys(DRAWN, 1), keep_arrays
        assert "missing provenance" not in finished.output
    # Nor do they wait for the data, which a machine without a network lacks.
    data = restored / "results" / "tiny" / "data"
    data.rename(data.with_name("away"))
    try:
        assert planned_rules(run_snakemake(restored, "-n", *TINY)) == dict.fromkeys(DRAWN, 1)
    finally:
        data.with_name("away").rename(data)


def test_a_seed_more_makes_its_own_runs_and_what_is_drawn_from_all(
    restored: Path, overlay: Callable[[str], str]
) -> None:
    path = overlay("{training: {seeds: [0, 1, 5]}, storage: {keep_arrays: false}}")
    jobs = planned_jobs(run_snakemake(restored, "-n", *TINY, path))
    # Three optimizers on two data sets.
    expected = dict.fromkeys(RUN_RULES, 6) | {"interpolation": 2} | dict.fromkeys(DRAWN, 1)
    assert Counter(job.rule for job in jobs) == expected
    assert {job.wildcards["seed"] for job in jobs if "seed" in job.wildcards} == {"5"}


def test_later_changes_are_noticed_as_after_a_run_of_its_own(
    restored: Path, overlay: Callable[[str], str], tmp_path: Path
) -> None:
    assert "baseline" in planned_rules(run_snakemake(restored, "-n", *TINY, overlay("baseline: {initializations: 6}")))
    folder = shutil.copytree(restored, tmp_path / "checkout", symlinks=True)
    os.utime(folder / "workflow" / "scripts" / "reproduction" / "training" / "loop.py")
    assert planned_rules(run_snakemake(folder, "-n", *TINY)).keys() == DRAWN
    with (folder / "workflow" / "scripts" / "reproduction" / "measure" / "sharpness.py").open("a") as file:
        file.write("# another line\n")
    assert planned_rules(run_snakemake(folder, "-n", *TINY)).keys() == {*DRAWN, "interpolation"}


def test_a_figure_comes_out_the_same(restored: Path, tiny_run: TinyRun, tmp_path: Path) -> None:
    folder = shutil.copytree(restored, tmp_path / "checkout", symlinks=True)
    run_snakemake(folder, "--cores", "1", "fig01", *TINY)
    for kind in ("pdf", "csv"):
        drawn, before = (place / f"results/tiny/figures/fig01.{kind}" for place in (folder, tiny_run.folder))
        assert drawn.read_bytes() == before.read_bytes(), kind


def test_a_second_keep_and_a_keep_of_what_is_restored_write_nothing(kept: Path, restored: Path) -> None:
    for folder in (kept, restored):
        store = folder / "paper" / "runs" / "tiny"
        before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
        done = call(folder, "keep")
        assert re.findall(r"\b\d+\b", done.stdout.splitlines()[0])[-3:] == ["0", "26", "28"], done.stderr
        assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


def test_restoring_again_voids_no_run_that_was_stopped_halfway(restored: Path, overlay: Callable[[str], str]) -> None:
    more = overlay("training: {seeds: [0, 1, 5]}")
    run = "results/tiny/runs/digits/sgd/main/seed5"
    run_snakemake(restored, "--cores", "1", *TINY, more, "--", f"{run}/trajectory.safetensors")
    time = (restored / run / "trajectory.safetensors").stat().st_mtime_ns
    done = call(restored, "restore", more)
    assert done.returncode == 0, done.stderr
    assert (restored / run / "trajectory.safetensors").stat().st_mtime_ns == time
    trained = {
        tuple(job.wildcards.values())
        for job in planned_jobs(run_snakemake(restored, "-n", *TINY, more))
        if job.rule == "train"
    }
    assert len(trained) == 5, trained
    shutil.rmtree(restored / run)


def test_a_damaged_table_and_another_network_are_one_line_each(
    kept: Path, tmp_path: Path, overlay: Callable[[str], str]
) -> None:
    folder = copy_checkout(tmp_path / "checkout")
    shutil.copytree(kept / "paper" / "runs" / "tiny", folder / "paper" / "runs" / "tiny")
    done = call(folder, "restore", overlay("model: {hidden: [8]}"))
    assert done.returncode == 1
    assert "another network" in done.stderr
    path = folder / "paper" / "runs" / "tiny" / "baseline" / "digits.csv.gz"
    path.write_bytes(path.read_bytes()[:-1])
    done = call(folder, "restore")
    assert done.returncode == 1
    assert f"{path}: damaged (" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "results").exists()


def test_nothing_is_restored_under_a_snakemake_at_work(kept: Path, tmp_path: Path) -> None:
    folder = copy_checkout(tmp_path / "checkout")
    shutil.copytree(kept / "paper" / "runs" / "tiny", folder / "paper" / "runs" / "tiny")
    lock = folder / ".snakemake" / "locks" / "0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text(f"{RUN}/history.csv\n")
    done = call(folder, "restore")
    assert done.returncode == 1
    assert "results/tiny: Snakemake " in done.stderr
    assert not (folder / "results").exists()


def test_make_asks_for_a_name(root: Path) -> None:
    for target in ("keep", "restore"):
        done = subprocess.run(
            ["make", "-o", "environment", target], cwd=root, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert f"NAME: not given; name a run below results/, as in make {target} NAME=cpu" in done.stdout
