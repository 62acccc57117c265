"""The device of a job; where one machine has several GPUs, each job claims a place on one for as long as it lives."""

import hashlib
import os
import tempfile
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

from reproduction.jobs.lock import try_lock


def wanted_device(snakemake: Any) -> str:
    """The device that the configuration of a job names; where it leaves the choice, what the profile says of the site.

    A profile sets it as the resource `device`: its `config` would be dropped whole by any `--config` on a command line.
    """
    configured: str = snakemake.config["training"]["device"]
    resources = getattr(snakemake, "resources", None)
    return str(getattr(resources, "device", configured)) if configured == "auto" else configured


def visible_gpus(environment: MutableMapping[str, str]) -> list[str]:
    """The GPUs that CUDA would show to this process, as CUDA_VISIBLE_DEVICES names them."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    numbers = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    return sorted(filter(str.isdigit, numbers), key=int)


def claim_gpu(jobs_per_gpu: int, environment: MutableMapping[str, str] = os.environ) -> None:
    """Show one GPU to this process, one with the fewest jobs that have claimed it so far; before CUDA starts.

    Where there is one, as in a job of SLURM, or where each has its number of jobs, nothing changes.
    """
    gpus = visible_gpus(environment)
    if len(gpus) < 2:
        return
    claimed = _first_free(gpus, jobs_per_gpu)
    if claimed is not None:
        # The numbers are those of nvidia-smi, not by speed.
        environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        environment["CUDA_VISIBLE_DEVICES"] = claimed


def _first_free(gpus: Sequence[str], jobs_per_gpu: int) -> str | None:
    folder = Path(tempfile.gettempdir()) / f"eigendrift-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    places = [(gpu, hashlib.sha256(f"{place} {gpu}".encode())) for place in range(jobs_per_gpu) for gpu in gpus]
    # The end of the process, whatever it is, frees its place again.
    return next((gpu for gpu, name in places if try_lock(folder / name.hexdigest()[:16])), None)
