"""What a person sees of a run, from the records of Snakemake's logger."""

import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reproduction.jobs import terminal
from reproduction.jobs.terminal import RunLines, drawn_over, duration, follow, results_line

END = "RuleException:\nCalledProcessError in file train.smk, line 9:\nCommand 'python tmp_a.{}.py' {}"


class Run:
    """A logger such as Snakemake's, its terminal, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.logger = logging.Logger("snakemake")
        self.shown: list[str] = []
        shows = logging.Handler()
        shows.name = "DefaultStreamHandler"
        shows.emit = lambda record: self.shown.append(record.getMessage())  # type: ignore[method-assign]
        self.logger.addHandler(shows)
        self.lines: RunLines = follow(self.logger, lambda: "Results: here", quiet=True)
        self.now = 0.0
        monkeypatch.setattr(self.lines, "clock", lambda: self.now)
        self.lines.began = self.lines.said = 0.0

    def event(self, name: str, text: str = "x", **fields: Any) -> None:
        """Snakemake logs an event."""
        level = logging.ERROR if "error" in name else logging.INFO
        self.logger.log(level, text, extra={"event": SimpleNamespace(value=name), **fields})

    def begin(self, jobid: int, rule: str, log: str = "none", **wildcards: str) -> None:
        """A job begins."""
        resources = SimpleNamespace(mem_mb=1503)
        self.event("job_info", jobid=jobid, rule_name=rule, log=[log], wildcards=wildcards, resources=resources)

    def fail(self, jobid: int, rule: str, how: str) -> None:
        """A job's script ends badly."""
        self.event("error", END.format(rule, how))
        self.event("job_error", jobid=jobid, aux={})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(terminal, "out_of_memory_kills", lambda: 5)
    return Run(monkeypatch)


def test_jobs_are_counted_and_time_left_follows_from_what_their_rules_took(run: Run, tmp_path: Path) -> None:
    run.event("run_info", stats={"train": 4, "ipr": 4, "total": 8})
    log = tmp_path / "log"
    log.write_text("2026-01-01 training step: 1000 of 4000, 50 s gone, about 150 s left\n", encoding="utf-8")
    run.begin(1, "train", dataset="digits", optimizer="sgd", variant="main", seed="0")
    run.begin(2, "train", str(log), dataset="digits", optimizer="sgd", variant="main", seed="1")
    run.now = 100.0
    run.event("job_finished", job_id=1)
    run.begin(3, "ipr", dataset="digits")
    run.now = 110.0
    run.event("job_finished", job_id=3)
    # Two trainings of 100 s are to come, and three tables of 10 s; of the one at work, all 100 s have gone. In 110 s
    # jobs took 220 s: two at a time.
    assert run.lines.seconds_left() == pytest.approx((2 * 100 + 3 * 10) / 2)
    line = run.lines.line()
    assert re.match(r"2 of 8 jobs, 1 min 50 s gone, about 1 min 55 s left;", line)
    assert "train digits/sgd/main/seed1 (25%)" in line
    assert run.shown == []


def test_before_a_job_is_done_its_log_tells_the_time(run: Run, tmp_path: Path) -> None:
    run.event("run_info", stats={"train": 1, "total": 1})
    assert run.lines.seconds_left() is None
    log = tmp_path / "log"
    log.write_text("snapshot: 1 of 4, x\nsnapshot: 2 of 4, x\n", encoding="utf-8")
    run.begin(1, "train", str(log))
    run.now = 30.0
    assert run.lines.seconds_left() == pytest.approx(30)


def test_snakemakes_own_lines_stay_in_its_log_and_others_pass(run: Run) -> None:
    for text in (
        "Building DAG of jobs...",
        "Select jobs to execute...",
        "Complete log(s): a",
        "Using shell: /bin/bash",
    ):
        run.logger.info(text)
    run.event("progress", done=1, total=2)
    run.logger.warning("a warning")
    run.logger.error("an error")
    run.event("error", "WorkflowError:\nsomething else")
    assert run.shown == ["a warning", "an error", "WorkflowError:\nsomething else"]


def test_a_killed_job_is_one_line_with_the_reason(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.begin(1, "train", "a.log", dataset="digits", seed="3")
    run.fail(1, "train", "died with <Signals.SIGKILL: 9>.")
    assert len(run.shown) == 1
    assert run.shown[0].startswith("train digits/seed3: ")
    assert "SIGKILL" in run.shown[0]
    assert "memory" not in run.shown[0]
    assert run.shown[0].endswith("(log: a.log)")
    # The kernel counts what it ends for want of memory.
    monkeypatch.setattr(terminal, "out_of_memory_kills", lambda: 6)
    run.begin(2, "train", "a.log", dataset="digits", seed="4")
    run.fail(2, "train", "returned non-zero exit status 137.")
    assert "memory" in run.shown[1]
    assert "1503 MB" in run.shown[1]


def test_what_a_script_has_said_is_not_said_again_and_silence_is_broken(run: Run, tmp_path: Path) -> None:
    said = tmp_path / "said.log"
    said.write_text("Traceback\n", encoding="utf-8")
    run.begin(1, "train", str(said))
    run.fail(1, "train", "returned non-zero exit status 1.")
    assert run.shown == []
    run.begin(2, "ipr", str(tmp_path / "none.log"))
    run.fail(2, "ipr", "returned non-zero exit status 1.")
    assert len(run.shown) == 1
    assert "ipr: " in run.shown[0]
    assert run.lines.failed == 2


def test_two_that_fail_at_once_keep_their_own_reasons(run: Run) -> None:
    run.begin(1, "train", "a.log")
    run.begin(2, "ipr", "b.log")
    run.event("error", END.format("ipr", "died with <Signals.SIGTERM: 15>."))
    run.event("error", END.format("train", "died with <Signals.SIGKILL: 9>."))
    run.event("job_error", jobid=1, aux={})
    run.event("job_error", jobid=2, aux={})
    assert ["SIGKILL" in run.shown[0], "SIGTERM" in run.shown[1]] == [True, True]


def test_a_stopped_run_is_no_failure(run: Run) -> None:
    run.event("run_info", stats={"train": 2, "total": 2})
    run.begin(1, "train", "a.log")
    run.fail(1, "train", "died with <Signals.SIGINT: 2>.")
    assert run.shown == []
    run.lines.stopped(["the.log"])
    (line,) = run.shown
    assert "0 of 2 jobs;" in line
    assert line.endswith("(log: the.log)")


def test_the_last_line_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    line = results_line(str(tmp_path))
    assert f"figures {tmp_path}/figures" in line
    assert "claims" not in line
    assert f"--report {tmp_path}/report.html" in line
    (tmp_path / "report.html").touch()
    assert results_line(str(tmp_path)).endswith(f"report {tmp_path}/report.html")


def test_nothing_to_do_still_says_where_results_are(run: Run) -> None:
    run.logger.info("Nothing to be done (all requested files are present and up to date).")
    assert run.shown[-1] == "Results: here"


def test_a_run_that_draws_over_another_one_says_so(tmp_path: Path) -> None:
    config = {"training": {"steps": 5}, "optimizers": {"sgd": {"lr": 0.1}}, "data": {"root": "/mine/data"}}
    assert drawn_over(str(tmp_path), config) is None
    (tmp_path / "figure_set").mkdir()
    recorded = {**config, "data": {"root": ".../data"}}
    (tmp_path / "figure_set" / "manifest.json").write_text(json.dumps({"provenance": {"config": recorded}}))
    assert drawn_over(str(tmp_path), config) is None
    said = drawn_over(str(tmp_path), {**config, "optimizers": {"adam": {"lr": 0.1}}})
    assert said is not None
    assert "optimizers" in said
    assert "training" not in said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (89, "89 s"),
        (100, "1 min 40 s"),
        (599.6, "10 min"),
        (3600, "60 min"),
        (7300, "2 h 2 min"),
        (200000, "2 d 7 h"),
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
