"""What only a process with torch can say of the user's own code, asked once and kept by what the answer depends on.

The Snakefile imports no torch, so another process makes the user's network or problem and says what it is.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from reproduction.errors import ConfigError
from reproduction.experiment import importable

KEPT = Path(".snakemake") / "eigendrift-models"
PATIENCE = 600.0
_ROOT = Path(__file__).parents[4]


class UnusableError(Exception):
    """The answer is that the code cannot be used; the message says why."""


def answer(module: str, question: Mapping[str, Any], files: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """What `python -m module` answers to a question (JSON); kept as long as the content of the files is the same.

    Raises:
        UnusableError: The code cannot be used.
    """
    asked = json.dumps(question, sort_keys=True)
    kept = KEPT / f"{_key(module, asked, files)}.json"
    with suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    given = ask(module, asked)
    if "refused" in given:
        raise UnusableError(given["refused"])
    with suppress(OSError):
        # In a folder that cannot be written to, the question is asked again.
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(given), encoding="utf-8")
        part.replace(kept)
    return given


def _key(module: str, asked: str, files: Sequence[str | os.PathLike[str]]) -> str:
    answers = importable.source(module)
    digest = hashlib.sha256(asked.encode())
    with suppress(PackageNotFoundError):
        digest.update(version("torch").encode())
    for file in (*files, *([answers] if answers else [])):
        digest.update(hashlib.sha256(Path(file).read_bytes()).digest())
    return digest.hexdigest()[:32]


def ask(module: str, asked: str) -> dict[str, Any]:
    """The answer of a process; `refused` in it is why the code cannot be used."""
    # What the user's file imports must be found as it is here; a GPU is not needed.
    own = [str(_ROOT / "src"), str(_ROOT / "workflow" / "scripts")]
    surroundings = {"PYTHONPATH": os.pathsep.join([*own, *filter(None, sys.path)]), "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=asked,
            env={**os.environ, **surroundings},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"refused": f"it gave nothing within {PATIENCE:.0f} s"}
    try:
        given: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"refused": f"the process that makes it ended with {done.returncode}: {last}"}
    return given


def reply(describe: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """What a module does that is asked: read the question from standard input, and write the answer.

    An error that says why the user's code cannot be used is the answer `refused`; any other ends the process.
    """
    # What the user's code prints must not mix with the answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.read())
    try:
        given = describe(asked)
    except ConfigError as error:
        given = {"refused": str(error).partition("is not allowed; ")[2]}
    except ValueError as error:
        given = {"refused": " ".join(str(error).split())}
    print(json.dumps(given), file=answers, flush=True)
