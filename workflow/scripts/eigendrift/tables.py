"""Tables on disk: CSV files whose first line says what they are and carries a checksum of the rest.

The first line starts with `#`, so `pandas.read_csv(path, comment="#")` and a spreadsheet read them too.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from eigendrift.errors import DamagedFileError
from eigendrift.storage import atomic_path

FORMAT = "eigendrift-table/1"
RUN_COLUMNS = ("dataset", "optimizer", "variant", "seed", "batch_size", "learning_rate")


def write_table(
    path: str | os.PathLike[str],
    frame: pd.DataFrame,
    *,
    kind: str,
    identity: Mapping[str, Any],
    units: Mapping[str, str],
) -> None:
    """Write a table with its kind, its identity (JSON values) and the unit of every column, "1" for a pure number.

    Floats are written with 10 significant digits: more than float32 holds, and the same text on every machine.
    """
    if list(units) != list(frame.columns):
        raise ValueError(f"units are given for {list(units)}, columns are {list(frame.columns)}")
    body = frame.to_csv(index=False, float_format="%.10g", lineterminator="\n").encode()
    header = {
        "format": FORMAT,
        "kind": kind,
        "identity": dict(identity),
        "units": dict(units),
        "rows": len(frame),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    with atomic_path(path) as part:
        part.write_bytes(b"# " + json.dumps(header, sort_keys=False).encode() + b"\n" + body)


def read_header(path: str | os.PathLike[str], *, kind: str) -> dict[str, Any]:
    """The checked header of a table: kind, identity, units, rows, sha256."""
    return _read(Path(path), kind)[0]


def read_table(path: str | os.PathLike[str], *, kind: str) -> pd.DataFrame:
    """Read one table, refusing a file of another kind and one whose content does not match its checksum."""
    header, body = _read(Path(path), kind)
    return pd.read_csv(
        io.BytesIO(body), dtype={c: str for c in header["units"] if c in ("variant", "dataset", "optimizer")}
    )


def read_run_tables(paths: Iterable[str | os.PathLike[str]], *, kind: str) -> pd.DataFrame:
    """Read one table a run and stack them, each row with its run's RUN_COLUMNS in front."""
    frames = []
    for path in paths:
        header, body = _read(Path(path), kind)
        frame = pd.read_csv(io.BytesIO(body))
        for position, column in enumerate(RUN_COLUMNS):
            frame.insert(position, column, header["identity"][column])
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _read(path: Path, kind: str) -> tuple[dict[str, Any], bytes]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DamagedFileError(f"{path}: no such file") from None
    first, _, body = content.partition(b"\n")
    try:
        header = json.loads(first.removeprefix(b"# "))
        known = header["format"] == FORMAT
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise DamagedFileError(
            f"{path}: no {FORMAT} header; empty, damaged or of an older version: delete it and run again"
        )
    if header["kind"] != kind:
        raise DamagedFileError(f"{path}: holds {header['kind']!r}, expected {kind!r}; delete it and run again")
    if hashlib.sha256(body).hexdigest() != header["sha256"]:
        raise DamagedFileError(f"{path}: content fails its checksum; delete it and run again")
    return header, body
