"""What a user sees of a cluster's job that failed: one line that says which, why, and where its log is."""

import logging
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What the daemon of a step writes into a job's output when it ends the job.
_ENDED = re.compile(r"CANCELLED AT \S+ (DUE TO [\w ]+?|BY SIGNAL \d+|) ?\*\*\*")
# What the SLURM plugin of Snakemake says.
_STATE = re.compile(r"status is: '(\w+)'")
_REFUSED = re.compile(r"sbatch failed\. The error message was '(.+?)(?:'\.)?$", re.MULTILINE)


def watch(logger: logging.Logger, folder: Path) -> None:
    """Have Snakemake's logger report each failed job in one line; first report the jobs of an earlier Snakemake."""
    handler = FailedJobs(logger)
    logger.addHandler(handler)
    handler.hear_reasons()
    if left := left_jobs(folder):
        logger.warning(left_line(left))


class FailedJobs(logging.Handler):
    """A handler of Snakemake's logger: a line after its block on a job that failed on a cluster."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self.logger = logger
        self.reason = ""

    def hear_reasons(self) -> None:
        """Hear why a group failed, which Snakemake's records leave out."""
        from snakemake.jobs import GroupJob

        log_error = GroupJob.log_error

        def hear(group: Any, msg: str | None = None, **more: Any) -> None:
            self.reason = msg or ""
            log_error(group, msg, **more)

        GroupJob.log_error = hear

    def emit(self, record: logging.LogRecord) -> None:
        """Say the line of a job's or a group's failure; all other records are none of ours."""
        try:
            line = self._line(getattr(getattr(record, "event", None), "value", ""), vars(record))
        except (KeyError, TypeError, IndexError):  # the records of another version of Snakemake
            self.handleError(record)
        else:
            if line is not None:
                self.logger.error(line)

    def _line(self, event: str, fields: Mapping[str, Any]) -> str | None:
        if event == "group_error":
            members, reason = fields["job_error_info"], self.reason
            logs, job = fields["aux_logs"], fields.get("external_jobid")
        elif event == "job_error" and not fields["indent"]:
            members, reason = [fields], str(fields["rule_msg"])
            logs, job = fields["log"], fields["aux"].get("external_jobid")
        else:
            return None
        if job is not None:
            return failure(members, (logs or [""])[-1], job, reason)
        refused = _REFUSED.search(reason)
        return f"{members[0]['rule_name']}: SLURM did not take the job: {refused[1]}" if refused else None


def failure(members: Sequence[Mapping[str, Any]], output: str, job: str, message: str = "") -> str:
    """The line: `members` are the rules (`rule_name`, `log`) of the submission, `output` is the path of what it wrote,
    `message` may hold SLURM's word for its end.

    A script that failed has said it all in the output. Of a job that was ended from outside, the member that wrote its
    log last is the one that was at work.
    """
    written = _read(output)
    names = "|".join(re.escape(member["rule_name"]) for member in members)
    # Not that another process did the same work.
    said = re.findall(rf"^(?:{names}): (?!waits for ).+\(log: .+\)$", written, re.MULTILINE)
    if said:
        return f"{said[-1][:-1]}, SLURM job {job})"
    ended, state = _ENDED.search(written), _STATE.search(message)
    why = ended[1].lower() if ended and ended[1] else f"with state {state[1]}" if state else "without a word"
    rule, log = _at_work(members)
    return f"{rule}: ended {why} (log: {log or output}, SLURM job {job})"


def _at_work(members: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Rule and log of the member that was the last to write."""
    found = [
        (path.stat().st_mtime, member["rule_name"], str(path))
        for member in members
        for path in map(Path, member["log"][:1])
        if path.is_file()
    ]
    return max(found)[1:] if found else (members[0]["rule_name"], "")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


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
    """The line that reports these jobs to the user."""
    numbers = " ".join(jobs)
    return (
        f"Jobs of an earlier snakemake are still in SLURM's queue: {numbers}. A job that does the same work waits for "
        f"their end; scancel {numbers} spares it that."
    )
