"""Jobs that a killed Snakemake has left in the queue of a cluster."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path


def left_jobs(folder: Path) -> list[str]:
    """Numbers of the jobs that SLURM has of this folder before anything is submitted; none where there is no SLURM."""
    if shutil.which("squeue") is None:
        return []
    asked = ["squeue", "--me", "--noheader", "--format=%i|%Z|%k"]
    try:
        listed = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout
    except (subprocess.SubprocessError, OSError):
        return []
    rows = [line.split("|", 2) for line in listed.splitlines() if line.count("|") >= 2]
    # The plugin's comment names the rule.
    return [job for job, where, comment in rows if comment.startswith("rule_") and Path(where) == folder.resolve()]


def left_line(jobs: Sequence[str]) -> str:
    """What the user is told of them."""
    numbers = " ".join(jobs)
    return (
        f"Jobs of an earlier snakemake are still in SLURM's queue: {numbers}. A job that does the same work waits for "
        f"their end; scancel {numbers} spares it that."
    )
