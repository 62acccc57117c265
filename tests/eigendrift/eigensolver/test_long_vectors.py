"""Solves with very many parameters: within a memory budget, and with sums that do not lose their digits."""

import re
from typing import Any

import pytest
import torch
from live_memory import LiveMemory
from torch import Tensor

from eigendrift import top_eigenpairs
from eigendrift.eigensolver import lanczos
from eigendrift.eigensolver.sums import inner, row_norms

pytestmark = pytest.mark.usefixtures("one_thread")
N = 1_000_000


class Diagonal:
    """Eigenvalues 10, 9, 8, 7 and -9.5, -8.5 at both ends of a bulk between 0 and 1, in any order."""

    def __init__(self, n: int = N, dtype: torch.dtype = torch.float32, noise: float = 0.0) -> None:
        values = torch.linspace(0, 1, n, dtype=torch.float64)
        values[:4] = torch.tensor([10.0, 9.0, 8.0, 7.0])
        values[-2:] = torch.tensor([-9.5, -8.5])
        order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
        self.values = (values[order] * (1 + noise * torch.sin(torch.arange(n)))).to(dtype)
        self.shape, self.dtype, self.device = (n, n), dtype, torch.device("cpu")

    def product(self, vectors: Tensor) -> Tensor:
        return vectors * self.values


class WithSurrogate(Diagonal):
    """An operator that offers a surrogate of itself."""

    def with_float64_forward(self) -> Diagonal:
        return self

    in_float64 = with_float64_forward

    def surrogate(self, seed: int) -> Diagonal:
        return Diagonal(self.shape[0], noise=0.02)


def least_bytes(k: int, n: int, **settings: Any) -> int:
    with pytest.raises(ValueError, match=r"max_bytes = 1 is not allowed; .* (\d+) bytes at least$") as refusal:
        top_eigenpairs(Diagonal(n), k, max_bytes=1, **settings)
    return int(re.findall(r"\d+", str(refusal.value))[-1])


@pytest.mark.parametrize(("k", "vectors"), [(1, None), (3, 100)])
def test_all_vectors_of_a_solve_fit_the_budget(k: int, vectors: int | None) -> None:
    operator = Diagonal()
    budget = least_bytes(k, N) if vectors is None else 4 * N * vectors
    with LiveMemory() as memory:
        pairs = top_eigenpairs(operator, k, 1e-4, max_bytes=budget)
    assert memory.peak <= budget
    # The budget is made use of, up to the 60 basis vectors that a solve takes without one.
    assert memory.peak > 0.5 * budget
    assert bool(pairs.converged.all())
    assert pairs.orthogonality < 1e-6
    expected = torch.tensor([10.0, 9.0, 8.0], dtype=torch.float64)[:k]
    torch.testing.assert_close(pairs.values, expected, rtol=1e-5, atol=0)


def test_a_surrogate_and_both_ends_fit_the_budget_too() -> None:
    n = 100_000
    operator, surrogate = Diagonal(n), Diagonal(n, noise=0.02)
    with LiveMemory() as memory:
        pairs = top_eigenpairs(operator, 2, 1e-4, surrogate=surrogate, max_bytes=4 * n * 50)
    assert 30 * 4 * n < memory.peak <= 50 * 4 * n
    assert pairs.surrogate_matvecs > 0
    torch.testing.assert_close(pairs.values, torch.tensor([10.0, 9.0], dtype=torch.float64), rtol=1e-5, atol=0)
    with LiveMemory() as memory:
        both = top_eigenpairs(Diagonal(n), 2, 1e-4, which="LM", max_bytes=4 * n * 60)
    assert memory.peak <= 60 * 4 * n
    torch.testing.assert_close(both.values, torch.tensor([10.0, -9.5], dtype=torch.float64), rtol=1e-5, atol=0)


def test_many_start_vectors_are_multiplied_a_few_at_a_time() -> None:
    n = 100_000
    operator, start = Diagonal(n), torch.randn(n, 30, generator=torch.Generator().manual_seed(1))
    with LiveMemory() as memory:
        pairs = top_eigenpairs(operator, 2, 1e-4, v0=start, max_bytes=4 * n * 80)
    # The caller's vectors are counted too.
    assert memory.peak <= (80 + 30) * 4 * n
    torch.testing.assert_close(pairs.values, torch.tensor([10.0, 9.0], dtype=torch.float64), rtol=1e-5, atol=0)


def test_a_budget_that_is_too_small_names_what_is_needed() -> None:
    n = 10_000
    for k in (1, 5, 40):
        least = least_bytes(k, n)
        with pytest.raises(ValueError, match=f"take {least} bytes at least"):
            top_eigenpairs(Diagonal(n), k, max_bytes=least - 1)
        with LiveMemory() as memory, pytest.warns(lanczos.ConvergenceWarning):
            top_eigenpairs(Diagonal(n), k, 1e-6, max_bytes=least, max_matvecs=k + 3)
        # Copies of few numbers come on top.
        assert memory.peak <= least + 2**20
    surrogate = Diagonal(n, noise=0.02)
    with pytest.raises(ValueError, match="with a surrogate"):
        top_eigenpairs(Diagonal(n), 1, surrogate=surrogate, max_bytes=least_bytes(1, n))
    for wrong in (0, -5, float("nan")):
        with pytest.raises(ValueError, match=re.escape(f"max_bytes = {wrong}")):
            top_eigenpairs(Diagonal(n), 1, max_bytes=wrong)
    # The first end's vectors stay while the second is solved, and float64 is twice as wide.
    assert least_bytes(1, n, which="LM") == least_bytes(1, n) + 4 * n
    with pytest.raises(ValueError, match=f"take {2 * least_bytes(2, n)} bytes"):
        top_eigenpairs(Diagonal(n, torch.float64), 2, max_bytes=1000)


def test_the_plain_call_goes_without_a_surrogate_where_it_does_not_fit() -> None:
    n = 100_000
    operator = WithSurrogate(n)
    plain = top_eigenpairs(operator, 1, 1e-3, max_bytes=4 * n * 22)
    assert (plain.surrogate_matvecs, plain.bound_source) == (0, "operator")
    assert top_eigenpairs(operator, 1, 1e-3, max_bytes=4 * n * 40).surrogate_matvecs > 0
    assert float(plain.values[0]) == pytest.approx(10.0, rel=1e-5)


def test_fewer_basis_vectors_than_corrections_keep_the_pairs() -> None:
    n = 2000
    values = torch.cat([torch.linspace(20, 11, 10), torch.linspace(1, 0, n - 10)]).double()
    matrix, near = torch.diag(values), torch.diag(values * (1 + 0.02 * torch.sin(torch.arange(n))))
    pairs = top_eigenpairs(matrix, 10, 1e-6, surrogate=lanczos.as_operator(near), max_basis=12)
    assert bool(pairs.converged.all())
    torch.testing.assert_close(pairs.values, values[:10], rtol=1e-9, atol=0)


@pytest.mark.parametrize("n", [1, 1000, 32_768, 32_769, 3_000_000])
def test_sums_of_long_float32_vectors_keep_their_digits(n: int) -> None:
    rows = torch.randn(3, n, generator=torch.Generator().manual_seed(0)) + 1
    wide = rows.double()
    torch.testing.assert_close(inner(rows, rows[:2]), wide @ wide[:2].T, rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(row_norms(rows), torch.linalg.vector_norm(wide, dim=1), rtol=1e-6, atol=0)
    assert inner(wide, wide).dtype == row_norms(rows).dtype == torch.float64
