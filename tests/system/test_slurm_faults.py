"""What clusters do to jobs: the tables are those of an undisturbed run, and work that was done is not done again."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from slurm_cluster import QUICK, SlurmCluster, edit_profile, running_cluster, wait_until
from snakemake_process import TINY, copy_checkout, kill_group, run_snakemake, start_snakemake

RUNS = ("digits/adam/main/seed1", "digits/sgd/main/seed1")
TARGETS = [f"results/tiny/runs/{run}/{table}.csv" for run in RUNS for table in ("ipr", "alignment", "displacement")]
# Enough work for a disturbance to hit it in the middle.
LONGER = "training: {steps: 30000}\nsnapshots: {every: 150, waiting_times: [0], lags_per_decade: 1}\n"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SlurmCluster]:
    with running_cluster(tmp_path) as started:
        yield started


class Work:
    """The tables of two runs, in the making on the cluster."""

    def __init__(self, cluster: SlurmCluster, folder: Path, arguments: tuple[str, ...]) -> None:
        self.cluster, self.folder = cluster, folder
        self.arguments = (
            "--profile",
            "profiles/slurm",
            "--slurm-keep-successful-logs",
            *QUICK,
            *arguments,
            "--",
            *TARGETS,
        )
        edit_profile(folder)
        self.start()

    def start(self) -> None:
        """Start the process that submits the jobs."""
        self.process = start_snakemake(self.folder, *self.arguments, **self.cluster.environment)

    def finish(self) -> str:
        """Wait for its end; what it said."""
        stdout, stderr = self.process.communicate(timeout=400)
        assert self.process.returncode == 0, (stdout + stderr)[-6000:]
        return stdout + stderr

    def wait_until(self, happened: Callable[[], bool], what: str) -> None:
        """Wait for something that the jobs do."""

        def happened_while_running() -> bool:
            assert self.process.poll() is None, self.process.communicate()
            return happened()

        wait_until(happened_while_running, what, seconds=240)

    def running(self, name: str) -> dict[str, str]:
        """Node -> job of this rule or group that runs there."""
        lines = self.cluster.run("squeue", "--noheader", "--states=running", "--format=%N %i %k").splitlines()
        return {node: job for node, job, comment in map(str.split, lines) if comment.startswith(f"rule_{name}")}

    def progress(self, rule: str, run: str) -> int:
        """Snapshots of a run that a rule has safely on disk."""
        folder = self.folder / "results" / "tiny" / ".scratch" / rule / run
        if rule == "train":
            found = [np.load(path, mmap_mode="r")[:, 0] > 0 for path in folder.glob("*/history.npy")]
        else:
            found = [np.load(path, mmap_mode="r") for path in folder.glob("0/*/done.npy")]
        return max((int(array.sum()) for array in found), default=0)

    def went_on_at(self, rule: str, run: str) -> int:
        """Where the last try began, from the rule's log."""
        name = run.replace("/seed", ".").replace("/", ".") + (".0" if rule == "eigensnapshot" else "")
        text = (self.folder / "results" / "tiny" / "logs" / rule / f"{name}.log").read_text(encoding="utf-8")
        found = re.search(r"going on at (\d+) of \d+", text)
        return int(found[1]) if found else 0


def test_a_dead_node_a_requeued_job_a_killed_submitter_and_a_time_limit_change_no_table(
    cluster: SlurmCluster, checkout: Path, overlay: Callable[[str], str], tmp_path: Path
) -> None:
    arguments = (*TINY, overlay(LONGER))
    undisturbed = copy_checkout(tmp_path / "undisturbed")
    run_snakemake(undisturbed, "--cores", "2", *arguments, "--", *TARGETS)
    work = Work(cluster, checkout, arguments)

    work.wait_until(lambda: all(work.progress("train", run) > 20 for run in RUNS), "training")
    trained = work.running("train")
    assert set(trained) == {"gpu1", "gpu2"}
    assert cluster.kill_node("gpu1") == [trained["gpu1"]]
    cluster.run("scontrol", "requeue", trained["gpu2"])
    work.wait_until(lambda: cluster.states()["gpu1"].startswith("down"), "node that is taken for dead")
    cluster.start_node("gpu1")

    work.wait_until(lambda: any(work.progress("eigensnapshot", run) > 20 for run in RUNS), "eigenpairs")
    assert all(work.went_on_at("train", run) > 0 for run in RUNS)
    kill_group(work.process)
    (left,) = work.running("chunks").values()
    # Jobs outlive the process that submitted them, and a second one would send the same jobs again.
    cluster.run("scancel", left)
    wait_until(lambda: not cluster.run("squeue", "--noheader"), "end of the jobs")
    kept = {run: work.progress("eigensnapshot", run) for run in RUNS}
    run_snakemake(checkout, "--unlock", **cluster.environment)
    work.start()

    work.wait_until(lambda: bool(work.running("chunks")), "second try")
    (limited,) = work.running("chunks").values()
    work.wait_until(lambda: any(work.progress("eigensnapshot", run) > kept[run] + 5 for run in RUNS), "more eigenpairs")
    # It hangs, so that it does not end before the controller looks at the time again.
    cluster.run("scancel", "--signal=STOP", limited)
    cluster.run("scontrol", "update", f"JobId={limited}", "EndTime=now")
    said = work.finish()
    assert f"SLURM-job '{limited}' failed, SLURM status is: 'TIMEOUT'" in said
    states = {job["JobId"]: job for job in cluster.jobs()}
    assert [states[job]["Restarts"] for job in trained.values()] == ["1", "1"]
    assert any(work.went_on_at("eigensnapshot", run) > kept[run] > 0 for run in RUNS)
    for target in TARGETS:
        assert (checkout / target).read_bytes() == (undisturbed / target).read_bytes(), target
