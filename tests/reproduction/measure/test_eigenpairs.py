"""Eigenpairs of many points: in chunks, after a kill, and whole they are the same to the bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from eigendrift.eigensolver.lanczos import ConvergenceWarning, top_eigenpairs
from eigendrift.hessian.operator import HessianOperator
from reproduction.files.checkpoint import Scratch
from reproduction.files.eigenpairs import UNITS
from reproduction.measure import eigenpairs
from reproduction.measure.eigenpairs import Request, requests, solve
from reproduction.training.model import flatten, initialize, mlp

STEPS = [0, 1, 3, 10, 20, 25]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def operator() -> HessianOperator:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 5, generator=generator)
    return HessianOperator(mlp(5, [4], 3), nn.functional.cross_entropy, inputs, inputs[:, :3].argmax(dim=1))


def weights(step: int) -> torch.Tensor:
    model = mlp(5, [4], 3)
    initialize(model, step)
    return flatten(model)


WANTED = requests(STEPS, 2, 1e-3, {"k": 4, "tolerance": 1e-5, "every": 10})


def solved(operator: HessianOperator, folder: Path, wanted: list[Request] = WANTED) -> tuple[np.ndarray, np.ndarray]:
    numbers, vectors = solve(
        operator, wanted, lambda j: weights(wanted[j].step), Scratch(folder, "job", {}), "snapshot"
    )
    return np.array(numbers), np.array(vectors)


# Which pairs are wanted


def test_dense_pairs_at_multiples_and_at_both_ends() -> None:
    assert [request.step for request in WANTED] == STEPS
    assert [request.k for request in WANTED] == [4, 2, 2, 4, 4, 4]
    assert [request.tolerance for request in WANTED] == [1e-5, 1e-3, 1e-3, 1e-5, 1e-5, 1e-5]
    late = requests([3, 7, 20, 21, 29], 1, 1e-3, {"k": 9, "tolerance": 1e-6, "every": 10})
    assert [request.k for request in late] == [9, 1, 9, 1, 9]


def test_without_a_dense_seed_every_request_is_alike() -> None:
    assert requests(STEPS, 3, 1e-3, None) == [Request(step, 3, 1e-3) for step in STEPS]
    assert requests([], 3, 1e-3, {"k": 4, "tolerance": 1e-5, "every": 10}) == []


# What comes back


def test_rows_are_the_solvers_pairs_in_the_order_of_the_file(operator: HessianOperator, tmp_path: Path) -> None:
    numbers, vectors = solved(operator, tmp_path)
    assert numbers.shape == (sum(request.k for request in WANTED), len(UNITS))
    row = 0
    for request in WANTED:
        operator.move_to(weights(request.step))
        pairs = top_eigenpairs(operator, request.k, request.tolerance, seed=request.step)
        gradient = operator.gradient
        norm = float(torch.linalg.vector_norm(gradient))
        for i in range(request.k):
            expected = {
                "step": request.step,
                "i": i + 1,
                "eigenvalue": pairs.values[i],
                "residual": pairs.residuals[i],
                "gap": pairs.gaps[i],
                "angle_bound": pairs.angle_bounds[i],
                "clustered": pairs.clustered[i],
                "span_bound": pairs.span_bounds[i],
                "orthogonality": pairs.orthogonality,
                "matvecs": pairs.matvecs,
                "converged": pairs.converged[i],
                "gradient_norm": norm,
                "gradient_overlap": (gradient @ pairs.vectors[:, i]).abs() / norm,
            }
            assert list(expected) == list(UNITS)
            overlap = float(expected.pop("gradient_overlap"))
            assert numbers[row, :-1].tolist() == [float(value) for value in expected.values()]
            assert numbers[row, -1] == pytest.approx(overlap, rel=1e-5)
            np.testing.assert_array_equal(vectors[row], pairs.vectors[:, i].numpy())
            row += 1
    assert (numbers[:, list(UNITS).index("converged")] == 1).all()


def test_pairs_are_those_of_the_dense_hessian(operator: HessianOperator, tmp_path: Path) -> None:
    numbers, vectors = solved(operator, tmp_path)
    row = 0
    for request in WANTED:
        operator.move_to(weights(request.step))
        dense = (operator @ torch.eye(operator.shape[0])).double().numpy()
        values = np.linalg.eigvalsh((dense + dense.T) / 2)[::-1][: request.k]
        found = slice(row, row + request.k)
        np.testing.assert_allclose(numbers[found, 2], values, rtol=1e-3)
        products = vectors[found].astype(float) @ dense
        residuals = np.linalg.norm(products - numbers[found, 2:3] * vectors[found], axis=1) / np.abs(numbers[found, 2])
        assert (residuals < 1.01 * request.tolerance + 1e-5).all()
        row += request.k


def test_chunks_are_parts_of_the_whole(operator: HessianOperator, tmp_path: Path) -> None:
    whole = solved(operator, tmp_path / "whole")
    for size in (1, 2, 4):
        parts = [
            solved(operator, tmp_path / f"{size}-{start}", WANTED[start : start + size])
            for start in range(0, len(WANTED), size)
        ]
        for position in (0, 1):
            np.testing.assert_array_equal(np.concatenate([part[position] for part in parts]), whole[position])


def test_a_chunk_of_a_run_that_diverged_before_it_is_empty(operator: HessianOperator, tmp_path: Path) -> None:
    for _ in range(2):
        numbers, vectors = solved(operator, tmp_path, [])
        assert (numbers.shape, vectors.shape) == ((0, len(UNITS)), (0, operator.shape[0]))


# After a kill


class KilledError(Exception):
    """Stands for whatever ends a job."""


def kill_at(
    operator: HessianOperator, folder: Path, request: int, monkeypatch: pytest.MonkeyPatch, within: bool
) -> None:
    """Begin, and be killed at the request of this number: before its solve, or within it."""

    def parameters(j: int) -> torch.Tensor:
        if j == request and not within:
            raise KilledError
        return weights(WANTED[j].step)

    def solver(*arguments: Any, seed: int, **options: Any) -> Any:
        if within and seed == WANTED[request].step:
            raise KilledError
        return top_eigenpairs(*arguments, seed=seed, **options)

    with monkeypatch.context() as patch:
        patch.setattr(eigenpairs, "top_eigenpairs", solver)
        with pytest.raises(KilledError):
            solve(operator, WANTED, parameters, Scratch(folder, "job", {}), "snapshot")


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("kills", [[0], [3], [5], [1, 4], [2, 2, 5]])
def test_a_killed_job_goes_on_to_the_same_bits(
    operator: HessianOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: list[int], within: bool
) -> None:
    whole = solved(operator, tmp_path / "whole")
    for request in kills:
        kill_at(operator, tmp_path / "killed", request, monkeypatch, within)
    asked: list[int] = []

    def parameters(j: int) -> torch.Tensor:
        asked.append(j)
        return weights(WANTED[j].step)

    found = solve(operator, WANTED, parameters, Scratch(tmp_path / "killed", "job", {}), "snapshot")
    # What was finished is not solved again.
    assert asked == list(range(kills[-1], len(WANTED)))
    for position in (0, 1):
        np.testing.assert_array_equal(found[position], whole[position])


@pytest.mark.parametrize("damage", ["missing", "short", "other shape"])
@pytest.mark.parametrize("array", ["numbers", "vectors", "done", "sums"])
def test_progress_without_its_arrays_counts_for_nothing(
    operator: HessianOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, array: str, damage: str
) -> None:
    whole = solved(operator, tmp_path / "whole")
    kill_at(operator, tmp_path / "killed", 4, monkeypatch, within=False)
    (path,) = tmp_path.glob(f"killed/job/*/{array}.npy")
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        np.save(path, np.full((2, 2), 3))
    found = solved(operator, tmp_path / "killed")
    for position in (0, 1):
        np.testing.assert_array_equal(found[position], whole[position])


@pytest.mark.parametrize("array", ["numbers", "vectors", "sums"])
def test_what_a_power_cut_spoilt_is_solved_again(
    operator: HessianOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, array: str
) -> None:
    whole = solved(operator, tmp_path / "whole")
    kill_at(operator, tmp_path / "killed", 5, monkeypatch, within=False)
    (path,) = tmp_path.glob(f"killed/job/*/{array}.npy")
    # Of a mapped file any page may have come to the disk, or not.
    rows = np.lib.format.open_memmap(path, mode="r+")
    rows[3 if array == "sums" else sum(request.k for request in WANTED[:3])] = 0
    rows.flush()
    asked: list[int] = []

    def parameters(j: int) -> torch.Tensor:
        asked.append(j)
        return weights(WANTED[j].step)

    found = solve(operator, WANTED, parameters, Scratch(tmp_path / "killed", "job", {}), "snapshot")
    assert asked == list(range(3, len(WANTED)))
    for position in (0, 1):
        np.testing.assert_array_equal(found[position], whole[position])


def test_a_finished_job_is_not_solved_again(operator: HessianOperator, tmp_path: Path) -> None:
    whole = solved(operator, tmp_path)

    def parameters(j: int) -> torch.Tensor:
        raise KilledError

    found = solve(operator, WANTED, parameters, Scratch(tmp_path, "job", {}), "snapshot")
    for position in (0, 1):
        np.testing.assert_array_equal(found[position], whole[position])


def test_a_pair_that_did_not_converge_is_flagged(
    operator: HessianOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hasty(*arguments: Any, **options: Any) -> Any:
        return top_eigenpairs(*arguments, **options, max_matvecs=3)

    monkeypatch.setattr(eigenpairs, "top_eigenpairs", hasty)
    with pytest.warns(ConvergenceWarning):
        numbers, _ = solved(operator, tmp_path, [Request(0, 3, 1e-5)])
    columns = list(UNITS)
    assert numbers[:, columns.index("matvecs")].tolist() == [3.0] * 3
    residuals, converged = numbers[:, columns.index("residual")], numbers[:, columns.index("converged")]
    assert (converged == (residuals <= 1e-5)).all()
    assert not converged.all()


def test_tolerances_below_float32_are_reached_in_float64(operator: HessianOperator, tmp_path: Path) -> None:
    wanted = [Request(step, 4, 1e-9) for step in (0, 3)]
    numbers, vectors = solved(operator, tmp_path, wanted)
    assert numbers[:, list(UNITS).index("residual")].max() <= 1e-9
    assert numbers[:, list(UNITS).index("converged")].all()
    operator.move_to(weights(3))
    product = operator.in_float64() @ torch.from_numpy(vectors[4]).double()
    # The vector is kept in float32.
    np.testing.assert_allclose(product.numpy(), numbers[4, 2] * vectors[4], atol=1e-6 * numbers[4, 2])
