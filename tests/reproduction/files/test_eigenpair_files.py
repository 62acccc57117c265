"""Files of eigenpairs: rows of pairs, whatever their number at each snapshot."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reproduction.errors import DamagedFileError
from reproduction.files.eigenpairs import INTEGERS, UNITS, map_run, read_pairs, read_run, run_identity, write_pairs

IDENTITY = {"dataset": "digits", "optimizer": "sgd", "variant": "main", "seed": 0, "diverged_at": None}
N = 5


def pairs(steps_and_k: list[tuple[int, int]], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and vectors in the order that `snapshots.solve` gives."""
    random = np.random.default_rng(seed)
    keys = [(step, i) for step, k in steps_and_k for i in range(1, k + 1)]
    numbers = random.random((len(keys), len(UNITS)))
    whole = [list(UNITS).index(name) for name in INTEGERS]
    for row, (step, i) in enumerate(keys):
        numbers[row, whole] = step, i, row % 3 % 2, 20 + step, row % 2
    return numbers, random.standard_normal((len(keys), N)).astype(np.float32)


def write(path: Path, steps_and_k: list[tuple[int, int]], **identity: Any) -> tuple[np.ndarray, np.ndarray]:
    made = pairs(steps_and_k, seed=len(steps_and_k))
    write_pairs(path, *made, {**IDENTITY, **identity})
    return made


def test_pairs_come_back_with_their_types(tmp_path: Path) -> None:
    numbers, vectors = write(tmp_path / "p", [(0, 3), (10, 1), (20, 3)])
    frame, found = read_pairs(tmp_path / "p")
    assert list(frame.columns) == list(UNITS)
    np.testing.assert_array_equal(frame.to_numpy(), numbers)
    np.testing.assert_array_equal(found, vectors, strict=True)
    assert {name: str(frame[name].dtype) for name in UNITS} == {
        name: "int64" if name in INTEGERS else "float64" for name in UNITS
    }
    assert frame["step"].tolist() == [0, 0, 0, 10, 20, 20, 20]
    assert frame["i"].tolist() == [1, 2, 3, 1, 1, 2, 3]


def test_large_steps_are_exact(tmp_path: Path) -> None:
    numbers, vectors = pairs([(10**9, 1)])
    write_pairs(tmp_path / "p", numbers, vectors, IDENTITY)
    assert read_pairs(tmp_path / "p")[0]["step"].tolist() == [10**9]


def test_pairs_beyond_an_index_are_left_out(tmp_path: Path) -> None:
    numbers, vectors = write(tmp_path / "p", [(0, 4), (10, 2)])
    frame, found = read_pairs(tmp_path / "p", largest_index=2)
    kept = [0, 1, 4, 5]
    np.testing.assert_array_equal(frame.to_numpy(), numbers[kept])
    np.testing.assert_array_equal(found, vectors[kept])
    assert frame.index.tolist() == [0, 1, 2, 3]


def test_the_chunks_of_a_run_are_one(tmp_path: Path) -> None:
    whole = [write(tmp_path / "0", [(0, 3), (10, 2)], chunk=0), write(tmp_path / "1", [(20, 3)], chunk=1)]
    frame, vectors = read_run([tmp_path / "0", tmp_path / "1"])
    np.testing.assert_array_equal(frame.to_numpy(), np.concatenate([numbers for numbers, _ in whole]))
    np.testing.assert_array_equal(vectors, np.concatenate([part for _, part in whole]))
    assert frame.index.tolist() == list(range(8))
    assert frame["step"].is_monotonic_increasing
    few, _ = read_run([tmp_path / "0", tmp_path / "1"], largest_index=1)
    assert few["step"].tolist() == [0, 10, 20]


def test_a_chunk_without_snapshots(tmp_path: Path) -> None:
    """A run that diverged has fewer snapshots than were planned."""
    write(tmp_path / "0", [(0, 2)], chunk=0)
    write(tmp_path / "1", [], chunk=1)
    frame, vectors = read_pairs(tmp_path / "1")
    assert (len(frame), vectors.shape) == (0, (0, N))
    frame, vectors = read_run([tmp_path / "0", tmp_path / "1"])
    assert (len(frame), vectors.shape) == (2, (2, N))
    assert {str(frame[name].dtype) for name in INTEGERS} == {"int64"}
    empty, vectors = read_run([tmp_path / "1"], largest_index=3)
    assert (len(empty), vectors.shape) == (0, (0, N))


def test_a_file_knows_its_run(tmp_path: Path) -> None:
    write(tmp_path / "p", [(0, 1)], chunk=4)
    assert run_identity([tmp_path / "p"]) == IDENTITY


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"")
    for read in (read_pairs, lambda path: run_identity([path]), lambda path: read_run([path])):
        with pytest.raises(DamagedFileError, match="damaged"):
            read(tmp_path / "p")


def test_a_run_without_chunks_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one chunk"):
        run_identity([])


def test_a_run_is_mapped_chunk_by_chunk(tmp_path: Path) -> None:
    first, second = write(tmp_path / "0", [(0, 3), (10, 1)]), write(tmp_path / "1", [(20, 2)])
    write(tmp_path / "2", [])
    frame, arrays = map_run(tmp_path / name for name in ("0", "1", "2"))
    np.testing.assert_array_equal(frame.to_numpy(), np.concatenate([first[0], second[0]]))
    assert [array.shape for array in arrays] == [(4, N), (2, N), (0, N)]
    for found, (_, written) in zip(arrays, (first, second), strict=False):
        assert isinstance(found, np.memmap)
        np.testing.assert_array_equal(found, written, strict=True)
