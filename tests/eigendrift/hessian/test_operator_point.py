"""The point of an operator: it stays where it was made or says that its model has moved on, and leaves no trace."""

import copy
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from eigendrift import HessianOperator, top_eigenpairs

pytestmark = pytest.mark.usefixtures("one_thread")
D, CLASSES, N = 5, 3, 40


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def data() -> tuple[Tensor, Tensor]:
    return drawn(N, D), torch.randint(0, CLASSES, (N,), generator=torch.Generator().manual_seed(2))


def network(normalized: bool = False, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    between = [nn.BatchNorm1d(4)] if normalized else []
    return nn.Sequential(nn.Linear(D, 4), *between, nn.Tanh(), nn.Linear(4, CLASSES)).eval()


def operator(model: nn.Module, **settings: Any) -> HessianOperator:
    return HessianOperator(model, nn.CrossEntropyLoss(), *data(), **settings)


def step(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    functional.cross_entropy(model(data()[0]), data()[1]).backward()
    optimizer.step()


def one_entry(model: nn.Module) -> None:
    next(model.parameters()).data[0, 0] += 0.5


def another_tensor(model: nn.Module) -> None:
    p = next(model.parameters())
    p.data = 2 * p.data


def through_numpy(model: nn.Module) -> None:
    next(model.parameters()).detach().numpy()[0] = 0


CHANGES: dict[str, Callable[[nn.Module], Any]] = {
    "step": step,
    "load": lambda m: m.load_state_dict({n: t + 1 for n, t in m.state_dict().items()}),
    "data in place": lambda m: next(m.parameters()).data.mul_(2),
    "one entry": one_entry,
    "another tensor": another_tensor,
    "through numpy": through_numpy,
    "another parameter": lambda m: setattr(m[0], "weight", nn.Parameter(2 * m[0].weight.detach())),
    "one parameter less": lambda m: m[0].register_parameter("bias", None),
}


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_a_model_that_has_moved_on_is_noticed(name: str, normalized: bool) -> None:
    model = network(normalized)
    H = operator(model)
    vector = drawn(H.shape[0])
    before, twin = H @ vector, H.in_float64()
    CHANGES[name](model)
    for use in (
        lambda: H @ vector,
        lambda: twin @ vector,
        lambda: H.loss,
        lambda: H.gradient,
        H.in_float64,
        H.with_float64_forward,
    ):
        with pytest.raises(ValueError, match=r"changed|others since"):
            use()
    # Elsewhere the model does not count, and the point where it was made can be gone back to.
    H.move_to(H.point)
    torch.testing.assert_close(H @ vector, before)
    if name == "one parameter less":
        return
    H.refresh()
    fresh = operator(model)
    torch.testing.assert_close(H @ vector, fresh @ vector)
    torch.testing.assert_close(H.in_float64() @ vector.double(), fresh.in_float64() @ vector.double())
    assert H.loss == pytest.approx(fresh.loss)


def test_buffers_that_have_moved_on_are_noticed() -> None:
    model = network(normalized=True)
    H = operator(model)
    vector = drawn(H.shape[0])
    model.train()(drawn(9, D, seed=8))
    with pytest.raises(ValueError, match="running_mean"):
        H @ vector
    model.eval()
    H.refresh()
    torch.testing.assert_close(H @ vector, operator(model) @ vector)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("change", ["train", "hook", "structure"])
def test_modes_hooks_and_layers_of_later_do_not_count(normalized: bool, change: str) -> None:
    model = network(normalized)
    H = operator(model, rows=7)
    vector, point = drawn(H.shape[0]), H.point
    before, twin = H @ vector, H.in_float64() @ vector.double()
    if change == "train":
        model.train()
    elif change == "hook":
        model.register_forward_hook(lambda m, i, o: 3 * o)
    else:
        model.append(nn.Softmax(1))
    statistics = [b.clone() for b in model.buffers()]
    H.move_to(2 * point)
    H.move_to(point)
    torch.testing.assert_close(H @ vector, before)
    torch.testing.assert_close(H.in_float64() @ vector.double(), twin)
    assert all(torch.equal(a, b) for a, b in zip(statistics, model.buffers(), strict=True))


@pytest.mark.parametrize("normalized", [False, True])
def test_data_that_change_in_place_are_noticed(normalized: bool) -> None:
    (x, y), model = data(), network(normalized)
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y)
    x.mul_(2)
    with pytest.raises(ValueError, match="in place"):
        H @ drawn(H.shape[0])


def state_of(model: nn.Module) -> list[Any]:
    found: list[Any] = [(n, t.clone(), t._version, t.data_ptr()) for n, t in model.state_dict(keep_vars=True).items()]
    found += [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
    return found + [(m.training, sorted(vars(m))) for m in model.modules()]


class Remembers(nn.Module):
    """A forward pass that leaves things behind: an output with its graph, a count, and inputs that it overwrites."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls, self.last = nn.Linear(D, CLASSES), 0, None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = torch.tanh(self.layer(x.sub_(1.0)))
        return self.last


@pytest.mark.parametrize("make", [network, lambda: network(True), Remembers])
def test_nothing_of_the_callers_changes(make: Callable[[], nn.Module]) -> None:
    (x, y), model = data(), make()
    model(x.clone()).sum().backward()
    model.train()
    next(model.parameters()).requires_grad_(False)
    calls, mine = getattr(model, "calls", 0), x.clone()
    before = state_of(model)
    states = torch.get_rng_state(), random.getstate()
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y)
    H @ drawn(H.shape[0], 2)
    H.move_to(1.1 * H.point)
    H.in_float64() @ drawn(H.shape[0]).double()
    assert H.gradient.shape == H.shape[:1]
    assert str(before) == str(state_of(model))
    assert calls == getattr(model, "calls", 0)
    assert torch.equal(x, mine)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert torch.is_grad_enabled()


class Keeps(nn.Module):
    """A forward pass that keeps what it has computed, in one of several ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.last, self.how = nn.Linear(D, 4), nn.Linear(4, CLASSES), how
        self.weight: Tensor | None = None
        self.shapes: dict[int, Tensor] = {}
        self.outputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "shapes":
            # As rotary positions are kept, by the length of a sequence.
            if x.shape[1] not in self.shapes:
                self.shapes[x.shape[1]] = torch.ones_like(x[0])
            return self.last(torch.tanh(self.first(x * self.shapes[x.shape[1]])))
        if self.how == "outputs":
            self.outputs = [self.last(torch.tanh(self.first(x)))]
            return self.outputs[0]
        if self.weight is None:
            self.weight = 1.0 * self.first.weight
        return self.last(torch.tanh(functional.linear(x, self.weight, self.first.bias)))


@pytest.mark.parametrize("how", ["shapes", "outputs", "weight"])
@pytest.mark.parametrize("used", [False, True])
def test_what_a_forward_pass_keeps_is_of_the_operators_point(how: str, used: bool) -> None:
    torch.manual_seed(0)
    model, plain = Keeps(how), Keeps("outputs")
    plain.load_state_dict(model.state_dict())
    if used:
        model(data()[0])
    if how == "weight" and used:
        # The kept weight is no function of the parameters any more.
        with pytest.raises(ValueError, match="earlier forward pass"):
            operator(model)
        return
    H, expected = operator(model), operator(plain)
    vector = drawn(H.shape[0])
    torch.testing.assert_close(H @ vector, expected @ vector)
    torch.testing.assert_close(model(data()[0]), plain(data()[0]))


def test_a_loss_that_becomes_another_is_noticed_in_the_product() -> None:
    factor, model = [1.0], network(normalized=True)
    H = HessianOperator(model, lambda o, t: factor[0] * functional.cross_entropy(o, t), *data(), rows=7)
    vector = drawn(H.shape[0])
    # Kept graphs are of the loss as it was.
    before = H @ vector
    factor[0] = 2.0
    torch.testing.assert_close(H @ vector, before)
    H.path.graph_bytes = 0
    H.refresh()
    torch.testing.assert_close(H @ vector, 2 * before)
    factor[0] = 3.0
    with pytest.raises(ValueError, match="the loss is another"):
        H @ vector


def test_a_forward_pass_in_place_has_its_hessian() -> None:
    (x, y), model = data(), Remembers()
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y, rows=9)
    for _ in range(2):
        H.move_to(H.point)
    expected = HessianOperator(nn.Sequential(model.layer, nn.Tanh()), nn.CrossEntropyLoss(), x - 1, y)
    torch.testing.assert_close(H @ drawn(H.shape[0]), expected @ drawn(H.shape[0]))


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("again", [lambda H: pickle.loads(pickle.dumps(H)), copy.deepcopy, copy.copy])
def test_copies_multiply_alike(again: Callable[[HessianOperator], HessianOperator], normalized: bool) -> None:
    H = operator(network(normalized), rows=9)
    H.move_to(1.3 * H.point)
    other = again(H)
    vector = drawn(H.shape[0])
    torch.testing.assert_close(other @ vector, H @ vector)
    torch.testing.assert_close(other.in_float64() @ vector, H.in_float64() @ vector)
    assert other.loss == pytest.approx(H.loss)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_modes_of_torch_change_nothing(mode: Callable[[], Any], normalized: bool) -> None:
    model = network(normalized)
    plain = operator(model)
    vector = drawn(plain.shape[0])
    expected = plain @ vector
    with mode():
        H = operator(model)
        for vectors in (vector, vector.clone()):
            torch.testing.assert_close(H @ vectors, expected)
        H.move_to(H.point)
        assert H.loss == pytest.approx(plain.loss)
        torch.testing.assert_close(H.gradient, plain.gradient)
    torch.testing.assert_close(H @ vector, expected)
    H.move_to(H.point)
    torch.testing.assert_close(H @ vector, expected)
    with mode():
        torch.testing.assert_close(plain @ vector, expected)


def test_defaults_of_torch_change_nothing() -> None:
    model = network(True)
    expected = operator(model) @ drawn(operator(model).shape[0])
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.float64)
    try:
        vector = torch.randn(
            len(expected), generator=torch.Generator().manual_seed(1), dtype=torch.float32, device="cpu"
        )
        x, y = (t.to("cpu") for t in INPUTS)
        H = HessianOperator(model, nn.CrossEntropyLoss(), x, y)
        found = H @ vector
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


INPUTS = data()


@pytest.mark.parametrize("kind", [int, bool, np.uint8, np.float16, np.float32, np.float64, np.longdouble, ">f8"])
def test_arrays_of_any_real_type_are_vectors(kind: Any) -> None:
    H = operator(network())
    n = H.shape[0]
    values = np.arange(2 * n).reshape(n, 2) % 3 - (0 if kind in (bool, np.uint8) else 1)
    block = values.astype(kind)
    expected = H @ torch.from_numpy(block.astype(np.float64))
    for vectors, right in (
        (block, expected),
        (block[:, 1], expected[:, 1]),
        (block[::-1, ::-1], None),
        (block[:, :0], None),
    ):
        found = H @ vectors
        assert found.dtype == (np.float64 if kind is np.float64 else np.float32)
        assert found.shape == vectors.shape
        wanted = H @ torch.from_numpy(vectors.astype(np.float64)) if right is None else right
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5, atol=1e-6)


def test_tensors_of_any_real_type_are_vectors() -> None:
    H = operator(network())
    n = H.shape[0]
    unit = torch.zeros(n, dtype=torch.int64)
    unit[3] = 1
    column = H @ torch.eye(n)[3]
    for vector in (
        unit,
        unit.bool(),
        unit.half(),
        unit.double(),
        unit.float().requires_grad_(),
        unit.float().to_sparse(),
    ):
        torch.testing.assert_close(H @ vector, column)
    assert (H @ torch.zeros(n, 0)).shape == (n, 0)


@pytest.mark.parametrize("vector", [3, 2.5, "x", None, [1.0, 2.0], {"a": 1}])
def test_what_is_no_vector_is_named(vector: Any) -> None:
    with pytest.raises(TypeError, match=f"v is {type(vector).__name__}, expected a tensor or NumPy array"):
        operator(network()) @ vector


def test_complex_numbers_and_wrong_shapes_are_refused() -> None:
    H = operator(network())
    n = H.shape[0]
    for vector in (torch.zeros(n, dtype=torch.complex64), np.zeros(n, complex), np.array(["a"] * n)):
        with pytest.raises(ValueError, match="real numbers"):
            H @ vector
    for wrong in (torch.zeros(n + 1), torch.zeros(n, 2, 2), np.zeros((2, n)), torch.zeros(())):
        with pytest.raises(ValueError, match="v has shape"):
            H @ wrong
    with pytest.raises(ValueError, match="expected"):
        H.move_to(torch.zeros(n, 1))


def bad_calls() -> list[tuple[str, Callable[[], Any]]]:
    x, y = data()
    loss = nn.CrossEntropyLoss()
    return [
        ("rows = 0", lambda: operator(network(), rows=0)),
        ("rows = -1", lambda: operator(network(True), rows=-1)),
        ("rows = 2.5", lambda: operator(network(), rows=2.5)),
        ("rows = True", lambda: operator(network(), rows=True)),
        ("method = 'magic'", lambda: operator(network(), method="magic")),
        ("reduction = 'none'", lambda: operator(network(), reduction="none")),
        ("the two", lambda: operator(network(), reduction="sum", size=len)),
        ("model is function", lambda: HessianOperator(lambda x: x, loss, x, y)),
        ("loss is str", lambda: HessianOperator(network(), "mse", x, y)),
        (
            "inputs is TensorDataset; expected tensors",
            lambda: HessianOperator(network(), loss, torch.utils.data.TensorDataset(x, y), y),
        ),
        ("given as data=", lambda: HessianOperator(network(), loss, torch.utils.data.TensorDataset(x, y))),
        ("inputs is dict", lambda: HessianOperator(network(), loss, {"a": x}, y)),
        ("complex", lambda: HessianOperator(network(), loss, x.to(torch.complex64), y)),
        ("unequal parts", lambda: HessianOperator(network(), loss, [[1.0], [1.0, 2.0]], y)),
        ("data is int", lambda: HessianOperator(network(), loss, data=3)),
        ("data is a tuple", lambda: HessianOperator(network(), loss, data=(x, y))),
        ("no batch", lambda: HessianOperator(network(), loss, data=[])),
        ("one number", lambda: HessianOperator(network(), lambda o, t: o.sum(1), x, y)),
        ("loss is float", lambda: HessianOperator(network(), lambda o, t: o.detach().sum().item(), x, y)),
        ("does not depend", lambda: HessianOperator(network(), lambda o, t: o.detach().sum(), x, y)),
        ("finite", lambda: HessianOperator(network(), lambda o, t: (o - o).log().mean(), x, y)),
        ("mean over nothing", lambda: HessianOperator(network(), loss, x, torch.full_like(y, -100))),
        ("failed", lambda: HessianOperator(network(), loss, x[:, :2], y)),
        ("target 7", lambda: HessianOperator(network(), loss, x, torch.where(y == 0, 7, y))),
        ("the model does not have", lambda: operator(network(), params="9.*")),
        ("the model does not have", lambda: operator(network(), params=[nn.Parameter(x)])),
        ("holds 3", lambda: operator(network(), params=[3])),
    ]


@pytest.mark.parametrize(("message", "call"), bad_calls(), ids=[m for m, _ in bad_calls()])
def test_bad_input_is_named(message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("labelled", [torch.uint8, torch.int32, torch.int16])
def test_labels_of_any_whole_type(labelled: torch.dtype) -> None:
    x, y = data()
    for normalized in (False, True):
        H = HessianOperator(network(normalized), nn.CrossEntropyLoss(), x, y.to(labelled))
        torch.testing.assert_close(H @ drawn(H.shape[0]), operator(network(normalized)) @ drawn(H.shape[0]))


def test_vectors_by_name() -> None:
    H = operator(network())
    assert [*H.parameter_slices] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    vector, block = drawn(H.shape[0]), drawn(H.shape[0], 2)
    named = H.to_named(vector)
    assert torch.equal(named["2.weight"], vector[H.parameter_slices["2.weight"]].view(CLASSES, 4))
    assert H.to_named(block)["0.weight"].shape == (4, D, 2)
    for each in (vector, block):
        assert torch.equal(H.from_named(H.to_named(each)), each)
    shuffled = dict(reversed(named.items()))
    assert torch.equal(H.from_named(shuffled), vector)
    del named["0.bias"]
    with pytest.raises(ValueError, match=r"0\.bias"):
        H.from_named(named)
    with pytest.raises(ValueError, match=r"0\.bias has shape"):
        H.from_named({**shuffled, "0.bias": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"0\.bias has shape \(4, 2\), expected \(4,\)"):
        H.from_named({**shuffled, "0.bias": torch.zeros(4, 2)})


def test_a_parameter_without_axes_has_a_name_like_any_other() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.scale = nn.Linear(D, CLASSES), nn.Parameter(torch.tensor(1.5))

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * self.layer(x)

    H = operator(Scaled())
    block = drawn(H.shape[0], 2)
    assert torch.equal(H.to_named(block[:, 0])["scale"], block[0, 0])
    assert H.to_named(block)["scale"].shape == (2,)
    assert torch.equal(H.from_named(H.to_named(block)), block)


def test_the_operator_as_others_take_one() -> None:
    from scipy.sparse.linalg import eigsh

    H = operator(network())
    n, vector = H.shape[0], drawn(H.shape[0])
    assert H.T is H
    assert H.adjoint() is H
    assert H.torch_dtype == torch.float32
    assert torch.equal(H.matvec(vector), H @ vector)
    assert torch.equal(H.matmat(vector[:, None]), H @ vector[:, None])
    assert np.array_equal(vector.numpy() @ H, H @ vector.numpy())
    scipys = H.to_scipy()
    assert scipys.shape == (n, n)
    assert scipys.dtype == np.float32
    np.testing.assert_allclose(scipys.T @ vector.numpy(), H @ vector.numpy(), rtol=1e-5, atol=1e-7)
    values = eigsh(H.in_float64().to_scipy(), k=2, which="LA", return_eigenvectors=False)
    exact = torch.linalg.eigvalsh(H.in_float64() @ torch.eye(n, dtype=torch.float64))
    np.testing.assert_allclose(np.sort(values), exact[-2:].numpy(), rtol=1e-8)
    np.testing.assert_allclose(top_eigenpairs(H, 2, 1e-4).values.flip(0).numpy(), exact[-2:].numpy(), rtol=1e-4)


@pytest.mark.parametrize("normalized", [False, True])
def test_the_gradient_and_the_loss_are_those_of_the_point(normalized: bool) -> None:
    (x, y), model = data(), network(normalized)
    H = operator(model, rows=7)
    loss = functional.cross_entropy(model(x), y)
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])
    torch.testing.assert_close(H.gradient, expected)
    assert H.loss == pytest.approx(loss.item())
    torch.testing.assert_close(H.point, nn.utils.parameters_to_vector(model.parameters()).detach())


def test_the_twin_moves_with_the_operator() -> None:
    H = operator(network())
    twin, vector, point = H.in_float64(), drawn(H.shape[0]).double(), H.point
    for factor in (0.5, 2.0):
        H.move_to(factor * point)
        torch.testing.assert_close(twin @ vector, (H @ vector).double(), rtol=1e-4, atol=1e-5)
        assert twin.loss == pytest.approx(H.loss)
