"""Scripts of rules: what they say goes to the log, and a failure ends in one line on the terminal."""

import subprocess
from pathlib import Path

import pytest
from experiments import python

HEAD = """
from types import SimpleNamespace
import sys
from eigendrift.job import start
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
    body = "from eigendrift.errors import DataError\nraise DataError('data/x.gz: missing; download it')\n"
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
        ("raise KeyboardInterrupt", "train: KeyboardInterrupt (log: "),
        ("raise MemoryError", "train: MemoryError (log: "),
        ("from eigendrift.errors import DataError; raise DataError('a\\nb')", "train: a (log: "),
        ("from eigendrift.errors import DataError; raise DataError", "train: DataError (log: "),
    ],
)
def test_any_other_error_is_one_line_on_the_terminal_and_a_traceback_in_the_log(
    log: Path, body: str, said: str
) -> None:
    done = script(f"{body}\n", log)
    if "KeyboardInterrupt" in body:
        # Python ends itself by the signal, as it should.
        assert done.returncode != 0
        (line,) = done.stderr.splitlines()
    else:
        line = failure(done)
    assert line.startswith(said)
    assert ("Traceback" in log.read_text()) == ("DataError" not in body)


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}]
)
def test_characters_that_the_terminal_lacks_hide_nothing(log: Path, locale: dict[str, str]) -> None:
    body = "from eigendrift.errors import DataError\nraise DataError('Daten\\u00fc/\\u4e2d: missing')\n"
    line = failure(script(body, log, **locale))
    assert line.startswith("train: Daten")
    assert line.endswith(f": missing (log: {log})")
    assert "missing" in log.read_text()


def test_a_log_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert script("print('hello')\n", Path("here.log")).returncode == 0
    assert (tmp_path / "here.log").read_text() == "hello\n"
