"""Repeated and nearly repeated eigenvalues: none is missed in silence."""

import math

import numpy as np
import pytest
import torch
from spectra import Matrix
from torch import Tensor, nn

from eigendrift import EigenPairs, HessianOperator, top_eigenpairs
from eigendrift.eigensolver.missed import at_most, largest_unseen, next_eigenvalue_bound
from eigendrift.sphere import overlap_quantiles

pytestmark = pytest.mark.usefixtures("one_thread")


def rotated(values: np.ndarray, random: np.random.Generator) -> Tensor:
    q, _ = np.linalg.qr(random.normal(size=(len(values), len(values))))
    matrix = torch.from_numpy((q * values) @ q.T)
    return (matrix + matrix.T) / 2


def spectrum(random: np.random.Generator) -> np.ndarray:
    """Descending values of one of several shapes, with groups that coincide, or do so nearly."""
    n, kind = int(random.integers(1, 70)), int(random.integers(7))
    base = random.normal(size=n) * 10 ** random.uniform(-3, 3)
    if kind == 0:
        values = base
    elif kind == 1:
        values = np.abs(base)
    elif kind == 2:
        values = -np.abs(base)
    elif kind == 3:
        values = np.where(np.arange(n) < n // 4, np.abs(base), 0.0)
    elif kind == 4:
        values = np.linspace(1, 0, n) ** random.uniform(0.2, 3)
    elif kind == 5:
        values = np.resize(np.repeat(base[: n // 3 + 1], 3), n)
    else:
        values = np.full(n, random.choice([0.0, 1.0, -1.0]))
    values = np.sort(values)[::-1].copy()
    for _ in range(int(random.integers(0, 4))):
        start, length = int(random.integers(0, min(n, 8))), int(random.integers(1, 5))
        values[start : start + length] = values[start] * random.choice([1.0, 1 + 1e-9])
    return np.sort(values)[::-1].copy()


def check(pairs: EigenPairs, matrix: Tensor, tol: float) -> None:
    """Every pair is the one it is said to be, or is reported as uncertain; and gaps are no larger than they are."""
    exact, q = (torch.from_numpy(part) for part in np.linalg.eigh(matrix.numpy()))
    exact, q, k = exact.flip(0), q.flip(1), len(pairs.values)
    rounding = 1e-12 * float(exact.abs().max())
    norms = (matrix @ pairs.vectors - pairs.vectors * pairs.values).norm(dim=0) + rounding
    told = ~pairs.converged | (pairs.angle_bounds == 1)
    right = (pairs.values - exact[:k]).abs() <= norms
    assert bool((right | told).all()), (pairs, exact[: k + 2])
    assert pairs.next_bound >= float(exact[k] if k < len(exact) else -math.inf) - rounding
    for i in range(k):
        distances = (exact - exact[i]).abs()
        distances[i] = torch.inf
        assert float(pairs.gaps[i]) <= float(distances.min()) + float(norms[i])
        # Of closer ones the dense vectors are not known either.
        if pairs.angle_bounds[i] < 1 and float(distances.min()) > 1e4 * rounding:
            sine = float((pairs.vectors[:, i] - q[:, i] * (q[:, i] @ pairs.vectors[:, i])).norm())
            assert sine <= float(pairs.angle_bounds[i]) * 1.01 + 1e-6


def test_nothing_is_missed_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    # Small operators, but by Lanczos, where the basis does not fill the whole space.
    monkeypatch.setattr("eigendrift.eigensolver.lanczos.DENSE_ORDER", 4)
    monkeypatch.setattr("eigendrift.eigensolver.lanczos._basis_size", lambda k, n: max(2 * k + 12, 24))
    random, sources = np.random.default_rng(0), set()
    for trial in range(500):
        values = spectrum(random)
        matrix, n = rotated(values, random), len(values)
        k = n if trial % 10 == 0 else int(random.integers(1, min(n, 8) + 1))
        tol = 10 ** random.uniform(-9, -2)
        pairs = top_eigenpairs(matrix, k, tol, seed=trial, max_matvecs=5000)
        check(pairs, matrix, tol)
        assert bool(pairs.converged.all())
        sources.add(pairs.bound_source)
    assert sources == {"dense", "operator"}


@pytest.mark.parametrize("fold", [2, 3, 7])
@pytest.mark.parametrize("k", [1, 3, 6])
def test_a_repeated_top_is_found_and_a_cluster_cut_by_k_is_reported(fold: int, k: int) -> None:
    random = np.random.default_rng(fold)
    values = np.concatenate([np.full(fold, 5.0), np.linspace(3, 2, 6), np.linspace(0.5, -0.5, 160 - fold)])
    matrix = rotated(values, random)
    pairs = top_eigenpairs(matrix, k, 1e-6)
    np.testing.assert_allclose(pairs.values.numpy(), values[:k], rtol=1e-10)
    own = min(fold, k)
    assert pairs.gaps[:own].tolist() == [0.0] * own
    assert pairs.angle_bounds[:own].tolist() == [1.0] * own
    assert bool(pairs.clustered[:own].all())
    # The whole eigenspace is well determined where all of it is among the k.
    assert (float(pairs.span_bounds[0]) < 1e-5) == (fold <= k)
    assert (pairs.next_bound >= 5) == (fold > k)


def test_least_squares_with_several_outputs() -> None:
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(200, 30, generator=generator), torch.randn(200, 4, generator=generator)
    H = HessianOperator(nn.Linear(30, 4, bias=False), nn.MSELoss(), x, y)
    exact = torch.linalg.eigvalsh((x.T @ x).double() / 400).flip(0).repeat_interleave(4)
    for k in (4, 6, 9):
        pairs = top_eigenpairs(H, k)
        torch.testing.assert_close(pairs.values, exact[:k], rtol=1e-3, atol=0)
        assert bool(pairs.clustered.all())


def test_softmax_regression_at_zero_with_its_sampled_surrogate() -> None:
    """C - 1 copies of each eigenvalue of X'X, in the Hessian and in every surrogate of it."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(12_000, 20, generator=generator) * torch.linspace(2, 0.5, 20)
    y = torch.randint(5, (12_000,), generator=generator)
    model = nn.Sequential(nn.Linear(20, 5))
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y)
    extended = torch.cat([x, torch.ones(len(x), 1)], dim=1).double()
    exact = torch.linalg.eigvalsh(extended.T @ extended / len(x) / 5).flip(0).repeat_interleave(4)
    for k in (3, 4, 6):
        pairs = top_eigenpairs(H, k)
        assert pairs.surrogate_matvecs > 0
        torch.testing.assert_close(pairs.values, exact[:k], rtol=1e-3, atol=0)
        assert bool(pairs.clustered.all())
        assert pairs.angle_bounds.tolist() == [1.0] * k


@pytest.mark.parametrize("k", [3, 5, 6])
def test_the_laplacian_of_a_cycle(k: int) -> None:
    one = torch.eye(150, dtype=torch.float64)
    matrix = one - (one.roll(1, 0) + one.roll(-1, 0)) / 2
    pairs = top_eigenpairs(matrix, k, 1e-8, max_matvecs=5000)
    check(pairs, matrix, 1e-8)
    exact = torch.linalg.eigvalsh(matrix).flip(0)[:k]
    torch.testing.assert_close(pairs.values, exact, rtol=1e-6, atol=0)


def test_a_surrogate_that_lacks_the_top_is_found_out() -> None:
    values = torch.cat([torch.tensor([10.0, 9.0, 8.0, 7.0]), torch.linspace(1, 0, 196)]).double()
    blind = values.clone()
    blind[0] = 0.0
    pairs = top_eigenpairs(torch.diag(values), 2, 1e-6, surrogate=Matrix(torch.diag(blind)))
    torch.testing.assert_close(pairs.values, values[:2], rtol=1e-9, atol=0)
    assert pairs.bound_source == "operator"
    # Such a surrogate is given up, and shows nothing of what was missed; the result says what the bound rests on.
    trusting = top_eigenpairs(torch.diag(values), 2, 1e-6, surrogate=Matrix(torch.diag(blind)), probe="surrogate")
    torch.testing.assert_close(trusting.values, values[:2], rtol=1e-9, atol=0)
    assert trusting.bound_source == "operator"
    near = Matrix(torch.diag(1.001 * values))
    assert top_eigenpairs(torch.diag(values), 2, 1e-6, surrogate=near, probe="surrogate").bound_source == "surrogate"


def test_without_a_probe_nothing_is_said() -> None:
    matrix = torch.diag(torch.arange(100.0, dtype=torch.float64))
    pairs = top_eigenpairs(matrix, 2, probe="none")
    assert pairs.bound_source == "none"
    assert pairs.miss_probability == 1
    assert pairs.gaps.tolist() == [0.0, 0.0]
    assert bool(pairs.clustered.all())
    probed = top_eigenpairs(matrix, 2)
    assert probed.matvecs > pairs.matvecs
    known = top_eigenpairs(matrix, 2, surrogate=Matrix(matrix), probe="none")
    assert known.next_bound == math.inf
    trusting = top_eigenpairs(matrix, 2, surrogate=Matrix(matrix), probe="surrogate")
    assert known.surrogate_matvecs < trusting.surrogate_matvecs


def test_a_probe_for_which_no_product_is_left_says_nothing() -> None:
    matrix = torch.diag(torch.arange(100.0, dtype=torch.float64))
    pairs = top_eigenpairs(matrix, 2, surrogate=Matrix(matrix), max_matvecs=2)
    assert bool(pairs.converged.all())
    assert pairs.bound_source == "none"
    assert pairs.next_bound == math.inf
    assert bool(pairs.clustered.all())


def test_the_bound_fails_as_seldom_as_is_said() -> None:
    """One Lanczos step from random vectors: the top eigenvalue exceeds the bound in a share delta of cases at most."""
    random = np.random.default_rng(0)
    n, delta = 50, 0.2
    values = np.concatenate([[1.0], np.linspace(0.3, -0.3, n - 1)])
    component = float(overlap_quantiles(delta, n))
    failures, bounds = 0, []
    for _ in range(1000):
        u = random.normal(size=n)
        u /= np.linalg.norm(u)
        diagonal, beside, before, beta = [], [], np.zeros(n), 0.0
        for _ in range(3):
            w = values * u - beta * before
            diagonal.append(float(u @ w))
            w -= diagonal[-1] * u
            beta = float(np.linalg.norm(w))
            beside.append(beta)
            before, u = u, w / beta
        bounds.append(largest_unseen(diagonal, beside, component))
        failures += bounds[-1] < 1.0
    # The bound is nearly sharp: the share is delta within the scatter of a thousand draws.
    assert 0 < failures / 1000 <= delta + 3 * math.sqrt(delta * (1 - delta) / 1000)
    assert np.median(bounds) < 2


def test_an_invariant_start_vector_bounds_by_its_own_value() -> None:
    assert largest_unseen([2.0], [0.0], 1e-5) == 2
    # (1 + ((x - 1) / 0.5)^2) / 4 = 1
    assert largest_unseen([1.0], [0.5], 0.5) == pytest.approx(1 + math.sqrt(3) / 2, rel=1e-4)


def test_the_count_of_eigenvalues_is_an_upper_bound() -> None:
    random = np.random.default_rng(1)
    for _ in range(50):
        n, m = 30, int(random.integers(1, 12))
        matrix = rotated(np.sort(random.normal(size=n) ** 3)[::-1], random)
        values = torch.linalg.eigvalsh(matrix).flip(0)
        projected, c, rest = matrix[:m, :m], matrix[m:, :m], matrix[m:, m:]
        mu = float(torch.linalg.eigvalsh(rest)[-1])
        for k in range(m + 1):
            x = next_eigenvalue_bound(values[:k].tolist(), mu, projected, c.T @ c)
            above = int((values > x).sum())
            assert above <= k
            if k < m:
                assert at_most(k, x + 1e-6, mu, projected, c.T @ c) or above < k
        assert not at_most(m, mu, mu, projected, c.T @ c)
