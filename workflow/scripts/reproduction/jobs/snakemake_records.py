"""What Snakemake notes of its jobs' outputs in .snakemake/, read without starting it: its own commands for this build
the whole graph of jobs, and call every table outdated once a module is edited.
"""

import ast
import json
import os
from base64 import urlsafe_b64encode
from contextlib import suppress
from pathlib import Path
from typing import Any

RECORDS = Path(".snakemake")


def is_incomplete(output: str, records: Path = RECORDS) -> bool:
    """Whether a job that writes this output is at work, or was killed."""
    return _record(records / "incomplete", output).exists()


def recorded_parameters(output: str, records: Path = RECORDS) -> list[Any] | None:
    """The parameters, without their names, of the job that made an output; None where nothing legible is noted."""
    try:
        noted = json.loads(_record(records / "metadata", output).read_text(encoding="utf-8"))["params"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    found = []
    for text in noted or []:
        with suppress(ValueError, SyntaxError):
            found.append(ast.literal_eval(text))
    return found


def is_locked(results: Path, records: Path = RECORDS) -> bool:
    """Whether a Snakemake is at work on files of a results folder, or was killed, so that its lock remains."""
    for lock in (records / "locks").glob("*.lock"):
        if any(results in Path(line).parents for line in lock.read_text(encoding="utf-8").splitlines()):
            return True
    return False


def _record(folder: Path, output: str) -> Path:
    """The file of an output: its path in base 64, in folders where that is longer than a name may be."""
    longest = (os.pathconf(folder, "PC_NAME_MAX") if folder.is_dir() else 255) - 1
    name = urlsafe_b64encode(output.encode()).decode()
    parts = [name[start : start + longest] for start in range(0, len(name), longest)]
    return folder.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])
