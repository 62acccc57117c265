"""What every script does first: send its output to the rule's log, and end with one readable line if it fails."""

import logging
import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from eigendrift.errors import EigendriftError

# What `start` left to say a line with on the terminal.
_terminal: Callable[[str], None] | None = None


def start(snakemake: Any) -> None:
    """Send stdout, stderr and logging of this process to `snakemake.log[0]`.

    Call it before the script's other imports: an ImportError then leaves its traceback in the rule's log too.
    When the script fails, one line on the terminal says what went wrong and where the log is; the log has the rest.
    """
    log = str(snakemake.log[0])
    os.makedirs(os.path.dirname(log) or ".", exist_ok=True)
    # As sys.stderr has it: a character that the terminal lacks must not hide the message.
    terminal = os.fdopen(os.dup(2), "w", errors="backslashreplace")
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    # Descriptors, not sys.stderr: messages of C libraries belong in the log as well.
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S", stream=sys.stderr
    )

    def say(message: str) -> None:
        print(f"{snakemake.rule}: {message} (log: {log})", file=terminal, flush=True)

    global _terminal
    _terminal = say

    # matplotlib's font subsetting tells of every table that it drops.
    logging.getLogger("fontTools").setLevel(logging.WARNING)

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, EigendriftError):
            sys.__excepthook__(kind, error, trace)
        else:
            print(error, file=sys.stderr, flush=True)
        first_line = (str(error).splitlines() or [""])[0]
        named = kind.__name__ if not first_line else f"{kind.__name__}: {first_line}"
        what = first_line if isinstance(error, EigendriftError) and first_line else named
        say(what)

    sys.excepthook = report


def tell(message: str) -> None:
    """Say one line in the rule's log and on the terminal; in the log alone where `start` was not called."""
    logging.getLogger("eigendrift").warning(message)
    if _terminal is not None:
        _terminal(message)
