"""Gauss-Newton and empirical Fisher against dense float64 matrices from torch's own jacobians and Hessians."""

import copy
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, TensorDataset

from eigendrift import EmpiricalFisherOperator, GGNOperator, HessianOperator, Tracker, top_eigenpairs
from eigendrift.hessian.gauss_newton import FactoredCurvature

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*enable_nested_tensor.*", "ignore:.*jit.*"),
]
N, CLASSES, ROWS = 12, 3, 5
WEIGHT = torch.tensor([1.0, 4.0, 0.25], dtype=torch.float64)


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LABELS = torch.randint(0, CLASSES, (N,), generator=torch.Generator().manual_seed(2))
REAL = drawn(N, CLASSES, seed=5)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.b(torch.tanh(self.a(x.flatten(1))))))


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3), nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.gelu(self.norm(self.conv(x.transpose(1, 2)))).amax(-1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.TransformerEncoderLayer(2, 1, 3, dropout=0.3, batch_first=True)
        self.head = nn.Linear(2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.LSTM(2, 2, batch_first=True), nn.Linear(2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1])


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unused, self.head = nn.Linear(2, 1), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1)).tanh()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, CLASSES)),
    "relu": lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(inplace=True), nn.Linear(4, CLASSES)),
    "convolutional": Convolutional,
    "tied": Tied,
    "attention": Attention,
    "recurrent": Recurrent,
    "unused": Unused,
}


def weights_of(targets: Tensor) -> Tensor:
    return WEIGHT[targets]


def ones(targets: Tensor) -> Tensor:
    return torch.ones(len(targets), dtype=torch.float64)


# The loss, its targets, and the weight of each sample's own loss in the mean.
LOSSES: dict[str, tuple[Callable[..., Tensor], Tensor, Callable[[Tensor], Tensor]]] = {
    "cross-entropy": (nn.CrossEntropyLoss(), LABELS, ones),
    "class weights": (partial(functional.cross_entropy, weight=WEIGHT), LABELS, weights_of),
    "weights and smoothing": (
        partial(functional.cross_entropy, weight=WEIGHT, label_smoothing=0.2),
        LABELS,
        weights_of,
    ),
    "ignored": (nn.CrossEntropyLoss(ignore_index=1), LABELS, lambda t: (t != 1).double()),
    "probabilities": (nn.CrossEntropyLoss(), REAL.softmax(1), ones),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), LABELS, ones),
    "several outputs": (nn.MSELoss(), REAL, ones),
    "logits": (nn.BCEWithLogitsLoss(), (REAL > 0).float(), ones),
    "own": (lambda o, t: (functional.softplus(o - t) ** 2).sum(1).mean(), REAL, ones),
    "not convex": (lambda o, t: torch.sin(2 * (o - t)).prod(1).mean(), REAL, ones),
}
CHOICES: dict[str, Any] = {"all": None, "the head": ["head.*", "3.*"], "biases": lambda name, p: name.endswith("bias")}


def typed(loss: Any, kind: torch.dtype) -> Any:
    """The same loss with its weights in another type."""
    if isinstance(loss, partial):
        return partial(loss.func, **{**loss.keywords, "weight": WEIGHT.to(kind)})
    return loss


def widened(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def chosen(model: nn.Module, choice: str) -> list[nn.Parameter]:
    return [
        p
        for name, p in model.named_parameters()
        if choice == "all" or (name.endswith("bias") if choice == "biases" else name.startswith(("head.", "3.")))
    ]


def rows_of(values: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """The Jacobian of the values, one row a value."""
    found = [torch.autograd.grad(v, parameters, retain_graph=True, materialize_grads=True) for v in values.reshape(-1)]
    return torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in found])


def dense_ggn(model: nn.Module, loss: Any, x: Tensor, y: Tensor, choice: str = "all") -> Tensor:
    twin = copy.deepcopy(model).double()
    with sdpa_kernel(SDPBackend.MATH):
        outputs = twin(widened(x))
        jacobian = rows_of(outputs, chosen(twin, choice))
    inner = torch.autograd.functional.hessian(
        lambda z: loss(z.view_as(outputs), widened(y)), outputs.detach().reshape(-1)
    )
    return jacobian.T @ inner @ jacobian


def dense_fisher(model: nn.Module, loss: Any, x: Tensor, y: Tensor, weights: Tensor, choice: str = "all") -> Tensor:
    twin = copy.deepcopy(model).double()
    total = 0
    with sdpa_kernel(SDPBackend.MATH):
        for i in range(len(x)):
            if weights[i]:
                value = loss(twin(widened(x[i : i + 1])), widened(y[i : i + 1]))
                g = rows_of(value, chosen(twin, choice))[0]
                total = total + weights[i] * g[:, None] * g
    is_sum = getattr(loss, "reduction", "mean") == "sum"
    return total if is_sum else total / weights.sum()


def matrix(operator: HessianOperator) -> Tensor:
    return operator @ torch.eye(operator.shape[0], dtype=operator.torch_dtype)


def check(operator: HessianOperator, expected: Tensor) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(matrix(operator).double(), expected, rtol=1e-3, atol=2e-5 * scale)
    vector = drawn(operator.shape[0], seed=7).double()
    torch.testing.assert_close(operator.in_float64() @ vector, expected @ vector, rtol=1e-8, atol=1e-10 * scale)


# Every model with every loss, and two of the losses with every choice of parameters.
CASES = [
    (model, loss, choice)
    for model in MODELS
    for loss in LOSSES
    for choice in (CHOICES if loss in ("weights and smoothing", "several outputs") else ["all"])
]


@pytest.mark.parametrize(("model_name", "loss_name", "choice"), CASES)
def test_products_are_those_of_the_dense_matrices(model_name: str, loss_name: str, choice: str) -> None:
    torch.manual_seed(0)
    model, x = MODELS[model_name]().eval(), drawn(N, 3, 2)
    loss, y, weights = LOSSES[loss_name]
    params = CHOICES[choice]
    if isinstance(params, list):
        params = [p for p in params if any(n.startswith(p[:-1]) for n, _ in model.named_parameters())]
    state = {name: t.clone() for name, t in model.state_dict().items()}
    given = typed(loss, torch.float32)
    wide = typed(loss, torch.float64)
    G = GGNOperator(model, given, x, y, params=params, rows=ROWS)
    check(G, dense_ggn(model, wide, x, y, choice))
    F = EmpiricalFisherOperator(model, given, x, y, params=params, rows=ROWS)
    check(F, dense_fisher(model, wide, x, y, weights(y), choice))
    H = HessianOperator(model, given, x, y, params=params, rows=ROWS)
    for operator in (G, F):
        assert operator.loss == pytest.approx(H.loss, rel=1e-5)
        torch.testing.assert_close(operator.gradient, H.gradient, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(state[name], t) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.3)])
def test_gauss_newton_is_the_hessian_of_a_linear_model(loss: nn.Module) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(6, CLASSES).double(), drawn(N, 6).double()
    G, H = GGNOperator(model, loss, x, LABELS), HessianOperator(model, loss, x, LABELS)
    torch.testing.assert_close(matrix(G), matrix(H), rtol=1e-10, atol=1e-13)


def test_gauss_newton_is_the_fisher_of_a_perfectly_sampled_model() -> None:
    """The mean of g g' over targets drawn from the model's own probabilities, here taken exactly."""
    torch.manual_seed(0)
    model, x = MODELS["mlp"]().double(), drawn(N, 3, 2).double()
    with torch.no_grad():
        p = model(x).softmax(1)
    expected = 0
    for label in range(CLASSES):
        for i in range(N):
            one = EmpiricalFisherOperator(model, nn.CrossEntropyLoss(), x[i : i + 1], torch.tensor([label]))
            expected = expected + p[i, label] / N * matrix(one)
    torch.testing.assert_close(matrix(GGNOperator(model, nn.CrossEntropyLoss(), x, LABELS)), expected)


@pytest.mark.parametrize("name", MODELS)
def test_both_are_positive_semidefinite_for_a_convex_loss(name: str) -> None:
    torch.manual_seed(0)
    model, x = MODELS[name]().eval().double(), drawn(N, 3, 2).double()
    for kind in (GGNOperator, EmpiricalFisherOperator):
        found = torch.linalg.eigvalsh(matrix(kind(model, nn.CrossEntropyLoss(), x, LABELS)))
        assert found[0] >= -1e-14 * found[-1]
    assert torch.linalg.eigvalsh(matrix(HessianOperator(model, nn.CrossEntropyLoss(), x, LABELS)))[0] < -1e-6


FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "loader": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=5),
    "shuffled": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True),
    "tuples": lambda x, y: list(zip(x.split(5), y.split(5), strict=True)),
    "names": lambda x, y: [{"x": a, "y": b, "id": 3} for a, b in zip(x.split(5), y.split(5), strict=True)],
}


def by_position(model: nn.Module, batch: Any) -> Tensor:
    x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch
    return functional.cross_entropy(model(x), y)


@pytest.mark.parametrize("model_name", ["mlp", "attention", "recurrent"])
@pytest.mark.parametrize("form", FORMS)
def test_data_in_batches(form: str, model_name: str) -> None:
    torch.manual_seed(0)
    model, x = MODELS[model_name]().eval(), drawn(N, 3, 2)
    data = FORMS[form](x, LABELS)
    check(GGNOperator(model, by_position, data=data), dense_ggn(model, nn.CrossEntropyLoss(), x, LABELS))
    expected = dense_fisher(model, nn.CrossEntropyLoss(), x, LABELS, ones(LABELS))
    check(EmpiricalFisherOperator(model, by_position, data=data), expected)


class Outputs(nn.Module):
    """Outputs as libraries of language models give them: a dictionary, with states that the loss does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 4), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Any]:
        hidden = torch.tanh(self.body(x.flatten(1)))
        logits = self.head(hidden)
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits, "states": (hidden, [hidden.detach()])}


def test_outputs_may_be_structures() -> None:
    torch.manual_seed(0)
    model, x = Outputs(), drawn(N, 3, 2)
    plain = nn.Sequential(nn.Flatten(), model.body, nn.Tanh(), model.head)
    batches = [(x[:7], LABELS[:7]), (x[7:], LABELS[7:])]
    G = GGNOperator(model, lambda m, b: functional.cross_entropy(m(b[0])["logits"], b[1]), data=batches)
    check(G, dense_ggn(plain, nn.CrossEntropyLoss(), x, LABELS))
    F = EmpiricalFisherOperator(model, lambda o, t: functional.cross_entropy(o["logits"], t), x, LABELS, rows=ROWS)
    check(F, dense_fisher(plain, nn.CrossEntropyLoss(), x, LABELS, ones(LABELS)))
    with pytest.raises(ValueError, match="linear in the model's outputs"):
        GGNOperator(model, lambda m, b: m(b[0], labels=b[1])["loss"], data=batches)
    # The Fisher takes gradients of samples, wherever the loss is computed.
    inside = EmpiricalFisherOperator(model, lambda m, b: m(b[0], labels=b[1])["loss"], data=batches)
    check(inside, dense_fisher(plain, nn.CrossEntropyLoss(), x, LABELS, ones(LABELS)))


def test_a_model_may_be_called_twice_but_not_on_its_own_outputs() -> None:
    torch.manual_seed(0)
    model, x, other = nn.Linear(6, 6), drawn(N, 6), drawn(N, 6, seed=8)

    def distance(m: nn.Module, batch: Any) -> Tensor:
        return (m(batch[0]).tanh() - m(batch[1]).tanh()).square().sum(1).mean()

    class Both(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x).unflatten(0, (2, -1)).transpose(0, 1)

    expected = dense_ggn(
        Both(model), lambda o, _: (o[:, 0].tanh() - o[:, 1].tanh()).square().sum(1).mean(), torch.cat([x, other]), x
    )
    check(GGNOperator(model, distance, data=[(x, other)]), expected)
    with pytest.raises(ValueError, match="own earlier outputs"):
        GGNOperator(model, lambda m, b: m(m(b[0]).tanh()).square().mean(), data=[(x,)])


def penalized(m: nn.Module, batch: Any) -> Tensor:
    return by_position(m, batch) + sum(p.square().sum() for p in m.parameters())


def beside(m: nn.Module, batch: Any) -> Tensor:
    return functional.cross_entropy(m(batch[0]) + m[1](batch[0].flatten(1))[:, :CLASSES], batch[1])


def around(m: nn.Module, batch: Any) -> Tensor:
    return functional.cross_entropy(m.forward(batch[0]), batch[1])


@pytest.mark.parametrize("loss", [penalized, beside, around])
def test_losses_that_go_around_the_outputs_are_refused(loss: Any) -> None:
    torch.manual_seed(0)
    x = drawn(N, 3, 2)
    with pytest.raises(ValueError, match="outputs"):
        GGNOperator(MODELS["mlp"](), loss, data=[(x[:7], LABELS[:7]), (x[7:], LABELS[7:])])


def test_losses_that_change_the_outputs_in_place() -> None:
    torch.manual_seed(0)
    model, x = MODELS["mlp"](), drawn(N, 3, 2)

    def in_place(o: Tensor, t: Tensor) -> Tensor:
        return o.sub_(t).square().mul_(0.5).sum(1).mean()

    G = GGNOperator(model, in_place, x, REAL, rows=ROWS)
    check(G, dense_ggn(model, lambda o, t: 0.5 * (o - t).square().sum(1).mean(), x, REAL))


class Loops(nn.Module):
    """A loss whose Python code looks at its numbers, so that no rule for many samples at once exists."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        total = outputs.new_zeros(())
        for o, t in zip(outputs, targets.tolist(), strict=True):
            total = total + (functional.softplus(-o[t]) if t else o.square().sum())
        return total / len(outputs)


def test_samples_are_taken_one_by_one_where_they_have_to_be() -> None:
    torch.manual_seed(0)
    model, x = MODELS["mlp"](), drawn(N, 3, 2)
    F = EmpiricalFisherOperator(model, Loops(), x, LABELS, rows=ROWS)
    check(F, dense_fisher(model, Loops(), x, LABELS, ones(LABELS)))


class Sequences(nn.Module):
    """One prediction a token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        z = self.embedding(tokens)
        return self.head(torch.tanh(z + z.cumsum(1))).transpose(1, 2)


def test_sequences_with_padding_have_the_weight_of_their_tokens() -> None:
    torch.manual_seed(0)
    model, tokens = Sequences(), torch.randint(0, 5, (N, 4), generator=torch.Generator().manual_seed(3))
    targets = torch.where(torch.arange(4) < (torch.arange(N) % 5)[:, None], tokens.roll(1, 1), -100)
    loss, weights = nn.CrossEntropyLoss(), (targets != -100).sum(1).double()
    assert float(weights.min()) == 0.0
    check(GGNOperator(model, loss, tokens, targets, rows=ROWS), dense_ggn(model, loss, tokens, targets))
    F = EmpiricalFisherOperator(model, loss, tokens, targets, rows=ROWS)
    check(F, dense_fisher(model, loss, tokens, targets, weights))

    def of_batch(m: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return functional.cross_entropy(m(batch["tokens"]), batch["targets"])

    batches = [{"tokens": a, "targets": b} for a, b in zip(tokens.split(5), targets.split(5), strict=True)]
    size = lambda batch: int((batch["targets"] != -100).sum())  # noqa: E731
    check(GGNOperator(model, of_batch, data=batches, size=size), dense_ggn(model, loss, tokens, targets))
    by_size = EmpiricalFisherOperator(model, of_batch, data=batches, size=size)
    check(by_size, dense_fisher(model, loss, tokens, targets, weights))


class Centred(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.tanh(self.layer(x.flatten(1)))
        return z - z.mean(0, keepdim=True)


def test_a_model_that_mixes_samples_has_a_gauss_newton_matrix_but_no_fisher() -> None:
    torch.manual_seed(0)
    model, x = Centred(), drawn(N, 3, 2)
    with pytest.raises(ValueError, match="mixes samples"):
        GGNOperator(model, nn.CrossEntropyLoss(), x, LABELS, rows=ROWS)
    check(GGNOperator(model, nn.CrossEntropyLoss(), x, LABELS), dense_ggn(model, nn.CrossEntropyLoss(), x, LABELS))
    for rows in (N, ROWS):
        with pytest.raises(ValueError, match="mixes samples"):
            EmpiricalFisherOperator(model, nn.CrossEntropyLoss(), x, LABELS, rows=rows)


def test_a_loss_of_all_samples_has_no_fisher() -> None:
    x = drawn(N, 3, 2)
    with pytest.raises(ValueError, match="no mean over samples"):
        EmpiricalFisherOperator(MODELS["mlp"](), lambda o, t: functional.cross_entropy(o, t).sqrt(), x, LABELS, rows=N)
    with pytest.raises(ValueError, match="one row a sample"):
        EmpiricalFisherOperator(
            MODELS["mlp"](), lambda m, b: functional.cross_entropy(m(b[0]), b[1][:N]), data=[(x, LABELS.repeat(2))]
        )


BOTH = pytest.mark.parametrize("kind", [GGNOperator, EmpiricalFisherOperator])


@BOTH
def test_randomness_and_other_methods_are_refused(kind: type[HessianOperator]) -> None:
    x = drawn(N, 3, 2)
    with pytest.raises(ValueError, match="at random"):
        kind(Attention().train(), nn.CrossEntropyLoss(), x, LABELS)
    with pytest.raises(ValueError, match="'autograd' alone"):
        kind(MODELS["mlp"](), nn.CrossEntropyLoss(), x, LABELS, method="finite_difference")


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * (1 - x.tanh() ** 2)


class Hidden(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.function = nn.Linear(6, 4), nn.Linear(4, CLASSES), function

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.function(self.a(x.flatten(1))))


@BOTH
@pytest.mark.parametrize(
    "function", [Once.apply, lambda z: z * z.detach().tanh(), lambda z: z + (z.round() - z).detach()]
)
def test_what_autograd_does_not_see_is_refused(kind: type[HessianOperator], function: Any) -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"autograd|once_differentiable"):
        kind(Hidden(function), nn.CrossEntropyLoss(), drawn(N, 3, 2), LABELS)


def test_a_detached_part_of_the_loss_is_found() -> None:
    """Its gradient is right where the detached factor does not change, and its curvature is not."""
    torch.manual_seed(0)
    model, x = MODELS["mlp"](), drawn(N, 3, 2)

    class Wrong(torch.autograd.Function):
        """A square whose second derivative is wrong."""

        @staticmethod
        def forward(ctx: Any, z: Tensor) -> Tensor:
            ctx.save_for_backward(z)
            return z.square()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            (z,) = ctx.saved_tensors
            return 2 * g * z + (z.square() - z.detach().square())

    with pytest.raises(ValueError, match="a product of this operator"):
        GGNOperator(model, lambda o, t: Wrong.apply(o - t).sum(1).mean(), x, REAL)


@BOTH
def test_they_move_follow_refuse_and_pickle_like_the_hessian(kind: type[HessianOperator]) -> None:
    torch.manual_seed(0)
    model, x, loss = MODELS["mlp"](), drawn(N, 3, 2), nn.CrossEntropyLoss()
    dense = dense_ggn if kind is GGNOperator else partial(dense_fisher, weights=ones(LABELS))
    operator = kind(model, loss, x, LABELS, rows=ROWS)
    before = [p.detach().clone() for p in model.parameters()]
    operator.move_to(1.5 * operator.point)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    twin = copy.deepcopy(model)
    nn.utils.vector_to_parameters(operator.point, twin.parameters())
    check(operator, dense(twin, loss, x, LABELS))
    again = pickle.loads(pickle.dumps(operator))
    torch.testing.assert_close(matrix(again), matrix(operator))
    operator.refresh()
    with torch.no_grad():
        model[1].weight.mul_(2)
    with pytest.raises(ValueError, match="has changed"):
        matrix(operator)
    operator.refresh()
    check(operator, dense(model, loss, x, LABELS))


@BOTH
def test_without_kept_graphs_products_are_the_same(kind: type[HessianOperator]) -> None:
    torch.manual_seed(0)
    model, x = MODELS["attention"]().eval(), drawn(N, 3, 2)
    operator = kind(model, nn.CrossEntropyLoss(), x, LABELS, rows=ROWS)
    assert isinstance(operator.path, FactoredCurvature)
    kept, gradient = matrix(operator), operator.gradient
    operator.path.graph_bytes = 0
    operator.path.refresh()
    torch.testing.assert_close(matrix(operator), kept)
    torch.testing.assert_close(operator.gradient, gradient)


@BOTH
@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_narrow_models_are_taken_in_float32(kind: type[HessianOperator], narrow: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, CLASSES)).to(narrow)
    x = drawn(N, 3, 2).to(narrow)
    operator = kind(model, nn.CrossEntropyLoss(), x, LABELS, rows=ROWS)
    assert operator.torch_dtype == torch.float32
    dense = dense_ggn if kind is GGNOperator else partial(dense_fisher, weights=ones(LABELS))
    check(operator, dense(model, nn.CrossEntropyLoss(), x.double(), LABELS))


@BOTH
def test_a_tracker_follows_their_eigenpairs(kind: type[HessianOperator], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x, loss = MODELS["mlp"]().double(), drawn(N, 3, 2).double(), nn.CrossEntropyLoss()
    dense = dense_ggn if kind is GGNOperator else partial(dense_fisher, weights=ones(LABELS))
    optimizer, expected = torch.optim.SGD(model.parameters(), lr=0.5), []
    with Tracker(model, tmp_path / "run", every=1, quiet=True).attach(optimizer) as tracker:
        for _ in range(3):
            expected.append(torch.linalg.eigvalsh(dense(model, loss, x, LABELS)).flip(0)[:2].numpy())
            optimizer.zero_grad()
            loss(model(x), LABELS).backward()
            optimizer.step()
    track = tracker.solve(kind(model, loss, x, LABELS), k=2, tol=1e-8)
    np.testing.assert_allclose(track.values[:3], expected, rtol=1e-6)


@BOTH
def test_certified_pairs(kind: type[HessianOperator]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, CLASSES))
    x = drawn(N, 3, 2)
    operator = kind(model, nn.CrossEntropyLoss(), x, LABELS)
    for tol in (1e-3, 1e-6, 1e-8):
        pairs = top_eigenpairs(operator, k=3, tol=tol)
        assert bool(pairs.converged.all())
        expected = torch.linalg.eigvalsh(matrix(operator.in_float64())).flip(0)[:3]
        torch.testing.assert_close(pairs.values, expected, rtol=max(tol, 1e-7), atol=0.0)
    array = operator.to_scipy() @ np.ones(operator.shape[0])
    torch.testing.assert_close(torch.from_numpy(array), (operator @ torch.ones(operator.shape[0])).double())
