"""What a person sees of a run: now and then how far it is, a line for each job that failed, and where results are.

Snakemake's own lines, a dozen for each job, go to its log alone. All is done by logging's own means, a handler of
Snakemake's logger and a filter of its terminal's handler; with `--verbose` and in dry-runs neither is there.
"""

import json
import logging
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What ended a script, in the error of the rule that started it.
_SCRIPTS_END = re.compile(
    r"CalledProcessError.*(?:non-zero exit status (?P<status>\d+)|Signals\.(?P<signal>\w+))", re.DOTALL
)
# Said by Snakemake of every run, and of use to nobody who does not look for a fault in it.
_CHATTER = re.compile(
    r"Building DAG|Using shell|Conda environments: ignored|Singularity containers|Group jobs: inactive|Select jobs"
    r"|Removing (output files of failed job|temporary output)|Shutting down, this|Complete log|Elapsed time"
    r"|Exiting because a job|Loading script code|Adding \S+ \([0-9.]+ \w+\)\."
    r"|At least one job did not complete|WorkflowError:\s+At least one job"
)
_OF_JOBS = {
    "workflow_started",
    "run_info",
    "resources_info",
    "job_info",
    "job_started",
    "job_finished",
    "job_error",
    "group_info",
    "group_error",
    "progress",
    "shellcmd",
}
# A line at most this often in seconds, and ever more seldom: the lines of a run of days stay a few hundred.
FIRST_INTERVAL, SHARE_OF_TIME = 10.0, 50


def event_of(record: logging.LogRecord) -> str:
    """Snakemake's word for what a record tells; empty for plain messages."""
    return str(getattr(getattr(record, "event", None), "value", ""))


class Quiet(logging.Filter):
    """Lets warnings, errors and what is said for people pass to the terminal."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the terminal shows a record."""
        return not (
            event_of(record) in _OF_JOBS or _CHATTER.match(message(record)) or _SCRIPTS_END.search(message(record))
        )


def message(record: logging.LogRecord) -> str:
    """The text of a record, of which Snakemake leaves some without any."""
    return str(record.msg or "")


@dataclass
class Job:
    """A job at work: its rule, its wildcards, its log, when it began, and the memory that it asked for."""

    rule: str
    wildcards: str
    log: str
    began: float
    megabytes: Any

    def __str__(self) -> str:
        return f"{self.rule} {self.wildcards}".rstrip()

    def share(self) -> float | None:
        """How much of its work is done, by the last line of its log that says so."""
        try:
            with Path(self.log).open("rb") as handle:
                handle.seek(max(0, Path(self.log).stat().st_size - 1000))
                found = re.findall(rb": (\d+) of (\d+)\b", handle.read())
        except OSError:
            return None
        return int(found[-1][0]) / max(int(found[-1][1]), 1) if found else None


def wildcards_text(wildcards: Mapping[str, Any]) -> str:
    """A job's wildcards as its run's folder has them: digits/sgd/main/seed0."""
    named = {"seed": "seed{}", "chunk": "part {}"}
    return "/".join(named.get(name, "{}").format(value) for name, value in wildcards.items())


class RunLines(logging.Handler):
    """A handler of Snakemake's logger that follows the jobs and says how far the run is."""

    def __init__(self, logger: logging.Logger, results: Callable[[], str], progress: bool = True) -> None:
        super().__init__()
        self.logger, self.results, self.progress = logger, results, progress
        self.clock = time.monotonic
        self.began = self.said = self.clock()
        self.wanted: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.at_work: dict[int, Job] = {}
        self.failed = 0
        self.ends: list[str] = []
        self.kills_of_the_system = out_of_memory_kills()
        self.ended = threading.Event()

    # What Snakemake reports

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of what happens to jobs."""
        try:
            handle = getattr(self, f"_{event_of(record) or 'message'}", None)
            if handle is not None:
                handle(vars(record), message(record))
        except (AttributeError, KeyError, TypeError, ValueError):  # the records of another version of Snakemake
            self.handleError(record)

    def _message(self, _: Mapping[str, Any], text: str) -> None:
        if text.startswith("Nothing to be done"):
            self.logger.info(self.results())

    def _run_info(self, fields: Mapping[str, Any], _: str) -> None:
        self.wanted = Counter({rule: count for rule, count in fields["stats"].items() if rule != "total"})
        self.began = self.said = self.clock()
        if self.progress:
            self.logger.info(f"{jobs_text(self.wanted.total())} to do.")
            threading.Thread(target=self._speak, daemon=True, name="progress").start()

    def _job_info(self, fields: Mapping[str, Any], _: str) -> None:
        log = (fields["log"] or [""])[0]
        megabytes = getattr(fields["resources"], "mem_mb", None)
        wildcards = wildcards_text(dict(fields["wildcards"] or {}))
        self.at_work[fields["jobid"]] = Job(fields["rule_name"], wildcards, log, self.clock(), megabytes)

    def _job_finished(self, fields: Mapping[str, Any], _: str) -> None:
        job = self.at_work.pop(fields["job_id"], None)
        if job is not None:
            self.done[job.rule] += 1
            self.seconds[job.rule] += self.clock() - job.began  # type: ignore[assignment]

    def _error(self, _: Mapping[str, Any], text: str) -> None:
        if _SCRIPTS_END.search(text):
            self.ends.append(text)

    def _job_error(self, fields: Mapping[str, Any], _: str) -> None:
        job = self.at_work.pop(fields["jobid"], None)
        if job is None or (fields.get("aux") or {}).get("external_jobid"):
            return  # the cluster's jobs have a handler of their own
        own = [text for text in self.ends if f".{job.rule}.py" in text] or self.ends[:1]
        if own:
            self.ends.remove(own[0])
        found = _SCRIPTS_END.search(own[0]) if own else None
        if name_of_signal(found) != "SIGINT":
            self.failed += 1
            if (line := self._failure(job, found)) is not None:
                self.logger.error(line)

    def _group_error(self, fields: Mapping[str, Any], _: str) -> None:
        for member in fields["job_error_info"]:
            self.at_work.pop(member["jobid"], None)
        self.failed += 1

    # What is said

    def _failure(self, job: Job, end: "re.Match[str] | None") -> str | None:
        """The line of a local job that failed; None where its script has said it."""
        if end is None:
            return f"{job}: failed (log: {job.log})"
        name, status = name_of_signal(end), int(end["status"] or 0)
        if name == "SIGKILL" and out_of_memory_kills() > self.kills_of_the_system:
            asked = f"; its rule asks for {job.megabytes} MB" if job.megabytes else ""
            why = f"ended by the system, which had no memory left{asked}; run fewer jobs at once, or where more is free"
        elif name:
            why = f"ended from outside by {name}; the same command goes on where it was"
        elif status == 1 and has_content(job.log):
            return None
        else:
            why = f"ended with status {status} before it wrote its log"
        return f"{job}: {why} (log: {job.log})"

    def _speak(self) -> None:
        while not self.ended.wait(1.0):
            now = self.clock()
            if now - self.said >= max(FIRST_INTERVAL, (now - self.began) / SHARE_OF_TIME):
                self.said = now
                self.logger.info(self.line())

    def line(self) -> str:
        """How far the run is, and what is at work."""
        left = self.seconds_left()
        about = f", about {duration(left)} left" if left is not None else ""
        working = []
        for job in list(self.at_work.values())[:4]:
            share = job.share()
            working.append(str(job) if share is None else f"{job} ({share:.0%})")
        more = f" and {len(self.at_work) - 4} more" if len(self.at_work) > 4 else ""
        gone = duration(self.clock() - self.began)
        counts = f"{self.done.total()} of {self.wanted.total()} jobs"
        return f"{counts}, {gone} gone{about}; at work: {', '.join(working)}{more}"

    def seconds_left(self) -> float | None:
        """Work that is left, by what jobs of each rule have taken, over the jobs that were at work at a time."""
        now, at_work = self.clock(), list(self.at_work.values())
        ages = {id(job): now - job.began for job in at_work}
        spent = self.seconds.total() + sum(ages.values())
        whole = {job.rule: ages[id(job)] / share for job in at_work if (share := job.share())}
        whole |= {rule: self.seconds[rule] / count for rule, count in self.done.items()}
        if not whole or spent <= 0:
            return None
        typical = sum(whole.values()) / len(whole)
        work = sum((count - self.done[rule]) * whole.get(rule, typical) for rule, count in self.wanted.items())
        work -= sum(min(ages[id(job)], whole.get(job.rule, typical)) for job in at_work)
        return max(work, 0.0) * (now - self.began) / spent

    def succeeded(self) -> None:
        """The last line of a run that ended well."""
        self.ended.set()
        self.logger.info(
            f"Done: {jobs_text(self.done.total())} in {duration(self.clock() - self.began)}. {self.results()}"
        )

    def stopped(self, logs: list[str]) -> None:
        """The last line of a run that failed or was stopped."""
        self.ended.set()
        failed = f", {self.failed} failed" if self.failed else ""
        where = f" (log: {logs[-1]})" if logs else ""
        self.logger.error(
            f"Stopped after {self.done.total()} of {self.wanted.total()} jobs{failed}; "
            f"the same command goes on from there{where}"
        )

    def close(self) -> None:
        """Say no more."""
        self.ended.set()
        super().close()


def follow(logger: logging.Logger, results: Callable[[], str], *, quiet: bool) -> RunLines:
    """Have Snakemake's logger say what a person wants to know; `results` tells where they are.

    With `quiet` it says what failed, and not how far the run is.
    """
    for handler in logger.handlers:
        if handler.name == "DefaultStreamHandler":
            handler.addFilter(Quiet())
    lines = RunLines(logger, results, progress=not quiet)
    logger.addHandler(lines)
    return lines


def results_line(folder: str, command: list[str] = sys.argv) -> str:
    """Where a person finds what a run has left in its folder; only what is there."""
    found = {
        "figures": f"{folder}/figures",
        "claims": f"{folder}/claims/claims.html",
        "figure set": f"{folder}/figure_set",
        "paper": f"{folder}/paper.pdf",
        "report": f"{folder}/report.html",
    }
    there = [f"{name} {path}" for name, path in found.items() if Path(path).exists()]
    if not Path(found["report"]).exists():
        there.append(f"a page of all: the same command with --report {found['report']}")
    return f"Results: {'; '.join(there)}"


def name_of_signal(end: "re.Match[str] | None") -> str:
    """The signal that ended a script; empty where none did."""
    if end is None:
        return ""
    status = int(end["status"] or 0)
    return str(end["signal"] or (signal.Signals(status - 128).name if status > 128 else ""))


def drawn_over(folder: str, config: Mapping[str, Any]) -> str | None:
    """A warning if a finished run of another configuration lies in a results folder; `config` as results record it."""
    try:
        manifest = json.loads(Path(folder, "figure_set", "manifest.json").read_text(encoding="utf-8"))
        before: dict[str, Any] = manifest["provenance"]["config"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # Where raw data lie changes nothing, and is recorded without its folder.
    keys = sorted(key for key in {*before, *config} - {"data", "storage"} if before.get(key) != config.get(key))
    if not keys:
        return None
    return (
        f"{folder} has the figures of another configuration ({', '.join(keys)} differ), which this run draws over; "
        "a name of its own in the configuration would keep both"
    )


def has_content(log: str) -> bool:
    """Whether a script has got as far as to write into its log."""
    return Path(log).is_file() and Path(log).stat().st_size > 0


def out_of_memory_kills() -> int:
    """Processes that Linux has ended for want of memory since it started; 0 where it does not say."""
    try:
        return int(dict(map(str.split, Path("/proc/vmstat").read_text(encoding="ascii").splitlines()))["oom_kill"])
    except (OSError, KeyError, ValueError):
        return 0


def jobs_text(count: int) -> str:
    """`1 job`, `7 jobs`."""
    return f"{count} job{'s' if count != 1 else ''}"


def duration(seconds: float) -> str:
    """A time as people say it: 45 s, 2 min 5 s, 12 min, 3 h 20 min, 2 d 5 h."""
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
