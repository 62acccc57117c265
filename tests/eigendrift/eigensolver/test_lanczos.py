"""The eigensolver against closed forms, dense decompositions and scipy."""

import warnings

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from spectra import Matrix
from torch import Tensor, nn

from eigendrift import EigenPairs, HessianOperator, top_eigenpairs
from eigendrift.eigensolver.lanczos import ConvergenceWarning
from reproduction.training.model import initialize, mlp


def with_spectrum(values: Tensor, seed: int = 0) -> tuple[Matrix, Tensor]:
    """An operator with these eigenvalues (descending), and its eigenvectors as columns."""
    n = len(values)
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator))
    return Matrix((q * values) @ q.T), q


def spectrum(n: int, *top: float) -> Tensor:
    """The values of `top`, and below the last of them a bulk around zero."""
    bulk = torch.linspace(0.3, -0.3, n - len(top), dtype=torch.float64) * min(top)
    return torch.cat([torch.tensor(top, dtype=torch.float64), bulk])


def check(pairs: EigenPairs, matrix: Matrix, tol: float) -> None:
    """What every result promises, recomputed from the matrix."""
    k = pairs.vectors.shape[1]
    per_pair = (pairs.values, pairs.residuals, pairs.gaps, pairs.angle_bounds, pairs.converged)
    assert {part.shape for part in per_pair} == {(k,)}
    assert bool((pairs.values[:-1] >= pairs.values[1:]).all())
    true = (matrix.matrix @ pairs.vectors - pairs.vectors * pairs.values).norm(dim=0) / pairs.values.abs()
    torch.testing.assert_close(pairs.residuals, true, rtol=1e-6, atol=1e-13)
    assert bool((pairs.converged == (pairs.residuals <= tol)).all())
    gram = pairs.vectors.T @ pairs.vectors
    assert float((gram - torch.eye(k, dtype=gram.dtype)).abs().max()) <= pairs.orthogonality + 1e-14
    assert pairs.orthogonality < 1e-13
    assert matrix.products == pairs.matvecs


@pytest.mark.parametrize("tol", [1e-3, 1e-8, 1e-11])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_values_vectors_and_residuals(k: int, tol: float) -> None:
    matrix, q = with_spectrum(spectrum(300, 20.0, 15.0, 11.0, 8.0, 6.0, 5.0, 4.0, 3.5, 3.0))
    pairs = top_eigenpairs(matrix, k, tol)
    check(pairs, matrix, tol)
    assert bool(pairs.converged.all())
    exact = torch.linalg.eigvalsh(matrix.matrix).flip(0)
    # |theta - lambda| <= |r|^2 / gap (Parlett, theorem 11.7.1).
    assert bool(((pairs.values - exact[:k]).abs() <= (tol * exact[:k]) ** 2 / 0.4 + 1e-12).all())
    overlaps = (pairs.vectors * q[:, :k]).sum(0).abs()
    sines = (1 - overlaps**2).clamp(min=0).sqrt()
    assert bool((sines <= pairs.angle_bounds * 1.01 + 1e-7).all())


def test_needs_fewer_products_than_scipy_at_the_same_residual() -> None:
    values = spectrum(400, 20.0, 15.0, 11.0, 8.0, 6.0, 5.0)
    matrix, _ = with_spectrum(values)
    ours = top_eigenpairs(matrix, 3, 1e-3)
    count = 0

    def product(v: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        return matrix.matrix.numpy() @ v

    found, vectors = eigsh(LinearOperator(matrix.shape, matvec=product, dtype=np.float64), k=3, which="LA", tol=1e-3)
    np.testing.assert_allclose(np.sort(found)[::-1], ours.values.numpy(), rtol=1e-5)
    assert np.abs(vectors[:, ::-1].T @ ours.vectors.numpy()).diagonal().min() > 1 - 1e-5
    assert ours.matvecs < count


def test_largest_algebraic_not_largest_in_magnitude() -> None:
    values = torch.cat([torch.tensor([3.0, 2.0]), torch.linspace(1.0, -50.0, 98)]).double()
    matrix, q = with_spectrum(values)
    pairs = top_eigenpairs(matrix, 2, 1e-9)
    torch.testing.assert_close(pairs.values, values[:2], rtol=1e-9, atol=0)
    check(pairs, matrix, 1e-9)
    assert float((pairs.vectors * q[:, :2]).sum(0).abs().min()) > 1 - 1e-9


def test_all_eigenvalues_negative() -> None:
    matrix, _ = with_spectrum(torch.linspace(-1.0, -9.0, 60, dtype=torch.float64))
    pairs = top_eigenpairs(matrix, 3, 1e-8)
    check(pairs, matrix, 1e-8)
    torch.testing.assert_close(pairs.values, torch.linspace(-1.0, -9.0, 60, dtype=torch.float64)[:3], rtol=1e-8, atol=0)


def test_restarts_keep_memory_bounded_and_still_converge() -> None:
    matrix, _ = with_spectrum(torch.linspace(1.0, 0.0, 500, dtype=torch.float64) ** 0.25)
    pairs = top_eigenpairs(matrix, 4, 1e-7, max_basis=12, max_matvecs=5000)
    assert pairs.matvecs > 40
    check(pairs, matrix, 1e-7)
    exact = torch.linalg.eigvalsh(matrix.matrix).flip(0)[:4]
    torch.testing.assert_close(pairs.values, exact, rtol=1e-9, atol=0)


def test_no_copies_of_the_first_eigenvalue_in_float32() -> None:
    values = spectrum(600, 1e4, 9.0, 8.0, 7.0, 6.0).to(torch.float64)
    matrix, q = with_spectrum(values)
    single = Matrix(matrix.matrix.float())
    pairs = top_eigenpairs(single, 5, 1e-2, max_matvecs=300)
    assert pairs.orthogonality < 1e-5
    assert float((pairs.vectors.double() * q[:, :5]).sum(0).abs().min()) > 0.99
    torch.testing.assert_close(pairs.values, values[:5], rtol=1e-3, atol=0)


def test_what_does_not_converge_is_flagged() -> None:
    matrix, _ = with_spectrum(torch.linspace(1.0, 0.0, 500, dtype=torch.float64))
    with pytest.warns(ConvergenceWarning, match="3 of 3 pairs did not converge.* after 10 products.*raise max_matvecs"):
        pairs = top_eigenpairs(matrix, 3, 1e-10, max_matvecs=10)
    check(pairs, matrix, 1e-10)
    assert pairs.matvecs == 10
    assert not bool(pairs.converged.any())


def test_a_tolerance_below_rounding_ends_and_is_flagged() -> None:
    matrix, _ = with_spectrum(spectrum(300, 20.0, 10.0, 0.1))
    with pytest.warns(ConvergenceWarning, match="rounding of float32 products"):
        pairs = top_eigenpairs(Matrix(matrix.matrix.float()), 3, 1e-9, max_matvecs=100_000)
    assert not bool(pairs.converged.all())
    assert pairs.matvecs < 300


@pytest.mark.parametrize("k", [1, 3])
def test_zero_matrix(k: int) -> None:
    pairs = top_eigenpairs(Matrix(torch.zeros(20, 20, dtype=torch.float64)), k)
    assert bool((pairs.values == 0).all())
    assert bool((pairs.residuals == 0).all())
    assert bool(pairs.converged.all())
    assert pairs.orthogonality < 1e-14
    # Any unit vector is an eigenvector: these say nothing, and their angles' bounds tell it.
    assert bool((pairs.gaps == 0).all())
    assert bool((pairs.angle_bounds == 1).all())


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("top", [1.0, 0.0, -1.0])
def test_a_multiple_of_the_identity(top: float, preconditioned: bool) -> None:
    matrix = Matrix(top * torch.eye(30, dtype=torch.float64))
    pairs = top_eigenpairs(matrix, 3, 1e-6, surrogate=matrix if preconditioned else None)
    torch.testing.assert_close(pairs.values, torch.full((3,), top, dtype=torch.float64), atol=1e-12, rtol=0)
    assert bool(pairs.converged.all())
    assert pairs.orthogonality < 1e-12
    assert bool((pairs.angle_bounds > 0.9).all())


@pytest.mark.parametrize("fold", [2, 3, 5])
def test_an_eigenvalue_of_several_vectors_at_the_top(fold: int) -> None:
    values = torch.cat([torch.full((fold,), 5.0, dtype=torch.float64), torch.linspace(2, -2, 60, dtype=torch.float64)])
    matrix, q = with_spectrum(values)
    pairs = top_eigenpairs(matrix, fold, 1e-9)
    # One start vector shows it once; the probes find the others.
    check(pairs, matrix, 1e-9)
    torch.testing.assert_close(pairs.values, values[:fold], rtol=1e-12, atol=0)
    torch.testing.assert_close((q[:, :fold].T @ pairs.vectors).norm(), torch.tensor(fold**0.5, dtype=torch.float64))
    assert bool((pairs.angle_bounds == 1).all())
    assert float(pairs.span_bounds.max()) < 1e-8


def test_invariant_subspace_is_left_for_a_new_direction() -> None:
    diagonal = torch.zeros(50, dtype=torch.float64)
    diagonal[:2] = torch.tensor([2.0, 1.0])
    pairs = top_eigenpairs(Matrix(torch.diag(diagonal)), 4, 1e-10)
    torch.testing.assert_close(
        pairs.values, torch.tensor([2.0, 1.0, 0.0, 0.0], dtype=torch.float64), atol=1e-12, rtol=0
    )
    assert bool(pairs.converged.all())


def test_every_pair_of_a_small_matrix() -> None:
    matrix, _ = with_spectrum(torch.tensor([3.0, 1.0, -1.0, -2.0, -7.0], dtype=torch.float64))
    pairs = top_eigenpairs(matrix, 5, 1e-12)
    torch.testing.assert_close(pairs.values, torch.tensor([3.0, 1.0, -1.0, -2.0, -7.0], dtype=torch.float64))
    check(pairs, matrix, 1e-12)


def test_same_seed_same_bits() -> None:
    matrix, _ = with_spectrum(spectrum(200, 5.0, 4.0, 3.0))
    a, b, c = (top_eigenpairs(matrix, 3, 1e-4, seed=seed) for seed in (7, 7, 8))
    assert bool((a.vectors == b.vectors).all())
    assert not bool((a.vectors == c.vectors).all())


def test_gap_is_the_distance_to_the_nearest_neighbour() -> None:
    matrix, _ = with_spectrum(spectrum(100, 10.0, 7.0, 6.5, 2.0))
    pairs = top_eigenpairs(matrix, 3, 1e-10)
    torch.testing.assert_close(pairs.gaps, torch.tensor([3.0, 0.5, 0.5], dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"k": 0}, "k = 0"), ({"k": 11}, "10 eigenpairs"), ({"k": 1, "tol": 0.0}, "tol"), ({"k": 1, "tol": -1.0}, "tol")],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        top_eigenpairs(Matrix(torch.eye(10, dtype=torch.float64)), **arguments)


def test_products_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="not finite"):
        top_eigenpairs(Matrix(torch.full((10, 10), torch.nan, dtype=torch.float64)), 2)


def test_a_network_from_dense_decomposition_and_scipy() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (
        torch.randn(200, 10, dtype=torch.float64, generator=generator),
        torch.randint(0, 4, (200,), generator=generator),
    )
    model = mlp(10, (8, 8), 4).double()
    initialize(model, 2)
    operator = HessianOperator(model, nn.CrossEntropyLoss(), x, y)
    dense = (operator @ torch.eye(operator.shape[0], dtype=torch.float64)).numpy()
    values, vectors = np.linalg.eigh(dense)
    pairs = top_eigenpairs(operator, 4, 1e-9)
    np.testing.assert_allclose(pairs.values.numpy(), values[::-1][:4], rtol=1e-12)
    assert np.abs((pairs.vectors.numpy() * vectors[:, ::-1][:, :4]).sum(0)).min() > 1 - 1e-12
    scipy_values = eigsh(
        LinearOperator(operator.shape, matvec=lambda v: operator @ v.reshape(-1), dtype=np.float64), k=4, which="LA"
    )[0]
    np.testing.assert_allclose(pairs.values.numpy(), scipy_values[::-1], rtol=1e-12)


# Clusters


def check_spans(pairs: EigenPairs, q: Tensor) -> None:
    """Each whole cluster's span lies as near to that of the eigenvectors `q` as is said."""
    for first in pairs.clusters.unique():
        own = torch.nonzero(pairs.clusters == first)[:, 0]
        cosine = float(torch.linalg.svdvals(q[:, own].T @ torch.linalg.qr(pairs.vectors[:, own]).Q).min())
        assert (max(0.0, 1 - cosine**2)) ** 0.5 <= float(pairs.span_bounds[own[0]]) * 1.01 + 1e-7


def test_neighbours_within_a_hundredth_are_a_cluster() -> None:
    matrix, q = with_spectrum(spectrum(300, 20.0, 12.0, 11.95, 11.9, 8.0, 6.0, 5.98, 4.0))
    pairs = top_eigenpairs(matrix, 8, 1e-3)
    assert pairs.clusters.tolist() == [0, 1, 1, 1, 4, 5, 5, 7]
    assert pairs.clustered.tolist() == [False, True, True, True, False, True, True, False]
    alone = ~pairs.clustered
    assert bool((pairs.span_bounds[alone] == pairs.angle_bounds[alone]).all())
    check_spans(pairs, q)
    # Of single vectors less is known than of their span.
    assert float(pairs.angle_bounds[1:4].max()) > 10 * float(pairs.span_bounds[1])


def test_each_clusters_span_is_that_of_a_tight_solve() -> None:
    matrix, q = with_spectrum(spectrum(300, 20.0, 12.0, 11.95, 8.0, 6.0, 5.98))
    pairs = top_eigenpairs(matrix, 6, 1e-5)
    for own in ([0], [1, 2], [3], [4, 5]):
        found = torch.linalg.qr(pairs.vectors[:, own]).Q
        assert float(torch.linalg.svdvals(q[:, own].T @ found).min()) > 0.9999
    check_spans(pairs, q)


def test_a_cluster_that_goes_on_beyond_the_last_pair_is_flagged() -> None:
    matrix, _ = with_spectrum(spectrum(200, 10.0, 7.0, 6.99))
    pairs = top_eigenpairs(matrix, 2, 1e-6)
    assert pairs.clustered.tolist() == [False, True]
    assert pairs.clusters.tolist() == [0, 1]
    apart = top_eigenpairs(with_spectrum(spectrum(200, 10.0, 7.0, 6.5))[0], 2, 1e-6)
    assert not bool(apart.clustered.any())


def test_as_long_as_nothing_is_bounded_a_cluster_is_possible() -> None:
    # 5% apart: without converged pairs and a probe nobody can know.
    seen = []
    for products in (4, 10, 20, 40, 60):
        matrix, _ = with_spectrum(spectrum(200, 10.0, 9.5, 6.0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            pairs = top_eigenpairs(matrix, 2, 1e-9, max_matvecs=products)
        assert pairs.matvecs <= products
        assert pairs.clustered.tolist() == (pairs.gaps <= 0.01 * pairs.values.abs()).tolist()
        assert (pairs.bound_source == "none") == (pairs.next_bound == float("inf"))
        seen.append(bool(pairs.clustered.any()))
    assert seen[0]
    assert not seen[-1]
