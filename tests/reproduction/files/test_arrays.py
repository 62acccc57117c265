"""Array files: complete or absent, the same bytes everywhere, and refused whatever is wrong with them."""

import errno
import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiments import python
from refusals import refused
from safetensors.numpy import save_file

from reproduction.errors import DamagedFileError, WriteError
from reproduction.files.arrays import FORMAT, ArrayFile, checksum, write_arrays
from reproduction.files.atomic import atomic_path, cannot_write
from reproduction.files.header import seal

ARRAYS = {
    "steps": np.arange(3),
    "weights": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "mask": np.array([True, False, True]),
}
UNITS = {"steps": "training steps", "weights": "1", "mask": "1"}
IDENTITY = {"dataset": "digits", "seed": 3, "learning_rate": 0.1, "diverged_at": None, "layers": [["0.weight", [3, 4]]]}


def write(path: Path, arrays: dict[str, Any] | None = None, identity: dict[str, Any] | None = None) -> Path:
    arrays = ARRAYS if arrays is None else arrays
    units = {name: UNITS.get(name, "1") for name in arrays}
    write_arrays(path, arrays, kind="trajectory", identity=IDENTITY if identity is None else identity, units=units)
    return path


def refusal(read: Callable[[], object], path: Path) -> str:
    with pytest.raises(DamagedFileError) as refused:
        read()
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    return message


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = ArrayFile(
        write(tmp_path / "new" / "a.safetensors"), kind="trajectory", identity={"seed": 3, "diverged_at": None}
    )
    assert file.identity == IDENTITY
    assert file.units == UNITS
    assert set(file.names) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(file[name], array, strict=True)
        assert file.sha256[name] == checksum(array)


@pytest.mark.parametrize(
    "array",
    [
        np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324]),
        np.array(3.5),
        np.zeros((0, 5), np.float32),
        np.zeros(0),
        np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(10)[::3],
        np.arange(5, dtype=">f4"),
        np.arange(5, dtype=">i8"),
        np.array([0, 255], np.uint8),
        np.array([-(2**63), 2**63 - 1]),
        np.array([1.5, np.nan], np.float16),
    ],
    ids=str,
)
def test_arrays_of_every_layout_come_back(tmp_path: Path, array: np.ndarray) -> None:
    file = ArrayFile(write(tmp_path / "a", {"x": array}), kind="trajectory")
    for found in (file["x"], file.mapped("x")):
        np.testing.assert_array_equal(found, array)
        assert found.shape == array.shape
        assert found.dtype == array.dtype.newbyteorder("=")


def test_a_mapped_array_is_read_only_and_refused_where_it_was_altered(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    mapped = ArrayFile(path, kind="trajectory").mapped("weights")
    assert isinstance(mapped, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 1
    file, content = ArrayFile(path, kind="trajectory"), bytearray(path.read_bytes())
    place = content.index(ARRAYS["weights"].tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert "'weights' fails its checksum" in refusal(lambda: file.mapped("weights"), path)
    np.testing.assert_array_equal(file.mapped("steps"), ARRAYS["steps"])
    assert "has no array 'other'" in refusal(lambda: file.mapped("other"), path)


def test_memory_maps_are_written_too(tmp_path: Path) -> None:
    mapped = np.lib.format.open_memmap(tmp_path / "m.npy", mode="w+", dtype=np.float32, shape=(3, 2))
    mapped[:] = 7
    np.testing.assert_array_equal(
        ArrayFile(write(tmp_path / "a", {"x": mapped[:2]}), kind="trajectory")["x"], mapped[:2]
    )


def test_checksums_tell_values_types_and_shapes_apart() -> None:
    a = np.arange(6, dtype=np.float32)
    sums = [
        checksum(x) for x in (a, a + 1, a.reshape(2, 3), a.reshape(3, 2), a.view(np.int32), a.view(np.uint8), a[:0])
    ]
    assert len(set(sums)) == len(sums)
    assert checksum(a) == checksum(a.astype(">f4")) == checksum(np.asfortranarray(a))


def test_units_must_name_every_array(tmp_path: Path) -> None:
    with refused(ValueError, ["b"], ["a"]):
        write_arrays(tmp_path / "x", {"a": np.zeros(1)}, kind="k", identity={}, units={"b": "1"})
    assert not list(tmp_path.iterdir())


# The same bytes

WRITE = """
import sys, numpy as np
from reproduction.files.arrays import write_arrays
names = ["steps", "weights", "gradients", "updates", "a", "b", "c"]
identity = {name: position for position, name in enumerate(reversed(names))}
arrays = {name: np.arange(5) + len(name) for name in names}
write_arrays(sys.argv[1], arrays, kind="k", identity=identity, units={name: "1" for name in names})
"""


def test_every_process_writes_the_same_bytes(tmp_path: Path) -> None:
    surroundings = [
        {"PYTHONHASHSEED": "0", "LC_ALL": "C"},
        {"PYTHONHASHSEED": "1", "LC_ALL": "de_DE.UTF-8", "TZ": "Asia/Tokyo"},
        {"PYTHONHASHSEED": "2", "PYTHONUTF8": "0"},
    ]
    for number, variables in enumerate(surroundings):
        assert python(WRITE, tmp_path / str(number), **variables).returncode == 0
    assert len({(tmp_path / str(number)).read_bytes() for number in range(len(surroundings))}) == 1


# Complete or absent


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def fail(part: Path) -> None:
        part.write_text("half")
        assert path.read_text() == "before"
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"), atomic_path(path) as part:
        fail(part)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "before"
    with atomic_path(path) as part:
        assert part.parent == path.parent
        part.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_writer_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file"):
        pass
    assert not list(tmp_path.iterdir())


def test_what_a_killed_try_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".a.part").write_bytes(b"x" * 10_000)
    file = ArrayFile(write(tmp_path / "a"), kind="trajectory")
    np.testing.assert_array_equal(file["steps"], [0, 1, 2])
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_an_array_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 -- whatever safetensors raises
        write(tmp_path / "a", {"x": np.array(["text", None], dtype=object)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_files_are_shared_as_the_umask_says(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        path = write(tmp_path / "a")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


# Disks that are full, folders that are another's

LIMITED = """
import resource, sys, numpy as np, pandas as pd
from pathlib import Path
from reproduction.errors import EigendriftError
from reproduction.files.atomic import atomic_path; from reproduction.files.arrays import write_arrays
from reproduction.files.tables import write_table
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
def arrays(path):
    write_arrays(path, {"x": np.zeros(1_000_000)}, kind="k", identity={}, units={"x": "1"})
def table(path):
    write_table(path, pd.DataFrame({"x": np.arange(100_000) / 7}), kind="k", identity={}, units={"x": "1"})
def file(path):
    with atomic_path(path) as part:
        part.write_bytes(bytes(200_000))
try:
    globals()[sys.argv[2]](Path(sys.argv[1]))
except EigendriftError as error:
    print(error)
"""


@pytest.mark.parametrize(("kind", "need"), [("arrays", "it needs 8 MB; "), ("table", "it needs 1."), ("file", "")])
def test_a_file_that_the_system_refuses_is_named_with_what_it_needs(tmp_path: Path, kind: str, need: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    done = python(LIMITED, path, kind)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{path}: cannot be written (File too large); {need}")
    assert "ulimit -f" in line
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"before"


def test_a_full_device_is_named_with_what_is_free(tmp_path: Path) -> None:
    # The system's own full disk.
    (tmp_path / ".file.part").symlink_to("/dev/full")
    with pytest.raises(WriteError) as refused, atomic_path(tmp_path / "file", 3_000_000) as part:
        part.write_bytes(b"content")
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / 'file'}: cannot be written (No space left on device); it needs 3 MB; ")
    assert message.endswith(" MB are free there: make room and run again")
    assert not list(tmp_path.iterdir())


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "folder").write_bytes(b"")
    with pytest.raises(
        WriteError, match=r"folder/file: cannot be written \(.*\); make .*folder a folder that you can "
    ):
        write(tmp_path / "folder" / "file")


def test_an_error_of_something_else_is_reported_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="source"), atomic_path(tmp_path / "file") as part:
        part.write_bytes((tmp_path / "source").read_bytes())
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError), atomic_path(tmp_path / "file"):
        (tmp_path / "folder").read_bytes()


# Refusals


def read_all(path: Path) -> dict[str, np.ndarray]:
    file = ArrayFile(path, kind="trajectory", identity={"seed": 3})
    read = {name: file[name] for name in file.names}
    for name, array in read.items():
        np.testing.assert_array_equal(file.mapped(name), array, strict=True)
    return read


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none"
    assert refusal(lambda: ArrayFile(path, kind="trajectory"), path) == f"{path}: no such file"


def test_a_file_that_goes_while_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    file = ArrayFile(path, kind="trajectory")
    path.unlink()
    assert refusal(lambda: file["steps"], path) == f"{path}: no such file"
    assert refusal(lambda: file.mapped("steps"), path) == f"{path}: no such file"
    path.write_bytes(b"")
    assert "damaged" in refusal(lambda: file["steps"], path)
    assert "damaged" in refusal(lambda: file.mapped("steps"), path)


def test_a_folder(tmp_path: Path) -> None:
    assert "damaged or not an array file" in refusal(lambda: ArrayFile(tmp_path, kind="trajectory"), tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"{}", b"step,loss\n1,2\n", b"\xff" * 1000])
def test_something_else_than_an_array_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    assert "delete it and run again" in refusal(lambda: ArrayFile(path, kind="trajectory"), path)


def test_a_truncated_file_wherever_it_ends(tmp_path: Path) -> None:
    content = write(tmp_path / "a").read_bytes()
    path = tmp_path / "b"
    for length in range(0, len(content), 13):
        path.write_bytes(content[:length])
        refusal(lambda: read_all(path), path)
    path.write_bytes(content + b"\0")
    refusal(lambda: read_all(path), path)


def test_flipped_bits_are_noticed(tmp_path: Path) -> None:
    content = write(tmp_path / "a").read_bytes()
    path, expected = tmp_path / "b", read_all(tmp_path / "a")
    accepted = 0
    # A stride prime to 8, so that every place in a byte has its turn; all of them would take half a minute.
    bits = range(0, 8 * len(content), 19)
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = read_all(path)
        except DamagedFileError:
            refusal(lambda: read_all(path), path)
        else:
            # Some bits carry nothing: blanks between the words of the header.
            accepted += 1
            assert {n: (a.dtype, a.shape, a.tobytes()) for n, a in found.items()} == {
                n: (a.dtype, a.shape, a.tobytes()) for n, a in expected.items()
            }
            assert ArrayFile(path, kind="trajectory").identity == IDENTITY
            assert ArrayFile(path, kind="trajectory").units == UNITS
    assert accepted < 0.01 * len(bits)


def test_another_kind_and_another_identity(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    message = refusal(lambda: ArrayFile(path, kind="eigenpairs"), path)
    assert "holds 'trajectory', expected 'eigenpairs'" in message
    message = refusal(lambda: ArrayFile(path, kind="trajectory", identity={"dataset": "digits", "seed": 4}), path)
    assert "seed=3, expected 4" in message
    assert "belongs to other=None, expected 1" in refusal(
        lambda: ArrayFile(path, kind="trajectory", identity={"other": 1}), path
    )


def test_an_array_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    message = refusal(lambda: ArrayFile(path, kind="trajectory")["gradients"], path)
    assert "has no array 'gradients'; it holds " in message
    assert "weights" in message


def test_a_file_of_another_program_and_of_an_older_version(tmp_path: Path) -> None:
    foreign, older = tmp_path / "foreign", tmp_path / "older"
    save_file({"steps": np.arange(3)}, foreign)
    assert "format None, expected 'eigendrift-arrays/" in refusal(
        lambda: ArrayFile(foreign, kind="trajectory"), foreign
    )
    header: dict[str, Any] = {
        "format": "eigendrift-arrays/0",
        "kind": "trajectory",
        "identity": {},
        "units": {},
        "sha256": {},
    }
    save_file({"steps": np.arange(3)}, older, metadata={"eigendrift": json.dumps(header)})
    assert f"format 'eigendrift-arrays/0', expected {FORMAT!r}" in refusal(
        lambda: ArrayFile(older, kind="trajectory"), older
    )
    for nonsense in ("[]", "3", "null", "{", '"text"', '{"format": []}'):
        save_file({"steps": np.arange(3)}, older, metadata={"eigendrift": nonsense})
        refusal(lambda: ArrayFile(older, kind="trajectory"), older)


def test_a_seal_does_not_depend_on_the_order_or_the_types_of_keys() -> None:
    assert seal({"a": 1, "b": {10: (1, 2), 9: None}}) == seal({"b": {"9": None, "10": [1, 2]}, "a": 1, "seal": "x"})
    assert seal({"a": 1}) != seal({"a": 2})
    assert seal({"a": 1}) != seal({"a": 1.5})


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "it needs 5 MB; .* MB are free there: make room and run again"),
        (errno.EDQUOT, "it needs 5 MB; your quota there is used up: make room and run again"),
        (errno.EFBIG, "it needs 5 MB; a limit on the size of files forbids it: see `ulimit -f`"),
        (errno.EACCES, "make .* a folder that you can write to and run again"),
    ],
)
def test_a_file_that_cannot_be_written_says_what_to_do(number: int, hint: str, tmp_path: Path) -> None:
    error = cannot_write(tmp_path / "a.csv", OSError(number, os.strerror(number)), 5_000_000)
    assert re.search(f"a.csv: cannot be written \\({os.strerror(number)}\\); {hint}", str(error))
