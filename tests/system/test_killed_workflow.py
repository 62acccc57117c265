"""The workflow, killed again and again, elsewhere and otherwise: the tables and figures are the same bytes.

It runs in another folder with another seed of Python's hashes, locale and time zone than the undisturbed run, so that
this is the test of determinism too. A job of every rule that computes or draws is among those that it makes; that the
other figures, the claims and the paper are the same bytes elsewhere is shown by redrawing what is published.
"""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from conftest import TinyRun
from snakemake_process import TINY, environment, jobs_begun, planned_jobs, run_snakemake

ELSEWHERE = {"PYTHONHASHSEED": "1234", "LC_ALL": "C", "LANG": "C", "TZ": "Asia/Kathmandu"}
RUN = "results/tiny/runs/digits/adam/main/seed0"
TARGETS = (
    "fig01",
    "fig16",
    "results/tiny/interpolation/digits.csv",
    *(f"{RUN}/{table}.csv" for table in ("alignment", "identity", "localization", "stability")),
)
KINDS = ("script", "snakemake", "both", "script", "snakemake", "interrupt")
SOON = 600.0


@dataclass
class Session:
    """One start of Snakemake: its process, in a group of its own with its jobs, and what it says."""

    process: "subprocess.Popen[bytes]"
    said_in: Path
    folder: Path
    begun_before: int

    @property
    def said(self) -> str:
        return self.said_in.read_text(encoding="utf-8", errors="replace")

    @property
    def started(self) -> int:
        """Number of jobs that it has begun."""
        return jobs_begun(self.folder) - self.begun_before

    def scripts(self) -> list[psutil.Process]:
        """The processes of its jobs' scripts."""
        try:
            below = psutil.Process(self.process.pid).children(recursive=True)
            return [child for child in below if any(".snakemake/scripts/" in part for part in child.cmdline()[1:2])]
        except psutil.Error:
            return []

    def kill(self, kind: str, chance: random.Random) -> None:
        """SIGKILL, as `kind` says, to one script, to Snakemake, or to it and all of its jobs; or Ctrl-C."""
        if kind == "script":
            deadline = time.monotonic() + SOON
            while not (running := self.scripts()):
                assert time.monotonic() < deadline
                assert self.process.poll() is None, self.said[-3000:]
                time.sleep(0.01)
            chance.choice(running).kill()
            # Snakemake lets the job beside it end, and then itself.
            assert self.process.wait(SOON) == 1
            assert self.said.count("SIGKILL") == 1
            assert "Traceback" not in self.said
        elif kind == "interrupt":
            os.killpg(self.process.pid, signal.SIGINT)
            assert self.process.wait(SOON) == 1
            # Nothing else ends the run in a line of its own.
            assert "(log: " in self.said.splitlines()[-1]
            assert "SIGINT" not in self.said
        elif kind == "snakemake":
            self.process.kill()
            assert self.process.wait() == -signal.SIGKILL
        else:
            self.end()

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Workflow:
    """A part of the tiny workflow in a folder, started any number of times."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sessions = folder, list[Session]()

    def start(self) -> Session:
        said_in = self.folder.parent / f"said{len(self.sessions)}"
        begun = jobs_begun(self.folder)
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *TINY, "--", *TARGETS]
        with open(said_in, "wb") as said:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment(**ELSEWHERE),
                stdout=said,
                stderr=said,
                start_new_session=True,
                # A shell that runs the tests in the background has them ignore Ctrl-C.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self.sessions.append(Session(process, said_in, self.folder, begun))
        return self.sessions[-1]

    def end(self) -> None:
        """Nothing of it may outlive the test."""
        for session in self.sessions:
            session.end()


def bytes_of(results: Path) -> dict[str, bytes]:
    """All that the rules leave, without their logs, how long they took, and what the rule figure_set clears away."""
    left_out = ("logs", "benchmarks", ".scratch")
    files = (path for path in results.rglob("*") if path.is_file())
    named = {str(path.relative_to(results)): path for path in files}
    return {name: path.read_bytes() for name, path in named.items() if not name.startswith(left_out)}


def test_kills_elsewhere_leave_the_bytes_of_an_undisturbed_run(tiny_run: TinyRun, checkout: Path) -> None:
    chance = random.Random("kills of the whole workflow")
    workflow = Workflow(checkout)
    kinds = chance.sample(KINDS, len(KINDS))
    undisturbed = len(planned_jobs(run_snakemake(checkout, "-n", *TINY, "--", *TARGETS)))
    before = jobs_begun(checkout)
    locked, reports = False, 0
    try:
        for kind in kinds:
            if locked:
                if not reports:
                    refused = workflow.start()
                    assert refused.process.wait(SOON) == 1
                    assert "It can be removed with the --unlock argument." in refused.said
                    reports += 1
                run_snakemake(checkout, "--unlock", **ELSEWHERE)
            session = workflow.start()
            wanted, deadline = chance.randint(1, 7), time.monotonic() + SOON
            while session.started < wanted:
                assert session.process.poll() is None, session.said[-3000:]
                assert time.monotonic() < deadline
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 0.7))
            session.kill(kind, chance)
            locked = kind in ("snakemake", "both")
        if locked:
            run_snakemake(checkout, "--unlock", **ELSEWHERE)
        last = workflow.start()
        assert last.process.wait(600) == 0, last.said[-3000:]
    finally:
        workflow.end()
    assert reports == 1
    # What was finished is kept: a kill costs the two jobs that run, and Snakemake's those that it had not yet noted.
    assert jobs_begun(checkout) - before <= undisturbed + 3 * len(kinds)
    expected, found = bytes_of(tiny_run.results), bytes_of(checkout / "results" / "tiny")
    assert {Path(target).name for target in TARGETS[2:]} <= {Path(name).name for name in found}
    assert [name for name in found if found[name] != expected.get(name)] == []
    left = [path.name for path in (checkout / "results").rglob("*") if path.name.endswith((".part", ".lock"))]
    assert left == []
