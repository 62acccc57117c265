"""The spectral density against dense spectra: its integral, moments, errors over many seeds, and its bounds."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from spectra import SPECTRA, Columns, with_spectrum
from torch import Tensor, nn

from eigendrift import HessianOperator, SpectralDensity, spectral_density, top_eigenpairs

pytestmark = pytest.mark.usefixtures("one_thread")


def smoothed(values: Tensor, points: np.ndarray, width: float) -> np.ndarray:
    """The density of these eigenvalues under a Gaussian."""
    return norm.pdf(points[:, None], values.double().numpy(), width).mean(axis=1)


@pytest.mark.parametrize("known", [0, 3])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_the_density_integrates_to_one_and_has_the_right_moments(spectrum: str, known: int) -> None:
    values = SPECTRA[spectrum].double()
    matrix = with_spectrum(values)
    pairs = top_eigenpairs(matrix, k=known, which="LM") if known else None
    density = spectral_density(matrix, pairs, probes=6, steps=30)
    assert density.kind == "estimated"
    assert density.products == 6 * 30 + known
    grid = np.linspace(float(values.min()) - 3, float(values.max()) + 3, 40_001)
    found, error = density(grid, width=0.1)
    assert found.min() >= 0
    assert error.min() >= 0
    assert np.trapezoid(found, grid) == pytest.approx(1.0, abs=1e-6)
    assert density.moment(0).value == pytest.approx(len(values), rel=1e-12)
    for power in (1, 2, 3):
        moment = density.moment(power)
        assert abs(moment.value - float((values**power).sum())) <= 5 * moment.standard_error + 1e-3 * known
        by_integral = len(values) * np.trapezoid(found * grid**power, grid)
        # A Gaussian of width s adds s^2 to the second moment, and 3 s^2 times the first to the third.
        added = {1: 0.0, 2: len(values) * 0.01, 3: 3 * 0.01 * density.trace.value}[power]
        assert by_integral == pytest.approx(moment.value + added, rel=1e-4, abs=1e-3)
    assert density.squared_frobenius_norm == density.moment(2)


@pytest.mark.parametrize("known", [0, 3])
@pytest.mark.parametrize("spectrum", ["flat", "outliers", "semicircle"])
def test_errors_are_as_large_as_the_standard_error_says(spectrum: str, known: int) -> None:
    values = SPECTRA[spectrum].double()
    matrix = with_spectrum(values)
    pairs = top_eigenpairs(matrix, k=known, which="LM", tol=1e-8) if known else None
    points = np.array([-0.8, -0.3, 0.0, 0.5, 0.9])
    width = 0.1
    right = smoothed(values, points, width)
    scaled, traces = [], []
    for seed in range(60):
        density = spectral_density(matrix, pairs, probes=8, steps=35, seed=seed)
        found, error = density(points, width)
        scaled.append((found - right) / error)
        traces.append((density.trace.value - float(values.sum())) / density.trace.standard_error)
    # With 8 vectors the ratio has Student's distribution of 7 degrees of freedom: deviation 1.18, 0.92 within 2.
    for ratios in (np.array(scaled), np.array(traces)):
        assert (np.abs(ratios) < 2).mean() >= 0.85
        assert 0.8 <= ratios.std() <= 1.6
        assert abs(ratios.mean()) < 4 * ratios.std() / math.sqrt(60)


def test_deflated_outliers_leave_the_error() -> None:
    matrix = with_spectrum(SPECTRA["outliers"])
    pairs = top_eigenpairs(matrix, k=3, which="LM")
    plain, deflated = (spectral_density(matrix, p, probes=8, steps=20) for p in (None, pairs))
    assert deflated.trace.standard_error < 0.2 * plain.trace.standard_error
    torch.testing.assert_close(deflated.known, torch.tensor([50.0, 30.0, -20.0]).double(), rtol=1e-4, atol=0.0)
    assert all(float(nodes.abs().max()) < 1.01 for nodes in deflated.nodes)


@pytest.mark.parametrize("tol", [1e-1, 1e-2, 1e-4])
def test_cutting_off_inexact_pairs_moves_eigenvalues_less_than_is_said(tol: float) -> None:
    matrix = with_spectrum(SPECTRA["decaying"])
    pairs = top_eigenpairs(matrix, k=4, tol=tol, probe="none", surrogate=None)
    density = spectral_density(matrix, pairs, probes=2, steps=10)
    v = torch.linalg.qr(pairs.vectors.double()).Q
    outside = torch.eye(len(matrix), dtype=torch.float64) - v @ v.T
    cut = v @ v.T @ matrix @ v @ v.T + outside @ matrix @ outside
    moved = (torch.linalg.eigvalsh(cut) - torch.linalg.eigvalsh(matrix)).abs().max()
    assert float(moved) <= density.shift_bound + 1e-12
    assert density.shift_bound <= 10 * tol


@pytest.mark.parametrize("spectrum", ["flat", "semicircle"])
def test_the_quadrature_error_is_seen_and_falls_with_the_steps(spectrum: str) -> None:
    matrix = with_spectrum(SPECTRA[spectrum])
    points, width = np.linspace(-1.2, 1.2, 200), 0.05
    # So many steps that the quadrature of so wide a Gaussian has no error left.
    finest = spectral_density(matrix, probes=4, steps=74, seed=1)
    assert finest.kind == "estimated"
    assert finest.quadrature_error(points, width).max() < 1e-5
    errors, said = [], []
    for steps in (8, 16, 24, 40):
        density = spectral_density(matrix, probes=4, steps=steps, seed=1)
        # Of the same random vectors.
        errors.append(np.abs(density(points, width)[0] - finest(points, width)[0]).max())
        said.append(density.quadrature_error(points, width).max())
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 100 * errors[3]
    assert all(error <= estimate for error, estimate in zip(errors, said, strict=True))
    # With the default width it is far below the standard error.
    found, error = density(points)
    assert np.abs(found - finest(points, density.width)[0]).max() < 0.05 * error.max()


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_small_operators_are_exact(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).to(kind)
    x, y = torch.randn(50, 4, dtype=kind), torch.randint(3, (50,))
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y)
    density = spectral_density(H)
    assert (density.kind, density.products) == ("exact", H.shape[0])
    values = torch.linalg.eigvalsh(H.in_float64() @ torch.eye(H.shape[0], dtype=torch.float64))
    torch.testing.assert_close(density.known.flip(0), values, rtol=0, atol=1e-6)
    grid = np.linspace(-1, 1, 50)
    found, error = density(grid, 0.1)
    np.testing.assert_allclose(found, smoothed(values, grid, 0.1), rtol=1e-4, atol=1e-6)
    assert not error.any()
    assert not density.quadrature_error(grid).any()
    assert density.moment(7).value == pytest.approx(float((values**7).sum()), rel=1e-4, abs=1e-6)


SPECIAL: dict[str, Tensor] = {
    "one eigenvalue": torch.full((700,), 2.0),
    "zero": torch.zeros(700),
    "two eigenvalues": torch.cat([torch.full((300,), -1.0), torch.full((400,), 1.0)]),
    "low rank": torch.cat([torch.arange(1.0, 6.0), torch.zeros(695)]),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_spaces_that_end_early(name: str) -> None:
    values = SPECIAL[name]
    density = spectral_density(Columns(with_spectrum(values)), probes=6, steps=30)
    assert all(float(w.sum()) == pytest.approx(1.0) for w in density.weights)
    for power in (1, 2):
        moment = density.moment(power)
        expected = float((values.double() ** power).sum())
        assert abs(moment.value - expected) <= 5 * moment.standard_error + 1e-9 * abs(expected) + 1e-9
    found, error = density(np.linspace(-2, 6, 9), 0.2)
    assert np.isfinite(found).all()
    assert np.isfinite(error).all()
    assert np.isfinite(density(0.0)[0]).all()


def test_pairs_that_leave_less_than_the_steps() -> None:
    matrix = with_spectrum(torch.linspace(0, 1, 40))
    pairs = top_eigenpairs(matrix, k=36)
    density = spectral_density(matrix, pairs, probes=3, steps=10)
    assert density.kind == "estimated"
    assert all(len(nodes) <= 4 for nodes in density.nodes)
    assert density.trace.value == pytest.approx(20.0, abs=1e-1)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"probes": 1}, "probes = 1"),
    ({"steps": 1.5}, "steps = 1.5"),
    ({"pairs": 20}, "N = 20"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_refused(arguments: dict[str, Any], message: str) -> None:
    if "pairs" in arguments:
        arguments = {"pairs": top_eigenpairs(torch.eye(20), k=3)}
    with pytest.raises(ValueError, match=message):
        spectral_density(with_spectrum(torch.linspace(0, 1, 100)), **arguments)


def test_bad_operators_and_questions_are_refused() -> None:
    upper = torch.triu(torch.ones(600, 600, dtype=torch.float64))
    with pytest.raises(ValueError, match="not symmetric"):
        spectral_density(Columns(upper), probes=2, steps=5)
    with pytest.raises(ValueError, match="not finite"):
        spectral_density(Columns(torch.full((600, 600), torch.nan)), probes=2, steps=5)
    density = spectral_density(with_spectrum(torch.linspace(0, 1, 100)), probes=2, steps=5)
    with pytest.raises(ValueError, match="width = 0"):
        density(0.5, width=0.0)
    for power in (-1, 10, 1.5):
        with pytest.raises(ValueError, match="power"):
            density.moment(power)  # type: ignore[arg-type]


def test_the_seed_makes_the_density() -> None:
    matrix = with_spectrum(torch.linspace(0, 1, 100))
    first, again, other = (spectral_density(matrix, probes=2, steps=5, seed=seed)([0.5])[0] for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("exact", [False, True])
def test_the_plot_shows_the_density(exact: bool) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    matrix = with_spectrum(SPECTRA["outliers"])
    density = spectral_density(matrix, top_eigenpairs(matrix, k=2), probes=60 if exact else 4, steps=10)
    assert (density.kind == "exact") is exact
    _, own = pyplot.subplots()
    assert density.plot(own, width=0.2) is own
    ax = density.plot()
    try:
        for axes in (own, ax):
            assert axes.get_yscale() == "log"
            x, y = axes.lines[0].get_data()
            assert (np.diff(x) > 0).all()
            assert (y > 0).all()
            assert x[0] < -20 < 50 < x[-1]
        x, y = own.lines[0].get_data()
        floor = 1e-3 / (density.order * 0.2)
        np.testing.assert_allclose(y, np.maximum(density(x, 0.2)[0], floor), rtol=1e-10)
        # The peak at the largest eigenvalue is drawn, however far away it is.
        assert y[np.abs(x - 50) < 0.2].max() == pytest.approx(1 / (300 * 0.2 * math.sqrt(2 * math.pi)), rel=1e-2)
    finally:
        pyplot.close("all")


def test_the_library_does_not_import_matplotlib() -> None:
    code = "import sys, eigendrift; eigendrift.spectral_density; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_prints_short() -> None:
    density = spectral_density(with_spectrum(torch.linspace(0, 1, 100)), probes=2, steps=5)
    assert isinstance(density, SpectralDensity)
    assert len(repr(density)) < 120
    assert "estimated" in repr(density)
