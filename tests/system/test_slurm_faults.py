"""What clusters do to jobs: the tables are those of an undisturbed run, and work that was done is not done again."""

import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from slurm_cluster import ASKING_OFTEN, QUICK, Node, SlurmCluster, edit_profile, running_cluster, wait_until
from snakemake_process import TINY, copy_checkout, kill_group, run_snakemake, script_of, start_snakemake

# One run for each of what can happen.
DEAD_NODE, PREEMPTED, OUT_OF_TIME = RUNS = [f"digits/{name}/main/seed1" for name in ("adam", "sgd", "sam")]
TABLES = [f"results/tiny/runs/{run}/{table}.csv" for run in RUNS for table in ("history", "ipr", "alignment")]
# A training a submission, so that each has its own fault; other jobs share theirs.
ONE_BY_ONE = ("--group-components", "trainings=1", "chunks=2", "tables=30")
# Enough work for a disturbance to hit it in the middle.
EVERY = 100
LONGER = f"training: {{steps: {120 * EVERY}}}\nsnapshots: {{every: {EVERY}, waiting_times: [0], lags_per_decade: 1}}\n"
# 121 of the grid, and those after 1 and 10 steps.
SNAPSHOTS = 123


@pytest.fixture
def cluster() -> Iterator[SlurmCluster]:
    nodes = [Node("cpu1", 1), *(Node(f"gpu{number}", 1, gpus=1) for number in (1, 2, 3))]
    with running_cluster(nodes, silence=5) as started:
        yield started


@dataclass(frozen=True)
class Frozen:
    """A script that is stopped: its process, its job in SLURM, its node."""

    process: int
    job: str
    node: str

    @classmethod
    def of(cls, process: int) -> "Frozen":
        text = Path(f"/proc/{process}/environ").read_text(encoding="utf-8", errors="replace")
        variables = dict(line.split("=", 1) for line in text.split("\0") if "=" in line)
        return cls(process, variables["SLURM_JOB_ID"], variables["SLURMD_NODENAME"])


class Work:
    """The tables of three runs, in the making on the cluster."""

    def __init__(self, cluster: SlurmCluster, folder: Path, arguments: tuple[str, ...]) -> None:
        self.cluster, self.folder = cluster, folder
        self.arguments = ("--profile", "profiles/slurm", *QUICK, *ONE_BY_ONE, *arguments)
        edit_profile(folder)
        self.start()

    def start(self) -> None:
        """Start the process that submits the jobs."""
        arguments = (*self.arguments, "--", *TABLES)
        self.process = start_snakemake(self.folder, *arguments, program=ASKING_OFTEN, **self.cluster.environment)

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

    def freeze(self, rule: str, runs: Sequence[str], many: int) -> dict[str, Frozen]:
        """Stop the scripts that work on `many` of these runs in the middle."""
        frozen: dict[str, Frozen] = {}

        def are_frozen() -> bool:
            for run in runs:
                if len(frozen) < many and run not in frozen and 10 <= self.progress(rule, run) < SNAPSHOTS - 30:
                    script = script_of(self.log(rule, run))
                    if script is not None:
                        os.kill(script, signal.SIGSTOP)
                        frozen[run] = Frozen.of(script)
            return len(frozen) == many

        try:
            self.wait_until(are_frozen, f"{rule} in the middle")
        except TimeoutError as error:
            seen = {run: self.progress(rule, run) for run in runs}
            raise TimeoutError(f"{error}; stopped {sorted(frozen)}, at {seen}\n{self.outputs()[-4000:]}") from None
        return frozen

    def progress(self, rule: str, run: str) -> int:
        """Snapshots of a run that a rule has safely on disk."""
        folder = self.folder / "results" / "tiny" / ".scratch" / rule / run
        if rule == "train":
            found = [np.load(path, mmap_mode="r")[:, 0] > 0 for path in folder.glob("*/history.npy")]
        else:
            found = [np.load(path, mmap_mode="r") for path in folder.glob("0/*/done.npy")]
        return max((int(array.sum()) for array in found), default=0)

    def log(self, rule: str, run: str) -> Path:
        """The rule's log."""
        name = run.replace("/seed", ".").replace("/", ".") + (".0" if rule == "eigensnapshot" else "")
        return self.folder / "results" / "tiny" / "logs" / rule / f"{name}.log"

    def said(self, rule: str, run: str) -> str:
        """What the last try wrote into the rule's log."""
        path = self.log(rule, run)
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def outputs(self) -> str:
        """What all jobs wrote besides their rules' logs."""
        written = (self.folder / ".snakemake" / "slurm_logs").rglob("*.log")
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in written)

    def went_on_at(self, rule: str, run: str) -> int:
        """Where the last try began."""
        found = re.search(r"going on at (\d+) of \d+", self.said(rule, run))
        return int(found[1]) if found else 0


def test_dead_node_preemption_time_limit_and_killed_submitter_change_no_table(
    cluster: SlurmCluster, checkout: Path, overlay: Callable[[str], str], tmp_path: Path
) -> None:
    arguments = (*TINY, overlay(LONGER))
    work = Work(cluster, checkout, arguments)

    # Stopped in the middle of their training, so that nothing depends on the machine's speed.
    trained = work.freeze("train", RUNS, many=3)
    kept = {run: work.progress("train", run) for run in RUNS}
    cluster.kill_node(trained[DEAD_NODE].node)
    cluster.preempt(trained[PREEMPTED].node)
    cluster.run("scontrol", "update", f"job={trained[OUT_OF_TIME].job}", "EndTime=now")
    undisturbed = copy_checkout(tmp_path / "undisturbed")
    local = start_snakemake(undisturbed, "--cores", "2", "--quiet", "all", *arguments, "--", *TABLES)

    # Jobs outlive the process that submitted them, and the next one submits the same jobs again.
    ((run, left),) = work.freeze("eigensnapshot", RUNS, many=1).items()
    solved = work.progress("eigensnapshot", run)
    said = kill_group(work.process)
    run_snakemake(checkout, "--unlock", **cluster.environment)
    work.start()
    waits = f"waits for SLURM job {left.job} on {left.node}, which does the same work"
    work.wait_until(lambda: waits in work.outputs(), "second job that waits")
    assert work.progress("eigensnapshot", run) == solved
    os.kill(left.process, signal.SIGCONT)
    went_on = work.finish()

    states = {job["JobId"]: job for job in cluster.jobs()}
    for disturbed, restarts, state in (
        (DEAD_NODE, "1", "COMPLETED"),
        (PREEMPTED, "1", "COMPLETED"),
        (OUT_OF_TIME, "0", "TIMEOUT"),
    ):
        job = states[trained[disturbed].job]
        assert (job["Restarts"], job["JobState"]) == (restarts, state), job
        # The step after the last snapshot but one that was seen: only a row with its checkpoint counts.
        assert work.went_on_at("train", disturbed) > EVERY * (kept[disturbed] - 4), disturbed
    assert states[left.job]["JobState"] == "COMPLETED"
    assert work.went_on_at("eigensnapshot", run) > solved

    # The user's view: the jobs that were left, and a line for the one that failed; SLURM's own restarts need none.
    lines = [line for line in (said + went_on).splitlines() if re.search(r"\(log: .*SLURM job", line)]
    assert re.search(rf"^Jobs of an earlier snakemake are still in SLURM's queue:( \d+)* {left.job}\b", went_on, re.M)
    log = work.log("train", OUT_OF_TIME).relative_to(checkout)
    assert lines == [f"train: ended due to time limit (log: {log}, SLURM job {trained[OUT_OF_TIME].job})"]
    local_said = local.communicate(timeout=120)
    assert local.returncode == 0, local_said
    for table in TABLES:
        assert (checkout / table).read_bytes() == (undisturbed / table).read_bytes(), table
