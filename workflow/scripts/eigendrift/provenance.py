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

    `identities` are those of the runs: device, torch version and number of threads are where each run was trained.
    """
    runs = list(identities)
    return {
        "config": dict(config),
        "versions": {**package_versions(), "torch": _all(runs, "torch")},
        "device": _all(runs, "device"),
        "threads": _all(runs, "threads"),
        "commit": commit(),
    }


def _all(runs: Iterable[Mapping[str, Any]], key: str) -> str:
    return ", ".join(sorted({str(run.get(key, "unknown")) for run in runs}))
