"""The line that a user sees of a failed job of a cluster, from what SLURM and its plugin for Snakemake write."""

import os
from pathlib import Path
from typing import Any

import pytest

from eigendrift.failed_jobs import failure

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
