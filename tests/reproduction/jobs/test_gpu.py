"""Jobs that run side by side claim a GPU each; seen in the environment that CUDA reads."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from experiments import PACKAGES

from reproduction.jobs.gpu import ALLOWED, claim_gpu, visible_gpus, wanted_device

PROGRAM = """
import os
from reproduction.jobs.gpu import claim_gpu
claim_gpu(int(os.environ["JOBS_PER_GPU"]))
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
input()
"""


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator["Jobs"]:
    with ExitStack() as stack:
        yield Jobs(stack, tmp_path)


class Jobs:
    """Processes that claim a GPU and keep it."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder

    def start(self, visible: str, jobs_per_gpu: int = 1, allowed: int = 0) -> "subprocess.Popen[str]":
        environment = {
            **os.environ,
            "JOBS_PER_GPU": str(jobs_per_gpu),
            **({ALLOWED: str(allowed)} if allowed else {}),
            "CUDA_VISIBLE_DEVICES": visible,
            "TMPDIR": str(self.folder),
            "PYTHONPATH": PACKAGES,
        }
        job = self.stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        self.stack.callback(job.kill)
        return job


def sees(job: "subprocess.Popen[str]") -> str:
    assert job.stdout is not None
    return job.stdout.readline().strip()


def test_four_jobs_get_four_gpus(jobs: Jobs) -> None:
    started = [jobs.start("0,1,2,3") for _ in range(4)]
    assert sorted(map(sees, started)) == ["0", "1", "2", "3"]


def test_a_killed_job_lets_its_gpu_go(jobs: Jobs) -> None:
    first, second = jobs.start("4,GPU-8a-b"), jobs.start("4,GPU-8a-b")
    seen = {sees(first): first, sees(second): second}
    assert set(seen) == {"4", "GPU-8a-b"}
    seen["4"].kill()
    seen["4"].wait()
    assert sees(jobs.start("4,GPU-8a-b")) == "4"


def test_a_job_more_than_there_are_places_sees_all_gpus(jobs: Jobs) -> None:
    started = [jobs.start("0,1") for _ in range(3)]
    assert sorted(map(sees, started)) == ["0", "0,1", "1"]


def test_jobs_stay_on_the_gpus_that_the_run_may_use(jobs: Jobs) -> None:
    seen = [sees(jobs.start("5,6,7", jobs_per_gpu=2, allowed=2)) for _ in range(5)]
    assert sorted(seen[:2]) == sorted(seen[2:4]) == ["5", "6"]
    assert seen[4] == "5,6"


def test_jobs_share_gpus_evenly(jobs: Jobs) -> None:
    seen = [sees(jobs.start("0,1,2", jobs_per_gpu=2)) for _ in range(7)]
    assert sorted(seen[:3]) == sorted(seen[3:6]) == ["0", "1", "2"]
    assert seen[6] == "0,1,2"


@pytest.mark.parametrize("visible", ["", "0", "GPU-1", "-1", "NoDevFiles", "0,-1,1"])
def test_one_gpu_or_none_stays_as_it_is(visible: str) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": visible}
    claim_gpu(2, environment)
    assert environment == {"CUDA_VISIBLE_DEVICES": visible}


def test_without_the_variable_the_device_files_count(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("nvidia10", "nvidia2", "nvidia0")
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(self / name for name in names))
    assert visible_gpus({}) == ["0", "2", "10"]


@pytest.mark.parametrize(
    ("configured", "resources", "wanted"),
    [
        ("auto", {"device": "cuda"}, "cuda"),
        ("auto", {"gpu": 1}, "auto"),
        ("cpu", {"device": "cuda"}, "cpu"),
        ("cuda", {"device": "cpu"}, "cuda"),
    ],
)
def test_a_profiles_device_counts_where_the_configuration_leaves_the_choice(
    configured: str, resources: dict[str, Any], wanted: str
) -> None:
    config = {"training": {"device": configured}}
    assert wanted_device(SimpleNamespace(config=config, resources=SimpleNamespace(**resources))) == wanted
