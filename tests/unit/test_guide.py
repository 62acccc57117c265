"""The guide: a sampled Hessian that saves full products and changes nothing else."""

import pytest
import torch
from torch import nn

from eigendrift import HessianOperator, top_eigenpairs
from eigendrift.curvature import _heavy_samples
from eigendrift.model import initialize, mlp

CROSS_ENTROPY = nn.CrossEntropyLoss()
SAMPLES = 12_000


@pytest.fixture(scope="module", params=["relu", "tanh"])
def trained(request: pytest.FixtureRequest) -> HessianOperator:
    """A small network that has fitted most of its samples, in float64."""
    generator = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(5, 12, dtype=torch.float64, generator=generator)
    y = torch.randint(0, 5, (SAMPLES,), generator=generator)
    x = centres[y] + torch.randn(SAMPLES, 12, dtype=torch.float64, generator=generator)
    model = mlp(12, (16, 16), 5, request.param).double()
    initialize(model, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        CROSS_ENTROPY(model(x), y).backward()
        optimizer.step()
    return HessianOperator(model, CROSS_ENTROPY, x, y)


@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_guided_pairs_are_the_pairs(trained: HessianOperator, tol: float) -> None:
    exact = top_eigenpairs(trained, 3, 1e-11)
    plain, guided = (top_eigenpairs(trained, 3, tol, guide=guide) for guide in (None, trained.guide()))
    assert bool(guided.converged.all())
    true = (trained @ guided.vectors - guided.vectors * guided.values).norm(dim=0) / guided.values.abs()
    torch.testing.assert_close(guided.residuals, true, rtol=1e-5, atol=1e-12)
    assert float((guided.vectors * exact.vectors).sum(0).abs().min()) > 1 - tol
    torch.testing.assert_close(guided.values, exact.values, rtol=max(tol**2 * 100, 1e-10), atol=0)
    assert guided.guide_matvecs > 0
    assert plain.guide_matvecs == 0
    if tol == 1e-3:
        assert guided.matvecs < plain.matvecs


def test_products_of_guide_and_operator_are_counted_apart(trained: HessianOperator) -> None:
    before = trained.products
    pairs = top_eigenpairs(trained, 2, 1e-3, guide=trained.guide())
    assert trained.products - before == pairs.matvecs


def test_a_bad_guide_costs_products_but_no_accuracy(trained: HessianOperator) -> None:
    class Wrong:
        shape, dtype, device = trained.shape, trained.dtype, trained.device

        def product(self, vectors: torch.Tensor) -> torch.Tensor:
            return vectors * torch.linspace(1, 2, self.shape[0], dtype=self.dtype)

    exact = top_eigenpairs(trained, 3, 1e-11)
    pairs = top_eigenpairs(trained, 3, 1e-5, guide=Wrong(), max_matvecs=3000)
    assert bool(pairs.converged.all())
    assert float((pairs.vectors * exact.vectors).sum(0).abs().min()) > 1 - 1e-5


def test_all_samples_with_weight_one_are_the_hessian(trained: HessianOperator) -> None:
    vectors = torch.randn(3, trained.shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(2))
    everything = trained.path.subset(order, torch.ones(SAMPLES, dtype=torch.float64))
    torch.testing.assert_close(everything.product(vectors), trained.path.product(vectors), rtol=1e-10, atol=1e-13)


def test_weights_scale_each_sample(trained: HessianOperator) -> None:
    vector = torch.randn(1, trained.shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rows, weights = torch.tensor([3, 50, 7]), torch.tensor([2.0, 0.5, 10.0], dtype=torch.float64)
    parts = [trained.path.subset(row[None], torch.ones(1, dtype=torch.float64)).product(vector) for row in rows]
    expected = sum(weight * part for weight, part in zip(weights, parts, strict=True))
    torch.testing.assert_close(trained.path.subset(rows, weights).product(vector), expected, rtol=1e-11, atol=1e-15)


def test_the_sample_is_unbiased() -> None:
    sizes = torch.rand(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) ** 8
    terms = torch.randn(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * sizes
    estimates = []
    for seed in range(400):
        rows, weights = _heavy_samples(sizes, 50, 250, seed)
        assert len(rows) == len(set(rows.tolist())) <= 250
        estimates.append(float((terms[rows] * weights).sum()))
    found = torch.tensor(estimates, dtype=torch.float64)
    assert abs(float(found.mean() - terms.sum())) < 4 * float(found.std()) / 20


def test_fitted_samples_leave_nothing_to_draw() -> None:
    sizes = torch.zeros(1000, dtype=torch.float64)
    sizes[5] = 1.0
    rows, weights = _heavy_samples(sizes, 20, 100, 0)
    assert 5 in rows.tolist()
    assert bool(torch.isfinite(weights).all())
    rows, weights = _heavy_samples(torch.zeros(1000, dtype=torch.float64), 20, 100, 0)
    assert bool(torch.isfinite(weights).all())


def test_none_where_it_would_not_pay(trained: HessianOperator) -> None:
    x, y = trained.path.inputs, trained.path.targets
    assert HessianOperator(trained.model, CROSS_ENTROPY, x[:5000], y[:5000]).guide() is None
    general = HessianOperator(nn.Sequential(trained.model, nn.Identity()), CROSS_ENTROPY, x, y)
    assert general.guide() is None


def test_a_guide_stays_where_it_was_made(trained: HessianOperator) -> None:
    theta = torch.cat([p.detach().reshape(-1) for p in trained.model.parameters()])
    vector = torch.ones(1, trained.shape[0], dtype=torch.float64)
    guide = trained.guide()
    assert guide is not None
    before = guide.product(vector)
    trained.move_to(theta * 1.5)
    after = guide.product(vector)
    trained.move_to(theta)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
