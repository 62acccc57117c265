"""What a result was made with: configuration, versions, device and commit."""

import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "eigendrift",
    "matplotlib",
    "numpy",
    "pandas",
    "safetensors",
    "scikit-learn",
    "scipy",
    "snakemake",
    "torchvision",
)
# With what a result may be compared, and how: to the byte, within tolerances (relative and absolute), or by statistics.
# tests/system/test_other_threads.py holds the tolerances; what other threads round otherwise grows with the steps.
COMPARABLE: Mapping[str, Any] = {
    "bytes": "results of the same config, commit, versions, device and threads",
    "tables": {
        "with": "those of another number of threads, over the first 60 steps of a run",
        "tolerances": {
            "history": {"train_loss": 1e-5, "test_loss": 1e-5, "train_accuracy": 5e-3, "test_accuracy": 5e-3},
            "ipr": {"eigenvalue": 1e-4, "ipr": 1e-4, "gradient_norm": 1e-4, "gradient_overlap": 1e-4},
            "alignment": {
                "gradient_alignment": 1e-4,
                "update_alignment": 1e-4,
                "convergence": 1e-4,
                "gradient_share": 1e-4,
                "update_share": 1e-4,
            },
            "displacement": {
                "displacement": 1e-6,
                "subspace_displacement": 1e-6,
                "overlap": 1e-4,
                "weight_displacement": 1e-6,
                "update_alignment": 1e-4,
            },
        },
    },
    "claims": "results of other versions, another device or longer runs, by their intervals over seeds",
}


def commit() -> str:
    """The commit of this checkout, with `-dirty` if tracked files differ from it; `unknown` outside a checkout."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        # An installed copy may lie in the checkout of something else.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def package_versions() -> dict[str, str]:
    """Versions of the installed packages that results can depend on, apart from torch."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            # A controller without it, or the library used from its folder.
            continue
    return found


def provenance(config: Mapping[str, Any], identities: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One record for a set of results.

    `identities` are those of the runs: device, versions of torch and numba and threads are where each run was trained.
    """
    runs = list(identities)
    return {
        "config": dict(config),
        "versions": {**package_versions(), "torch": _all(runs, "torch"), "numba": _all(runs, "numba")},
        "device": _all(runs, "device"),
        "threads": _all(runs, "threads"),
        "commit": commit(),
        "comparable": dict(COMPARABLE),
    }


def _all(runs: Iterable[Mapping[str, Any]], key: str) -> str:
    return ", ".join(sorted({str(run.get(key, "unknown")) for run in runs}))
