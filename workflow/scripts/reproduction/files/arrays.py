"""Arrays on disk: safetensors files that carry identity, units and a checksum of every array.

A file is complete or absent: it is written under a temporary name and renamed. Reading recomputes the checksums of
the header and of every array that is read, so a truncated, altered or foreign file is refused by name, never used.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from reproduction.errors import DamagedFileError, shown
from reproduction.files.atomic import atomic_path
from reproduction.files.header import seal
from reproduction.files.identity import check_place

FORMAT = "eigendrift-arrays/2"
# safetensors' names of the types that are written here.
_STORED = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}


def checksum(array: np.ndarray) -> str:
    """sha256 of an array's type, its shape and its bytes in C order, as hexadecimal digits."""
    content = _plain(array)
    digest = hashlib.sha256(f"{content.dtype.str} {content.shape} ".encode())
    digest.update(content.data.cast("B") if content.size else b"")
    return digest.hexdigest()


def _plain(array: np.ndarray) -> np.ndarray:
    """The array in C order and little-endian, as safetensors stores it."""
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def write_arrays(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    *,
    kind: str,
    identity: Mapping[str, Any],
    units: Mapping[str, str],
) -> None:
    """Write named arrays with what they are.

    `kind` names the sort of file (trajectory, eigenpairs, ...), `identity` says which one it is (dataset, optimizer,
    variant, seed, ...; JSON values), `units` gives every array's unit, "1" for a pure number.
    """
    if set(units) != set(arrays):
        raise ValueError(f"units are given for {sorted(units)}, arrays are {sorted(arrays)}")
    header = {
        "format": FORMAT,
        "kind": kind,
        "identity": dict(identity),
        "units": dict(units),
        "sha256": {name: checksum(array) for name, array in arrays.items()},
    }
    # One key: safetensors writes several in an order that differs from process to process.
    metadata = {"eigendrift": json.dumps({**header, "seal": seal(header)}, sort_keys=True)}
    with atomic_path(path, sum(array.nbytes for array in arrays.values())) as part:
        try:
            save_file({name: _plain(array) for name, array in arrays.items()}, part, metadata=metadata)
        except SafetensorError as error:
            raise _system_error(error) from None
        # safetensors makes files for the owner alone; results are shared as the user's umask says.
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)


class ArrayFile:
    """Checked reader of one file of `write_arrays`.

    `file["name"]` reads an array, recomputes its sha256 and raises `DamagedFileError` if it differs.
    `file.kind`, `file.identity`, `file.units` and `file.sha256` (array name -> checksum) are the header's.
    """

    def __init__(self, path: str | os.PathLike[str], *, kind: str, identity: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        try:
            with safe_open(self.path, framework="np") as handle:
                metadata = handle.metadata() or {}
                self.names = tuple(handle.keys())
        except (SafetensorError, OSError) as error:
            raise self._unreadable(error) from None
        header = _parsed(metadata.get("eigendrift", ""))
        if header.get("format") != FORMAT:
            raise DamagedFileError(
                f"{self.path}: format {shown(header.get('format'))}, expected {FORMAT!r}; delete it and run again"
            )
        if header.get("seal") != seal(header) or set(header["sha256"]) != set(self.names):
            raise DamagedFileError(f"{self.path}: its header fails its checksum; delete the file and run again")
        self.kind: str = header["kind"]
        self.identity: dict[str, Any] = header["identity"]
        self.units: dict[str, str] = header["units"]
        self.sha256: dict[str, str] = header["sha256"]
        if self.kind != kind:
            raise DamagedFileError(f"{self.path}: holds {self.kind!r}, expected {kind!r}; delete it and run again")
        for key, value in (identity or {}).items():
            if self.identity.get(key) != value:
                raise DamagedFileError(
                    f"{self.path}: belongs to {key}={self.identity.get(key)!r}, expected {value!r}; "
                    "delete it and run again"
                )
        check_place(self.path, self.identity)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise DamagedFileError(f"{self.path}: has no array {name!r}; it holds {', '.join(self.names)}")
        try:
            with safe_open(self.path, framework="np") as handle:
                array: np.ndarray = handle.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise self._unreadable(error) from None
        if checksum(array) != self.sha256[name]:
            raise DamagedFileError(f"{self.path}: array {name!r} fails its checksum; delete the file and run again")
        return array

    def mapped(self, name: str) -> np.ndarray:
        """The array as `file[name]` gives it, mapped into memory for reading: its pages come when they are needed."""
        if name not in self.names:
            raise DamagedFileError(f"{self.path}: has no array {name!r}; it holds {', '.join(self.names)}")
        try:
            # The format: the length of the header in 8 bytes, the header in JSON, the arrays.
            with open(self.path, "rb") as handle:
                length = int.from_bytes(handle.read(8), "little")
                entry = json.loads(handle.read(length))[name]
            shape, kind = tuple(entry["shape"]), np.dtype(_STORED[entry["dtype"]])
            start = 8 + length + entry["data_offsets"][0]
            # Nothing cannot be mapped.
            empty = 0 in shape
            array = np.empty(shape, kind) if empty else np.memmap(self.path, kind, "r", offset=start, shape=shape)
        except (OSError, ValueError, KeyError) as error:
            raise self._unreadable(error) from None
        if checksum(array) != self.sha256[name]:
            raise DamagedFileError(f"{self.path}: array {name!r} fails its checksum; delete the file and run again")
        return array

    def _unreadable(self, error: Exception) -> DamagedFileError:
        if isinstance(error, FileNotFoundError):
            return DamagedFileError(f"{self.path}: no such file")
        return DamagedFileError(f"{self.path}: damaged or not an array file ({error}); delete it and run again")


def _system_error(error: SafetensorError) -> Exception:
    """The system's error that safetensors met, which it gives as text only."""
    code = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(code[1]), os.strerror(int(code[1]))) if code else error


def _parsed(text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except ValueError:
        return {}
    return header if isinstance(header, dict) else {}
