"""Several GPUs in one machine: as many jobs at once, each with a GPU of its own; seen in the jobs of a real run."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from snakemake_process import TINY, kill_group, script_of, start_snakemake

RUNS = [(optimizer, seed) for optimizer in ("sgd", "adam", "sam") for seed in (0, 1)][:5]


def gpu_of(log: Path) -> str | None:
    """The GPU that the job of a log has said to see."""
    text = log.read_text(encoding="utf-8") if log.is_file() else ""
    found = re.search(r"CUDA_VISIBLE_DEVICES (.*)$", text, re.MULTILINE)
    return found[1] if found else None


# The others of the machine are somebody else's.
VISIBLE = "0,1,2,3,4"


@pytest.mark.parametrize(("gpus", "jobs_per_gpu"), [(["0", "1", "2", "3"], 1), (["0", "1"], 2)])
def test_four_jobs_at_once_have_a_place_on_a_gpu_each_and_the_next_ones_take_theirs(
    checkout: Path, overlay: Callable[[str], str], tmp_path: Path, gpus: list[str], jobs_per_gpu: int
) -> None:
    places = sorted(gpus * jobs_per_gpu)
    logs = [checkout / f"results/tiny/logs/train/digits.{name}.main.{seed}.log" for name, seed in RUNS]
    targets = [f"results/tiny/runs/digits/{name}/main/seed{seed}/history.csv" for name, seed in RUNS]
    # There need be no GPU behind the numbers: "auto" computes on the CPU then.
    asked = ("--cores", "8", "--resources", f"gpu={len(gpus)}", "--set-resources", "train:gpu=1")
    path = overlay(f"training: {{steps: 5000, jobs_per_gpu: {jobs_per_gpu}}}\nsnapshots: {{every: 500}}\n")
    visible = {"CUDA_VISIBLE_DEVICES": VISIBLE, "TMPDIR": str(tmp_path)}
    process = start_snakemake(checkout, *asked, *TINY, path, "--", *targets, **visible)
    # Each is stopped when it has its GPU, so that all four have theirs at one time.
    stopped: dict[Path, int] = {}
    try:
        deadline = time.monotonic() + 240
        while len(stopped) < len(places):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "no four jobs"
            for log in logs:
                if log not in stopped and gpu_of(log) is not None and (script := script_of(log)):
                    os.kill(script, signal.SIGSTOP)
                    stopped[log] = script
            time.sleep(0.02)
        assert sorted(str(gpu_of(log)) for log in stopped) == places
        assert {log for log in logs if log.exists()} == set(stopped)
        for script in stopped.values():
            os.kill(script, signal.SIGCONT)
        output = process.communicate(timeout=240)
    except BaseException:
        kill_group(process)
        raise
    assert process.returncode == 0, output
    assert all(gpu_of(log) in gpus for log in logs)
