"""Jobs of one machine are forked from a process that has imported torch, so that the import is paid once.

`import torch` takes about two seconds of a core, more than most jobs of a small experiment compute. The first job that
needs it starts a server, which imports the libraries below and nothing of this project. Each job is then a fork of it,
with the files, the folder and the environment of the process that Snakemake has started, which waits for the fork and
ends as it ends. When one of the two is killed so is the other. The server ends when it has had no job for some time.
Tables and figures, which do without torch, are forked where there is a server, and start none.

Linux only: elsewhere a fork of a process with these libraries is not safe, and each job imports them itself.
"""

import ctypes
import fcntl
import gc
import hashlib
import importlib
import json
import os
import resource
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Set to 0, every job imports what it needs itself; in a fork it is, so that none is forked again.
SWITCH = "EIGENDRIFT_WARM_START"
# What takes long to import. Without torch there is no server; where another one cannot be imported, it does without.
LIBRARIES = (
    "torch",
    "numba",
    "pandas",
    "scipy.linalg",
    "safetensors.numpy",
    "matplotlib.figure",
    "snakemake.iocontainers",
)
# As json.dumps has it; more than any environment takes.
_LONGEST_JOB = 2**24
IDLE_SECONDS = 15
# For the server's imports, on a busy machine with a cold disk.
_START_SECONDS = 120
# Variables of a shell, which differ from job to job and mean nothing to it; where Python searches is compared apart.
_VOLATILE = ("_", "SHLVL", "PWD", "OLDPWD", "PYTHONPATH")
# A longer name of a socket is refused.
_LONGEST_ADDRESS = 100
_PR_SET_PDEATHSIG = 1
_ACCEPTED, _LENGTH_BYTES = b"!", 8


@dataclass(frozen=True)
class _Job:
    """What a fork takes over from a job's own process."""

    script: str
    folder: str
    environment: dict[str, str]
    umask: int
    files: tuple[int, ...]


def leave_to_fork(start_server: bool) -> None:
    """Have the script of this process, one that Snakemake has written, run in a fork of the server, and end as it ends.

    `start_server`: whether to start one where there is none, which takes as long as one import of torch. Returns where
    there is none, and in the fork: then the caller does the work itself.
    """
    status = _status_of_fork(start_server)
    if status is None:
        return
    if status < 0:
        with suppress(OSError):  # SIGKILL
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


def _status_of_fork(start_server: bool) -> int | None:
    script = Path(sys.argv[0]).absolute()
    by_snakemake = script.parent.name == "scripts" and script.parent.parent.name == ".snakemake"
    if os.environ.get(SWITCH) == "0" or not by_snakemake or not _has_pidfds():
        return None
    try:
        connection = _connected(start_server)
    except OSError:
        return None
    if connection is None:
        return None
    with connection, suppress(OSError):
        _send(connection, script)
        if connection.recv(len(_ACCEPTED)):
            return _awaited(connection)
    return None


def _awaited(connection: socket.socket) -> int:
    """The exit status of the fork, when it has ended."""
    # Ctrl-C ends this process without a word, and with it the fork. Where it is ignored it stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    text = b""
    with suppress(OSError):
        while part := connection.recv(16):
            text += part
    # Without a status the server itself was killed, and the fork with it.
    return int(text) if text else -signal.SIGKILL


def _has_pidfds() -> bool:
    """Whether this system can wait for a process by a descriptor: Linux since 5.3."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def _connected(start_server: bool) -> socket.socket | None:
    """A connection to the server of jobs like this one; None where there is none and none can or shall be started."""
    folder = Path(tempfile.gettempdir()) / f"eigendrift-{os.getuid()}"
    address = folder / f"{_likeness()}.socket"
    if len(os.fsencode(address)) > _LONGEST_ADDRESS:
        return None
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        return None
    if not start_server:
        return _connect(address)
    lock = os.open(folder, os.O_RDONLY)
    try:
        # Jobs that begin together wait for one server.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _connect(address) or _started(address)
    finally:
        os.close(lock)


def _started(address: Path) -> socket.socket | None:
    """A connection to a new server; None where torch cannot be imported."""
    command, nothing = [sys.executable, "-P", __file__, str(address)], subprocess.DEVNULL
    server = subprocess.Popen(command, cwd="/", stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
    deadline = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
        if (found := _connect(address)) is not None:
            return found
    server.kill()
    return None


def _connect(address: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(address))
    except OSError:
        connection.close()
        return None
    return connection


def _likeness() -> str:
    """A name that processes share whose jobs one server can fork: what decides how a fork of it would run is in it."""
    interpreter = Path(sys.executable).stat()
    limits = [
        resource.getrlimit(getattr(resource, name)) for name in sorted(dir(resource)) if name.startswith("RLIMIT_")
    ]
    described = {
        "environment": {name: value for name, value in sorted(os.environ.items()) if name not in _VOLATILE},
        "interpreter": [sys.executable, interpreter.st_dev, interpreter.st_ino, interpreter.st_mtime_ns],
        # Of the libraries the time of their folders, since a server has them in memory.
        "searched": [
            (folder, Path(folder).stat().st_mtime_ns)
            for folder in sys.path
            if _is_foreign(folder) and Path(folder) != Path(sys.argv[0]).absolute().parent
        ],
        "server": Path(__file__).read_text(encoding="utf-8"),
        "limits": limits,
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "processors": sorted(os.sched_getaffinity(0)),
        "groups": [os.getegid(), *sorted(os.getgroups())],
        "host": os.uname().nodename,
        # A container has others.
        "namespaces": [str(path.readlink()) for path in sorted(Path("/proc/self/ns").iterdir())],
        "root": str(Path("/proc/self/root").readlink()),
        "cgroup": Path("/proc/self/cgroup").read_text(encoding="utf-8"),
    }
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:24]


def _is_foreign(folder: str) -> bool:
    """Whether a folder is there, and may hold libraries: one with this project's packages alone does not."""
    path = Path(folder)
    if not path.is_dir():
        return False
    if not any((path / own).is_dir() for own in ("eigendrift", "reproduction")):
        return True
    tops = [library.partition(".")[0] for library in LIBRARIES]
    return any((path / top).is_dir() for top in tops)


def _send(connection: socket.socket, script: Path) -> None:
    umask = os.umask(0o077)
    os.umask(umask)
    job = {"script": str(script), "folder": str(Path.cwd()), "environment": dict(os.environ), "umask": umask}
    content = json.dumps(job).encode()
    socket.send_fds(connection, [len(content).to_bytes(_LENGTH_BYTES, "big")], [0, 1, 2])
    connection.sendall(content)


def _receive(connection: socket.socket) -> _Job:
    head, files, _, _ = socket.recv_fds(connection, _LENGTH_BYTES, 3)
    try:
        length, content = int.from_bytes(head, "big"), b""
        while len(content) < length <= _LONGEST_JOB:
            part = connection.recv(length - len(content))
            if not part:
                break
            content += part
        if len(files) != 3 or len(content) != length:
            raise ConnectionError("a job was killed while it described itself, or there are too many open files")
        return _Job(**json.loads(content), files=tuple(files))
    except Exception:
        _close(files)
        raise


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class _Server:
    """Forks jobs from this process, and reports to each job's own process how it ended."""

    def __init__(self, address: Path) -> None:
        self._address = address
        self._listener = socket.socket(socket.AF_UNIX)
        # Whoever finds the name finds a server that listens.
        unnamed = address.with_suffix(f".{os.getpid()}")
        self._listener.bind(str(unnamed))
        self._listener.listen(64)
        self._own = unnamed.stat().st_ino
        unnamed.rename(address)
        self._events = selectors.DefaultSelector()
        self._events.register(self._listener, selectors.EVENT_READ)
        # Process of a fork -> the connection of its job.
        self._jobs: dict[int, socket.socket] = {}

    def next_job(self) -> _Job | None:
        """In each fork, its job; in the server, None when it has had no job for long."""
        while True:
            events = self._events.select(None if self._jobs else IDLE_SECONDS)
            if not events and not self._jobs:
                # A later server may have taken the name.
                with suppress(FileNotFoundError):
                    if self._address.stat().st_ino == self._own:
                        self._address.unlink()
                return None
            for event, _ in events:
                if event.fileobj is self._listener:
                    job = self._accept()
                    if job is not None:
                        return job
                elif not isinstance(event.fileobj, socket.socket):
                    self._ended(event.data, event.fileobj)
                elif event.data in self._jobs:
                    # Nothing more comes from a job's own process than its end.
                    self._events.unregister(event.fileobj)
                    _kill(event.data)

    def _accept(self) -> _Job | None:
        """In a new fork, its job; in the server None. A job that cannot be forked gets no answer, and works itself."""
        try:
            connection, _ = self._listener.accept()
        except OSError:  # too many open files: some will be closed
            time.sleep(0.1)
            return None
        job, process = None, None
        try:
            connection.settimeout(10)
            job = _receive(connection)
            process = os.fork()
            if process == 0:
                self._events.close()
                for descriptor in (self._listener, connection, *self._jobs.values()):
                    descriptor.close()
                return job
            waiting = os.pidfd_open(process)
            connection.sendall(_ACCEPTED)
        except (OSError, ValueError, TypeError):
            connection.close()
            if process:
                _kill(process)
                os.waitpid(process, 0)
            return None
        finally:
            if job is not None and process != 0:  # not in the fork
                _close(job.files)
        self._jobs[process] = connection
        self._events.register(connection, selectors.EVENT_READ, process)
        self._events.register(waiting, selectors.EVENT_READ, process)
        return None

    def _ended(self, process: int, descriptor: Any) -> None:
        self._events.unregister(descriptor)
        os.close(descriptor)
        _, status = os.waitpid(process, 0)
        connection = self._jobs.pop(process)
        with suppress(KeyError):
            self._events.unregister(connection)
        with suppress(OSError), connection:
            connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _kill(process: int) -> None:
    """A fork, with the processes that it has started."""
    # Its group is there when it has come that far.
    for end in (os.killpg, os.kill):
        with suppress(ProcessLookupError):
            end(process, signal.SIGKILL)


def _become(job: _Job, server: int, elsewhere: Sequence[str]) -> None:
    """Make this fork what the job's own process was; `elsewhere` is what every Python here searches."""
    # The server's end is the fork's; it may have come before this line.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os.kill(os.getpid(), signal.SIGKILL)
    os.setpgid(0, 0)
    for target, file in enumerate(job.files):
        os.dup2(file, target)
        os.close(file)
    os.umask(job.umask)
    os.chdir(job.folder)
    os.environ.clear()
    os.environ.update(job.environment)
    os.environ[SWITCH] = "0"
    sys.argv[:] = [job.script]
    # The first entry is the folder of a script.
    searched = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [str(Path(job.script).parent), *filter(None, searched), *elsewhere]
    # A generator without a seed must not give two jobs the same numbers; Python's own sees to that itself.
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def main() -> None:
    """The server, and in every fork of it a job."""
    server = os.getpid()
    # No module of this project is older than the job that imports it.
    asked = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    elsewhere = [folder for folder in sys.path if folder not in asked]
    sys.path[:] = [folder for folder in sys.path if _is_foreign(folder)]
    # Nothing that an import makes is garbage.
    gc.disable()
    # Without torch there is no server; its jobs say themselves what is wrong.
    importlib.import_module("torch")
    for library in LIBRARIES:
        with suppress(Exception):
            importlib.import_module(library)
    gc.freeze()
    job = _Server(Path(sys.argv[1])).next_job()
    if job is not None:
        _become(job, server, elsewhere)
        gc.enable()
        runpy.run_path(job.script, run_name="__main__")


if __name__ == "__main__":
    main()
