"""Rows of equal size that are appended to files of a folder, of which a killed process loses the last one at most.

A folder holds a description (a JSON object, written once), one file of rows for each array, and an index with one line
a row. A row counts once its line in the index is complete, and the line is written last. So a reader may open the
folder while rows are added, and whatever a killed process left beyond the index is overwritten. Each line has checksums
of its row, since a machine that loses power may keep the line and lose the data. Nothing is pickled.
"""

import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

try:
    import fcntl
except ImportError:  # Windows has no such locks; there nothing keeps two writers apart.
    fcntl = None  # type: ignore[assignment]

INDEX = "index.jsonl"
LOCK = "lock"

Array = NDArray[Any]


class FolderError(ValueError):
    """A folder does not hold what was expected of it."""


class Rows:
    """Reader of a folder of rows.

    Attributes:
        folder: The folder.
        description: The JSON object that was given when the folder was made.
        index: One JSON object for each complete row.
    """

    def __init__(self, folder: str | os.PathLike[str], description: str) -> None:
        self.folder = Path(folder)
        path = self.folder / description
        try:
            self.description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FolderError(f"{self.folder} has no {description}; give the folder of a Tracker") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise FolderError(f"{path} is damaged: {error}") from None
        self.index = read_index(self.folder)

    def array(self, name: str, shape: tuple[int, ...], dtype: str) -> Array:
        """The complete rows of a file (rows, *shape), mapped into memory and read-only."""
        count = len(self.index)
        if not count:
            return np.empty((0, *shape), dtype)
        path = self.folder / f"{name}.bin"
        needed = count * int(np.prod(shape)) * np.dtype(dtype).itemsize
        if not path.is_file() or path.stat().st_size < needed:
            raise FolderError(f"{path} is shorter than its {count} rows")
        return np.memmap(path, dtype, "r", shape=(count, *shape))

    def check(self, row: int, **arrays: Array) -> None:
        """Compare rows with their checksums.

        Raises:
            FolderError: A row is not what was written.
        """
        for name, array in arrays.items():
            if checksum(array) != self.index[row]["crc32"][name]:
                raise FolderError(f"row {row} of {self.folder / name}.bin is damaged")


def read_index(folder: Path) -> list[dict[str, Any]]:
    """The lines of the complete rows; a line that is being written, or was cut off, does not count."""
    try:
        text = (folder / INDEX).read_bytes()
    except FileNotFoundError:
        return []
    lines = text[: text.rfind(b"\n") + 1].splitlines()
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise FolderError(f"{folder / INDEX} is damaged: {error}") from None


class RowWriter:
    """Appends rows to a folder, which it locks against other writers while it is open."""

    def __init__(self, folder: Path, description: str, made: Mapping[str, Any]) -> None:
        """Make the folder, or go on with one that was made with the same description.

        Args:
            folder: The folder.
            description: Name of the file of the description.
            made: The description.

        Raises:
            FolderError: Another writer is at work in the folder, or its description is another one.
        """
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(folder)
        try:
            path = folder / description
            if path.is_file():
                _refuse_other(path, json.loads(path.read_text(encoding="utf-8")), json.loads(json.dumps(made)))
            else:
                temporary = path.with_suffix(".partial")
                temporary.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
                temporary.replace(path)
            self._files: dict[str, IO[bytes]] = {}
            self.index = read_index(folder)
            self._open_index()
        except BaseException:
            self._lock.close()
            raise

    def _open_index(self) -> None:
        self._index = open(self.folder / INDEX, "ab", buffering=0)  # noqa: SIM115
        self._index.truncate(sum(len(line) for line in map(_line, self.index)))

    def append(self, line: Mapping[str, Any], **arrays: Array) -> None:
        """Add a row.

        Args:
            line: What the index says of it.
            arrays: One array for each file, of the same size in every row.

        Raises:
            OSError: The row could not be written, as on a full disk; it does not count then, and earlier ones do.
        """
        checksums = {}
        for name, array in arrays.items():
            data = _bytes_of(array)
            _write(self._file(name), len(self.index) * len(data), data)
            checksums[name] = checksum(array)
        complete = {**line, "crc32": checksums}
        end = self._index.seek(0, os.SEEK_END)
        try:
            _write(self._index, end, _line(complete))
        except OSError:
            self._index.truncate(end)
            raise
        self.index.append(json.loads(_line(complete)))

    def extend(self, name: str, data: Array) -> int:
        """Add bytes to a file without rows; where they begin."""
        file = self._file(name)
        start = file.seek(0, os.SEEK_END)
        _write(file, start, _bytes_of(data))
        return start

    def drop(self, unwanted: Callable[[dict[str, Any]], bool]) -> int:
        """Remove rows from the end, from the first one on that is unwanted; how many went."""
        kept = next((row for row, line in enumerate(self.index) if unwanted(line)), len(self.index))
        dropped = len(self.index) - kept
        if dropped:
            self._index.close()
            temporary = self.folder / f"{INDEX}.partial"
            temporary.write_bytes(b"".join(map(_line, self.index[:kept])))
            temporary.replace(self.folder / INDEX)
            self.index = self.index[:kept]
            self._open_index()
        return dropped

    def _file(self, name: str) -> IO[bytes]:
        if name not in self._files:
            path = self.folder / f"{name}.bin"
            path.touch()
            self._files[name] = open(path, "r+b", buffering=0)  # noqa: SIM115
        return self._files[name]

    def close(self) -> None:
        """Close the files and let others write; a second call does nothing."""
        for file in (*self._files.values(), self._index, self._lock):
            file.close()


def checksum(array: Array) -> int:
    """CRC-32 of an array's bytes."""
    return zlib.crc32(_bytes_of(array))


def _bytes_of(array: Array) -> memoryview:
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.data.cast("B") if flat.size else memoryview(b"")


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _write(file: IO[bytes], at: int, data: bytes | memoryview) -> None:
    """Write everything: an unbuffered file may take less at a time, and says that the disk is full at the next try."""
    left = memoryview(data)
    file.seek(at)
    while len(left):
        left = left[file.write(left) :]


def _locked(folder: Path) -> IO[bytes]:
    lock = open(folder / LOCK, "ab")  # noqa: SIM115
    if fcntl is not None:
        try:
            # The lock ends with the process, however it ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise FolderError(
                f"{folder} is being written to by another process or tracker; use another folder"
            ) from None
    return lock


def _refuse_other(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key in {**found, **wanted}:
        if found.get(key) != wanted.get(key):
            old, new = _shortened(found.get(key)), _shortened(wanted.get(key))
            raise FolderError(f"{path.parent} was made with {key} = {old}, and not {new}; use another folder")


def _shortened(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 200 else f"{text[:90]} ... {text[-90:]}"
