"""Progress that survives a kill: a folder for one job's half-done work, keyed by all that the work depends on.

Snakemake deletes the declared outputs of a failed job, so progress lives outside of them. Another parameter, another
input, or another version of what can change a number gives another key, so old progress is never taken for this job's.
"""

import errno
import hashlib
import json
import os
import shutil
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reproduction.files.atomic import atomic_path, cannot_write
from reproduction.jobs.checkout import ROOTS
from reproduction.jobs.dependencies import is_plumbing

_DIGEST = hashlib.sha256().digest_size


class Scratch:
    """The scratch folder of one job.

    `fresh`: whether an array was missing or not usable, and had to be created; the progress that an earlier try noted
    is then void.
    """

    def __init__(self, root: str | os.PathLike[str], job: str, depends_on: Mapping[str, Any]) -> None:
        """`job` is a relative path that names the job; folders of the same job with another key are removed."""
        content = {"depends_on": depends_on, "code": _code()}
        key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
        parent = Path(root) / job
        self.folder = parent / key
        if parent.is_dir():
            for other in parent.iterdir():
                if other != self.folder:
                    shutil.rmtree(other, ignore_errors=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.folder, error) from None
        self.fresh = False

    def array(self, name: str, shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> np.memmap[Any, Any]:
        """A writable array on disk: that of an earlier try if it has this shape and type, else a new one of zeros."""
        path = self.folder / f"{name}.npy"
        if _is_usable(path, shape, dtype):
            found: np.memmap[Any, Any] = np.lib.format.open_memmap(path, mode="r+")
            return found
        self.fresh = True
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        with atomic_path(path, size) as part:
            made: np.memmap[Any, Any] = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape)
            _reserve(part)
        return made

    def write(self, name: str, content: bytes) -> None:
        """A file of the folder: whole, or that of before."""
        path, part = self.path(name), self.path(f"{name}.part")
        try:
            part.write_bytes(hashlib.sha256(content).digest() + content)
            # Not forced to the disk, which takes long at every snapshot: the checksum detects damage by a power cut.
            os.replace(part, path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise cannot_write(path, error, len(content)) from None

    def read(self, name: str) -> bytes | None:
        """What `write` wrote; None if there is nothing, or it is damaged."""
        try:
            stored = self.path(name).read_bytes()
        except FileNotFoundError:
            return None
        digest, content = stored[:_DIGEST], stored[_DIGEST:]
        return content if hashlib.sha256(content).digest() == digest else None

    def path(self, name: str) -> Path:
        """Path of a file in the folder."""
        return self.folder / name

    @staticmethod
    def discard(root: str | os.PathLike[str], job: str) -> None:
        """Remove all scratch of a job whose outputs are safely in place."""
        shutil.rmtree(Path(root) / job, ignore_errors=True)


def row_sum(*rows: np.ndarray) -> int:
    """A checksum (CRC-32) of rows of scratch arrays: after a power cut an array may lack what a later one counts on."""
    value = 0
    for row in rows:
        value = zlib.crc32(np.ascontiguousarray(row).data.cast("B"), value)
    return value


def _reserve(path: Path) -> None:
    """Take the room for all of a sparse file: a mapped page that finds none when it is written kills the process."""
    with open(path, "r+b") as handle:
        try:
            os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)
        except (AttributeError, OSError) as error:
            # A system or a disk that cannot reserve room has to do without.
            if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise


def _is_usable(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> bool:
    try:
        # For reading: opened for writing, a file that is too short would be filled up with zeros.
        found = np.lib.format.open_memmap(path, mode="r")
    except Exception:  # no such file, or whatever a damaged header leads to
        return False
    return found.shape == shape and found.dtype == dtype and found.flags.c_contiguous


def _code() -> list[str]:
    """What the work is done by: torch's version, and checksums of the loaded modules that can change a number."""
    loaded = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ROOTS}
    sources = [Path(module.__file__) for _, module in sorted(loaded.items()) if module.__file__]
    torch = sys.modules.get("torch")
    return [
        str(getattr(torch, "__version__", "")),
        *(hashlib.sha256(file.read_bytes()).hexdigest() for file in sources if not is_plumbing(file)),
    ]
