"""Tables on disk: CSV files whose first line says what they are and carries checksums of itself and of the lines below.

The first line starts with `#`, so `pandas.read_csv(path, comment="#")` and a spreadsheet read them too.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reproduction.errors import DamagedFileError
from reproduction.experiment.table_catalogue import TABLES
from reproduction.files.atomic import atomic_path
from reproduction.files.header import seal
from reproduction.files.identity import check_agreement, check_place

FORMAT = "eigendrift-table/2"
_TYPES = {"integer": np.int64, "number": np.float64, "truth": bool, "text": str}
RUN_KEY = ["dataset", "optimizer", "variant", "seed"]
# What a file says of whose it is, and what its reader puts in front of its rows.
WHOSE = (*RUN_KEY, "batch_size", "learning_rate", "steps", "n_parameters", "n_train")


def write_table(
    path: str | os.PathLike[str],
    frame: pd.DataFrame,
    *,
    kind: str,
    identity: Mapping[str, Any],
    units: Mapping[str, str] | None = None,
) -> None:
    """Write a table with its kind, its identity (JSON values) and the unit of every column, "1" for a pure number.

    Without `units`, they are those of the catalogue of tables.
    Floats are written with 10 significant digits: more than float32 holds, and the same text on every machine.
    """
    units = TABLES[kind].units if units is None else units
    if list(units) != list(frame.columns):
        raise ValueError(f"units are given for {list(units)}, columns are {list(frame.columns)}")
    body = frame.to_csv(index=False, float_format="%.10g", lineterminator="\n").encode()
    header = {
        "format": FORMAT,
        "kind": kind,
        "identity": dict(identity),
        "units": dict(units),
        "types": {str(name): found for name in frame.columns if (found := _type(frame[name]))},
        "rows": len(frame),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    content = b"# " + json.dumps({**header, "seal": seal(header)}).encode() + b"\n" + body
    with atomic_path(path, len(content)) as part:
        part.write_bytes(content)


def _type(column: "pd.Series[Any]") -> str | None:
    """A column's type, of _TYPES; None for one without values, whose type is not known."""
    inferred = pd.api.types.infer_dtype(column, skipna=True)
    if inferred == "integer":
        return "number" if column.isna().any() else "integer"
    if inferred == "boolean":
        return None if column.isna().any() else "truth"
    return {"floating": "number", "mixed-integer-float": "number", "string": "text"}.get(inferred)


def read_header(path: str | os.PathLike[str], *, kind: str) -> dict[str, Any]:
    """The checked header of a table: kind, identity, units, types, rows, sha256."""
    return _read(Path(path), kind)[0]


def read_table(path: str | os.PathLike[str], *, kind: str) -> pd.DataFrame:
    """Read one table, refusing a file of another kind and one whose content does not match its checksum."""
    return _frame(*_read(Path(path), kind))


def read_tables(paths: Iterable[str | os.PathLike[str]], *, kind: str, keep_empty: bool = False) -> pd.DataFrame:
    """Stack tables of one kind, of runs or of data sets, each row with what its file's identity has of WHOSE in front.

    `steps` is the planned number. With `keep_empty`, the table of a run without rows (it diverged at once) is one
    row whose own columns are missing. Refuses tables of different experiments: `check_agreement`.
    """
    frames, identities = [], {}
    for path in paths:
        header, body = _read(Path(path), kind)
        identities[Path(path)] = header["identity"]
        frame = _frame(header, body)
        whose = {name: header["identity"][name] for name in WHOSE if name in header["identity"]}
        for position, name in enumerate(name for name in whose if name not in frame):
            frame.insert(position, name, whose[name])
        frames.append(frame)
    check_agreement(identities)
    filled = [frame for frame in frames if len(frame)]
    # Columns of an empty table have no type, which the stack would inherit.
    stack = pd.concat(filled or frames, ignore_index=True).infer_objects()
    wanted = pd.DataFrame([{name: whose[name] for name in WHOSE if name in whose} for whose in identities.values()])
    if not keep_empty or len(filled) == len(frames) or not set(RUN_KEY) <= set(wanted.columns):
        return stack
    own = {name: np.float64 for name in stack.columns.difference(wanted.columns) if not filled}
    found = stack.drop(columns=wanted.columns.difference(RUN_KEY)).astype(dict(wanted[RUN_KEY].dtypes) | own)
    return wanted.merge(found, how="left", on=RUN_KEY)


def _frame(header: Mapping[str, Any], body: bytes) -> pd.DataFrame:
    types = {name: _TYPES[kind] for name, kind in header["types"].items()}
    # What is empty is missing, and nothing else: an optimizer may be called NA or null.
    return pd.read_csv(io.BytesIO(body), dtype=types, keep_default_na=False, na_values=[""])


def _read(path: Path, kind: str) -> tuple[dict[str, Any], bytes]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DamagedFileError(f"{path}: no such file") from None
    except OSError as error:
        raise DamagedFileError(f"{path}: cannot be read ({error.strerror})") from None
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
    if header.get("seal") != seal(header):
        raise DamagedFileError(f"{path}: its first line fails its checksum; delete the file and run again")
    if header["kind"] != kind:
        raise DamagedFileError(f"{path}: holds {header['kind']!r}, expected {kind!r}; delete it and run again")
    if hashlib.sha256(body).hexdigest() != header["sha256"]:
        raise DamagedFileError(f"{path}: content fails its checksum; delete it and run again")
    check_place(path, header["identity"])
    return header, body
