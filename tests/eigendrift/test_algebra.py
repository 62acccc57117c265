"""Sums, multiples and shifts of operators, and operators in the metric of a preconditioner, against dense matrices."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.linalg import aslinearoperator, eigsh
from spectra import Columns
from torch import Tensor, nn

from eigendrift import (
    EmpiricalFisherOperator,
    GGNOperator,
    HessianOperator,
    PreconditionedOperator,
    adam_preconditioner,
    stability,
    top_eigenpairs,
)
from eigendrift.operators import RefinableOperator, torch_type

pytestmark = pytest.mark.usefixtures("one_thread")
N, LOSS = 30, nn.CrossEntropyLoss()


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


INPUTS, TARGETS = drawn(N, 4), torch.randint(0, 3, (N,), generator=torch.Generator().manual_seed(2))


def network(kind: torch.dtype = torch.float64, width: int = 5) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3)).to(kind)


def operators(model: nn.Module, **settings: Any) -> tuple[HessianOperator, GGNOperator, EmpiricalFisherOperator]:
    kind = next(model.parameters()).dtype
    x = INPUTS.to(kind)
    return (
        HessianOperator(model, LOSS, x, TARGETS, **settings),
        GGNOperator(model, LOSS, x, TARGETS, **settings),
        EmpiricalFisherOperator(model, LOSS, x, TARGETS, **settings),
    )


def matrix(operator: Any) -> Tensor:
    return operator @ torch.eye(operator.shape[0], dtype=torch_type(operator))


def symmetric(n: int, seed: int = 3) -> Tensor:
    a = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return a + a.T


@given(a=st.floats(-1e3, 1e3), b=st.floats(-1e3, 1e3), shift=st.floats(-1e3, 1e3))
@settings(max_examples=25, deadline=None)
def test_sums_multiples_and_shifts_are_linear(a: float, b: float, shift: float) -> None:
    A, B = symmetric(6), symmetric(6, seed=4)
    first, second = (1.0 * as_shifted(m) for m in (A, B))
    combined = (a * first - second * b).shifted(shift) / 2
    expected = (a * A - b * B + shift * torch.eye(6, dtype=torch.float64)) / 2
    torch.testing.assert_close(matrix(combined), expected, rtol=1e-12, atol=1e-9)
    assert combined.T is combined
    assert combined.adjoint() is combined


def as_shifted(m: Tensor) -> Any:
    """A symmetric matrix as an operator of ours, by way of a shift of 0."""
    from eigendrift.algebra import linear_combination

    return linear_combination([(1.0, m)])


COMBINATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Tensor]]] = {
    "twice and one": (lambda H, G, F: 2 * H + G, lambda H, G, F: 2 * H + G),
    "difference": (lambda H, G, F: H - G, lambda H, G, F: H - G),
    "negative": (lambda H, G, F: -H, lambda H, G, F: -H),
    "shifted": (lambda H, G, F: (G + F).shifted(0.5), lambda H, G, F: G + F + 0.5 * torch.eye(len(H))),
    "nested": (
        lambda H, G, F: 3 * (H - 2 * (G.shifted(1) - F)),
        lambda H, G, F: 3 * (H - 2 * (G - F)) - 6 * torch.eye(len(H)),
    ),
    "quotient": (lambda H, G, F: H / 4, lambda H, G, F: H / 4),
    "sum": (lambda H, G, F: sum([H, G, F]), lambda H, G, F: H + G + F),
    "of a scalar tensor": (lambda H, G, F: torch.tensor(2.0) * H, lambda H, G, F: 2 * H),
    "of a NumPy number": (lambda H, G, F: np.float32(2) * H, lambda H, G, F: 2 * H),
    "with itself": (lambda H, G, F: H + H - 2 * H, lambda H, G, F: 0 * H),
}


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", COMBINATIONS)
def test_combinations_of_operators(name: str, kind: torch.dtype) -> None:
    ours, dense = COMBINATIONS[name]
    model = network(kind)
    all_of_them = operators(model)
    combined = ours(*all_of_them)
    expected = dense(*(matrix(o.in_float64()) for o in all_of_them))
    assert combined.torch_dtype == kind
    assert combined.dtype == (np.float32 if kind == torch.float32 else np.float64)
    tolerance = 1e-10 if kind == torch.float64 else 1e-5
    torch.testing.assert_close(matrix(combined).double(), expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(matrix(combined.in_float64()), expected, rtol=0, atol=1e-10)
    array = np.arange(float(combined.shape[0]))
    for found in (combined @ array, array @ combined, combined.to_scipy() @ array, combined.matvec(array)):
        np.testing.assert_allclose(found, expected.numpy() @ array, atol=100 * tolerance)
    assert combined.to_scipy().dtype == combined.dtype
    assert combined.matmat(torch.ones(combined.shape[0], 2)).shape == (combined.shape[0], 2)
    assert list(combined.parameter_slices) == ["0.weight", "0.bias", "2.weight", "2.bias"]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("form", [lambda m: m, lambda m: m.numpy(), csr_array, aslinearoperator, Columns])
def test_matrices_take_part_from_both_sides(form: Callable[[Any], Any], kind: torch.dtype) -> None:
    H = operators(network(kind))[0]
    m = symmetric(H.shape[0])
    other = form(m.numpy() if form in (csr_array, aslinearoperator) else m)
    expected = matrix(H.in_float64())
    left = [other + H, other - H] if form is not aslinearoperator and form is not Columns else []
    for combined, dense in zip(
        [H + other, H - other, *left], [expected + m, expected - m, m + expected, m - expected], strict=False
    ):
        torch.testing.assert_close(
            matrix(combined).double(), dense, rtol=0, atol=1e-10 if kind == torch.float64 else 1e-4
        )
        # Exact data beside an operator does not keep it from its finer forms.
        torch.testing.assert_close(matrix(combined.in_float64()), dense, rtol=0, atol=1e-10)


def test_a_float32_matrix_does_not_round_a_float64_operator() -> None:
    H = operators(network())[0]
    m = symmetric(H.shape[0]).float()
    combined = H + m
    assert combined.torch_dtype == torch.float64
    torch.testing.assert_close(matrix(combined), matrix(H) + m.double(), rtol=0, atol=1e-13)


def test_what_multiplies_in_float32_alone_offers_no_finer_form() -> None:
    H = operators(network(torch.float32))[0]
    combined = H + Columns(symmetric(H.shape[0]).float())
    assert not isinstance(combined, RefinableOperator)
    assert isinstance(2 * H, RefinableOperator)
    wide = operators(network())[0] + Columns(symmetric(H.shape[0]).float())
    assert wide.torch_dtype == torch.float32


def test_an_asymmetric_operator_in_a_sum_is_refused_by_the_solver() -> None:
    H = operators(network())[0]
    skew = torch.triu(torch.ones(H.shape[0], H.shape[0], dtype=torch.float64))
    with pytest.raises(ValueError, match="not symmetric"):
        H + skew
    with pytest.raises(ValueError, match="not symmetric"):
        top_eigenpairs(
            1.0 * as_shifted(torch.eye(200, dtype=torch.float64))
            + Columns(torch.triu(torch.ones(200, 200, dtype=torch.float64))),
            k=2,
        )


BAD: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "number": (lambda H: H + 3, TypeError, "shifted"),
    "number on the left": (lambda H: 3 - H, TypeError, "shifted"),
    "vector": (lambda H: H * np.ones(3), TypeError, "H @ v"),
    "operator": (lambda H: H * H, TypeError, "factor"),
    "product of operators": (lambda H: H @ H, TypeError, "expected a tensor"),
    "complex": (lambda H: 1j * H, TypeError, "complex"),
    "nan": (lambda H: float("nan") * H, ValueError, "finite"),
    "infinite shift": (lambda H: H.shifted(np.inf), ValueError, "finite"),
    "zero": (lambda H: H / 0, ZeroDivisionError, "divisor"),
    "shape": (lambda H: H + torch.eye(3), ValueError, "shape"),
    "string": (lambda H: H + "G", TypeError, "str"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_combination_is_refused(name: str) -> None:
    make, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        make(operators(network())[0])


def test_operators_of_other_parameters_do_not_add_up() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    first, second = (HessianOperator(model, LOSS, INPUTS.double(), TARGETS, params=params) for params in ("0.*", "2.*"))
    assert first.shape == second.shape
    with pytest.raises(ValueError, match="other parameters"):
        first + second


def test_combinations_move_and_refuse_with_their_operands() -> None:
    model = network()
    H, G, _ = operators(model)
    combined = (H - G).shifted(0.1) + symmetric(H.shape[0])
    combined.move_to(1.5 * H.point)
    other = copy.deepcopy(model)
    nn.utils.vector_to_parameters(H.point, other.parameters())
    expected = operators(other)
    torch.testing.assert_close(
        matrix(combined),
        matrix(expected[0]) - matrix(expected[1]) + 0.1 * torch.eye(H.shape[0]) + symmetric(H.shape[0]),
    )
    combined.refresh()
    with torch.no_grad():
        model[0].weight.mul_(2)
    with pytest.raises(ValueError, match="has changed"):
        combined @ torch.ones(H.shape[0])
    combined.refresh()
    torch.testing.assert_close(
        matrix(combined), matrix(H) - matrix(G) + 0.1 * torch.eye(H.shape[0]) + symmetric(H.shape[0])
    )
    with pytest.raises(ValueError, match="has a point"):
        as_shifted(torch.eye(3)).refresh()
    torch.testing.assert_close(matrix(pickle.loads(pickle.dumps(combined))), matrix(combined))


def test_buffers_move_along() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double().eval()
    H, G, _ = operators(model)
    mean = torch.ones(5, dtype=torch.float64)
    (H - G).move_to(H.point, {"1.running_mean": mean})
    other = copy.deepcopy(model)
    other[1].running_mean.copy_(mean)
    torch.testing.assert_close(matrix(H - G), matrix(operators(other)[0]) - matrix(operators(other)[1]))


@pytest.mark.parametrize("tol", [1e-3, 1e-5, 1e-6, 1e-8])
@pytest.mark.parametrize("which", ["LA", "SA", "LM"])
def test_the_solver_takes_combinations(which: str, tol: float) -> None:
    H, G, F = operators(network(torch.float32, width=20))
    combined = 2 * H - (G - F) / 2
    assert combined.shape[0] > 100
    pairs = top_eigenpairs(combined, k=3, tol=tol, which=which)
    assert bool(pairs.converged.all())
    known = torch.linalg.eigvalsh(matrix(combined.in_float64())).flip(0)
    order = {"LA": known, "SA": known.flip(0), "LM": known[known.abs().argsort(descending=True)]}[which]
    torch.testing.assert_close(pairs.values, order[:3], rtol=max(tol, 1e-7), atol=0.0)
    # The same with a preconditioner.
    P = 0.1 + drawn(combined.shape[0], seed=9).square().double()
    pairs = top_eigenpairs(PreconditionedOperator(combined, P), k=3, tol=tol, which=which)
    dense = P.rsqrt()[:, None] * matrix(combined.in_float64()) * P.rsqrt()
    known = torch.linalg.eigvalsh(dense).flip(0)
    order = {"LA": known, "SA": known.flip(0), "LM": known[known.abs().argsort(descending=True)]}[which]
    torch.testing.assert_close(pairs.values, order[:3], rtol=max(tol, 1e-7), atol=0.0)


def test_multiples_have_the_surrogate_of_their_operand() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4))
    x = drawn(12_000, 20)
    y = x[:, :4].argmax(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for rows in torch.randperm(len(x)).split(200):
        optimizer.zero_grad()
        LOSS(model(x[rows]), y[rows]).backward()
        optimizer.step()
    H = HessianOperator(model, LOSS, x, y)
    plain = top_eigenpairs(H, k=2)
    assert plain.surrogate_matvecs > 0
    for operator in (3 * H, (3 * H).shifted(0.0), PreconditionedOperator(3 * H, torch.ones(H.shape[0]))):
        pairs = top_eigenpairs(operator, k=2)
        assert pairs.surrogate_matvecs > 0
        torch.testing.assert_close(pairs.values, 3 * plain.values, rtol=1e-3, atol=0.0)
    assert top_eigenpairs(H + GGNOperator(model, LOSS, x, y), k=2).surrogate_matvecs == 0
    in_adams = top_eigenpairs(PreconditionedOperator(H, optimizer), k=2)
    alone = top_eigenpairs(PreconditionedOperator(H, optimizer), k=2, surrogate=None)
    assert in_adams.surrogate_matvecs > 0
    torch.testing.assert_close(in_adams.values, alone.values, rtol=1e-3, atol=0.0)


def stepped(model: nn.Module, kind: type[torch.optim.Optimizer], steps: int = 5, **settings: Any) -> Any:
    optimizer = kind(model.parameters(), **{"lr": 1e-2, **settings})
    for _ in range(steps):
        optimizer.zero_grad()
        LOSS(model(INPUTS.to(next(model.parameters()).dtype)), TARGETS).backward()
        optimizer.step()
    return optimizer


ADAMS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1, "betas": (0.8, 0.99), "eps": 1e-4}),
    "amsgrad": (torch.optim.Adam, {"amsgrad": True, "eps": 1e-3}),
    "decayed": (torch.optim.Adam, {"weight_decay": 0.1, "foreach": True}),
    "fused": (torch.optim.AdamW, {"fused": True}),
    "one by one": (torch.optim.Adam, {"foreach": False, "lr": torch.tensor(1e-2)}),
}


@pytest.mark.parametrize("name", ADAMS)
def test_adams_preconditioner_is_what_its_step_divides_by(name: str) -> None:
    """A further step with a gradient of zero moves by eta m / P, with the moments after it."""
    kind, settings = ADAMS[name]
    model = network()
    optimizer = stepped(model, kind, **settings)
    # The gradient of zero includes no decay.
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    before = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    after = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    H = operators(model)[0]
    P = adam_preconditioner(optimizer, H)
    m = torch.cat([optimizer.state[p]["exp_avg"].reshape(-1) for p in model.parameters()])
    torch.testing.assert_close(before - after, 1e-2 * m / P, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_the_preconditioned_spectrum_is_that_of_the_dense_matrix(kind: torch.dtype) -> None:
    model = network(kind)
    optimizer = stepped(model, torch.optim.Adam)
    for operator in operators(model):
        A = PreconditionedOperator(operator, optimizer)
        P = adam_preconditioner(optimizer, operator)
        dense = P.rsqrt()[:, None] * matrix(operator.in_float64()) * P.rsqrt()
        scale = float(dense.abs().max())
        torch.testing.assert_close(
            matrix(A).double(), dense, rtol=0, atol=(1e-12 if kind == torch.float64 else 1e-5) * scale
        )
        pairs = top_eigenpairs(A, k=3, tol=1e-8)
        values = torch.linalg.eigvalsh(dense)
        torch.testing.assert_close(pairs.values, values.flip(0)[:3], rtol=1e-8, atol=0.0)
        # The eigenvectors of P^-1 H, which is not symmetric.
        w = A.in_float64().to_parameters(pairs.vectors)
        torch.testing.assert_close(torch.linalg.vector_norm(w, dim=0), torch.ones(3, dtype=torch.float64))
        h = matrix(operator.in_float64())
        torch.testing.assert_close((h @ w) / P[:, None], w * pairs.values, rtol=0, atol=1e-6 * float(pairs.values[0]))
        torch.testing.assert_close(A.to_parameters(pairs.vectors[:, 0].numpy()).double(), w[:, 0], rtol=0, atol=1e-5)
        assert A.T is A
        found = eigsh(A.to_scipy(), k=2, which="LA", return_eigenvectors=False)
        np.testing.assert_allclose(found[::-1], values.flip(0)[:2].numpy(), rtol=1e-5)


def test_the_preconditioner_follows_the_optimizer_or_refuses() -> None:
    model = network()
    optimizer = stepped(model, torch.optim.Adam)
    H = operators(model)[0]
    A = PreconditionedOperator(H, optimizer)
    copied = pickle.loads(pickle.dumps(A))
    before = matrix(A)
    kept = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    with torch.no_grad():
        for p, value in zip(model.parameters(), kept, strict=True):
            p.copy_(value)
    with pytest.raises(ValueError, match="optimizer's state has changed"):
        matrix(A)
    A.refresh()
    assert float((matrix(A) - before).norm() / before.norm()) > 1e-3
    torch.testing.assert_close(A.diagonal, adam_preconditioner(optimizer, H))
    torch.testing.assert_close(matrix(copied), before)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    with pytest.raises(ValueError, match="optimizer's state has changed"):
        matrix(A)
    fixed = PreconditionedOperator(H, A.diagonal)
    optimizer.step()
    with pytest.raises(ValueError, match="model has changed"):
        matrix(fixed)
    H.refresh()
    matrix(fixed)


def test_preconditioners_that_are_none_are_refused() -> None:
    model = network()
    H = operators(model)[0]
    n = H.shape[0]
    bad: list[tuple[Any, type[Exception], str]] = [
        (torch.ones(n - 1), ValueError, "shape"),
        (torch.zeros(n), ValueError, "positive"),
        (np.full(n, np.nan), ValueError, "positive"),
        ([1.0] * n, TypeError, "list"),
        (torch.optim.SGD(model.parameters(), lr=0.1), ValueError, "SGD"),
        (torch.optim.NAdam(model.parameters()), ValueError, "NAdam"),
        (torch.optim.Adam(model.parameters()), ValueError, "no step"),
        (stepped(network(), torch.optim.Adam), ValueError, "does not train"),
    ]
    for preconditioner, kind, message in bad:
        with pytest.raises(kind, match=message):
            PreconditionedOperator(H, preconditioner)
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 1.0}]
    optimizer = torch.optim.Adam(groups, lr=0.1)
    LOSS(model(INPUTS.double()), TARGETS).backward()
    optimizer.step()
    H.refresh()
    with pytest.raises(ValueError, match="learning rates differ"):
        PreconditionedOperator(H, optimizer)
    with pytest.raises(TypeError, match="no parameters"):
        adam_preconditioner(optimizer, torch.eye(3))


def test_a_block_of_parameters_has_its_block_of_the_preconditioner() -> None:
    model = network()
    optimizer = stepped(model, torch.optim.Adam)
    whole = adam_preconditioner(optimizer, operators(model)[0])
    H = operators(model, params="2.*")[0]
    torch.testing.assert_close(adam_preconditioner(optimizer, 2 * H), whole[-H.shape[0] :])
    assert H.parameters[0] is model[2].weight


@pytest.mark.parametrize(("beta1", "factor"), [(0.9, 0.95), (0.9, 1.05), (0.5, 0.95), (0.5, 1.05)])
def test_adam_grows_beyond_its_edge_and_decays_below_it(beta1: float, factor: float) -> None:
    """Full-batch Adam with a preconditioner that no longer changes, on a quadratic loss."""
    torch.manual_seed(0)
    model = nn.Linear(6, 2, bias=False).double()
    x, y, loss = drawn(40, 6).double(), torch.zeros(40, 2).double(), nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(beta1, 1.0 - 1e-14))
    state = optimizer.state[model.weight]
    # The moments of a long training, which so slow a second moment keeps.
    v = 0.1 + drawn(2, 6, seed=4).double().square()
    state["step"] = torch.tensor(1e9)
    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(model.weight), v * (1 - (1 - 1e-14) ** 1e9)
    H = HessianOperator(model, loss, x, y)
    A = PreconditionedOperator(H, optimizer)
    value = float(top_eigenpairs(A, k=1, tol=1e-8).values[0])
    learning_rate = factor * stability.adam_edge(1.0, beta1) / value
    optimizer.param_groups[0]["lr"] = learning_rate
    sizes = []
    for _ in range(400):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
        sizes.append(float(model.weight.detach().norm()))
    # Beyond the edge the second moments follow in the end, and stop the growth.
    assert (max(sizes) > 100 * sizes[0]) if factor > 1 else (max(sizes[-50:]) < 0.5 * sizes[0])
