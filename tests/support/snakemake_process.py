"""Copies of the checkout, Snakemake run in them, and what its dry-runs plan."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = ("--configfile", "tests/tiny.yaml")
# What would change Snakemake's behaviour, or which library the scripts import, on the machine of a developer.
_FOREIGN = ("CONDA", "MAMBA", "SNAKEMAKE_", "PYTHONPATH", "PYTHONHASHSEED")


def environment(**extra: str) -> dict[str, str]:
    """The environment of the tests' processes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    # Two jobs run side by side on two cores; a library that starts a thread a core would only slow them down.
    return {**kept, "OMP_NUM_THREADS": "1", **extra}


def copy_checkout(folder: Path) -> Path:
    """Copy what git knows of this checkout, and new files that it does not ignore, with their times."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        # A tracked file may have been deleted in the working tree.
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@dataclass(frozen=True)
class Finished:
    """What a Snakemake process left: its exit status, what it wrote, and how long it took.

    `cpu_seconds` counts all children of the tests' process, so it means something only where no other one runs.
    """

    status: int
    stdout: str
    stderr: str
    seconds: float
    cpu_seconds: float

    @property
    def output(self) -> str:
        """Both streams."""
        return self.stdout + self.stderr


def start_snakemake(
    folder: Path, *args: str, program: Sequence[str] = ("-m", "snakemake"), **extra_environment: str
) -> "subprocess.Popen[str]":
    """Start `snakemake args` in a folder, in a process group of its own that holds its jobs too."""
    return subprocess.Popen(
        [sys.executable, *program, *args],
        cwd=folder,
        env=environment(**extra_environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_snakemake(
    folder: Path,
    *args: str,
    check: bool = True,
    timeout: float = 1800,
    program: Sequence[str] = ("-m", "snakemake"),
    **extra_environment: str,
) -> Finished:
    """Run `snakemake args` in a folder; with `check`, a failure shows the end of its output."""
    before, started = os.times(), time.monotonic()
    process = start_snakemake(folder, *args, program=program, **extra_environment)
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except BaseException:
        # Nothing of it may go on after a timeout or Ctrl-C.
        kill_group(process)
        raise
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    finished = Finished(process.returncode, stdout, stderr, time.monotonic() - started, cpu)
    if check and finished.status:
        pytest.fail(f"snakemake {' '.join(args)} ended with {finished.status}:\n{finished.output[-6000:]}")
    return finished


def kill_group(process: "subprocess.Popen[str]") -> str:
    """SIGKILL to a process of `start_snakemake` and to its jobs, as a power cut would have it. Gives what it said."""
    os.killpg(process.pid, signal.SIGKILL)
    return "".join(process.communicate())


def jobs_begun(folder: Path, rule: str = r"\w+") -> int:
    """Number of jobs, of this rule alone if it is given, that all Snakemakes in a folder have begun, by their logs."""
    logs = (folder / ".snakemake" / "log").glob("*.log")
    texts = (log.read_text(encoding="utf-8", errors="replace") for log in logs)
    return sum(len(re.findall(rf"^(?:local)?rule {rule}:$", text, re.MULTILINE)) for text in texts)


def script_of(log: Path) -> int | None:
    """The process of a rule's script: the one whose output goes to this log; None where there is none."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "fd" / "1").samefile(log):
                return int(entry.name)
    return None


@dataclass(frozen=True)
class Job:
    """One job of a dry-run."""

    rule: str
    wildcards: dict[str, str]
    resources: dict[str, str]


def planned_jobs(finished: Finished) -> list[Job]:
    """The jobs that a dry-run lists, rule `all` left out; none where there is nothing to do."""
    jobs = []
    blocks = re.findall(r"^(?:local)?rule (\w+):\n((?:    .+\n)+)", finished.output, re.MULTILINE)
    for rule, lines in blocks:
        found = {"wildcards": "", "resources": ""} | dict(re.findall(r"^    (wildcards|resources): (.*)$", lines, re.M))
        pairs = {name: dict(part.split("=", 1) for part in text.split(", ") if part) for name, text in found.items()}
        if rule != "all":
            jobs.append(Job(rule, pairs["wildcards"], pairs["resources"]))
    if not jobs and "Nothing to be done" not in finished.output:
        pytest.fail(f"neither jobs nor 'Nothing to be done' in:\n{finished.output[-4000:]}")
    return jobs


def planned_rules(finished: Finished) -> dict[str, int]:
    """Rule -> number of jobs of a dry-run."""
    return dict(Counter(job.rule for job in planned_jobs(finished)))
