"""Progress that survives a kill: a folder for one job's half-done work, keyed by all that the work depends on.

Snakemake deletes the declared outputs of a failed job, so progress lives outside of them. Another parameter, another
input or another version gives another key, so old progress is never taken for this job's.

Two processes never work on one job at a time: when the process that submitted a cluster's jobs is killed, they live on,
and the next one submits them again.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eigendrift.job import tell
from eigendrift.locks import hold


class Scratch:
    """The scratch folder of one job.

    `fresh`: an array was not there, or not usable, and had to be made anew; what an earlier try noted of its progress
    is then void.
    """

    def __init__(self, root: str | os.PathLike[str], job: str, depends_on: Mapping[str, Any]) -> None:
        """`job` is a relative path that names the job; folders of the same job with another key are removed.

        While another process works on the job, this one waits for its end, and goes on from what that one has left.
        """
        content = {"depends_on": depends_on, "code": _code()}
        key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
        parent = Path(root) / job
        hold(_lock(parent), lambda who: tell(f"waits for {who or 'another process'}, which does the same work"))
        self.folder = parent / key
        if parent.is_dir():
            for other in parent.iterdir():
                if other != self.folder:
                    shutil.rmtree(other, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.fresh = False

    def array(self, name: str, shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> np.memmap[Any, Any]:
        """A writable array on disk: that of an earlier try if it has this shape and type, else a new one of zeros."""
        path = self.folder / f"{name}.npy"
        if _is_usable(path, shape, dtype):
            found: np.memmap[Any, Any] = np.lib.format.open_memmap(path, mode="r+")
            return found
        self.fresh = True
        part = path.with_suffix(".part")
        made: np.memmap[Any, Any] = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape)
        os.replace(part, path)
        return made

    def path(self, name: str) -> Path:
        """Path of a file in the folder."""
        return self.folder / name

    @staticmethod
    def discard(root: str | os.PathLike[str], job: str) -> None:
        """Remove all scratch of a job whose outputs are safely in place."""
        shutil.rmtree(Path(root) / job, ignore_errors=True)
        _lock(Path(root) / job).unlink(missing_ok=True)


def _lock(folder: Path) -> Path:
    # Beside the folder and not in it, so that it outlives what is removed there.
    return folder.with_name(f"{folder.name}.lock")


def _is_usable(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> bool:
    try:
        # For reading: opened for writing, a file that is too short would be filled up with zeros.
        found = np.lib.format.open_memmap(path, mode="r")
    except Exception:  # no such file, or whatever a damaged header leads to
        return False
    return found.shape == shape and found.dtype == dtype and found.flags.c_contiguous


def _code() -> list[str]:
    """What the work is done by: the version of torch, and checksums of the library's modules that are loaded."""
    loaded = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "eigendrift"}
    sources = [Path(module.__file__) for _, module in sorted(loaded.items()) if module.__file__]
    torch = sys.modules.get("torch")
    return [
        str(getattr(torch, "__version__", "")),
        *(hashlib.sha256(file.read_bytes()).hexdigest() for file in sources),
    ]
