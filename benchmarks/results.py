"""Where the parts leave their tables, and the arguments that all of them take."""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.problem import HOME, PAPER, QUICK, Scale


def arguments(description: str | None, argv: Sequence[str] | None, **extra: Mapping[str, Any]) -> argparse.Namespace:
    """The command line of a part, or `argv` in its place; `extra` are further options, name -> keywords."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a tiny problem, to try the programs")
    parser.add_argument("--output", type=Path, default=HOME / "results", help="folder of the tables and plots")
    parser.add_argument("--cache", type=Path, default=HOME / ".cache", help="folder of trajectories and references")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of torch")
    for name, keywords in extra.items():
        parser.add_argument(f"--{name}", **keywords)
    given = parser.parse_args(argv)
    given.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(given.threads)
    return given


def scale_of(given: argparse.Namespace) -> Scale:
    """The paper's problem, or the tiny one."""
    return QUICK if given.quick else PAPER


def passed_on(given: argparse.Namespace) -> list[str]:
    """The common arguments, for a process that this one starts."""
    options = ["--output", str(given.output), "--cache", str(given.cache)]
    return [*options, "--quick"] if given.quick else options


def write(folder: Path, name: str, frame: pd.DataFrame) -> None:
    """Leave a table as name.csv and name.md."""
    frame.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    (folder / f"{name}.md").write_text(markdown(frame), encoding="utf-8")
    print(f"{name}:\n{markdown(frame)}", flush=True)


def read(folder: Path, name: str) -> pd.DataFrame | None:
    """The table that an earlier part of the benchmark wrote, if there is one."""
    path = folder / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else None


def markdown(frame: pd.DataFrame) -> str:
    """A table with three significant digits."""
    lines = [
        "| " + " | ".join(str(column).replace("_", " ") for column in frame.columns) + " |",
        "|" + "---|" * len(frame.columns),
    ]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in frame.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, float):
        if value != value:
            return ""
        # A value near 1 is shown by its distance from 1.
        if 0.999 < value < 1:
            return f"1 - {1 - value:.1e}"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "/")
