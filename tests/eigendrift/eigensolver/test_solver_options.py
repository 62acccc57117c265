"""What the eigensolver takes and returns: operators of any kind, both ends of the spectrum, options, the result."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn

from eigendrift import EigenPairs, HessianOperator, top_eigenpairs
from eigendrift.eigensolver.result import ConvergenceWarning

pytestmark = pytest.mark.usefixtures("one_thread")
N = 150


@pytest.fixture(scope="module")
def matrix() -> Tensor:
    """Eigenvalues 20, 15, 11, a bulk, and -18, -13, -9, -7."""
    values = np.concatenate([[20.0, 15.0, 11.0], np.linspace(2, -2, N - 7), [-7.0, -9.0, -13.0, -18.0]])
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(N, N)))
    dense = torch.from_numpy((q * values) @ q.T)
    return (dense + dense.T) / 2


class Columns:
    """Shape and @ on tensors, and nothing else of ours."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.shape, self.dtype = matrix, tuple(matrix.shape), matrix.dtype

    def __matmul__(self, block: Tensor) -> Tensor:
        return self.matrix @ block


# Operators


@pytest.mark.parametrize("kind", ["tensor", "array", "single", "sparse", "scipy", "matvec alone", "columns"])
def test_operators_of_any_kind(matrix: Tensor, kind: str) -> None:
    array = matrix.numpy()
    operator = {
        "tensor": matrix,
        "array": array,
        "single": array.astype(np.float32),
        "sparse": scipy.sparse.csr_matrix(array),
        "scipy": scipy.sparse.linalg.aslinearoperator(array),
        "matvec alone": LinearOperator((N, N), matvec=lambda v: array @ v.reshape(-1), dtype=np.float64),
        "columns": Columns(matrix),
    }[kind]
    values, vectors = top_eigenpairs(operator, 3, 1e-4)
    torch.testing.assert_close(values, torch.tensor([20.0, 15.0, 11.0], dtype=torch.float64), rtol=1e-5, atol=0)
    assert vectors.dtype == (torch.float32 if kind == "single" else torch.float64)


@pytest.mark.parametrize(
    ("operator", "error", "message"),
    [
        (np.ones((3, 4)), ValueError, r"shape \(3, 4\)"),
        (np.array([[0.0, 1.0], [0.0, 0.0]]), ValueError, "not symmetric"),
        (np.array([[np.nan, 0.0], [0.0, 1.0]]), ValueError, "not finite"),
        (np.eye(3) * 1j, ValueError, "complex128"),
        (np.ones(3), TypeError, "ndarray of shape"),
        ([[1.0]], TypeError, "list"),
        (Columns(torch.triu(torch.ones(200, 200))), ValueError, "not symmetric"),
        (Columns(torch.triu(torch.ones(20, 20))), ValueError, "not symmetric"),
    ],
)
def test_what_is_no_symmetric_operator_is_refused(operator: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        top_eigenpairs(operator, 1, max_matvecs=400)


# Ends of the spectrum


@pytest.mark.parametrize("k", [1, 3, 4])
def test_the_smallest_and_those_of_largest_magnitude(matrix: Tensor, k: int) -> None:
    exact, q = np.linalg.eigh(matrix.numpy())
    for which, order in (("LA", np.argsort(-exact)), ("SA", np.argsort(exact)), ("LM", np.argsort(-np.abs(exact)))):
        pairs = top_eigenpairs(matrix, k, 1e-7, which=which)
        np.testing.assert_allclose(pairs.values.numpy(), exact[order[:k]], rtol=1e-10)
        assert np.abs((pairs.vectors.numpy() * q[:, order[:k]]).sum(axis=0)).min() > 1 - 1e-10
        following = exact[order[k]]
        if which == "SA":
            assert pairs.next_bound <= following
        else:
            assert pairs.next_bound >= (abs(following) if which == "LM" else following)
        distances = np.abs(exact[order[:k], None] - exact[None])
        distances[range(k), order[:k]] = np.inf
        assert (pairs.gaps.numpy() <= distances.min(axis=1) + 1e-6).all()
        # The fourth of the largest is in the bulk, of which k cuts a piece.
        assert (pairs.gaps[: 3 if which == "LA" else k].numpy() > 0).all()


@pytest.mark.parametrize("which", ["LA", "SA", "LM"])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 100])
def test_all_pairs_of_a_matrix_of_low_rank(which: str, n: int) -> None:
    values = np.zeros(n)
    values[: min(n, 3)] = [3.0, -2.0, 1.0][:n]
    q, _ = np.linalg.qr(np.random.default_rng(n).normal(size=(n, n)))
    dense = torch.from_numpy((q * values) @ q.T)
    pairs = top_eigenpairs((dense + dense.T) / 2, n, which=which)
    key = {"LA": -values, "SA": values, "LM": -np.abs(values)}[which]
    np.testing.assert_allclose(pairs.values.numpy(), values[np.argsort(key)], atol=1e-13)
    assert pairs.orthogonality < 1e-12
    assert bool(pairs.converged.all())
    assert pairs.bound_source == "dense"


# Half precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_in_half_precision_end_with_a_basis_in_float32(matrix: Tensor, dtype: torch.dtype) -> None:
    pairs = top_eigenpairs(matrix.to(dtype), 2, 0.05)
    assert pairs.vectors.dtype == torch.float32
    assert bool(pairs.converged.all())
    torch.testing.assert_close(pairs.values, torch.tensor([20.0, 15.0], dtype=torch.float64), rtol=0.02, atol=0)
    with pytest.warns(ConvergenceWarning, match=f"rounding of {str(dtype)[6:]} products|raise max_matvecs"):
        tight = top_eigenpairs(matrix.to(dtype), 2, 1e-6)
    assert tight.matvecs <= 1000
    assert not bool(tight.converged.any())


def test_a_model_in_bfloat16_is_solved_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 6, generator=generator), torch.randint(3, (50,), generator=generator)
    torch.manual_seed(0)
    for model in (
        nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)),
        nn.Sequential(nn.Linear(6, 3), nn.GELU()),
    ):
        H = HessianOperator(model.bfloat16(), nn.CrossEntropyLoss(), x, y)
        pairs = top_eigenpairs(H, 2)
        assert bool(pairs.converged.all())
        exact = H.in_float64()
        dense = exact @ torch.eye(H.shape[0], dtype=torch.float64)
        torch.testing.assert_close(pairs.values, torch.linalg.eigvalsh(dense).flip(0)[:2], rtol=1e-5, atol=0)


# Options


def test_start_vectors_that_are_nearly_the_eigenvectors_save_products(matrix: Tensor) -> None:
    plain = top_eigenpairs(matrix, 3, 1e-3, probe="none")
    noise = 1e-4 * torch.randn(N, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    warm = top_eigenpairs(matrix, 3, 1e-2, v0=plain.vectors + noise, probe="none")
    assert warm.matvecs <= 4 < plain.matvecs
    torch.testing.assert_close(warm.values, plain.values, rtol=1e-4, atol=0)
    # Vectors of no use cost products, and nothing else.
    wrong = top_eigenpairs(matrix, 3, 1e-6, v0=torch.ones(N))
    torch.testing.assert_close(wrong.values, plain.values, rtol=1e-5, atol=0)
    # Start vectors in which an eigenvector is absent do not hide it.
    _, q = torch.linalg.eigh(matrix)
    hidden = top_eigenpairs(matrix, 2, 1e-6, v0=q.flip(1)[:, 1:3])
    torch.testing.assert_close(hidden.values, plain.values[:2], rtol=1e-5, atol=0)


@pytest.mark.parametrize("max_basis", [10, 16, 30])
def test_restarts_within_a_small_basis(matrix: Tensor, max_basis: int) -> None:
    pairs = top_eigenpairs(matrix, 3, 1e-8, max_basis=max_basis)
    assert bool(pairs.converged.all())
    torch.testing.assert_close(pairs.values, torch.tensor([20.0, 15.0, 11.0], dtype=torch.float64), rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k = 0 is not allowed"),
        ({"k": N + 1}, f"the operator has {N} eigenpairs"),
        ({"tol": 0.0}, "tol = 0.0"),
        ({"tol": float("nan")}, "tol = nan"),
        ({"which": "BE"}, "which = 'BE'"),
        ({"miss_probability": 0.0}, "miss_probability = 0.0"),
        ({"max_matvecs": 0}, "max_matvecs = 0"),
        ({"max_basis": 4}, "max_basis = 4 is not allowed; k = 3 pairs take 5"),
        ({"probe": "both"}, "probe = 'both'"),
        ({"surrogate": "samples"}, "surrogate = 'samples'"),
        ({"v0": torch.ones(7)}, re.escape("v0 has shape (7, 1), expected (150, b)")),
        ({"v0": torch.full((N,), torch.nan)}, "v0 has an entry that is not finite"),
    ],
)
def test_options_out_of_range_are_refused(matrix: Tensor, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        top_eigenpairs(matrix, **({"k": 3} | options))


# The result


@pytest.mark.parametrize("which", ["LA", "LM"])
@pytest.mark.parametrize("n", [30, N])
def test_the_warning_of_pairs_that_did_not_converge_names_the_callers_line(which: str, n: int) -> None:
    block = torch.randn(n, n, generator=torch.Generator().manual_seed(0))
    with pytest.warns(ConvergenceWarning) as warned:
        top_eigenpairs(block + block.T, 3, 1e-12, which=which, max_matvecs=9 if n == N else 1000)
    assert {Path(warning.filename) for warning in warned} == {Path(__file__)}


def test_the_result_prints_short_and_unpacks(matrix: Tensor) -> None:
    pairs = top_eigenpairs(matrix, 3, 1e-5)
    values, vectors = pairs
    assert values is pairs.values
    assert vectors is pairs.vectors
    lines = str(pairs).splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("EigenPairs(k=3, N=150): 3 of 3 converged")
    assert max(map(len, lines)) < 120
    assert len(str(top_eigenpairs(matrix, 40, 1e-5)).splitlines()) == 12


@pytest.mark.parametrize("which", ["LA", "LM"])
def test_what_is_saved_is_read_back(matrix: Tensor, tmp_path: Path, which: str) -> None:
    pairs = top_eigenpairs(matrix, 3, 1e-5, which=which)
    pairs.save(tmp_path / "pairs.npz")
    again = EigenPairs.load(tmp_path / "pairs.npz")
    for name, value in vars(pairs).items():
        found = getattr(again, name)
        assert type(found) is type(value), name
        assert torch.equal(found, value) if isinstance(value, Tensor) else found == value
    with pytest.raises(ValueError, match=r"ends in \.npz"):
        pairs.save(tmp_path / "pairs.pt")
    np.savez(tmp_path / "other.npz", values=np.zeros(3))
    with pytest.raises(ValueError, match="'vectors'"):
        EigenPairs.load(tmp_path / "other.npz")


def test_damaged_files_are_refused_in_one_line(matrix: Tensor, tmp_path: Path) -> None:
    pairs = top_eigenpairs(matrix, 3, 1e-5)
    pairs.save(tmp_path / "pairs.npz")
    whole = (tmp_path / "pairs.npz").read_bytes()
    with np.load(tmp_path / "pairs.npz") as file:
        fields = dict(file)
    bad = tmp_path / "bad.npz"

    def written(content: bytes) -> None:
        bad.write_bytes(content)

    def saved(**changed: Any) -> None:
        np.savez(bad, **{**fields, **changed})

    for damage in (
        lambda: written(b""),
        lambda: written(whole[: len(whole) // 2]),
        lambda: written(b"lambda = 3"),
        lambda: written(whole.replace(whole[300:340], bytes(40))),
        lambda: saved(values=np.array([object()])),
        lambda: saved(gaps=np.zeros(2)),
        lambda: saved(values=np.float64(3)),
        lambda: saved(matvecs=np.zeros(3)),
    ):
        damage()
        with pytest.raises(ValueError, match=r"EigenPairs\.save wrote|is damaged") as refusal:
            EigenPairs.load(bad)
        assert "\n" not in str(refusal.value)
    with pytest.raises(FileNotFoundError):
        EigenPairs.load(tmp_path / "none.npz")
