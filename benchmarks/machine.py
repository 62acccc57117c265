"""What the numbers were measured on: facts of the machine, without its name or any path."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "eigendrift",
    "curvlinops-for-pytorch",
    "pyhessian",
    "hessian-eigenthings",
)


def facts(threads: int) -> dict[str, Any]:
    """Processor, memory, versions, and how busy the machine was before the run."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "memory_GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "load_before": round(os.getloadavg()[0], 2),
    }


def card_facts(device: torch.device) -> dict[str, Any]:
    """What a GPU is, as torch names it."""
    if device.type != "cuda":
        return {"device": "cpu"}
    found = torch.cuda.get_device_properties(device)
    return {
        "device": found.name,
        "device_memory_GiB": round(found.total_memory / 2**30, 1),
        "multiprocessors": found.multi_processor_count,
        "cuda": torch.version.cuda,
    }


def write(path: Path, values: dict[str, Any]) -> None:
    """Leave the facts as JSON."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _field(path: str, name: str) -> str | None:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    values = [line.partition(":")[2].strip() for line in lines if line.startswith(name)]
    return values[0] if values else None
