"""One process at a time does a job; seen with processes of their own."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from experiments import PACKAGES

from reproduction.jobs.lock import hold

# Works on one row until it is asked to end.
PROGRAM = """
import sys
from types import SimpleNamespace
from reproduction.jobs.script import start
from reproduction.files.checkpoint import Scratch
start(SimpleNamespace(log=[sys.argv[2]], rule="train"))
terminal = open(3, "w")
array = Scratch(sys.argv[1], sys.argv[3], {}).array("rows", (4,))
row = int((array > 0).sum())
array[row] = row + 1
array.flush()
print(row, file=terminal, flush=True)
input()
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(job: str = "train/run", **variables: str) -> "subprocess.Popen[str]":
            paths = [str(tmp_path / "scratch"), str(tmp_path / f"{job}.log")]
            process = stack.enter_context(
                subprocess.Popen(
                    ["/bin/sh", "-c", 'exec "$@" 3>&1', "sh", sys.executable, "-c", PROGRAM, *paths, job],
                    env={"PYTHONPATH": PACKAGES, **variables},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            return process

        yield begin


def row(process: "subprocess.Popen[str]") -> int:
    """The row that a process works on, once it does."""
    assert process.stdout is not None
    return int(process.stdout.readline())


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    return process.stderr.readline().rstrip("\n")


@pytest.mark.parametrize("end", [signal.SIGKILL, None], ids=["killed", "finished"])
def test_the_second_waits_for_the_first_says_so_in_one_line_and_goes_on_where_it_ended(
    start: Start, tmp_path: Path, end: int | None
) -> None:
    first = start(SLURM_JOB_ID="41", SLURMD_NODENAME="gpu7")
    assert row(first) == 0
    second = start()
    line = f"train: waits for SLURM job 41 on gpu7, which does the same work (log: {tmp_path / 'train' / 'run.log'})"
    assert said(second) == line
    assert second.poll() is None
    if end is None:
        first.communicate("\n")
        assert first.returncode == 0
    else:
        first.send_signal(end)
    assert row(second) == 1
    assert second.communicate("\n")[1] == ""


def test_a_process_outside_of_slurm_is_named_by_its_number(start: Start) -> None:
    first = start()
    assert row(first) == 0
    assert f"waits for process {first.pid} on " in said(start())


def test_other_jobs_do_not_wait(start: Start) -> None:
    first = start("train/run")
    assert row(first) == 0
    assert row(start("train/other")) == 0
    assert first.poll() is None


def test_a_lock_file_that_was_removed_keeps_the_waiting_one_alone(start: Start, tmp_path: Path) -> None:
    first = start()
    assert row(first) == 0
    second = start()
    assert "waits for" in said(second)
    (tmp_path / "train" / ".run.log.lock").unlink()
    assert row(second) == 1
    assert "waits for" in said(start())


# What file systems do, in this process


def never(holder: str) -> None:
    raise AssertionError(f"waits for {holder}")


@pytest.mark.parametrize("answer", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_on_the_file_system_a_job_goes_on(
    answer: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(answer, "no locks here")

    monkeypatch.setattr("fcntl.lockf", refuse)
    hold(tmp_path / "lock", never)


def test_another_refusal_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EIO, "a broken disk")

    monkeypatch.setattr("fcntl.lockf", refuse)
    with pytest.raises(OSError, match="a broken disk"):
        hold(tmp_path / "lock", never)


def test_a_folder_that_goes_while_the_lock_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, calls = os.open, []

    def vanishing(path: Path, *arguments: int) -> int:
        calls.append(path)
        if len(calls) == 1:
            Path(path).parent.rmdir()
        return opened(path, *arguments)

    monkeypatch.setattr("os.open", vanishing)
    monkeypatch.setattr("reproduction.jobs.lock._INTERVAL", 0.0)
    reported: list[str] = []
    hold(tmp_path / "folder" / "lock", reported.append)
    assert len(calls) == 2
    assert reported == ["another process"]
    assert (tmp_path / "folder" / "lock").is_file()


def test_what_is_held_is_held_once_and_again_when_its_file_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    hold(path, never)
    first = path.stat().st_ino
    hold(path, never)
    assert path.stat().st_ino == first
    path.unlink()
    hold(path, never)
    assert path.is_file()
