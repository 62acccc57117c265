"""Hessian-vector products against four independent oracles, in float64."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from eigendrift import HessianOperator
from eigendrift.hessian.autograd import FunctionalHessian
from eigendrift.hessian.evaluation import Evaluation
from eigendrift.hessian.loss_data import PairLoss, TensorChunks, combination
from eigendrift.hessian.mlp import MLPHessian
from reproduction.training.model import flatten, initialize, mlp

CROSS_ENTROPY = nn.CrossEntropyLoss()


def general(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same loss, which takes the general path."""
    return nn.functional.cross_entropy(outputs, targets)


def samples(n: int = 90, inputs: int = 7, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(n, inputs, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, classes, (n,), generator=generator)


def network(activation: str, hidden: tuple[int, ...] = (6, 5), inputs: int = 7, classes: int = 4) -> nn.Sequential:
    model = mlp(inputs, hidden, classes, activation).double()
    initialize(model, seed=3, bias_init="uniform")
    return model


def loss_at(model: nn.Module, theta: torch.Tensor, x: torch.Tensor, y: torch.Tensor, loss) -> torch.Tensor:
    names, shapes = zip(*((name, p.shape) for name, p in model.named_parameters()), strict=True)
    parts = theta.split([s.numel() for s in shapes])
    parameters = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
    return loss(torch.func.functional_call(model, parameters, (x,)), y)


def dense(model: nn.Module, x: torch.Tensor, y: torch.Tensor, loss=CROSS_ENTROPY) -> torch.Tensor:
    return torch.func.hessian(lambda theta: loss_at(model, theta, x, y, loss))(flatten(model))


def identity(operator: HessianOperator) -> torch.Tensor:
    return operator @ torch.eye(operator.shape[0], dtype=operator.torch_dtype)


@pytest.mark.parametrize("hidden", [(), (5,), (6, 5), (4, 3, 5)])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "softplus"])
def test_analytic_path_is_the_dense_hessian(activation: str, hidden: tuple[int, ...]) -> None:
    x, y = samples()
    model = network(activation, hidden)
    operator = HessianOperator(model, CROSS_ENTROPY, x, y)
    assert isinstance(operator.path, MLPHessian)
    torch.testing.assert_close(identity(operator), dense(model, x, y), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("activation", ["gelu", "silu", "elu", "tanh"])
def test_general_path_is_the_dense_hessian(activation: str) -> None:
    x, y = samples()
    model = network(activation)
    operator = HessianOperator(model, general, x, y, rows=40)
    assert isinstance(operator.path, FunctionalHessian)
    torch.testing.assert_close(identity(operator), dense(model, x, y), rtol=1e-11, atol=1e-13)


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 7)), nn.Conv1d(1, 3, 3), nn.ELU(), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(15, 4)
    ).double()


def general_path(model: nn.Module, x: torch.Tensor, y: torch.Tensor, graph_bytes: int = 1 << 30) -> FunctionalHessian:
    evaluation = Evaluation(model, CROSS_ENTROPY, PairLoss, x.device)
    state = {name: t.detach() for name, t in [*model.named_parameters(), *model.named_buffers()]}
    names = [name for name, _ in model.named_parameters()]
    combined = combination(CROSS_ENTROPY, None, None)
    return FunctionalHessian(evaluation, TensorChunks(x, y, 8), combined, state, names, x.dtype, graph_bytes)


@pytest.mark.parametrize("make", [lambda: nn.Sequential(network("gelu"), nn.Identity()), convolutional])
def test_kept_graphs_give_what_new_ones_give_and_stay_within_their_memory(make: Callable[[], nn.Module]) -> None:
    x, y = samples()
    model = make().eval()
    path = general_path(model, x, y)
    chunks = len(path._kept)
    assert chunks == -(-len(x) // 8)
    vectors = torch.randn(3, path.n_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected, loss = path.product(vectors), path.loss
    torch.testing.assert_close(expected, vectors @ dense(model, x, y), rtol=1e-11, atol=1e-13)
    kept = []
    for graph_bytes in (0, 1, 20_000, 60_000, 1 << 30):
        limited = general_path(model, x, y, graph_bytes)
        kept.append(len(limited._kept))
        for _ in range(2):
            assert torch.equal(limited.product(vectors), expected)
        assert limited.loss == loss
    assert kept[:2] == [0, 0]
    assert 0 < kept[2] < kept[3] <= kept[4] == chunks


def test_kept_graphs_follow_the_parameters() -> None:
    x, y = samples()
    model = network("gelu")
    operator = HessianOperator(model, general, x, y, rows=40)
    point = flatten(model)
    for factor in (1.0, 0.5, 1.0):
        operator.move_to(factor * point)
        nn.utils.vector_to_parameters(factor * point, model.parameters())
        torch.testing.assert_close(identity(operator), dense(model, x, y), rtol=1e-11, atol=1e-13)


def test_logistic_regression_has_the_closed_form() -> None:
    """Boehning 1992: H = (1/n) sum (diag p - p p') kron x~ x~', x~ = (x, 1)."""
    x, y = samples()
    model = network("relu", hidden=())
    p = torch.softmax(model(x), dim=1).detach()
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    n, d = x.shape
    classes = p.shape[1]
    weights = torch.einsum("nab,ni,nj->aibj", curvature, x, x).reshape(classes * d, classes * d) / n
    mixed = torch.einsum("nab,ni->aib", curvature, x).reshape(classes * d, classes) / n
    expected = torch.cat([torch.cat([weights, mixed], 1), torch.cat([mixed.T, curvature.mean(0)], 1)])
    torch.testing.assert_close(identity(HessianOperator(model, CROSS_ENTROPY, x, y)), expected, rtol=1e-12, atol=1e-14)


def test_least_squares_has_the_closed_form() -> None:
    x, _ = samples()
    target = torch.randn(len(x), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    model = nn.Linear(7, 2, bias=False).double()
    expected = torch.kron(torch.eye(2, dtype=torch.float64), x.T @ x / len(x))  # the mean runs over both outputs
    operator = HessianOperator(model, nn.MSELoss(), x, target, rows=13)
    torch.testing.assert_close(identity(operator), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus"])
def test_products_are_finite_differences_of_the_gradient(activation: str) -> None:
    x, y = samples()
    model = network(activation)
    theta = flatten(model)
    vector = torch.randn(len(theta), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gradient = torch.func.grad(lambda t: loss_at(model, t, x, y, CROSS_ENTROPY))
    h = 1e-4
    # Fourth-order central difference: error h^4, rounding 1e-16 / h.
    difference = (
        8 * (gradient(theta + h * vector) - gradient(theta - h * vector))
        - (gradient(theta + 2 * h * vector) - gradient(theta - 2 * h * vector))
    ) / (12 * h)
    product = HessianOperator(model, CROSS_ENTROPY, x, y) @ vector
    torch.testing.assert_close(product, difference, rtol=1e-7, atol=1e-10)


def test_a_convolutional_network_agrees_with_double_backward() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 1, 8, 8, dtype=torch.float64, generator=generator)
    y = torch.randint(0, 3, (30,), generator=generator)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3)).double()
    operator = HessianOperator(model, CROSS_ENTROPY, x, y, rows=7)
    vector = torch.randn(operator.shape[0], dtype=torch.float64, generator=generator)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(CROSS_ENTROPY(model(x), y), parameters, create_graph=True)
    inner = torch.cat([s.reshape(-1) for s in gradients]) @ vector
    expected = torch.cat([s.reshape(-1) for s in torch.autograd.grad(inner, parameters)])
    torch.testing.assert_close(operator @ vector, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("loss", [CROSS_ENTROPY, general])
def test_result_does_not_depend_on_rows_or_block(loss: Callable[..., torch.Tensor]) -> None:
    x, y = samples(n=101)
    model = network("relu")
    block = torch.randn(flatten(model).numel(), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = HessianOperator(model, loss, x, y) @ block
    for rows in (1, 10, 100, 101, 1000):
        operator = HessianOperator(model, loss, x, y, rows=rows)
        torch.testing.assert_close(operator @ block, expected, rtol=1e-12, atol=1e-14)
        for column in range(4):
            torch.testing.assert_close(operator @ block[:, column], expected[:, column], rtol=1e-12, atol=1e-14)


def test_float32_is_close_to_float64() -> None:
    x, y = samples(n=400)
    model = network("relu", hidden=(20, 20))
    vector = torch.randn(flatten(model).numel(), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    exact = HessianOperator(model, CROSS_ENTROPY, x, y) @ vector
    single = HessianOperator(model.float(), CROSS_ENTROPY, x.float(), y) @ vector.float()
    assert float((single.double() - exact).norm() / exact.norm()) < 2e-6


def test_moving_takes_the_new_point_and_no_memory() -> None:
    x, y = samples()
    model = network("tanh")
    operator = HessianOperator(model, CROSS_ENTROPY, x, y)
    kept = [t.data_ptr() for t in operator.path._outputs]
    theta = flatten(network("tanh")) * 1.7
    operator.move_to(theta)
    assert [t.data_ptr() for t in operator.path._outputs] == kept
    torch.testing.assert_close(flatten(model), flatten(network("tanh")))
    torch.testing.assert_close(operator.point, theta)
    nn.utils.vector_to_parameters(theta, model.parameters())
    torch.testing.assert_close(identity(operator), dense(model, x, y), rtol=1e-11, atol=1e-13)
    assert operator.loss == pytest.approx(CROSS_ENTROPY(model(x), y).item(), rel=1e-13)


def test_numpy_vectors_give_numpy_products() -> None:
    x, y = samples()
    operator = HessianOperator(network("tanh"), CROSS_ENTROPY, x, y)
    vector = np.linspace(-1, 1, operator.shape[0])
    product = operator @ vector
    assert isinstance(product, np.ndarray)
    np.testing.assert_allclose(product, (operator @ torch.from_numpy(vector)).numpy(), rtol=1e-15)


def test_one_sample_is_enough() -> None:
    x, y = samples(n=1)
    model = network("tanh")
    torch.testing.assert_close(
        identity(HessianOperator(model, CROSS_ENTROPY, x, y)), dense(model, x, y), rtol=1e-11, atol=1e-14
    )


def shared_layers() -> nn.Sequential:
    layer = nn.Linear(7, 7).double()
    return nn.Sequential(layer, nn.Tanh(), layer)


@pytest.mark.parametrize(
    "model",
    [
        shared_layers(),
        nn.Sequential(nn.Linear(7, 5).double(), nn.Softplus(threshold=2), nn.Linear(5, 4).double()),
        nn.Sequential(nn.Linear(7, 5).double(), nn.Mish(), nn.Linear(5, 4).double()),
        nn.Sequential(nn.Linear(7, 5).double(), nn.LeakyReLU(-0.1), nn.Linear(5, 4).double()),
    ],
)
def test_what_the_analytic_path_cannot_take_goes_through_the_general_one(model: nn.Module) -> None:
    x, y = samples()
    operator = HessianOperator(model, CROSS_ENTROPY, x, y)
    assert isinstance(operator.path, FunctionalHessian)
    torch.testing.assert_close(identity(operator), dense(model, x, y), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(label_smoothing=0.1), nn.CrossEntropyLoss(ignore_index=0)])
def test_other_cross_entropies_are_not_taken_for_the_plain_one(loss: nn.CrossEntropyLoss) -> None:
    x, y = samples()
    model = network("tanh")
    operator = HessianOperator(model, loss, x, y, rows=13)
    assert isinstance(operator.path, FunctionalHessian)
    torch.testing.assert_close(identity(operator), dense(model, x, y, loss), rtol=1e-11, atol=1e-13)


def bad_calls() -> list[tuple[str, object]]:
    x, y = samples()
    model = network("tanh")
    mixed = nn.Sequential(nn.Linear(7, 5).double(), nn.Tanh(), nn.Linear(5, 4).float())
    broken = network("tanh")
    nn.init.constant_(broken[0].weight, float("nan"))
    nan_inputs = x.clone()
    nan_inputs[0, 0] = float("nan")
    infinite_inputs = torch.where(x == x.min(), -torch.inf, x)
    return [
        ("no parameters", lambda: HessianOperator(nn.ReLU(), CROSS_ENTROPY, x, y)),
        ("one floating-point type", lambda: HessianOperator(mixed, CROSS_ENTROPY, x, y)),
        ("89 targets", lambda: HessianOperator(model, CROSS_ENTROPY, x, y[1:])),
        ("at least one", lambda: HessianOperator(model, CROSS_ENTROPY, x[:0], y[:0])),
        ("reduction='none'", lambda: HessianOperator(model, nn.CrossEntropyLoss(reduction="none"), x, y)),
        ("eval", lambda: HessianOperator(nn.Sequential(model, nn.Dropout()), CROSS_ENTROPY, x, y)),
        ("parameter is not finite", lambda: HessianOperator(broken, CROSS_ENTROPY, x, y)),
        ("input is not finite", lambda: HessianOperator(model, CROSS_ENTROPY, nan_inputs, y)),
        ("input is not finite", lambda: HessianOperator(model, CROSS_ENTROPY, infinite_inputs, y)),
        ("v has shape", lambda: HessianOperator(model, CROSS_ENTROPY, x, y) @ torch.ones(3)),
        ("parameters have shape", lambda: HessianOperator(model, CROSS_ENTROPY, x, y).move_to(torch.ones(3))),
        ("target 4", lambda: HessianOperator(model, CROSS_ENTROPY, x, torch.where(y == 0, 4, y))),
    ]


@pytest.mark.parametrize(("message", "call"), bad_calls(), ids=[m for m, _ in bad_calls()])
def test_bad_input_is_named(message: str, call) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_products_are_counted() -> None:
    x, y = samples()
    operator = HessianOperator(network("tanh"), CROSS_ENTROPY, x, y)
    for columns in (1, 3):
        _ = operator @ torch.ones(operator.shape[0], columns, dtype=torch.float64)
    assert operator.products == 4


def test_the_hessian_is_symmetric_at_many_points() -> None:
    x, y = samples()
    for activation, scale in itertools.product(("relu", "tanh"), (0.1, 1.0, 5.0)):
        model = network(activation)
        operator = HessianOperator(model, CROSS_ENTROPY, x, y)
        operator.move_to(operator.point * scale)
        matrix = identity(operator)
        torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-13)


def test_the_float64_twin_follows_and_agrees() -> None:
    x, y = samples(n=200)
    exact = HessianOperator(network("relu"), CROSS_ENTROPY, x, y)
    single = HessianOperator(network("relu").float(), CROSS_ENTROPY, x.float(), y)
    rounded = HessianOperator(network("relu"), CROSS_ENTROPY, x.float().double(), y)
    theta = flatten(exact.model) * 1.3
    for operator in (exact, single, rounded):
        operator.move_to(theta.to(operator.torch_dtype))
    twin = single.in_float64()
    assert twin.torch_dtype == torch.float64
    assert single.in_float64() is twin
    assert exact.in_float64() is exact
    rounded.move_to(theta.float().double())
    torch.testing.assert_close(identity(twin), identity(rounded), rtol=1e-11, atol=1e-14)


def test_sure_samples_lose_nothing_in_float32() -> None:
    """Each alone: with 1 - p of 1e-7 and less, p - p^2 in float32 is rounding."""
    x, y = samples(n=40)
    exact = HessianOperator(network("relu"), CROSS_ENTROPY, x, y)
    theta = flatten(exact.model) * 2.5
    vector = torch.randn(len(theta), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    errors, doubts = [], []
    for row in range(len(x)):
        one = HessianOperator(network("relu"), CROSS_ENTROPY, x[row : row + 1].float().double(), y[row : row + 1])
        single = HessianOperator(network("relu").float(), CROSS_ENTROPY, x[row : row + 1].float(), y[row : row + 1])
        one.move_to(theta.float().double())
        single.move_to(theta.float())
        right, found = one @ vector.float().double(), (single.with_float64_forward() @ vector.float()).double()
        errors.append(float((found - right).norm() / right.norm()))
        nn.utils.vector_to_parameters(theta, exact.model.parameters())
        outputs = exact.model(x[row : row + 1].float().double()).detach()
        doubts.append(float(1 - torch.softmax(outputs, dim=1).max()))
    assert min(doubts) < 1e-5
    # A product chains sums of some 40 terms, forward, backward and of derivatives: so many roundings, on any machine.
    assert max(errors) < 40 * torch.finfo(torch.float32).eps


def test_a_sharpened_forward_pass_leaves_the_rounding_of_the_products_alone() -> None:
    x, y = samples(n=400)
    single = HessianOperator(network("relu").float(), CROSS_ENTROPY, x.float(), y)
    theta = 4 * flatten(single.model)  # where probabilities near zero feel the rounding of the logits
    single.move_to(theta)
    vector = torch.randn(single.shape[0], generator=torch.Generator().manual_seed(1))
    exact = single.in_float64() @ vector.double()

    def error() -> float:
        return float(((single @ vector).double() - exact).norm() / exact.norm())

    plain = error()
    assert single.with_float64_forward() is single
    assert single.torch_dtype == torch.float32
    assert error() < 0.5 * plain
    assert single.loss == pytest.approx(single.in_float64().loss, rel=1e-12)
    single.move_to(theta)
    assert error() == plain


def test_the_general_path_is_sharpened_in_float64() -> None:
    x, y = samples(n=50)
    operator = HessianOperator(network("gelu").float(), general, x.float(), y)
    assert operator.with_float64_forward().torch_dtype == torch.float64


def test_kinks_within_a_step_of_differences_are_no_missing_derivative() -> None:
    # A thousand steep kinks closer to the point than the first step of the check, and none at the point itself.
    class Kinked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(1000))
            self.register_buffer("at", torch.ones(1000) + 1e-7 * torch.linspace(1, 2, 1000))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            steep = 1e6 * torch.relu(self.w - self.at).sum()
            smooth: torch.Tensor = x * self.w.square().sum() + steep
            return smooth

    model = Kinked().double()
    x = torch.linspace(1, 2, 20, dtype=torch.float64)[:, None]
    H = HessianOperator(model, lambda outputs, _: outputs.mean(), x, x)
    torch.testing.assert_close(H @ torch.ones(1000, dtype=torch.float64), torch.full((1000,), 3.0, dtype=torch.float64))


def test_a_detached_part_is_refused_however_small_the_steps() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(30))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            # Its gradient is large, and what autograd does not see of the Hessian small.
            found: torch.Tensor = x * (100 * self.w.sum() + 1e-3 * (self.w * self.w.detach()).square().sum())
            return found

    x = torch.linspace(1, 2, 20)[:, None]
    with pytest.raises(ValueError, match="autograd does not see"):
        HessianOperator(Detached(), lambda outputs, _: outputs.mean(), x, x)
