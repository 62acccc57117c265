"""A data set in a file of the user's own: an .npz of NumPy with images or other inputs, and labels.

Arrays: `x_train` (n, ...) and `x_test` (m, ...), uint8 from 0 to 255, one sample a row in any shape, channels first;
`y_train` (n,) and `y_test` (m,), whole numbers from 0 to classes - 1. `classes`, one whole number, is needed only where
the training labels lack the highest class. Nothing is unpickled.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def contents(file: str) -> tuple[int, tuple[int, ...], int]:
    """Training samples, shape of one sample, and number of classes of a file; its inputs are not read.

    Raises:
        ValueError: There is no such file, or it does not hold what it should; the message says what.
    """
    path = Path(file).expanduser()
    try:
        found = path.stat()
    except OSError as error:
        raise ValueError(
            f"file {file} cannot be read ({error.strerror}); give an .npz of {', '.join(ARRAYS)}"
        ) from None
    return _contents(os.fspath(path), found.st_mtime_ns, found.st_size)


@cache
def _contents(path: str, _changed: int, _size: int) -> tuple[int, tuple[int, ...], int]:
    # Imported here: the Snakefile of most configurations does without.
    import zipfile

    import numpy as np

    heads: dict[str, tuple[tuple[int, ...], Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    version = np.lib.format.read_magic(member)
                    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
                    read = read or np.lib.format.read_array_header_2_0
                    shape, _, dtype = read(member)
                    heads[name.removesuffix(".npy")] = shape, dtype
        missing = [name for name in ARRAYS if name not in heads]
        if missing:
            raise ValueError(f"it has no array {missing[0]}, but {', '.join(heads) or 'none'}")
        with np.load(path, allow_pickle=False) as file:
            labels = {name: np.asarray(file[name]) for name in ("y_train", "y_test")}
            stated = file["classes"] if "classes" in heads else None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"file {path} is not allowed: {reason}; give an .npz of {', '.join(ARRAYS)}") from None
    return _checked(path, heads, labels, stated)


def _checked(path: str, heads: Any, labels: Any, stated: Any) -> tuple[int, tuple[int, ...], int]:
    def refused(reason: str) -> ValueError:
        return ValueError(f"file {path} is not allowed: {reason}")

    for part in ("train", "test"):
        (shape, dtype), y = heads[f"x_{part}"], labels[f"y_{part}"]
        if dtype.str != "|u1" or len(shape) < 2 or 0 in shape:
            raise refused(f"x_{part} is {dtype} {shape}; give uint8 (samples, ...) from 0 to 255")
        if y.dtype.kind not in "iu" or y.shape != shape[:1]:
            raise refused(f"y_{part} is {y.dtype} {y.shape}; give {shape[0]} whole numbers, one for each of x_{part}")
        if shape[1:] != heads["x_train"][0][1:]:
            raise refused(f"samples of x_train are {heads['x_train'][0][1:]}, and those of x_test {shape[1:]}")
    if stated is not None and (stated.shape != () or stated.dtype.kind not in "iu"):
        raise refused(f"classes is {stated.dtype} {stated.shape}; give one whole number")
    classes = int(labels["y_train"].max()) + 1 if stated is None else int(stated)
    for name, y in labels.items():
        if int(y.min()) < 0 or int(y.max()) >= classes:
            raise refused(
                f"{name} has values from {y.min()} to {y.max()}; with {classes} classes give 0 to {classes - 1}"
            )
    if classes < 2:
        raise refused(f"it has {classes} class; give at least two")
    samples, *shape = heads["x_train"][0]
    return int(samples), tuple(map(int, shape)), classes
