"""The surrogate: a sampled Hessian that saves full products and changes nothing else."""

import copy
import math

import pytest
import torch
from torch import nn

from eigendrift import HessianOperator, top_eigenpairs
from eigendrift.hessian.mlp import MLPHessian
from eigendrift.hessian.surrogate import (
    MixedPrecisionOperator,
    SurrogateHessian,
    for_tolerance,
    sampled_surrogate,
    weighted_sample,
)
from reproduction.training.model import initialize, mlp

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
    plain, preconditioned = (
        top_eigenpairs(trained, 3, tol, surrogate=surrogate) for surrogate in (None, trained.surrogate())
    )
    assert bool(preconditioned.converged.all())
    true = (trained @ preconditioned.vectors - preconditioned.vectors * preconditioned.values).norm(
        dim=0
    ) / preconditioned.values.abs()
    torch.testing.assert_close(preconditioned.residuals, true, rtol=1e-5, atol=1e-12)
    assert float((preconditioned.vectors * exact.vectors).sum(0).abs().min()) > 1 - tol
    torch.testing.assert_close(preconditioned.values, exact.values, rtol=max(tol**2 * 100, 1e-10), atol=0)
    assert preconditioned.surrogate_matvecs > 0
    assert plain.surrogate_matvecs == 0
    if tol == 1e-3:
        assert preconditioned.matvecs < plain.matvecs


def test_products_of_guide_and_operator_are_counted_apart(trained: HessianOperator) -> None:
    before = trained.products
    pairs = top_eigenpairs(trained, 2, 1e-3, surrogate=trained.surrogate())
    assert trained.products - before == pairs.matvecs


def test_a_bad_guide_costs_products_but_no_accuracy(trained: HessianOperator) -> None:
    class Wrong:
        shape, dtype, device = trained.shape, trained.torch_dtype, trained.device

        def product(self, vectors: torch.Tensor) -> torch.Tensor:
            return vectors * torch.linspace(1, 2, self.shape[0], dtype=self.dtype)

    exact = top_eigenpairs(trained, 3, 1e-11)
    pairs = top_eigenpairs(trained, 3, 1e-5, surrogate=Wrong(), max_matvecs=3000)
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


@pytest.mark.parametrize("kinds", [1, 3, 40])
def test_the_sample_is_unbiased(kinds: int) -> None:
    sizes = torch.rand(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) ** 8
    terms = torch.randn(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * sizes
    strata = torch.randint(kinds, (2000,), generator=torch.Generator().manual_seed(5))
    estimates = []
    for seed in range(400):
        rows, weights = weighted_sample(sizes, strata, 250, seed)
        assert len(rows) == len(set(rows.tolist())) <= 250
        assert float(weights.min()) >= 1 - 1e-12
        estimates.append(float((terms[rows] * weights).sum()))
    found = torch.tensor(estimates, dtype=torch.float64)
    assert abs(float(found.mean() - terms.sum())) < 4 * float(found.std()) / 20


def test_terms_that_are_too_large_to_be_drawn_are_certain() -> None:
    sizes = torch.tensor([10.0, 0.1, 0.2, 9.0, 0.3, 0.1], dtype=torch.float64)
    for seed in range(20):
        rows, weights = weighted_sample(sizes, torch.zeros(6, dtype=torch.int64), 3, seed)
        chosen = dict(zip(rows.tolist(), weights.tolist(), strict=True))
        assert len(chosen) == 3
        assert chosen.pop(0) == chosen.pop(3) == 1
        ((last, weight),) = chosen.items()
        assert weight == pytest.approx(0.7 / float(sizes[last]))


def test_each_kind_has_its_share() -> None:
    sizes, strata = torch.ones(1000, dtype=torch.float64), torch.arange(1000) % 10
    for seed in range(20):
        rows, _ = weighted_sample(sizes, strata, 105, seed)
        counts = torch.bincount(strata[rows], minlength=10)
        assert int(counts.min()) >= 10
        assert int(counts.max()) <= 11


@pytest.mark.parametrize("m", [1, 20])
def test_fitted_samples_leave_nothing_to_draw(m: int) -> None:
    sizes, strata = torch.zeros(1000, dtype=torch.float64), torch.zeros(1000, dtype=torch.int64)
    rows, weights = weighted_sample(sizes, strata, m, 0)
    assert len(rows) == m
    assert bool(torch.isfinite(weights).all())
    sizes[5] = 1.0
    rows, weights = weighted_sample(sizes, strata, m, 0)
    assert rows.tolist() == [5]
    assert weights.tolist() == [1.0]


def test_importance_is_the_trace_of_the_last_layers_gauss_newton_block(trained: HessianOperator) -> None:
    path = trained.path
    assert isinstance(path, MLPHessian)
    x, y = path.inputs.dense(), path.targets
    hidden = trained.model[:-1](x).detach()
    p = torch.softmax(trained.model(x), dim=1).detach()
    trace = (1 - p.square().sum(dim=1)) * (1 + hidden.square().sum(dim=1))
    sizes, pairs = path.importance()
    right = p.argmax(dim=1) == y
    torch.testing.assert_close(sizes[right], trace[right], rtol=1e-9, atol=1e-12)
    assert bool((sizes >= trace * (1 - 1e-9) - 1e-12).all())
    first, second = p.topk(2, dim=1).indices.T
    assert torch.equal(pairs, first * 5 + second)


def test_a_confident_mistake_is_important() -> None:
    layer = nn.Linear(2, 3).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[40.0, 0.0], [0.0, 40.0], [-40.0, -40.0]]))
        layer.bias.zero_()
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    path = MLPHessian([layer], [], x, torch.tensor([0, 1]))
    sizes, _ = path.importance()
    # 1 - p of the right one is e^-40, which 1 - p in floating point does not have.
    assert float(sizes[0]) == pytest.approx(2 * 2 * math.exp(-40), rel=1e-9)
    assert float(sizes[1]) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("heavy", "levels"),
    [(100, [SAMPLES // 20]), (700, [1386]), (2000, [SAMPLES // 12, 2640]), (8000, [SAMPLES // 8])],
    ids=["very few", "few", "up to a quarter", "many"],
)
def test_the_guide_is_as_large_as_the_curvature_is_spread(
    trained: HessianOperator, monkeypatch: pytest.MonkeyPatch, heavy: int, levels: list[int]
) -> None:
    path = trained.path
    assert isinstance(path, MLPHessian)
    # So many samples of equal size hold all but a trace, 99% of them 99% of it.
    sizes = torch.full((SAMPLES,), 1e-9, dtype=torch.float64)
    sizes[:heavy] = 1.0
    monkeypatch.setattr(path, "importance", lambda: (sizes, torch.zeros(SAMPLES, dtype=torch.int64)))
    surrogate = sampled_surrogate(path, 0)
    assert surrogate is not None
    found = [len(level.path.inputs) for level in (surrogate.coarse, surrogate) if level is not None]
    assert found == [pytest.approx(size, abs=4) for size in levels]


def test_a_guide_may_have_a_guide(trained: HessianOperator) -> None:
    path = trained.path
    sizes, strata = path.importance()
    levels = [path.subset(*weighted_sample(sizes, strata, m, 0)) for m in (700, 6000)]
    nested = SurrogateHessian(levels[1], coarse=SurrogateHessian(levels[0]))
    exact = top_eigenpairs(trained, 3, 1e-11)
    pairs = top_eigenpairs(trained, 3, 1e-4, surrogate=nested)
    assert bool(pairs.converged.all())
    assert float((pairs.vectors * exact.vectors).sum(0).abs().min()) > 1 - 1e-4
    assert pairs.surrogate_matvecs > 0


def test_rounded_products_save_products_in_float64(trained: HessianOperator) -> None:
    model, x, y = copy.deepcopy(trained.model).float(), trained.path.inputs.dense().float(), trained.path.targets
    surrogate = MixedPrecisionOperator(HessianOperator(model, CROSS_ENTROPY, x, y))
    exact = top_eigenpairs(trained, 4, 1e-11)
    plain, preconditioned = (top_eigenpairs(trained, 4, 1e-7, surrogate=each) for each in (None, surrogate))
    assert preconditioned.vectors.dtype == torch.float64
    assert bool(preconditioned.converged.all())
    true = (trained @ preconditioned.vectors - preconditioned.vectors * preconditioned.values).norm(
        dim=0
    ) / preconditioned.values.abs()
    torch.testing.assert_close(preconditioned.residuals, true, rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(preconditioned.values, exact.values, rtol=1e-11, atol=0)
    sines = (preconditioned.vectors - exact.vectors * (preconditioned.vectors * exact.vectors).sum(0)).norm(dim=0)
    assert bool((sines <= preconditioned.angle_bounds + 1e-9).all())
    assert preconditioned.matvecs < plain.matvecs
    assert preconditioned.surrogate_matvecs == surrogate.operator.products > 0


def test_a_perfect_guide_leaves_the_certificate_alone(trained: HessianOperator) -> None:
    """k products; the next eigenvalue is then the surrogate's, and the gaps are what a plain solve finds."""
    exact = top_eigenpairs(trained, 4, 1e-11)
    pairs = top_eigenpairs(trained, 3, 1e-3, surrogate=SurrogateHessian(trained.path), probe="surrogate")
    assert pairs.matvecs == 3
    assert bool(pairs.converged.all())
    distances = (exact.values[:3, None] - exact.values[None]).abs()
    distances[range(3), range(3)] = torch.inf
    true = distances.min(dim=1).values
    assert bool((pairs.gaps <= true * (1 + 1e-6)).all())
    assert bool((pairs.gaps >= true - 5e-3 * exact.values[0]).all())
    found = exact.vectors[:, :3]
    sines = (pairs.vectors - found * (pairs.vectors * found).sum(0)).norm(dim=0)
    assert bool((sines <= pairs.angle_bounds + 1e-9).all())


def test_none_where_it_would_not_pay(trained: HessianOperator) -> None:
    assert isinstance(trained.path, MLPHessian)
    x, y = trained.path.inputs.dense(), trained.path.targets
    assert HessianOperator(trained.model, CROSS_ENTROPY, x[:5000], y[:5000]).surrogate() is None
    general = HessianOperator(trained.model, lambda o, t: nn.functional.cross_entropy(o, t), x[:1900], y[:1900])
    assert general.surrogate() is None


def test_a_guide_stays_where_it_was_made(trained: HessianOperator) -> None:
    theta = torch.cat([p.detach().reshape(-1) for p in trained.model.parameters()])
    vector = torch.ones(1, trained.shape[0], dtype=torch.float64)
    surrogate = trained.surrogate()
    assert surrogate is not None
    before = surrogate.product(vector)
    trained.move_to(theta * 1.5)
    after = surrogate.product(vector)
    trained.move_to(theta)
    torch.testing.assert_close(after, before, rtol=0, atol=0)


# Which form of the operator, and which surrogate, for which tolerance


@pytest.fixture
def single() -> HessianOperator:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(300, 8, generator=generator)
    model = mlp(8, [9], 3)
    initialize(model, 1)
    return HessianOperator(model, CROSS_ENTROPY, inputs, inputs[:, :3].argmax(dim=1))


def test_a_surrogate_is_taken_where_it_saves_time(single: HessianOperator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HessianOperator, "surrogate", lambda self, seed: f"surrogate {seed}")
    for tol in (1e-2, 1e-3, 1e-4):
        assert for_tolerance(single, tol, 3) == (single, "surrogate 3")
    assert for_tolerance(single, 1e-3, None) == (single, None)
    assert for_tolerance(single, 1e-5, 3) == (single.with_float64_forward(), None)
    exact, mixed = for_tolerance(single, 1e-6, 3)
    assert exact is single.in_float64()
    assert isinstance(mixed, MixedPrecisionOperator)
    assert mixed.operator is single
    assert for_tolerance(single, 1e-6, None) == (exact, None)
    assert for_tolerance(single, 1e-8, 3) == (single.in_float64(), None)
    # A network that is in float64 itself has nothing cheaper that is as near.
    assert for_tolerance(single.in_float64(), 1e-6, 3) == (single.in_float64(), None)


@pytest.mark.parametrize("tol", [1e-3, 1e-5, 1e-6, 1e-10])
def test_the_plain_call_reaches_any_tolerance_on_a_float32_model(single: HessianOperator, tol: float) -> None:
    pairs = top_eigenpairs(single, 4, tol)
    assert bool(pairs.converged.all())
    exact = single.in_float64()
    vectors = pairs.vectors.double()
    true = (exact @ vectors - vectors * pairs.values).norm(dim=0) / pairs.values.abs()
    assert float(true.max()) <= tol * 1.1 + (1e-7 if pairs.vectors.dtype == torch.float32 else 0)
