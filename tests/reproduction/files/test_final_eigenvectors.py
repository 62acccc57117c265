"""What is kept of v_1 itself: which snapshots, and what float16 costs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eigendrift.metrics import Floats, inverse_participation_ratio
from reproduction.errors import DamagedFileError
from reproduction.files.arrays import write_arrays
from reproduction.files.final_eigenvectors import (
    halved,
    read_final_eigenvectors,
    typical_snapshot,
    write_final_eigenvectors,
)

N = 89_720
IDENTITY = {"dataset": "digits", "optimizer": "adam", "variant": "main", "seed": 0}
LAYERS = [["0.weight", [100, 897]], ["0.bias", [20]]]


def realistic(seed: int, spread: float) -> Floats:
    """A unit vector with entries over many sizes, as localized ones have, and a tenth of zeros."""
    random = np.random.default_rng(seed)
    v = random.standard_normal(N) * np.exp(spread * random.standard_normal(N)) * (random.random(N) > 0.1)
    result: Floats = v / np.linalg.norm(v)
    return result


@pytest.mark.parametrize("spread", [0.5, 2.0, 4.0])
def test_float16_keeps_the_ipr_and_small_entries(tmp_path: Path, spread: float) -> None:
    v = np.stack([realistic(0, spread), realistic(1, spread)])
    exact = inverse_participation_ratio(v)
    write_final_eigenvectors(tmp_path / "v", v, [100, 90], exact.tolist(), LAYERS, IDENTITY)
    found = read_final_eigenvectors(tmp_path / "v")
    assert (tmp_path / "v").stat().st_size < 2 * 2 * N + 3000
    np.testing.assert_allclose(inverse_participation_ratio(found.vectors), exact, rtol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-12)
    # Eleven binary digits, down to 2e-9 of the largest entry.
    large = np.abs(v) > 4e-9 * np.abs(v).max(axis=1, keepdims=True)
    np.testing.assert_allclose(found.vectors[large], v[large], rtol=1e-3)
    assert (found.vectors[v == 0] == 0).all()
    assert found.steps == (100, 90)
    assert found.iprs == pytest.approx(exact.tolist())
    assert found.layers == (("0.weight", (100, 897)), ("0.bias", (20,)))
    np.testing.assert_array_equal(found.last, found.vectors[0])


def test_one_parameter_alone_and_tiny_norms_are_exact() -> None:
    for size in (1.0, 1e-30):
        stored, scales = halved([[size, 0.0, -size / 2]])
        np.testing.assert_allclose(stored.astype(np.float64) * scales[:, None], [[size, 0.0, -size / 2]], rtol=5e-4)
        assert np.isfinite(stored).all()


def test_a_run_without_a_snapshot_has_no_rows(tmp_path: Path) -> None:
    write_final_eigenvectors(tmp_path / "v", np.zeros((0, 10)), [], [], LAYERS, IDENTITY)
    found = read_final_eigenvectors(tmp_path / "v")
    assert found.vectors.shape == (0, 10)
    assert found.last.size == 0
    assert found.steps == found.iprs == ()


def test_a_file_of_one_vector_is_read_too(tmp_path: Path) -> None:
    vector = np.array([0.6, 0.8], np.float32)
    for rows, array in ((1, vector), (0, vector[:0])):
        identity = {**IDENTITY, "layers": [["0.weight", [1, 2]]]}
        write_arrays(
            tmp_path / "v", {"vector": array}, kind="final_eigenvector", identity=identity, units={"vector": "1"}
        )
        found = read_final_eigenvectors(tmp_path / "v")
        assert len(found.vectors) == rows
        np.testing.assert_allclose(found.last, array, rtol=1e-6)


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    write_final_eigenvectors(tmp_path / "v", realistic(0, 1.0)[None], [1], [0.1], LAYERS, IDENTITY)
    content = bytearray((tmp_path / "v").read_bytes())
    content[-1000] ^= 1
    (tmp_path / "v").write_bytes(content)
    with pytest.raises(DamagedFileError, match="checksum"):
        read_final_eigenvectors(tmp_path / "v")


@pytest.mark.parametrize(
    ("steps", "iprs", "every", "expected"),
    [
        # The last tenth of 100 steps: 90, 95, 100; of the grid of 5 all three.
        ([0, 85, 90, 95, 100], [9.0, 9.0, 3.0, 1.0, 2.0], 5, 4),
        # 95 is not on the grid of 10: of two values the lower.
        ([0, 85, 90, 95, 100], [9.0, 9.0, 3.0, 1.0, 2.0], 10, 4),
        ([0, 85, 90, 95, 100], [9.0, 9.0, 1.0, 1.0, 2.0], 10, 2),
        # The last one is there although the grid misses it.
        ([0, 30, 61], [5.0, 1.0, 2.0], 30, 2),
        ([0], [5.0], 30, 0),
        # Of equal ones the first.
        ([90, 95, 100], [1.0, 1.0, 1.0], 5, 1),
    ],
)
def test_the_typical_snapshot_is_the_median_of_the_last_tenth(
    steps: list[int], iprs: list[float], every: int, expected: int
) -> None:
    assert typical_snapshot(steps, iprs, every) == expected


@pytest.mark.parametrize(("steps", "iprs"), [([], []), ([0, 1], [1.0]), ([0], [np.nan])])
def test_no_snapshots_have_no_typical_one(steps: Any, iprs: Any) -> None:
    with pytest.raises(ValueError, match="steps and iprs"):
        typical_snapshot(steps, iprs, 1)


@pytest.mark.parametrize("vectors", [np.zeros((1, 3)), np.full((1, 3), np.nan), np.ones(3)])
def test_what_is_no_vector_is_refused(vectors: Floats) -> None:
    with pytest.raises(ValueError, match="vectors must be"):
        halved(vectors)


def test_steps_and_vectors_of_different_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one value a vector: 1, 2, 1"):
        write_final_eigenvectors(tmp_path / "v", np.ones((1, 3)), [0, 1], [1.0], LAYERS, IDENTITY)
