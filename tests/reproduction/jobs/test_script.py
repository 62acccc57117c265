"""Scripts of rules: what they say goes to the log, and a failure ends in one line on the terminal."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from experiments import PACKAGES, python

HEAD = """
from types import SimpleNamespace
import sys
from reproduction.jobs.script import start
start(SimpleNamespace(log=[sys.argv[1]], rule="train"))
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "new" / "logs" / "train.log"


def script(body: str, log: Path, **surroundings: str) -> subprocess.CompletedProcess[str]:
    return python(HEAD + body, log, **surroundings)


def test_a_script_that_succeeds_says_nothing_on_the_terminal(log: Path) -> None:
    body = (
        "import logging, os, warnings\n"
        "print('printed')\n"
        "print('error', file=sys.stderr)\n"
        "logging.getLogger('eigendrift').info('logged')\n"
        "warnings.warn('warned')\n"
        "os.system('echo from elsewhere; echo complained >&2')\n"
    )
    done = script(body, log)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    content = log.read_text()
    for said in ("printed\n", "error\n", " logged\n", "warned\n", "from elsewhere\n", "complained\n"):
        assert said in content


def test_a_log_holds_the_last_try_alone(log: Path) -> None:
    script("print('first')\n" * 50, log)
    script("print('second')\n", log)
    assert log.read_text() == "second\n"


def failure(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed script leaves on the terminal."""
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_an_import_that_fails_leaves_its_traceback_in_the_log(log: Path) -> None:
    line = failure(script("import numpy\nimport no_such_module\n", log))
    assert line == f"train: ModuleNotFoundError: No module named 'no_such_module' (log: {log})"
    content = log.read_text()
    assert content.startswith("Traceback (most recent call last):\n")
    assert ", line 7, in <module>" in content
    assert content.endswith("ModuleNotFoundError: No module named 'no_such_module'\n")


def test_an_error_of_the_library_is_one_line_everywhere(log: Path) -> None:
    body = "from reproduction.errors import DataError\nraise DataError('data/x.gz: missing; download it')\n"
    line = failure(script(body, log))
    assert line == f"train: data/x.gz: missing; download it (log: {log})"
    assert log.read_text() == "data/x.gz: missing; download it\n"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ValueError('bad value')", "train: ValueError: bad value (log: "),
        ("raise ValueError('first\\nsecond\\nthird')", "train: ValueError: first (log: "),
        ("raise ValueError", "train: ValueError (log: "),
        ("1 / 0", "train: ZeroDivisionError: division by zero (log: "),
        (
            "open('no/such/file')",
            "train: FileNotFoundError: [Errno 2] No such file or directory: 'no/such/file' (log: ",
        ),
        ("from reproduction.errors import DataError; raise DataError('a\\nb')", "train: a (log: "),
        ("from reproduction.errors import DataError; raise DataError", "train: DataError (log: "),
    ],
)
def test_any_other_error_is_one_line_on_the_terminal_and_a_traceback_in_the_log(
    log: Path, body: str, said: str
) -> None:
    done = script(f"{body}\n", log)
    assert failure(done).startswith(said)
    assert ("Traceback" in log.read_text()) == ("DataError" not in body)


def test_ctrl_c_is_no_failure_of_the_job(log: Path) -> None:
    """Snakemake, which the signal reaches too, says that the run was stopped."""
    done = script("raise KeyboardInterrupt\n", log)
    # Python ends itself by the signal, as it should.
    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""
    assert len(log.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}]
)
def test_characters_that_the_terminal_lacks_hide_nothing(log: Path, locale: dict[str, str]) -> None:
    body = "from reproduction.errors import DataError\nraise DataError('Daten\\u00fc/\\u4e2d: missing')\n"
    line = failure(script(body, log, **locale))
    assert line.startswith("train: Daten")
    assert line.endswith(f": missing (log: {log})")
    assert "missing" in log.read_text()


def test_a_log_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert script("print('hello')\n", Path("here.log")).returncode == 0
    assert (tmp_path / "here.log").read_text() == "hello\n"


# Memory and disk that are refused


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("bytearray(1 << 60)", "MemoryError"),
        ("import numpy; numpy.empty(1 << 57)", "Unable to allocate 1.00 EiB"),
        ("import torch; torch.empty(1 << 57, dtype=torch.uint8)", "you tried to allocate 144115188075855872 bytes"),
        ("import mmap; mmap.mmap(-1, 1 << 60)", "Cannot allocate memory"),
    ],
)
def test_memory_that_is_refused_is_one_line_with_what_was_asked(log: Path, body: str, said: str) -> None:
    line = failure(script(f"{body}\n", log))
    assert line.startswith("train: out of memory: its rule's mem_mb says what it needs; run fewer jobs at once, or ")
    assert said in line
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB.')", "jobs on it (training.jobs_per_gpu"),
        ("RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling x')", "out of memory on the GPU: run"),
        ("RuntimeError('CUDA error: all CUDA-capable devices are busy or unavailable')", "on the GPU: run fewer"),
        ("torch.AcceleratorError('CUDA error: unspecified launch failure\\nmore')", "the GPU failed: run again, which"),
        (
            "RuntimeError('CUDA error: no kernel image is available')",
            "or with training.device: cpu (RuntimeError: CUDA",
        ),
    ],
)
def test_what_a_gpu_refuses_is_one_line_with_what_to_do(log: Path, raised: str, said: str) -> None:
    assert said in failure(script(f"import torch\nraise {raised}\n", log))
    assert "Traceback" in log.read_text()


def test_the_memory_that_a_rule_asks_for_is_reported(log: Path) -> None:
    head = HEAD.replace('rule="train"', 'rule="train", resources=SimpleNamespace(mem_mb=1503)')
    line = failure(python(head + "bytearray(1 << 60)\n", log))
    assert "1503 MB" in line


def test_a_log_on_a_full_disk_hides_no_message(log: Path) -> None:
    # No file may grow, as on a full disk; the terminal is a pipe.
    body = (
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "from reproduction.errors import DataError\nraise DataError('x.csv: cannot be written')\n"
    )
    assert failure(script(body, log)) == f"train: x.csv: cannot be written (log: {log})"
    assert log.read_bytes() == b""
    assert "ValueError: bad" in failure(
        script(body.replace("DataError('x.csv: cannot be written')", "ValueError('bad')"), log)
    )


def test_a_log_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    line = failure(script("print('never')\n", tmp_path / "logs" / "train.log"))
    assert line.startswith(f"train: {tmp_path / 'logs'}: cannot be written (")
    assert "writable" in line


# One process a job


def begin(body: str, log: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + body, str(log)],
        env={**os.environ, "PYTHONPATH": PACKAGES},
        stderr=subprocess.PIPE,
        text=True,
    )


def said_in(log: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while not log.is_file() or text not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("end", ["kill", "itself"])
def test_a_second_process_of_a_job_waits_for_the_first_one(log: Path, end: str) -> None:
    # As one that outlived its Snakemake; its log is gone, as Snakemake removes it before another try.
    first = begin(
        "import time\nprint('at work', flush=True)\ntime.sleep({})\n".format(100 if end == "kill" else 2), log
    )
    said_in(log, "at work")
    log.unlink()
    second = begin("print('second at work')\n", log)
    assert second.stderr is not None
    line = second.stderr.readline()
    assert line.startswith(f"train: waits for process {first.pid} on ")
    assert line.endswith(f" (`kill {first.pid}` ends it), which does the same work (log: {log})\n")
    assert not log.exists()
    if end == "kill":
        first.send_signal(signal.SIGKILL)
    assert second.wait(60) == 0
    assert first.wait() == (-signal.SIGKILL if end == "kill" else 0)
    assert log.read_text() == "second at work\n"
    assert [path.name for path in log.parent.iterdir()] == [log.name]
    first.communicate(), second.communicate()


def test_a_lock_that_a_killed_process_left_keeps_nobody_out(log: Path) -> None:
    log.parent.mkdir(parents=True)
    lock = log.with_name(f".{log.name}.lock")
    lock.write_text("some-machine 1")
    done = script("print('at work')\n", log)
    assert (done.returncode, done.stderr) == (0, "")
    assert not lock.exists()


def test_a_process_does_not_wait_for_itself(log: Path) -> None:
    again = "start(SimpleNamespace(log=[sys.argv[1]], rule='train'))\nprint('again')\n"
    done = script(again, log)
    assert (done.returncode, done.stderr) == (0, "")
    assert log.read_text() == "again\n"
