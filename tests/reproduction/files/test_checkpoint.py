"""Progress that survives a kill: only of the same work, and only if it is whole."""

import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from experiments import python

from reproduction.errors import WriteError
from reproduction.files.checkpoint import Scratch, row_sum
from reproduction.jobs.checkout import ROOTS

KEY = {"run": {"lr": 0.1, "seed": 3}, "data": {"inputs": "abc"}, "threads": 1}


def filled(scratch: Scratch, name: str = "rows") -> None:
    array = scratch.array(name, (3, 4))
    array[:] = np.arange(12).reshape(3, 4)
    array.flush()


def test_a_new_array_is_zero_and_fresh(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, "train/run", KEY)
    array = scratch.array("rows", (3, 4))
    assert (array.shape, array.dtype, array.any()) == ((3, 4), np.float32, False)
    assert scratch.fresh
    assert scratch.path("rows.npy").is_file()
    assert scratch.folder.parent == tmp_path / "train" / "run"


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("shape", [(1,), (3, 4), (0, 9), (2, 3, 4)])
def test_a_later_try_finds_what_an_earlier_one_wrote(tmp_path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    first = Scratch(tmp_path, "job", KEY).array("a", shape, dtype)
    first[...] = np.arange(first.size).reshape(shape)
    del first
    again = Scratch(tmp_path, "job", dict(reversed(KEY.items())))
    found = again.array("a", shape, dtype)
    np.testing.assert_array_equal(found, np.arange(found.size, dtype=dtype).reshape(shape), strict=True)
    assert not again.fresh
    found[...] = 7
    np.testing.assert_array_equal(Scratch(tmp_path, "job", KEY).array("a", shape, dtype), np.full(shape, 7, dtype))


WRITE_AND_DIE = """
import os, sys
from reproduction.errors import WriteError
from reproduction.files.checkpoint import Scratch, row_sum
array = Scratch(sys.argv[1], "job", {}).array("rows", (3, 4))
array[1] = 5
os._exit(9)
"""


def test_what_a_killed_process_wrote_is_there(tmp_path: Path) -> None:
    assert python(WRITE_AND_DIE, tmp_path).returncode == 9
    done = python("import sys\nfrom reproduction.files.checkpoint import Scratch\n"
                  "print(Scratch(sys.argv[1], 'job', {}).array('rows', (3, 4)).sum())", tmp_path)  # fmt: skip
    assert done.stdout.strip() == "20.0"


@pytest.mark.parametrize(
    "other",
    [
        {**KEY, "run": {"lr": 0.2, "seed": 3}},
        {**KEY, "data": {"inputs": "abd"}},
        {**KEY, "threads": 2},
        {**KEY, "more": None},
        {},
    ],
)
def test_other_work_starts_anew_and_removes_the_old_progress(tmp_path: Path, other: dict[str, Any]) -> None:
    before = Scratch(tmp_path, "job", KEY)
    filled(before)
    filled(Scratch(tmp_path, "other/job", KEY))
    now = Scratch(tmp_path, "job", other)
    assert now.folder != before.folder
    assert not before.folder.exists()
    assert not now.array("rows", (3, 4)).any()
    # Another job's progress is its own.
    assert Scratch(tmp_path, "other/job", KEY).array("rows", (3, 4)).any()


def test_another_version_of_the_code_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "made_up.py"
    module = ModuleType("reproduction.made_up")
    module.__file__ = str(source)
    monkeypatch.setitem(sys.modules, "reproduction.made_up", module)
    folders = []
    for text in ("x = 1\n", "x = 2\n", "x = 1\n"):
        source.write_text(text)
        folders.append(Scratch(tmp_path / "scratch", "job", KEY).folder)
    assert folders[0] == folders[2] != folders[1]
    torch = ModuleType("torch")
    torch.__version__ = "0.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert Scratch(tmp_path / "scratch", "job", KEY).folder not in folders


def test_an_edit_of_what_cannot_change_a_number_keeps_the_progress(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = Scratch(tmp_path, "job", KEY).folder
    for name in ("reproduction.errors", "reproduction.progress", "reproduction.jobs.lock"):
        module = import_module(name)
        copy = ROOTS["reproduction"] / "jobs" / "not_there.py"
        monkeypatch.setattr(module, "__file__", str(copy))
    # Whose content is not even read.
    assert Scratch(tmp_path, "job", KEY).folder == before


def test_values_that_json_lacks_can_be_part_of_a_key(tmp_path: Path) -> None:
    first = Scratch(tmp_path, "job", {"path": Path("a")}).folder
    assert first == Scratch(tmp_path, "job", {"path": Path("a")}).folder
    assert first != Scratch(tmp_path, "job", {"path": Path("b")}).folder


# Arrays that cannot be used


@pytest.mark.parametrize(
    ("shape", "dtype"), [((4, 3), np.float32), ((3,), np.float32), ((3, 4), np.float64), ((3, 4), np.int32)]
)
def test_an_array_of_another_shape_or_type_is_replaced(tmp_path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    filled(Scratch(tmp_path, "job", KEY))
    again = Scratch(tmp_path, "job", KEY)
    found = again.array("rows", shape, dtype)
    assert (found.shape, found.dtype, found.any()) == (shape, dtype, False)
    assert again.fresh


def test_an_array_in_fortran_order_is_replaced(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, "job", KEY)
    np.save(scratch.path("rows.npy"), np.asfortranarray(np.ones((3, 4), np.float32)))
    assert not scratch.array("rows", (3, 4)).any()


def damages() -> dict[str, Any]:
    return {
        "empty": lambda content: b"",
        "short by one byte": lambda content: content[:-1],
        "header alone": lambda content: content[:128],
        "half a header": lambda content: content[:60],
        "text": lambda content: b"not an array",
        "zeros": lambda content: bytes(len(content)),
        "a pickle": lambda content: b"\x80\x04K\x01.",
        "huge shape": lambda content: content.replace(b"(3, 4)", b"(9**9,").replace(b"9**9", b"9999"),
        "unbalanced header": lambda content: content.replace(b"(3, 4)", b"((3, 4"),
    }


@pytest.mark.parametrize("kind", sorted(damages()))
def test_a_damaged_array_is_replaced(tmp_path: Path, kind: str) -> None:
    scratch = Scratch(tmp_path, "job", KEY)
    filled(scratch)
    path = scratch.path("rows.npy")
    damaged = damages()[kind](path.read_bytes())
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    again = Scratch(tmp_path, "job", KEY)
    found = again.array("rows", (3, 4))
    assert (found.shape, found.dtype, found.any()) == ((3, 4), np.float32, False)
    assert again.fresh
    found[:] = 3
    assert Scratch(tmp_path, "job", KEY).array("rows", (3, 4)).min() == 3


def test_any_flipped_bit_of_a_header_gives_a_usable_array(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, "job", KEY)
    filled(scratch)
    path = scratch.path("rows.npy")
    content = path.read_bytes()
    replaced = 0
    for bit in range(0, 8 * 100, 5):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        again = Scratch(tmp_path, "job", KEY)
        found = again.array("rows", (3, 4))
        assert (found.shape, found.dtype) == ((3, 4), np.float32)
        assert again.fresh != bool(found.any())
        assert path.stat().st_size == len(content)
        replaced += again.fresh
    assert replaced > 60


def test_an_array_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = Scratch(tmp_path, "job", KEY)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            scratch.array("rows", (3, 4))
    assert not scratch.path("rows.npy").exists()
    assert scratch.array("rows", (3, 4)).shape == (3, 4)


def test_discarding_removes_a_jobs_scratch_alone(tmp_path: Path) -> None:
    filled(Scratch(tmp_path, "train/a", KEY))
    filled(Scratch(tmp_path, "train/b", KEY))
    Scratch.discard(tmp_path, "train/a")
    Scratch.discard(tmp_path, "train/never-there")
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["b"]


# Files with a checksum, and room that is taken beforehand


def test_a_file_comes_back_whole_or_not_at_all(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, "job", KEY)
    assert scratch.read("note") is None
    for content in (b"", b"first", bytes(range(256)) * 9):
        scratch.write("note", content)
        assert scratch.read("note") == content
    whole = scratch.path("note").read_bytes()
    for damaged in (b"", whole[:10], whole[:-1], whole + b"x", bytes(len(whole)), whole[:-1] + b"x"):
        scratch.path("note").write_bytes(damaged)
        assert scratch.read("note") is None
    assert [path.name for path in scratch.folder.iterdir()] == ["note"]


def test_an_arrays_room_is_taken_when_it_is_made(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, "job", KEY)
    scratch.array("rows", (1000, 1000))
    # A sparse file would have a few blocks; a page that finds no room later kills the process without a word.
    assert scratch.path("rows.npy").stat().st_blocks * 512 >= 4_000_000


FULL = """
import resource, sys
from reproduction.errors import EigendriftError
from reproduction.files.checkpoint import Scratch
scratch = Scratch(sys.argv[1], "job", {})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for call in (lambda: scratch.array("rows", (1000, 1000)), lambda: scratch.write("note", bytes(200_000))):
    try:
        call()
    except EigendriftError as error:
        print(error)
print(sorted(path.name for path in scratch.folder.iterdir()))
"""


def test_room_that_is_refused_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = python(FULL, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, second, left = done.stdout.splitlines()
    assert "rows.npy: " in first
    assert "4 MB" in first
    assert "note: " in second
    assert "0.2 MB" in second
    assert left == "[]"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "job").write_text("")
    with pytest.raises(WriteError, match=r"job/.*: cannot be written"):
        Scratch(tmp_path, "job", KEY)


def test_a_rows_checksum_tells_every_change() -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    sums = [row_sum(rows), row_sum(rows[:2]), row_sum(rows[::-1]), row_sum(rows + 1), row_sum(), row_sum(rows * 0)]
    assert len(set(sums)) == len(sums)
    assert row_sum(rows[:2], rows[2]) == row_sum(rows) == row_sum(np.asfortranarray(rows))
