"""A surrogate that resembles the operator too little: the solver goes on without it, and says what that took."""

import pytest
import torch
from spectra import Matrix, check_pairs
from torch import Tensor

from eigendrift import top_eigenpairs

N = 400


def random_basis(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(N, N, generator=generator, dtype=torch.float64))[0]


@pytest.fixture
def matrix() -> Tensor:
    q = random_basis(1)
    values = torch.cat([torch.tensor([20.0, 15.0, 11.0, 9.0]).double(), torch.linspace(6, -1, N - 4).double()])
    return (q * values) @ q.T


@pytest.mark.parametrize("kind", ["unrelated", "diagonal", "opposite", "reversed"])
def test_a_surrogate_without_help_is_given_up_and_costs_little(kind: str, matrix: Tensor) -> None:
    other = random_basis(2)
    wrong = {
        "unrelated": other @ matrix @ other.T,
        "diagonal": torch.diag(torch.linspace(1, 2, N).double()),
        # Both have the eigenvectors of the matrix, so that the residuals of their first ones are zero.
        "opposite": -matrix,
        "reversed": 19 * torch.eye(N).double() - matrix,
    }[kind]
    plain = top_eigenpairs(matrix, 3, 1e-3)
    pairs = top_eigenpairs(matrix, 3, 1e-3, surrogate=Matrix(wrong), probe="surrogate")
    check_pairs(pairs, matrix, 1e-3)
    assert pairs.bound_source == "operator"
    assert pairs.matvecs <= 1.5 * plain.matvecs + 6


def test_start_vectors_do_not_hide_that_a_surrogate_is_unlike(matrix: Tensor) -> None:
    lowest = torch.linalg.eigh(matrix).eigenvectors[:, :4]
    pairs = top_eigenpairs(matrix, 3, 1e-3, surrogate=Matrix(-matrix), probe="surrogate", v0=lowest)
    check_pairs(pairs, matrix, 1e-3)
    assert pairs.bound_source == "operator"


def test_products_of_an_attempt_that_was_given_up_are_counted(matrix: Tensor) -> None:
    counted = Matrix(matrix)
    pairs = top_eigenpairs(counted, 3, 1e-3, surrogate=Matrix(-matrix), probe="surrogate")
    assert counted.products == pairs.matvecs


def test_a_limit_of_products_holds_for_both_attempts(matrix: Tensor) -> None:
    with pytest.warns(UserWarning, match="did not converge"):
        pairs = top_eigenpairs(Matrix(matrix), 3, 1e-6, surrogate=Matrix(-matrix), max_matvecs=9)
    assert pairs.matvecs <= 9 + 4
