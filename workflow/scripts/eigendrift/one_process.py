"""One process a job: what outlived a killed Snakemake still writes the files that a second try would write."""

import atexit
import fcntl
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def only_process(lock: Path, tell: Callable[[str], None]) -> None:
    """Return once no other process of this machine holds `lock`; hold it until this one ends, however it ends.

    `tell` gets one line before a wait. Processes of other machines are not waited for: a machine that died may hold a
    lock on a shared disk for good, and a cluster's jobs are cancelled by its own means. `OSError` where the file cannot
    be made; a disk that knows no locks is used without.
    """
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            host, _, process = os.read(descriptor, 1000).decode(errors="replace").partition(" ")
            # One process may run several scripts, of one job too.
            if host != socket.gethostname() or process == str(os.getpid()):
                os.close(descriptor)
                return
            tell(f"waiting for process {process}, which is still at this job; `kill {process}` ends it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            os.close(descriptor)
            return
        # The one before removed the file as it ended; the lock on that one is worth nothing.
        if _is_same_file(descriptor, lock):
            break
        os.close(descriptor)
    os.ftruncate(descriptor, 0)
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.pwrite(descriptor, f"{socket.gethostname()} {os.getpid()}".encode(), 0)
    atexit.register(_remove, lock)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _remove(lock: Path) -> None:
    with suppress(OSError):
        lock.unlink()
