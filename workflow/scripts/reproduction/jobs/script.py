"""What every script does first: write to the rule's log, measure itself, and fail with one readable line."""

import atexit
import errno
import logging
import os
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from reproduction.errors import EigendriftError
from reproduction.jobs.checkout import use_this_copy
from reproduction.jobs.lock import hold
from reproduction.jobs.warm_start import leave_to_fork


def start(snakemake: Any, imports_torch: bool = False) -> None:
    """Send stdout, stderr and logging of this process to `snakemake.log[0]`.

    Call it before the script's other imports: an ImportError then leaves its traceback in the rule's log too.
    When the script fails, one line on the terminal says what went wrong and where the log is; the log has the details.
    When it ends well, what it took is beside the log, in `benchmarks` instead of `logs`.
    When the process that submitted jobs is killed they may live on, and the next one submits them again: a second
    process of a job waits for the end of the first, and says so in one line.
    What the script imports afterwards comes from this checkout. Where it can, this process leaves the script to a fork
    of one that has imported torch already (jobs.warm_start), and only ends as that one ends.
    """
    use_this_copy()
    leave_to_fork(start_server=imports_torch)
    log = Path(snakemake.log[0])
    # As sys.stderr has it: a character that the terminal lacks must not hide the message.
    terminal = os.fdopen(os.dup(2), "w", errors="backslashreplace")

    def say(what: str) -> None:
        print(f"{snakemake.rule}: {what} (log: {log})", file=terminal, flush=True)

    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        # Before the log, in which the first process still writes.
        hold(log.with_name(f".{log.name}.lock"), lambda who: say(f"waits for {who}, which does the same work"))
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    except OSError as error:
        say(f"{error.filename or log}: cannot be written ({error.strerror}); make {log.parent} writable and run again")
        sys.exit(1)
    # Descriptors, not sys.stderr: messages of C libraries belong in the log as well.
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S", stream=sys.stderr
    )

    # matplotlib's font subsetting reports every table that it drops.
    logging.getLogger("fontTools").setLevel(logging.WARNING)

    measurements = _measurements_of(snakemake)
    if measurements is not None:
        atexit.register(_measure, measurements, time.monotonic())

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        atexit.unregister(_measure)
        if issubclass(kind, KeyboardInterrupt):
            # A person stopped the run, and Snakemake says so.
            print("stopped by Ctrl-C", file=sys.stderr, flush=True)
            return
        # The terminal first: the log may lie on the disk that is full.
        say(_in_one_line(kind, error, getattr(snakemake, "resources", None)))
        with suppress(OSError):
            if isinstance(error, EigendriftError):
                print(error, file=sys.stderr, flush=True)
            else:
                sys.__excepthook__(kind, error, trace)

    sys.excepthook = report


def one_or_more(files: str | Sequence[str]) -> list[str]:
    """Snakemake gives one file as text, several as a list."""
    return [files] if isinstance(files, str) else list(files)


def _measurements_of(snakemake: Any) -> Path | None:
    """The file for what a job takes; None for a job without results."""
    parts = Path(snakemake.log[0]).parts
    if parts[0] != "results" or parts[2:3] != ("logs",) or not len(snakemake.output):
        return None
    return Path(*parts[:2], "benchmarks", *parts[3:]).with_suffix(".tsv")


def _measure(path: Path, started: float) -> None:
    """Write what this process took, in the form and the units of Snakemake's benchmark files.

    Those themselves would measure the process that waits for this one (jobs.warm_start). The memory includes what a
    fork shares with its server.
    """
    seconds = time.monotonic() - started
    used = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    most = max(each.ru_maxrss for each in used) / (2**20 if sys.platform == "darwin" else 2**10)
    computed = sum(each.ru_utime + each.ru_stime for each in used)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\tmax_rss\tcpu_time\n{seconds:.2f}\t{most:.1f}\t{computed:.2f}\n", encoding="utf-8")


def _in_one_line(kind: type[BaseException], error: BaseException, resources: Any) -> str:
    first_line = (str(error).splitlines() or [""])[0]
    if isinstance(error, EigendriftError) and first_line:
        return first_line
    named = kind.__name__ if not first_line else f"{kind.__name__}: {first_line}"
    if not _is_out_of_memory(error):
        lost = isinstance(error, RuntimeError) and "cuda error" in first_line.lower()
        again = "run again, which goes on from what is saved, or with training.device: cpu"
        return f"the GPU failed: {again} ({named})" if lost else named
    if "cuda" in str(error).lower():
        return (
            f"out of memory on the GPU: run fewer jobs on it (training.jobs_per_gpu), or where more is free ({named})"
        )
    asked = getattr(resources, "mem_mb", None)
    request = f"its rule asks for {asked} MB" if asked is not None else "its rule's mem_mb says what it needs"
    return f"out of memory: {request}; run fewer jobs at once, or where more is free ({named})"


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was refused: by Python and NumPy, by the system's mmap, by torch on a CPU or on a GPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    # The last two are what CUDA says where jobs that share a GPU leave no room for another one.
    refusals = ("allocate memory", "out of memory", "alloc_failed", "busy or unavailable")
    torchs = isinstance(error, RuntimeError) and any(refusal in text for refusal in refusals)
    return isinstance(error, MemoryError) or torchs
