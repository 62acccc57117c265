"""Jobs that are forked from a process with torch: each is what a process of its own would have been."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from experiments import PACKAGES

from reproduction.jobs.warm_start import IDLE_SECONDS, SWITCH

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux alone")

START = """
import sys
before = set(sys.modules)
from reproduction.jobs.warm_start import leave_to_fork
leave_to_fork(start_server=START)
"""
DESCRIBE = """
import json, os, numpy
kept = {name: os.environ.get(name) for name in ("OWN", "PYTHONPATH")}
print(json.dumps({
    "process": os.getpid(), "parent": os.getppid(), "warm": "torch" in before, "folder": os.getcwd(), "kept": kept,
    "argv": sys.argv, "path": sys.path[:3], "umask": os.umask(0), "drawn": numpy.random.rand(), "name": __name__,
    "ours": sorted(name for name in before if name.partition(".")[0] in ("reproduction", "eigendrift")),
}))
print("heard", input(), file=sys.stderr)
"""


class Scripts:
    """Starts code as Snakemake starts the script of a rule, in the manner of a user's environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / ".snakemake" / "scripts").mkdir(parents=True)
        # Their own, so that these tests meet no server of another one.
        self.environment = {**os.environ, "PYTHONPATH": PACKAGES, "OWN": str(folder)}
        self.environment.pop(SWITCH, None)

    def start(
        self, code: str, name: str = "job", start_server: bool = True, first: str = "", **more: str
    ) -> "subprocess.Popen[str]":
        path = self.folder / ".snakemake" / "scripts" / f"{name}.py"
        path.write_text(first + START.replace("START", str(start_server)) + code, encoding="utf-8")
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, str(path)],
            cwd=self.folder,
            env=self.environment | more,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )

    def described(self, start_server: bool = True, first: str = "", **more: str) -> dict[str, Any]:
        """What a job says of itself; `first` is code that it runs before all other."""
        job = self.start(DESCRIBE, start_server=start_server, first=first, **more)
        stdout, stderr = job.communicate("this\n", timeout=60)
        assert stderr == "heard this\n", stderr
        described: dict[str, Any] = json.loads(stdout)
        return described


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    return Scripts(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Scripts:
    """Of the tests that leave the server as they find it."""
    return Scripts(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path is short enough for a socket, which that of a test is not."""
    with tempfile.TemporaryDirectory(prefix="warm-", dir="/tmp") as folder:
        yield Path(folder)


def gone(process: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return True


def wait_for(happened: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_job_finds_what_its_own_process_had_and_torch(shared: Scripts) -> None:
    before = os.umask(0o027)
    try:
        first, second = shared.described(), shared.described()
        alone = shared.described(**{SWITCH: "0"})
    finally:
        os.umask(before)
    assert first["warm"]
    assert second["warm"]
    assert not alone["warm"]
    assert alone["parent"] == os.getpid()
    assert first["parent"] == second["parent"] != os.getpid()
    assert first["process"] != second["process"]
    for name in ("folder", "kept", "argv", "path", "umask", "name"):
        assert first[name] == alone[name], name
    assert first["ours"] == []
    assert first["drawn"] != second["drawn"]


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("import atexit; atexit.register(lambda: sys.stderr.write('at the end')); sys.exit(0)", 0, "at the end"),
        ("raise ValueError('too bad')", 1, "ValueError: too bad"),
        ("sys.excepthook = lambda *about: print('own line', file=sys.stderr); 1 / 0", 1, "own line"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
    ],
)
def test_a_job_ends_as_its_fork_ends(shared: Scripts, code: str, status: int, said: str) -> None:
    process = shared.start(
        "import os\nassert os.getppid() != int(os.environ['TESTS'])\n" + code, TESTS=str(os.getpid())
    )
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == status
    assert said in stderr
    assert bool(stderr) == bool(said)


SLEEP = "import os, time\nprint(os.getpid(), os.getppid(), flush=True)\ntime.sleep(600)"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_fork_ends_with_its_job_and_no_other_one(shared: Scripts, how: signal.Signals) -> None:
    one, other = shared.start(SLEEP, "one"), shared.start(SLEEP, "other")
    assert one.stdout is not None
    assert other.stdout is not None
    (fork, server), (second, _) = map(int, one.stdout.readline().split()), map(int, other.stdout.readline().split())
    one.send_signal(how)
    one.communicate(timeout=20)
    assert one.returncode == -how
    wait_for(lambda: gone(fork))
    assert not gone(second)
    assert not gone(server)
    other.kill()
    other.communicate()
    wait_for(lambda: gone(second))


def test_a_killed_server_takes_its_jobs_along_and_the_next_job_starts_another(scripts: Scripts) -> None:
    process = scripts.start(SLEEP)
    assert process.stdout is not None
    fork, server = map(int, process.stdout.readline().split())
    os.kill(server, signal.SIGKILL)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGKILL
    wait_for(lambda: gone(fork))
    assert scripts.described()["parent"] not in (server, os.getpid())


def test_jobs_that_begin_together_share_one_server(scripts: Scripts) -> None:
    code = "import os, time\nprint(os.getppid(), flush=True)\ntime.sleep(1)"
    jobs = [scripts.start(code, f"job{number}") for number in range(4)]
    servers = {process.communicate(timeout=60)[0] for process in jobs}
    assert len(servers) == 1
    assert all(process.returncode == 0 for process in jobs)


def test_a_job_without_torch_starts_no_server_and_joins_one_that_is_there(scripts: Scripts) -> None:
    assert scripts.described(start_server=False)["parent"] == os.getpid()
    server = scripts.described()["parent"]
    assert scripts.described(start_server=False)["parent"] == server


def test_a_job_of_another_environment_has_another_server(scripts: Scripts) -> None:
    servers = {
        scripts.described()["parent"],
        scripts.described(OMP_NUM_THREADS="2")["parent"],
        scripts.described(PYTHONPATH=f"{PACKAGES}:{scripts.folder}")["parent"],
    }
    assert len(servers) == 3


def test_a_server_without_jobs_ends_and_leaves_nothing(scripts: Scripts, short: Path) -> None:
    server = scripts.described(TMPDIR=str(short))["parent"]
    assert len(list(short.rglob("*.socket"))) == 1
    wait_for(lambda: gone(server), IDLE_SECONDS + 20)
    assert [path for path in short.rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize(
    "older",
    ["import os; del os.pidfd_open", "import os\ndef os_pidfd(n): raise OSError(38, 'no')\nos.pidfd_open = os_pidfd"],
)
def test_on_a_system_that_lacks_what_it_takes_a_job_does_its_work_itself(scripts: Scripts, older: str) -> None:
    assert scripts.described(first=older)["parent"] == os.getpid()


@pytest.mark.parametrize("error", ["ImportError", "OSError"])
def test_without_torch_there_is_no_server(scripts: Scripts, tmp_path: Path, error: str) -> None:
    broken = tmp_path / "broken"
    (broken / "torch").mkdir(parents=True)
    (broken / "torch" / "__init__.py").write_text(f"raise {error}('libtorch_cpu.so: cannot open')", encoding="utf-8")
    begun = time.monotonic()
    assert scripts.described(PYTHONPATH=f"{PACKAGES}:{broken}")["parent"] == os.getpid()
    assert time.monotonic() - begun < 30
    process = scripts.start("import torch", PYTHONPATH=f"{PACKAGES}:{broken}")
    assert f"{error}: libtorch_cpu.so: cannot open" in process.communicate(timeout=60)[1]


def test_a_library_beside_a_package_of_this_project_is_the_one_that_a_fork_has(
    scripts: Scripts, tmp_path: Path
) -> None:
    beside = tmp_path / "beside"
    for name, text in (("eigendrift", ""), ("safetensors", "OWN = True\n"), ("safetensors/numpy", "")):
        (beside / name).mkdir(parents=True, exist_ok=True)
        (beside / name / "__init__.py").write_text(text, encoding="utf-8")
    job = scripts.start(
        "import safetensors; print(safetensors.OWN, 'torch' in before)", PYTHONPATH=f"{PACKAGES}:{beside}"
    )
    assert job.communicate(timeout=60)[0] == "True True\n"


def test_what_a_job_has_started_ends_with_it(scripts: Scripts) -> None:
    code = "import subprocess, sys, time\nchild = subprocess.Popen(['sleep', '600'])\nprint(child.pid, flush=True)\n"
    job = scripts.start(code + "time.sleep(600)")
    assert job.stdout is not None
    child = int(job.stdout.readline())
    job.terminate()
    job.communicate(timeout=20)
    wait_for(lambda: gone(child))


def test_jobs_that_are_killed_while_they_hand_over_leave_nothing_open(scripts: Scripts, short: Path) -> None:
    server = int(scripts.described(TMPDIR=str(short))["parent"])
    (address,) = short.rglob("*.socket")
    before = len(list(Path(f"/proc/{server}/fd").iterdir()))
    for content in (b"", b"\x00", (100).to_bytes(8, "big") + b"{", (2).to_bytes(8, "big") + b"{}"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(address))
            if content:
                socket.send_fds(connection, [content], [0, 1, 2])
    assert scripts.described(TMPDIR=str(short))["parent"] == server
    wait_for(lambda: len(list(Path(f"/proc/{server}/fd").iterdir())) == before)


def test_where_no_server_can_be_a_job_does_its_work_itself(scripts: Scripts, tmp_path: Path, short: Path) -> None:
    deep = tmp_path / ("deep" * 20) / ("deeper" * 10)
    deep.mkdir(parents=True)
    assert scripts.described(TMPDIR=str(deep))["parent"] == os.getpid()
    # Others can write where the socket would be.
    (short / f"eigendrift-{os.getuid()}").mkdir()
    (short / f"eigendrift-{os.getuid()}").chmod(0o777)
    assert scripts.described(TMPDIR=str(short))["parent"] == os.getpid()
