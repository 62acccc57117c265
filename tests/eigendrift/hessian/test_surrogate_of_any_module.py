"""The surrogate of any module against dense Hessians in float64: importance, weighted samples, use by the solver."""

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from spectra import check_pairs
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from eigendrift import HessianOperator, top_eigenpairs
from eigendrift.hessian.autograd import FunctionalHessian
from eigendrift.hessian.importance import importance
from eigendrift.hessian.mlp import MLPHessian
from eigendrift.hessian.surrogate import SurrogateHessian, grouped_sample, sampled_around

CLASSES = 3


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Transformer(nn.Module):
    """A transformer block over sequences of five vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.block = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, activation="gelu", batch_first=True)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.block(self.embed(x)).mean(dim=1))
        return result


class PerToken(nn.Module):
    """A prediction at each of four places, classes second, as torch's cross-entropy wants them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x).transpose(1, 2)
        return result


class NoLastLayer(nn.Module):
    """The outputs come from a product that belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.below = nn.Linear(3, 4)
        self.weight = nn.Parameter(draw(4, CLASSES, seed=9).float())

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.tanh(self.below(x)) @ self.weight
        return result


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2), nn.Tanh(), nn.Conv2d(3, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(2, CLASSES)
    )


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 12), nn.Tanh(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    model[2].requires_grad_(False)
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "convolutional": (convolutional, (1, 6, 6), ()),
    "transformer": (Transformer, (5, 3), ()),
    "every token": (PerToken, (4, 3), (4,)),
    "no last layer": (NoLastLayer, (3,), ()),
}

# Name: the loss that is given, and (loss of each prediction, what each counts in the divisor).
Parts = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
WEIGHT = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)


def _cross_entropy(**settings: Any) -> Parts:
    def parts(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        each = functional.cross_entropy(z, y, reduction="none", **settings)
        counted = (y != settings.get("ignore_index", -100)).to(z)
        weight = settings.get("weight")
        return each, counted if weight is None else counted * weight[y.clamp(min=0)]

    return parts


LOSSES: dict[str, tuple[Any, Parts]] = {
    "plain": (nn.CrossEntropyLoss(), _cross_entropy()),
    "weights": (nn.CrossEntropyLoss(weight=WEIGHT), _cross_entropy(weight=WEIGHT)),
    "ignored": (nn.CrossEntropyLoss(ignore_index=1), _cross_entropy(ignore_index=1)),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.2), _cross_entropy(label_smoothing=0.2)),
    "sum": (
        functools.partial(functional.cross_entropy, reduction="sum"),
        lambda z, y: (functional.cross_entropy(z, y, reduction="none"), torch.zeros_like(y).to(z)),
    ),
}
CASES = [
    (model, loss) for model in MODELS for loss in LOSSES if model in ("convolutional", "every token") or loss == "plain"
]


def problem(name: str, loss: str, n: int, rows: int, scale: float = 2.0) -> tuple[HessianOperator, Tensor, Tensor]:
    make, shape, places = MODELS[name]
    torch.manual_seed(1)
    model = make().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    x = draw(n, *shape, seed=2)
    y = torch.randint(CLASSES, (n, *places), generator=torch.Generator().manual_seed(3))
    return HessianOperator(model, LOSSES[loss][0], x, y, rows=rows), x, y


def hessians(H: HessianOperator, x: Tensor, y: Tensor, parts: Parts) -> tuple[Tensor, Tensor, float]:
    """The Hessian of each sample's summed loss, what each counts in the divisor, and the divisor (1 for a sum)."""
    named = dict(H.model.named_parameters())
    sizes = [named[name].numel() for name in H.names]
    theta = torch.cat([named[name].detach().reshape(-1) for name in H.names])

    def loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        own = {name: part.view_as(named[name]) for name, part in zip(H.names, theta.split(sizes), strict=True)}
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return parts(functional_call(H.model, own, (x[None],)), y[None])[0].sum()

    # Reverse over reverse: forward over reverse torch has wrong for layer normalization.
    dense = torch.func.jacrev(torch.func.grad(loss))
    found = torch.stack([dense(theta, a, b) for a, b in zip(x, y, strict=True)])
    with torch.no_grad():
        counts = parts(H.model(x), y)[1].reshape(len(x), -1).sum(dim=1)
    return found, counts, float(counts.sum()) or 1.0


def general(H: HessianOperator) -> FunctionalHessian:
    assert isinstance(H.path, FunctionalHessian)
    return H.path


@pytest.mark.parametrize(("model", "loss"), CASES)
def test_the_surrogate_is_the_weighted_sum_of_the_samples_hessians(model: str, loss: str) -> None:
    H, x, y = problem(model, loss, 14, 6)
    each, _, divisor = hessians(H, x, y, LOSSES[loss][1])
    unit = torch.eye(H.shape[0], dtype=torch.float64)
    torch.testing.assert_close(H @ unit, each.sum(dim=0) / divisor, rtol=1e-8, atol=1e-10)
    found = importance(general(H))
    assert found is not None
    sizes, strata = found
    for m, seed in ((4, 0), (8, 1), (14, 0)):
        groups = grouped_sample(sizes, strata, m, seed)
        expected = sum(weight * each[rows].sum(dim=0) for weight, rows in groups) / divisor
        surrogate = sampled_around(general(H), sizes, strata, seed, m, 1 << 30)
        torch.testing.assert_close(surrogate.product(unit), expected, rtol=1e-8, atol=1e-10)
        bounded = sampled_around(general(H), sizes, strata, seed, m, 0)
        torch.testing.assert_close(bounded.product(unit), expected, rtol=1e-8, atol=1e-10)


def test_a_frozen_layer_has_its_entries_left_out() -> None:
    model, n = frozen().double(), 12_000
    x, y = draw(n, 3), torch.randint(CLASSES, (n,), generator=torch.Generator().manual_seed(3))
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y)
    assert isinstance(H.path, MLPHessian)
    for each in model.parameters():
        each.requires_grad_(True)
    everything = HessianOperator(model, nn.CrossEntropyLoss(), x, y)
    ours, whole = H.surrogate(3), everything.surrogate(3)
    assert ours is not None
    assert whole is not None
    own = torch.ones(everything.shape[0], dtype=torch.bool)
    for name in ("2.weight", "2.bias"):
        own[everything.parameter_slices[name]] = False
    vectors = draw(2, H.shape[0])
    padded = vectors.new_zeros(2, everything.shape[0])
    padded[:, own] = vectors
    torch.testing.assert_close(ours.product(vectors), whole.product(padded)[:, own], rtol=1e-11, atol=1e-13)
    pairs, plain = top_eigenpairs(H, 2, 1e-3), top_eigenpairs(H, 2, 1e-9, surrogate=None)
    assert pairs.surrogate_matvecs > 0
    torch.testing.assert_close(pairs.values, plain.values, rtol=1e-5, atol=0)


def outliers(model: nn.Module, x: Tensor) -> Tensor:
    """How many times the mean the inputs of any layer are in squared norm, at least 1, (n,)."""
    seen: list[Tensor] = []
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    handles = [
        layer.register_forward_hook(lambda _, given, __: seen.append(given[0].detach().flatten(1).square().sum(dim=1)))
        for layer in layers
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return torch.stack([each / each.mean() for each in seen]).amax(dim=0).clamp(min=1)


def last_inputs(model: nn.Module, x: Tensor) -> Tensor:
    """|a|^2 of the inputs of the last linear layer, at every place, (n, places)."""
    seen: list[Tensor] = []
    layer = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    handle = layer.register_forward_hook(lambda _, given, __: seen.append(given[0].detach()))
    with torch.no_grad():
        model(x)
    handle.remove()
    return seen[0].square().sum(dim=-1).reshape(len(x), -1)


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("model", list(MODELS))
def test_importance_is_the_trace_of_the_last_layers_gauss_newton_block(model: str, loss: str) -> None:
    """Or more, where the gradient by the outputs is larger, or the inputs of another layer are larger than usual.

    Without a last layer it comes from the outputs alone.
    """
    H, x, y = problem(model, loss, 30, 9)
    z = H.model(x).detach()
    places = z.reshape(30, CLASSES, -1).shape[2]
    p = z.reshape(30, CLASSES, -1).softmax(dim=1)
    wrong = p.argmax(dim=1) != y.reshape(30, -1)
    own = 1 - p.gather(1, y.reshape(30, 1, -1))[:, 0]
    factor = torch.ones(30, places, dtype=torch.float64)
    if loss == "weights":
        factor = WEIGHT[y.reshape(30, -1)]
    if loss == "ignored":
        factor = (y.reshape(30, -1) != 1).double()
    trace, by_outputs = factor * (1 - p.square().sum(dim=1)), factor * torch.where(wrong, own, 0.0)
    lengths = torch.zeros(30, 1, dtype=torch.float64) if model == "no last layer" else last_inputs(H.model, x)
    if lengths.shape[1] != trace.shape[1]:
        lengths = lengths.mean(dim=1, keepdim=True)
    expected = ((1 + lengths) * torch.maximum(trace, by_outputs)).sum(dim=1) * outliers(H.model, x)
    found = importance(general(H))
    assert found is not None
    torch.testing.assert_close(found[0], expected.double(), rtol=1e-9, atol=1e-12)


def test_a_fitted_sample_keeps_its_importance_in_float32() -> None:
    """1 - p in float32 is 0 or a rounding error for such outputs."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3), nn.Identity())
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[30.0, 0.0], [0.0, 30.0], [-60.0, -60.0]]))
        model[1].bias.zero_()
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])[:, None]
    plain = HessianOperator(_Wrapped(model), nn.CrossEntropyLoss(), x, torch.tensor([0, 1, 2]))
    found = importance(general(plain))
    assert found is not None
    # Squared norms of 1, 1 and 0 have a mean of 2/3.
    assert found[0].tolist() == pytest.approx([1.5 * 4 * math.exp(-30), 3.0, 2 / 3], rel=1e-5)


class _Wrapped(nn.Module):
    """A forward pass of its own, which is no plain fully connected network."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(x) * 1.0
        return result


def test_a_sample_with_large_inputs_is_certain_to_be_drawn() -> None:
    """Its part of the first layer's curvature is the largest one, and nothing of it is seen at the last layer."""
    n = 4000
    model = nn.Sequential(nn.Linear(3, 20), nn.LayerNorm(20), nn.Tanh(), nn.Linear(20, CLASSES)).double()
    x, y = draw(n, 3), torch.randint(CLASSES, (n,), generator=torch.Generator().manual_seed(3))
    x[17] = 1e3
    with torch.no_grad():
        model[0].weight[:, :].copy_(1e-3 * draw(20, 3, seed=4))
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y)
    surrogate = H.surrogate()
    assert surrogate is not None
    certain = [inputs[: sizes[0]] for inputs, _, sizes, weights in general_chunks(surrogate) if weights[0] == 1]
    assert any(bool((inputs == 1e3).all(dim=1).any()) for inputs in certain)


def general_chunks(surrogate: SurrogateHessian) -> list[Any]:
    assert isinstance(surrogate.path, FunctionalHessian)
    assert isinstance(surrogate.path.chunks, list)
    return surrogate.path.chunks


def test_there_is_none_where_samples_have_no_parts_of_their_own() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, CLASSES)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.layer(x), x

    n = 4000
    x, y = draw(n, 3), torch.randint(CLASSES, (n,), generator=torch.Generator().manual_seed(3))

    def of_pair(outputs: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        return functional.cross_entropy(outputs[0], y)

    def of_batch(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.cross_entropy(model(batch[0])[0], batch[1])

    batches = list(zip(x.split(500), y.split(500), strict=True))
    for H in (
        HessianOperator(Pair().double(), of_pair, x, y),
        HessianOperator(Pair().double(), of_batch, data=batches),
        HessianOperator(nn.Linear(3, CLASSES).double(), lambda z, y: (z.mean(dim=1) - y).square().mean(), x, y),
        HessianOperator(
            _Wrapped(nn.Linear(3, CLASSES)).double(), nn.CrossEntropyLoss(), x, y, method="finite_difference"
        ),
    ):
        assert H.surrogate() is None
        pairs = top_eigenpairs(H, 2, 1e-3)
        assert pairs.surrogate_matvecs == 0
        assert pairs.bound_source in ("operator", "dense")


def test_a_model_that_takes_whole_batches_only_has_none() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            if len(x) != 3000 and len(x) > 40:
                raise RuntimeError("another batch")
            result: Tensor = self.layer(x) * 1.0
            return result

    x, y = draw(3000, 3), torch.randint(CLASSES, (3000,), generator=torch.Generator().manual_seed(3))
    H = HessianOperator(Whole().double(), nn.CrossEntropyLoss(), x, y, rows=3000)
    assert H.surrogate() is None


def test_a_surrogate_stays_where_it_was_made() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, CLASSES)).double().eval()
    x, y = draw(2500, 3), torch.randint(CLASSES, (2500,), generator=torch.Generator().manual_seed(3))
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y, graph_bytes=0)
    surrogate, vector = H.surrogate(), draw(1, H.shape[0])
    assert surrogate is not None
    before = surrogate.product(vector)
    H.move_to(1.5 * H.point, state={"1.running_var": 4 * torch.ones(8).double()})
    assert torch.equal(surrogate.product(vector), before)


# The choice of samples


@pytest.mark.parametrize("kinds", [1, 3, 40])
def test_the_grouped_sample_is_unbiased(kinds: int) -> None:
    sizes = torch.rand(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) ** 8
    terms = draw(2000, seed=4) * sizes
    strata = torch.randint(kinds, (2000,), generator=torch.Generator().manual_seed(5))
    estimates, counts = [], []
    for seed in range(400):
        groups = grouped_sample(sizes, strata, 250, seed)
        rows = torch.cat([rows for _, rows in groups])
        assert len(rows) == len(set(rows.tolist()))
        assert all(math.log2(weight).is_integer() and weight >= 1 for weight, _ in groups)
        estimates.append(float(sum(weight * terms[rows].sum() for weight, rows in groups)))
        counts.append(len(rows))
    found = torch.tensor(estimates, dtype=torch.float64)
    assert abs(float(found.mean() - terms.sum())) < 4 * float(found.std()) / 20
    assert 200 < sum(counts) / 400 < 300


def test_all_terms_are_certain_where_all_are_wanted() -> None:
    for sizes in (
        torch.ones(50).double(),
        torch.rand(50, dtype=torch.float64) + 0.1,
        torch.tensor([1.0, 1e-300], dtype=torch.float64),
    ):
        ((weight, rows),) = grouped_sample(sizes, torch.zeros(len(sizes), dtype=torch.int64), len(sizes), 0)
        assert weight == 1
        assert sorted(rows.tolist()) == list(range(len(sizes)))


def test_terms_without_any_size_may_still_be_drawn() -> None:
    sizes = torch.zeros(5000, dtype=torch.float64)
    sizes[:10] = 1.0
    counts = torch.zeros(5000)
    for seed in range(2000):
        for weight, rows in grouped_sample(sizes, torch.zeros(5000, dtype=torch.int64), 10, seed):
            assert weight == (1 if int(rows[0]) < 10 else 4096)
            counts[rows] += weight
    assert bool((counts[:10] == 2000).all())
    assert float(counts[10:].mean()) == pytest.approx(2000, rel=0.1)


# The solver


@functools.cache
def fitted(name: str, n: int, steps: int) -> tuple[HessianOperator, Tensor]:
    """A model of some hundred parameters after so many steps of Adam, and its dense Hessian."""
    make, shape, _ = MODELS[name]
    torch.manual_seed(1)
    wide = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(16, CLASSES))
    model = (wide if name == "convolutional" else make()).double()
    y = torch.randint(CLASSES, (n,), generator=torch.Generator().manual_seed(3))
    centres = draw(CLASSES, *shape, seed=7)
    x = 0.9 * centres[y] + draw(n, *shape, seed=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y)
    return H, H @ torch.eye(H.shape[0], dtype=torch.float64)


@pytest.mark.parametrize("steps", [0, 60])
@pytest.mark.parametrize("name", ["convolutional", "transformer"])
def test_the_plain_call_finds_the_pairs_of_the_dense_hessian(name: str, steps: int) -> None:
    H, dense = fitted(name, 2500, steps)
    pairs = top_eigenpairs(H, 3, 1e-3)
    check_pairs(pairs, dense, 1e-3)
    assert pairs.surrogate_matvecs > 0
    assert bool(pairs.converged.all())


@pytest.mark.parametrize(("name", "steps"), [("convolutional", 0), ("convolutional", 60), ("transformer", 0)])
def test_it_saves_products(name: str, steps: int) -> None:
    H, dense = fitted(name, 2500, steps)
    plain = top_eigenpairs(H, 3, 1e-3, surrogate=None)
    check_pairs(plain, dense, 1e-3)
    assert top_eigenpairs(H, 3, 1e-3).matvecs < 0.7 * plain.matvecs


def test_a_gap_that_the_sample_does_not_resolve_costs_two_blocks_at_most() -> None:
    """The third eigenvalue is a sixth of the first, and the fourth near it."""
    H, _ = fitted("transformer", 2500, 60)
    plain, pairs = top_eigenpairs(H, 3, 1e-3, surrogate=None), top_eigenpairs(H, 3, 1e-3)
    assert pairs.matvecs <= plain.matvecs + 7


# Memory


def test_the_memory_for_graphs_is_bounded_by_one_argument() -> None:
    H, x, y = problem("convolutional", "plain", 3000, 100)
    kept = HessianOperator(H.model, nn.CrossEntropyLoss(), x, y, rows=100)
    vector = draw(1, H.shape[0])
    expected = kept.product(vector)
    for graph_bytes in (0, 1 << 17, 1 << 19, 1 << 30):
        H = HessianOperator(H.model, nn.CrossEntropyLoss(), x, y, rows=100, graph_bytes=graph_bytes)
        surrogate = H.surrogate()
        assert isinstance(surrogate, SurrogateHessian)
        torch.testing.assert_close(H.product(vector), expected, rtol=1e-10, atol=1e-13)
        held = general(H).kept_bytes + surrogate.path.kept_bytes
        assert held <= graph_bytes
        if graph_bytes == 1 << 30:
            assert held > 1 << 19
    for wrong in (-1, 1.5, True):
        with pytest.raises(ValueError, match="graph_bytes"):
            HessianOperator(H.model, nn.CrossEntropyLoss(), x, y, graph_bytes=wrong)  # type: ignore[arg-type]


# Threads


def test_products_are_shared_out_among_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    H, x, y = problem("convolutional", "plain", 40, 5)
    vectors = draw(3, H.shape[0])
    expected = H.product(vectors)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert general(H).uses_thread_pool
    torch.testing.assert_close(H.product(vectors), expected, rtol=1e-11, atol=1e-13)
    assert torch.equal(H.product(vectors), H.product(vectors))
    # Too few chunks, and chunks that are not kept: torch's own threads serve better.
    few = HessianOperator(H.model, nn.CrossEntropyLoss(), x, y, rows=20)
    anew = HessianOperator(H.model, nn.CrossEntropyLoss(), x, y, rows=5, graph_bytes=10_000)
    for other in (few, anew):
        assert not general(other).uses_thread_pool
        torch.testing.assert_close(other.product(vectors), expected, rtol=1e-11, atol=1e-13)
    # In float64 the single-precision constants of a model are widened by a mode of one thread.
    narrow = HessianOperator(H.model.float(), nn.CrossEntropyLoss(), x.float(), y, rows=5)
    assert general(narrow).uses_thread_pool
    wide = general(narrow.in_float64())
    assert not wide.uses_thread_pool
    torch.testing.assert_close(wide.product(vectors), expected, rtol=1e-4, atol=1e-6)
