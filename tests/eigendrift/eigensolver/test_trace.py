"""Trace and Frobenius norm: exact where they say so, and errors as large as they say over many seeds."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spectra import SPECTRA, Columns, with_spectrum
from torch import Tensor, nn

from eigendrift import GGNOperator, HessianOperator, squared_frobenius_norm, top_eigenpairs, trace
from eigendrift.eigensolver.trace import Estimate

pytestmark = pytest.mark.usefixtures("one_thread")
BOTH: dict[str, tuple[Callable[..., Estimate], Callable[[Tensor], Tensor]]] = {
    "trace": (trace, lambda values: values.double().sum()),
    "norm": (squared_frobenius_norm, lambda values: values.double().square().sum()),
}


@pytest.mark.parametrize("known", [0, 3])
@pytest.mark.parametrize("quantity", BOTH)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_errors_are_as_large_as_the_standard_error_says(spectrum: str, quantity: str, known: int) -> None:
    ours, right = BOTH[quantity]
    values = SPECTRA[spectrum]
    matrix = with_spectrum(values)
    pairs = top_eigenpairs(matrix, k=known, which="LM") if known else None
    estimates = [ours(matrix, pairs=pairs, products=60, seed=seed) for seed in range(150)]
    assert all(e.kind == "estimated" and e.products == 60 for e in estimates)
    errors = np.array([e.value for e in estimates]) - float(right(values))
    scaled = errors / np.array([e.standard_error for e in estimates])
    # The mean of 150 errors, and their share within two standard errors: 0.95 of a normal distribution.
    assert abs(errors.mean()) < 4 * errors.std() / math.sqrt(len(errors))
    assert (np.abs(scaled) < 2).mean() >= 0.85
    assert 0.75 <= scaled.std() <= 1.35


@pytest.mark.parametrize("quantity", BOTH)
def test_known_pairs_and_the_sketch_take_the_large_eigenvalues_out_of_the_error(quantity: str) -> None:
    ours, _ = BOTH[quantity]
    matrix = with_spectrum(SPECTRA["outliers"])
    without_outliers = with_spectrum(SPECTRA["outliers"].clamp(-1, 1))
    pairs = top_eigenpairs(matrix, k=3, which="LM")
    small = np.mean([ours(without_outliers, products=60, seed=seed).standard_error for seed in range(20)])
    for each in (pairs, None):
        error = np.mean([ours(matrix, pairs=each, products=60, seed=seed).standard_error for seed in range(20)])
        assert error < 2 * small


@given(rank=st.integers(0, 15), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_low_ranks_are_exact(rank: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(rank, 120, dtype=torch.float64, generator=generator)
    signs = torch.where(torch.arange(rank) % 3 == 0, -1.0, 1.0).double()
    matrix = factors.T @ (signs[:, None] * factors)
    scale = float(matrix.diagonal().abs().sum()) + 1e-300
    found = trace(matrix, products=48, seed=seed)
    assert abs(found.value - float(matrix.trace())) <= 1e-10 * scale
    assert found.standard_error <= 1e-10 * scale
    norm = squared_frobenius_norm(matrix, products=48, seed=seed)
    assert norm.value == pytest.approx(float(matrix.square().sum()), rel=1e-10)
    assert norm.standard_error <= 1e-10 * norm.value + 1e-300


@pytest.mark.parametrize("quantity", BOTH)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_as_many_products_as_parameters_are_exact(quantity: str, kind: torch.dtype) -> None:
    ours, right = BOTH[quantity]
    values = torch.linspace(-1, 2, 40)
    found = ours(with_spectrum(values).to(kind))
    assert (found.kind, found.products) == ("exact", 40)
    assert abs(found.value - float(right(values))) <= found.standard_error


def test_they_take_every_operator() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 20), nn.Tanh(), nn.Linear(20, 3))
    x, y = torch.randn(60, 8), torch.randint(3, (60,))
    H, G = (kind(model, nn.CrossEntropyLoss(), x, y) for kind in (HessianOperator, GGNOperator))
    for operator in (H, G, 2 * H - G, H.to_scipy(), (H - G).shifted(0.5).in_float64()):
        dense = torch.as_tensor(operator @ np.eye(operator.shape[0]))
        for ours, expected in ((trace, dense.trace()), (squared_frobenius_norm, dense.square().sum())):
            found = ours(operator, products=90, seed=3)
            assert abs(found.value - float(expected)) < 4 * found.standard_error
            assert ours(operator, products=90, seed=3) == found
            assert ours(operator, products=90, seed=4) != found


BAD: list[tuple[dict[str, Any], str]] = [
    ({"products": 11}, "give 12 at least"),
    ({"products": 14, "pairs": 3}, "give 15 at least, of which 3"),
    ({"pairs": 20}, "N = 20"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_refused(arguments: dict[str, Any], message: str) -> None:
    matrix = with_spectrum(torch.linspace(0, 1, 100))
    if "pairs" in arguments:
        of = matrix if arguments["pairs"] == 3 else torch.eye(20)
        arguments = {**arguments, "pairs": top_eigenpairs(of, k=3)}
    with pytest.raises(ValueError, match=message):
        trace(matrix, **arguments)


@pytest.mark.parametrize("products", [60, 100])
def test_asymmetric_operators_and_products_that_are_not_finite_are_refused(products: int) -> None:
    upper = torch.triu(torch.ones(100, 100, dtype=torch.float64))
    with pytest.raises(ValueError, match="not symmetric"):
        squared_frobenius_norm(Columns(upper), products=products)
    with pytest.raises(ValueError, match="not finite"):
        trace(Columns(torch.full((100, 100), torch.nan)), products=products)
