"""The line that a user sees of a failed job of a cluster, from what SLURM and its plugin for Snakemake write."""

import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reproduction.jobs.slurm import FailedJobs, failure, left_jobs

TIME_LIMIT = "slurmstepd-gpu3: error: *** JOB 7 ON gpu3 CANCELLED AT 2026-11-21T15:55:51 DUE TO TIME LIMIT ***\n"
STATE = "SLURM-job '7' failed, SLURM status is: 'OUT_OF_MEMORY'. Reason: OutOfMemory."


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "7.log"


def member(rule: str, log: Path) -> dict[str, Any]:
    return {"rule_name": rule, "log": [str(log)]}


def test_what_the_script_said_is_said_again(output: Path, tmp_path: Path) -> None:
    line = "ipr: results/a.safetensors is damaged; delete it and run again (log: results/logs/ipr/a.log)"
    output.write_text(f"[Sat Nov 21]\nrule ipr:\n    log: results/logs/ipr/a.log\n{line}\n{TIME_LIMIT}")
    group = [member("displacement", tmp_path / "d.log"), member("ipr", tmp_path / "i.log")]
    assert failure(group, str(output), "7") == f"{line[:-1]}, SLURM job 7)"


def test_a_job_that_waited_for_another_did_not_fail_by_that(output: Path, tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.touch()
    output.write_text(f"train: waits for SLURM job 3 on gpu1, which does the same work (log: {log})\n{TIME_LIMIT}")
    assert failure([member("train", log)], str(output), "7") == (
        f"train: ended due to time limit (log: {log}, SLURM job 7)"
    )


def test_of_a_group_that_was_ended_the_member_that_wrote_last_was_at_work(output: Path, tmp_path: Path) -> None:
    output.write_text(TIME_LIMIT)
    group = []
    for rule, age in (("train", 50), ("eigensnapshot", 10), ("ipr", 90)):
        log = tmp_path / f"{rule}.log"
        log.touch()
        os.utime(log, (1e9 - age, 1e9 - age))
        group.append(member(rule, log))
    group.append(member("alignment", tmp_path / "never-written.log"))
    line = failure(group, str(output), "7")
    assert line == f"eigensnapshot: ended due to time limit (log: {tmp_path / 'eigensnapshot.log'}, SLURM job 7)"


def test_without_a_word_in_the_output_slurms_state_is_said(output: Path, tmp_path: Path) -> None:
    missing = member("train", tmp_path / "never-written.log")
    assert failure([missing], str(output), "7", STATE) == (
        f"train: ended with state OUT_OF_MEMORY (log: {output}, SLURM job 7)"
    )
    assert failure([missing], str(output), "7") == f"train: ended without a word (log: {output}, SLURM job 7)"


def record(event: str, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("snakemake", logging.ERROR, __file__, 1, "", (), None)
    vars(made).update(event=SimpleNamespace(value=event), **fields)
    return made


def test_records_of_another_kind_or_another_snakemake_say_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    logger = logging.getLogger("test_failed_jobs")
    monkeypatch.setattr(logger, "error", said.append)
    handler = FailedJobs(logger)
    handler.emit(record("job_finished"))
    handler.emit(record("job_error", indent=True))
    assert said == []
    assert capsys.readouterr().err == ""
    # Other fields than the known ones: logging reports it, and Snakemake goes on.
    handler.emit(record("group_error"))
    assert said == []
    assert "job_error_info" in capsys.readouterr().err


def test_jobs_left_in_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue = tmp_path / "squeue"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert left_jobs(tmp_path) == []
    lines = [f"7|{tmp_path}|rule_train", f"8|{tmp_path}|by hand", "9|/elsewhere|rule_train", "no job"]
    squeue.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    squeue.chmod(0o755)
    assert left_jobs(tmp_path) == ["7"]
    squeue.write_text("#!/bin/sh\nexit 1\n")
    assert left_jobs(tmp_path) == []
