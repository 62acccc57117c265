"""Tables: the same text everywhere, types and names that survive, and refused whatever is wrong with them."""

import json
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from experiments import python
from refusals import refused

from reproduction.errors import DamagedFileError
from reproduction.files.tables import FORMAT, read_header, read_table, read_tables, write_table

IDENTITY = {
    "dataset": "digits",
    "optimizer": "sgd",
    "variant": "main",
    "seed": 3,
    "batch_size": 32,
    "learning_rate": 0.1,
    "steps": 5,
}
FRAME = pd.DataFrame(
    {
        "step": [0, 1, 2**53],
        "loss": [1.5, math.nan, -math.inf],
        "note": ["a, b", 'say "x"', "é\nline"],
        "good": [True, False, True],
    }
)


def write(path: Path, frame: pd.DataFrame = FRAME, **changes: Any) -> Path:
    identity = {**IDENTITY, **changes}
    write_table(path, frame, kind="history", identity=identity, units=dict.fromkeys(frame.columns, "1"))
    return path


def refusal(read: Callable[[], object], path: Path) -> str:
    with pytest.raises(DamagedFileError) as refused:
        read()
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    return message


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "new" / "t.csv")
    pd.testing.assert_frame_equal(read_table(path, kind="history"), FRAME)
    header = read_header(path, kind="history")
    assert (header["format"], header["kind"], header["rows"]) == (FORMAT, "history", 3)
    assert header["identity"] == IDENTITY
    assert header["units"] == {"step": "1", "loss": "1", "note": "1", "good": "1"}
    assert header["types"] == {"step": "integer", "loss": "number", "note": "text", "good": "truth"}


def test_other_programs_read_it_too(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv")
    lines = path.read_bytes().decode().split("\n")
    assert lines[0].startswith('# {"format": ')
    assert lines[1:3] == ["step,loss,note,good", '0,1.5,"a, b",True']
    plain = pd.read_csv(path, comment="#")
    assert list(plain.columns) == list(FRAME.columns)
    assert plain["step"].tolist() == FRAME["step"].tolist()


def test_numbers_keep_ten_digits_and_their_type(tmp_path: Path) -> None:
    values = [0.1, 1 / 3, -1e-300, 1e300, 5e-324, 2.0, 0.0, 123456789.125, math.pi * 1e-8]
    frame = pd.DataFrame({"x": values, "whole": [float(n) for n in range(9)], "n": range(9)})
    found = read_table(write(tmp_path / "t.csv", frame), kind="history")
    np.testing.assert_allclose(found["x"], values, rtol=6e-10)
    # Whole numbers in a column of numbers stay numbers, and float32 values come back to the bit.
    assert [str(dtype) for dtype in found.dtypes] == ["float64", "float64", "int64"]
    single = np.random.default_rng(0).standard_normal(200).astype(np.float32)
    again = read_table(write(tmp_path / "s.csv", pd.DataFrame({"x": single})), kind="history")["x"].to_numpy()
    np.testing.assert_array_equal(again.astype(np.float32), single)


NAMES = ["NA", "nan", "NaN", "null", "None", "inf", "True", "1e5", "007", "N/A", "#a", " x "]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_name_whatever_it_looks_like(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({"first": [name, name], "optimizer": [name, "sgd"], "x": [1.0, math.nan]})
    found = read_table(write(tmp_path / "t.csv", frame), kind="history")
    pd.testing.assert_frame_equal(found, frame)
    runs = read_tables([write(tmp_path / "r.csv", frame[["first", "x"]], optimizer=name)], kind="history")
    assert runs["first"].tolist() == runs["optimizer"].tolist() == [name, name]


def test_missing_values_stay_missing(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"x": [math.nan, 1.0], "name": [None, "a"], "count": [1, None], "mixed": [1, 2.5], "none": [None, None]}
    )
    found = read_table(write(tmp_path / "t.csv", frame), kind="history")
    assert found.isna().to_numpy().tolist() == [[True, True, False, False, True], [False, False, True, False, True]]
    assert found["count"].tolist()[0] == 1
    assert found["mixed"].tolist() == [1.0, 2.5]


def test_empty_tables_keep_the_types_of_their_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame({"step": np.zeros(0, np.int64), "loss": np.zeros(0), "name": pd.Series([], dtype=str)})
    found = read_table(write(tmp_path / "t.csv", frame), kind="history")
    assert len(found) == 0
    assert [str(found[name].dtype) for name in ("step", "loss")] == ["int64", "float64"]
    # Beside a table with rows, the stack has its types.
    full = pd.DataFrame({"step": [1], "loss": [0.5], "name": ["a"]})
    paths = [write(tmp_path / "e.csv", frame, seed=1), write(tmp_path / "f.csv", full)]
    stack = read_tables(paths, kind="history")
    assert len(stack) == 1
    assert [str(stack[name].dtype) for name in ("step", "loss", "seed")] == ["int64", "float64", "int64"]


def test_run_tables_are_stacked_with_their_run_in_front(tmp_path: Path) -> None:
    frame = pd.DataFrame({"step": [0, 1], "loss": [2.0, 1.0]})
    paths = [write(tmp_path / f"{seed}.csv", frame, seed=seed, optimizer=f"o{seed}") for seed in (5, 2)]
    found = read_tables(paths, kind="history")
    assert list(found.columns) == [*IDENTITY, "step", "loss"]
    assert found["seed"].tolist() == [5, 5, 2, 2]
    assert found["optimizer"].tolist() == ["o5", "o5", "o2", "o2"]
    assert found["learning_rate"].tolist() == [0.1] * 4
    assert found.index.tolist() == [0, 1, 2, 3]


def test_units_must_name_every_column_in_order(tmp_path: Path) -> None:
    with refused(ValueError, ["b", "a"], ["a", "b"]):
        write_table(
            tmp_path / "t", pd.DataFrame({"a": [1], "b": [2]}), kind="k", identity={}, units={"b": "1", "a": "1"}
        )
    assert not list(tmp_path.iterdir())


# The same bytes

WRITE = """
import sys, locale, pandas as pd
from reproduction.files.tables import read_table, write_table
try:
    locale.setlocale(locale.LC_ALL, "")
except locale.Error:
    pass
frame = pd.DataFrame({"x": [0.1, 1234567.891, 1e-20], "name": ["ä", "b,c", "d"]})
write_table(sys.argv[1], frame, kind="k", identity={"b": 1, "a": [1.5], "name": "ü"}, units={"x": "1", "name": "1"})
found = read_table(sys.argv[1], kind="k")
assert found["x"].tolist() == [0.1, 1234567.891, 1e-20] and found["name"].tolist() == ["ä", "b,c", "d"]
"""


def test_every_process_writes_the_same_bytes(tmp_path: Path) -> None:
    surroundings = [
        {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
        {"PYTHONHASHSEED": "1", "LC_ALL": "de_DE.UTF-8", "TZ": "Asia/Tokyo", "PYTHONUTF8": "1"},
        {"PYTHONHASHSEED": "2", "LC_ALL": "POSIX"},
    ]
    for number, variables in enumerate(surroundings):
        done = python(WRITE, tmp_path / str(number), **variables)
        assert done.returncode == 0, done.stderr
    assert len({(tmp_path / str(number)).read_bytes() for number in range(len(surroundings))}) == 1


def test_writing_what_was_read_gives_the_same_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv")
    assert write(tmp_path / "b.csv", read_table(path, kind="history")).read_bytes() == path.read_bytes()


def test_a_table_is_complete_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.csv")
    before = path.read_bytes()

    def full_disk(*arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        write(path, FRAME.head(1))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_are_shared_as_the_umask_says(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        path = write(tmp_path / "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


# Refusals


def test_a_missing_table(tmp_path: Path) -> None:
    path = tmp_path / "none.csv"
    for read in (read_table, read_header):
        assert refusal(lambda read=read: read(path, kind="history"), path) == f"{path}: no such file"
    assert refusal(lambda: read_tables([path], kind="history"), path) == f"{path}: no such file"


def test_a_folder_in_the_place_of_a_table(tmp_path: Path) -> None:
    message = refusal(lambda: read_table(tmp_path, kind="history"), tmp_path)
    assert message == f"{tmp_path}: cannot be read (Is a directory)"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"step,loss\n1,2\n",
        b"# \n",
        b"# []\n",
        b"# 3\n",
        b'# "x"\n',
        b"# {}\n",
        b"# {\n",
        b"\xff\xfe\x00\n1",
        b"# \xff\n",
    ],
)
def test_something_else_than_a_table(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    assert "delete it and run again" in refusal(lambda: read_table(path, kind="history"), path)


def test_a_table_of_an_older_version(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv")
    path.write_bytes(path.read_bytes().replace(FORMAT.encode(), b"eigendrift-table/0"))
    assert f"no {FORMAT} header" in refusal(lambda: read_table(path, kind="history"), path)


def test_a_table_of_another_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv")
    for read in (read_table, read_header):
        assert "holds 'history', expected 'ipr'" in refusal(lambda read=read: read(path, kind="ipr"), path)


def test_a_truncated_table_wherever_it_ends(tmp_path: Path) -> None:
    content = write(tmp_path / "a.csv").read_bytes()
    path = tmp_path / "b.csv"
    for length in (*range(0, len(content), 7), len(content) - 1):
        path.write_bytes(content[:length])
        refusal(lambda: read_table(path, kind="history"), path)
    path.write_bytes(content + b"\n")
    refusal(lambda: read_table(path, kind="history"), path)


def test_flipped_bits_are_noticed(tmp_path: Path) -> None:
    content = write(tmp_path / "a.csv").read_bytes()
    path, expected = tmp_path / "b.csv", read_header(tmp_path / "a.csv", kind="history")
    accepted = 0
    # A stride prime to 8, so that every place in a byte has its turn; all of them would take half a minute.
    bits = range(0, 8 * len(content), 19)
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            header = read_header(path, kind="history")
        except DamagedFileError:
            refusal(lambda: read_header(path, kind="history"), path)
        else:
            # Some bits carry nothing: blanks between the words of the first line.
            accepted += 1
            assert header == expected
            pd.testing.assert_frame_equal(read_table(path, kind="history"), FRAME)
    assert accepted < 0.01 * len(bits)


def test_a_changed_header_is_noticed_where_json_still_reads_it(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv")
    first, _, body = path.read_bytes().partition(b"\n")
    header = json.loads(first.removeprefix(b"# "))
    header["identity"]["seed"] = 4
    path.write_bytes(b"# " + json.dumps(header).encode() + b"\n" + body)
    assert "its first line fails its checksum" in refusal(lambda: read_table(path, kind="history"), path)
