"""One process at a time: locks that end with the process that holds them, whatever ends it, on shared folders too."""

import atexit
import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# A process loses its lock on a file with any descriptor of it that it closes: these stay open for the process's life.
_held: dict[Path, int] = {}
# What file systems answer that are mounted without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_INTERVAL = 0.5


def hold(path: Path, report: Callable[[str], None]) -> None:
    """Lock this file for the remaining life of the process; wait while another process has it.

    `report` is called once with the holder, if there is one. Where the file system has no locks, nothing is locked. The
    file is removed when the process ends by itself; a file that remains after a kill locks nobody out. Raises `OSError`
    where the file cannot be made.
    """
    holder = ""
    while try_lock(path) is False:
        if not holder:
            holder = _read(path) or "another process"
            report(holder)
        time.sleep(_INTERVAL)


def this_process() -> str:
    """Who a waiting process says that it waits for."""
    job, host = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    return f"SLURM job {job} on {host}" if job else f"process {os.getpid()} on {host} (`kill {os.getpid()}` ends it)"


def try_lock(path: Path) -> bool | None:
    """Lock this file for the remaining life of the process if nobody has it; None where the file system has no locks.

    Its folder is made. A second call for a file that this process holds changes nothing.
    """
    path = path.absolute()
    if path in _held and _is_at(_held[path], path):
        return True
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:  # its folder was removed since
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.close(descriptor)
        return False
    except OSError as error:
        os.close(descriptor)
        if error.errno in _NO_LOCKS:
            return None
        raise
    if not _is_at(descriptor, path):  # the process before us removed it when it was done
        os.close(descriptor)
        return False
    os.truncate(descriptor, 0)
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.pwrite(descriptor, this_process().encode(), 0)
    _held[path] = descriptor
    atexit.register(_remove, path)
    return True


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
