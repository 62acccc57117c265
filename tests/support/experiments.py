"""The shipped configurations, overlays on them, and other Python processes, for the tests."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from reproduction.experiment.figure_catalogue import FIGURES, SUPPLEMENT, figure_name
from reproduction.experiment.table_catalogue import TABLES

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = REPOSITORY / "workflow" / "scripts"
SUPPORT = REPOSITORY / "tests" / "support"
# Where the two packages lie, as a process of its own takes it from PYTHONPATH.
PACKAGES = os.pathsep.join(map(str, (REPOSITORY / "src", SCRIPTS)))


# What the records say that there is.
FIGURE_NAMES, SUPPLEMENT_NAMES = list(map(figure_name, FIGURES)), list(map(figure_name, SUPPLEMENT))
TABLE_RULES = sorted({table.rule for table in TABLES.values() if table.of_run} - {"train"})
RUN_RULES = ["train", "eigensnapshot", *TABLE_RULES]


def script_of(rule: str) -> Path:
    """The script of a rule: all figures share one, and so do both baselines."""
    shared = "draw_figure" if rule.startswith("fig") and rule != "figure_set" else rule
    return SCRIPTS / f"{shared.removeprefix('variant_')}.py"


def read(name: str) -> dict[str, Any]:
    """A configuration file of the repository."""
    config: dict[str, Any] = yaml.safe_load((REPOSITORY / name).read_text(encoding="utf-8"))
    return config


# The claims of the paper that are scored.
CLAIM_NUMBERS = sorted(claim["number"] for claim in read("paper/claims.yaml")["claims"])


def overlaid(*overlays: Mapping[Any, Any], base: Mapping[Any, Any] | None = None) -> dict[str, Any]:
    """config.yaml with overlays merged over it, as Snakemake merges them."""
    merged = dict(read("config.yaml") if base is None else base)
    for overlay in overlays:
        for key, value in overlay.items():
            below = merged.get(key)
            if isinstance(value, Mapping):
                merged[key] = overlaid(value, base=below if isinstance(below, Mapping) else {})
            else:
                merged[key] = value
    return merged


# Values that tests name, so that config.yaml can be tuned without touching them.
PINNED: dict[Any, Any] = {
    "datasets": ["digits", "digits_noisy"],
    "model": {"hidden": [100, 100]},
    "training": {"steps": 2000, "batch_size": 128, "seeds": [0, 1, 2]},
    "snapshots": {"every": 100, "waiting_times": [0, 10, 100, 300, 1000], "lags_per_decade": 3},
    "eigen": {"k": 3, "tolerance": 1e-3, "dense_k": 15, "dense_seed": 0, "dense_tolerance": 1e-4, "dense_every": 3},
    "sweeps": {
        "dataset": "digits",
        "seeds": [0, 1],
        "snapshots": {"every": 400, "waiting_times": [0, 10, 100], "lags_per_decade": 2},
    },
}
SWEEPS: dict[str, dict[Any, int]] = {"batch_size": {32: 1200, "full": 600}, "learning_rate": {0.3: 1200, 3: 1200}}


def pinned(*overlays: Mapping[Any, Any]) -> dict[str, Any]:
    """The shipped configuration with PINNED and SWEEPS, and overlays over that."""
    base = overlaid(PINNED)
    base["sweeps"] = {**base["sweeps"], **SWEEPS}
    return overlaid(*overlays, base=base)


def at(path: str, value: Any) -> dict[Any, Any]:
    """An overlay that sets the key of a path such as `training.steps`."""
    overlay = value
    for part in reversed(path.split(".")):
        overlay = {part: overlay}
    return dict(overlay)


def python(code: str, *arguments: object, **surroundings: str) -> subprocess.CompletedProcess[str]:
    """Run code in another process that finds the library, with environment variables of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": PACKAGES, "OMP_NUM_THREADS": "1", **surroundings},
        capture_output=True,
        text=True,
        check=False,
    )
