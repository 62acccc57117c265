"""Progress that survives a kill: a folder for one job's half-done work, keyed by all that the work depends on.

Snakemake deletes the declared outputs of a failed job, so progress lives outside of them. Another parameter, another
input or another version gives another key, so old progress is never taken for this job's.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class Scratch:
    """The scratch folder of one job."""

    def __init__(self, root: str | os.PathLike[str], job: str, depends_on: Mapping[str, Any]) -> None:
        """`job` is a relative path that names the job; folders of the same job with another key are removed."""
        key = hashlib.sha256(json.dumps(depends_on, sort_keys=True, default=str).encode()).hexdigest()[:16]
        parent = Path(root) / job
        self.folder = parent / key
        if parent.is_dir():
            for other in parent.iterdir():
                if other != self.folder:
                    shutil.rmtree(other, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)

    def array(self, name: str, shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> np.memmap[Any, Any]:
        """A writable array on disk: that of an earlier try if it has this shape and type, else a new one of zeros."""
        path = self.folder / f"{name}.npy"
        if path.exists():
            try:
                found: np.memmap[Any, Any] = np.lib.format.open_memmap(path, mode="r+")
                if found.shape == shape and found.dtype == dtype:
                    return found
            except (ValueError, OSError):
                pass
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
