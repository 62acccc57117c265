"""A disk that is full, a folder that cannot be written to, memory that is refused: one line, and nothing half-written.

The disk is a real one of a few megabytes, mounted where nobody else sees it.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import IN_CI, TinyRun
from experiments import PACKAGES, SUPPORT, script_of
from snakemake_process import ROOT, TINY, environment, run_snakemake
from test_kills import RUN, small_jobs, tiny_experiment

PRIVATE = ("unshare", "--user", "--map-root-user", "--mount")


def private_mounts() -> None:
    """Skip where a process may not mount a disk of its own."""
    if shutil.which("unshare") and subprocess.run([*PRIVATE, "true"], capture_output=True, check=False).returncode == 0:
        return
    assert not IN_CI, "unshare cannot mount here"
    pytest.skip("no private mounts here")


def run_on_disk(job: dict[str, Any], folder: Path, options: str) -> tuple[list[str], list[str]]:
    """Run a job's script where `folder` is a disk of its own: its terminal's lines, and the files left there."""
    description = folder.with_suffix(".json")
    description.write_text(json.dumps(job), encoding="utf-8")
    folder.mkdir(exist_ok=True)
    script = script_of(str(job["rule"]))
    run = f"'{sys.executable}' '{SUPPORT / 'run_script.py'}' '{description}' '{script}' || true"
    shell = f"mount -t tmpfs -o {options} none '{folder}' && {{ {run}; }} && find '{folder}' -type f"
    done = subprocess.run(
        [*PRIVATE, "sh", "-c", shell],
        env=environment(PYTHONPATH=PACKAGES),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines(), sorted(done.stdout.splitlines())


def job_of(rule: str, folder: Path, tiny: TinyRun) -> dict[str, Any]:
    """A job whose outputs and scratch lie in `folder`, its log beside it."""
    experiment, results = tiny_experiment(tiny.folder), tiny.results
    job = {"rule": rule, "log": str(folder.with_suffix(".log")), "wildcards": {"dataset": "digits", "chunk": "0"}}
    if rule == "train":
        names = {"trajectory": "t.safetensors", "final_weights": "w.safetensors", "history": "h.csv"}
        return job | {
            "input": {"data": str(results / "data" / "digits.safetensors")},
            "output": {name: str(folder / file) for name, file in names.items()},
            "params": {"run": experiment.train_parameters(RUN), "scratch": str(folder / "scratch"), "job": "train"},
        }
    return job | small_jobs(rule, folder, tiny, experiment)


@pytest.mark.parametrize(
    ("rule", "size", "refused", "need"),
    [
        ("prepare_data", "100k", "out/digits.safetensors", "it needs 0.129 MB; "),
        # The scratch arrays find no room; then they do, and the checkpoint or the trajectory beside them does not.
        ("train", "40k", "weights.npy", "MB"),
        ("train", "350k", "t.safetensors", "MB"),
        ("baseline", "100k", "vectors.npy", "MB"),
        ("fig03", "60k", "out/p", ""),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing_under_a_final_name(
    tiny_run: TinyRun, tmp_path: Path, rule: str, size: str, refused: str, need: str
) -> None:
    private_mounts()
    folder = tmp_path / "disk"
    job = job_of(rule, folder, tiny_run)
    lines, left = run_on_disk(job, folder, f"size={size}")
    (line,) = lines
    assert line.startswith(f"{rule}: {folder}/"), line
    named, _, why = line.partition(": cannot be written (No space left on device); ")
    assert refused in named
    assert need in why
    assert "MB are free there: make room and run again" in why
    assert not [path for path in left if path in job["output"].values()], left
    assert not [path for path in left if path.endswith(".part")]


def test_a_read_only_disk_is_one_line(tiny_run: TinyRun, tmp_path: Path) -> None:
    private_mounts()
    folder = tmp_path / "disk"
    lines, left = run_on_disk(job_of("fig03", folder, tiny_run), folder, "ro")
    (line,) = lines
    assert "out/" in line
    assert "Read-only file system" in line
    assert left == []


def test_a_folder_of_someone_else_is_one_line(tiny_run: TinyRun, tmp_path: Path) -> None:
    private_mounts()
    folder = tmp_path / "disk"
    # Without the rights that root has over every folder, its own user has those of the folder's mode.
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("setpriv is missing")
    job = job_of("prepare_data", folder, tiny_run)
    folder.mkdir()
    folder.chmod(0o555)
    description = tmp_path / "job.json"
    description.write_text(json.dumps(job), encoding="utf-8")
    script = ROOT / "workflow" / "scripts" / "prepare_data.py"
    powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*powerless, sys.executable, str(SUPPORT / "run_script.py"), str(description), str(script)],
        env=environment(PYTHONPATH=PACKAGES),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    (line,) = done.stderr.splitlines()
    out = folder / "out"
    assert line.startswith(
        f"prepare_data: {out}/digits.safetensors: cannot be written (Permission denied); make {out} "
    )
    assert list(folder.iterdir()) == []


def test_refused_memory_is_one_line_with_what_was_asked(tiny_run: TinyRun, tmp_path: Path) -> None:
    job = job_of("baseline", tmp_path / "folder", tiny_run)
    # 1.5 million parameters: the solver's basis takes 360 MB, twice.
    job["params"]["baseline"] = {**job["params"]["baseline"], "initializations": 3}
    job["params"]["baseline"]["model"] = {**job["params"]["baseline"]["model"], "hidden": [20_000]}
    description = tmp_path / "job.json"
    description.write_text(json.dumps({**job, "spare_megabytes": 600}), encoding="utf-8")
    script = ROOT / "workflow" / "scripts" / "baseline.py"
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "run_script.py"), str(description), str(script)],
        env=environment(PYTHONPATH=PACKAGES),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("baseline: out of memory: its rule's mem_mb says what it needs; run fewer jobs at once, or")
    assert "bytes" in line
    assert not any(Path(path).exists() for path in job["output"].values())


def test_results_on_a_disk_that_fills_up_go_on_when_there_is_room(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Through Snakemake: the line is on its terminal, and the same command goes on where the room ran out."""
    private_mounts()
    checkout, disk = shutil.copytree(tiny_run.folder, tmp_path / "checkout", symlinks=True), tmp_path / "disk"
    disk.mkdir()
    target = "results/tiny/runs/digits/sgd/main/seed0/trajectory.safetensors"
    shutil.rmtree(checkout / "results" / "tiny" / "runs" / "digits" / "sgd" / "main" / "seed0")
    command = f"'{sys.executable}' -m snakemake --cores 1 {' '.join(TINY)} --allowed-rules train -- {target}"
    runs = "results/tiny/runs/digits/sgd/main/seed0"
    shell = (
        f"mkdir {runs} && mount -t tmpfs -o size=100k none {runs} && cd . && {{ {command}; true; }} && ls -A {runs} && "
        f"mount -o remount,size=10m {runs} && {command} && cp -r {runs} '{disk}'"
    )
    done = subprocess.run(
        [*PRIVATE, "sh", "-c", shell],
        cwd=checkout,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("train: ")]
    assert line.startswith(f"train: {target}: cannot be written (No space left on device); it needs 0.208 MB")
    assert done.stdout.split() == []
    original = tiny_run.folder / target
    assert (disk / "seed0" / "trajectory.safetensors").read_bytes() == original.read_bytes()
    assert "Nothing to be done" in run_snakemake(tiny_run.folder, "-n", *TINY).output
