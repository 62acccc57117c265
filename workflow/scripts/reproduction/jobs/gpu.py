"""The device of a job; where one machine has several GPUs, each job claims a place on one for as long as it lives."""

import hashlib
import itertools
import os
import tempfile
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

from reproduction.jobs.lock import try_lock

# How many GPUs a run may use, the first of the visible ones; Snakemake's limit, for its jobs.
ALLOWED = "EIGENDRIFT_GPUS"


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
        names = [name.strip() for name in named.split(",") if name.strip()]
        # CUDA shows those before the first that there is not; -1 and NoDevFiles are ways to say none.
        return list(itertools.takewhile(lambda name: name not in ("-1", "NoDevFiles"), names))
    numbers = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    return sorted(filter(str.isdigit, numbers), key=int)


def claim_gpu(jobs_per_gpu: int, environment: MutableMapping[str, str] = os.environ) -> None:
    """Show one GPU to this process, the next one with a free place, of those that the run may use; before CUDA starts.

    Where one is visible, as in a job of SLURM, nothing changes; where all places are taken, all of them are shown.
    """
    visible = visible_gpus(environment)
    if len(visible) < 2:
        return
    allowed = visible[: int(environment.get(ALLOWED, len(visible))) or None]
    claimed = _first_free(allowed, jobs_per_gpu)
    # The numbers are those of nvidia-smi, not by speed.
    environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    environment["CUDA_VISIBLE_DEVICES"] = claimed or ",".join(allowed)


def _first_free(gpus: Sequence[str], jobs_per_gpu: int) -> str | None:
    folder = Path(tempfile.gettempdir()) / f"eigendrift-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    places = [(gpu, hashlib.sha256(f"{place} {gpu}".encode())) for place in range(jobs_per_gpu) for gpu in gpus]
    # The end of the process, whatever it is, frees its place again.
    return next((gpu for gpu, name in places if try_lock(folder / name.hexdigest()[:16])), None)
