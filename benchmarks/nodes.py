"""One run's eigenpairs in four chunks on 1, 2 and 4 simulated nodes of a real SLURM: python -m benchmarks.nodes

Each node is a slurmd of the tests' cluster that the kernel allows a part of a core, with all jobs it starts: four of
them leave something of two cores to Snakemake. So the wall times are those of nodes of one speed, as far as they do not
get into each other's way in memory. It needs root, SLURM, and control groups (version 1); no part of `benchmarks.run`.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from unittest import mock

import pandas as pd
import yaml

from benchmarks.problem import HOME, data_folder
from benchmarks.results import arguments, write

sys.path[:0] = [str(HOME.parent / "tests"), str(HOME.parent / "tests" / "support")]

from slurm_cluster import ASKING_OFTEN, QUICK, Node, SlurmCluster, edit_profile  # noqa: E402
from snakemake_process import copy_checkout, run_snakemake  # noqa: E402

GROUPS, PERIOD = Path("/sys/fs/cgroup/cpu"), 100_000
CHUNKS = 4
RUN = "results/nodes/runs/MNIST/sgd/main/seed0"


class SlowCluster(SlurmCluster):
    """A cluster each node of which has a share of one core."""

    def __init__(self, folder: Path, nodes: Sequence[Node], share: float) -> None:
        super().__init__(folder, nodes)
        self.share = share

    def start_node(self, name: str) -> None:
        """Start the daemon of a node within its control group, which its jobs inherit."""
        super().start_node(name)
        group = GROUPS / f"eigendrift.{name}"
        group.mkdir(exist_ok=True)
        (group / "cpu.cfs_period_us").write_text(str(PERIOD))
        (group / "cpu.cfs_quota_us").write_text(str(round(self.share * PERIOD)))
        (group / "cgroup.procs").write_text(str(self._processes[name].pid))


@contextmanager
def cluster_of(folder: Path, count: int, share: float) -> Iterator[SlurmCluster]:
    """A cluster of `count` nodes with a GPU each."""
    cluster = SlowCluster(folder, [Node("cpu", 1), *(Node(f"gpu{n}", 1, gpus=1) for n in range(count))], share)
    try:
        cluster.start()
        with mock.patch.dict(os.environ, cluster.environment):
            yield cluster
    finally:
        cluster.stop()
        time.sleep(1)
        for group in GROUPS.glob("eigendrift.*"):
            with suppress(OSError):
                group.rmdir()


def overlay(snapshots: int) -> str:
    """One run on MNIST with `snapshots` snapshots in four chunks."""
    steps = 10 * (snapshots - 1)
    few = {"every": 10, "waiting_times": [0], "lags_per_decade": 1}
    return yaml.safe_dump(
        {
            "name": "nodes",
            "datasets": ["MNIST"],
            "data": {"root": str(data_folder("MNIST").resolve()), "download": False},
            "training": {"steps": steps, "seeds": [0]},
            "snapshots": few,
            "sensitivity": {"snapshots": few},
            "eigen": {"dense_k": 3, "dense_tolerance": 1e-3, "snapshots_per_job": -(-snapshots // CHUNKS)},
            "sweeps": {"dataset": "MNIST", "batch_size": {"full": 10}, "learning_rate": {3: 10}, "snapshots": few},
        }
    )


def measure(folder: Path, cluster: SlurmCluster, nodes: int) -> dict[str, object]:
    """Make the chunks, and read from SLURM's records when."""
    targets = [f"{RUN}/eigenpairs-{chunk}.safetensors" for chunk in range(CHUNKS)]
    for target in targets:
        (folder / target).unlink(missing_ok=True)
    # Progress of finished jobs is kept until the next rule has read what they left.
    shutil.rmtree(folder / "results" / "nodes" / ".scratch" / "eigensnapshot", ignore_errors=True)
    options = ("--profile", "profiles/slurm", "--group-components", "chunks=1", *QUICK, "--configfile", "nodes.yaml")
    run_snakemake(folder, *options, "--", *targets, program=ASKING_OFTEN, timeout=3600)
    jobs = cluster.jobs()
    if [job["JobState"] for job in jobs] != ["COMPLETED"] * CHUNKS:
        raise RuntimeError(f"SLURM's jobs: {jobs}")
    starts, ends = ([datetime.fromisoformat(job[key]).timestamp() for job in jobs] for key in ("StartTime", "EndTime"))
    return {
        "nodes": nodes,
        "wall_seconds": max(ends) - min(starts),
        "seconds_of_jobs": sum(ends) - sum(starts),
        "nodes_used": len({job["NodeList"] for job in jobs}),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """One row a number of nodes."""
    given = arguments(
        __doc__,
        argv,
        nodes={"type": int, "nargs": "+", "default": [1, 2, 4], "help": "numbers of nodes"},
        share={"type": float, "default": 0.4, "help": "cores of a node"},
        snapshots={"type": int, "default": 40, "help": "of the run"},
    )
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = copy_checkout(Path(name) / "checkout")
        edit_profile(folder)
        (folder / "nodes.yaml").write_text(overlay(given.snapshots), encoding="utf-8")
        run_snakemake(folder, "--cores", "2", "--configfile", "nodes.yaml", "--", f"{RUN}/history.csv", timeout=3600)
        for nodes in given.nodes:
            with cluster_of(Path(name) / f"cluster{nodes}", nodes, given.share) as cluster:
                rows.append(measure(folder, cluster, nodes))
            print(rows[-1], flush=True)
        shutil.rmtree(folder)
    table = pd.DataFrame(rows)
    table["times_as_fast"] = table["wall_seconds"].iloc[0] / table["wall_seconds"]
    write(given.output, "nodes", table)


if __name__ == "__main__":
    main()
