"""Convolutions with faster second derivatives: those of torch in every form, and in no other place."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from eigendrift import HessianOperator
from eigendrift.hessian.fast_operations import FastOperations

FORMS = [
    (nn.Conv1d(3, 4, 5, stride=2, padding=2), (2, 3, 11)),
    (nn.Conv1d(2, 3, 1), (3, 2, 6)),
    (nn.Conv2d(2, 4, 3, padding=1), (2, 2, 6, 7)),
    (nn.Conv2d(2, 4, 3, padding=1, bias=False), (2, 2, 6, 6)),
    (nn.Conv2d(1, 3, (3, 2), stride=(2, 3), padding=(0, 1), dilation=(2, 1)), (2, 1, 9, 8)),
    (nn.Conv2d(4, 4, 3, groups=4, padding=1), (2, 4, 5, 5)),
    (nn.Conv2d(4, 6, 3, groups=2, stride=2), (2, 4, 7, 7)),
    (nn.Conv3d(1, 2, 3, stride=2, padding=1), (2, 1, 5, 4, 6)),
]
LEFT_TO_TORCH = [
    (nn.Conv2d(2, 3, 3, padding="same"), (2, 2, 5, 5)),
    (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 2, 5, 5)),
    (nn.Conv2d(2, 3, 3), (2, 5, 5)),
    (nn.ConvTranspose2d(2, 3, 3, stride=2), (2, 2, 4, 4)),
]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def derivatives(layer: nn.Module, x: Tensor, fast: bool) -> list[Tensor]:
    """The value, all first derivatives of a nonlinear function of it, and the derivatives of these."""
    x = x.clone().requires_grad_()
    parameters = [x, *layer.parameters()]
    if fast:
        with FastOperations():
            y = layer(x)
    else:
        y = layer(x)
    first = torch.autograd.grad((y.sin() * draw(*y.shape, seed=1)).sum(), parameters, create_graph=True)
    inner = sum((g * draw(*g.shape, seed=2 + i)).sum() for i, g in enumerate(first))
    assert isinstance(inner, Tensor)
    return [y.detach(), *(g.detach() for g in first), *torch.autograd.grad(inner, parameters)]


@pytest.mark.parametrize(("layer", "shape"), [*FORMS, *LEFT_TO_TORCH], ids=lambda each: str(each)[:70])
def test_values_and_derivatives_are_those_of_torch(layer: nn.Module, shape: tuple[int, ...]) -> None:
    layer = copy.deepcopy(layer).double()
    for ours, theirs in zip(
        derivatives(layer, draw(*shape), True), derivatives(layer, draw(*shape), False), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("layer", "shape"), FORMS[:5], ids=lambda each: str(each)[:70])
def test_derivatives_agree_with_differences(layer: nn.Module, shape: tuple[int, ...]) -> None:
    layer = copy.deepcopy(layer).double()
    x = draw(*shape).requires_grad_()

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        names = [name for name, _ in layer.named_parameters()]
        with FastOperations():
            result: Tensor = torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))
        return result

    assert torch.autograd.gradgradcheck(function, (x, *layer.parameters()))


def own(y: Tensor) -> bool:
    return type(y.grad_fn).__name__ == "_ConvolutionBackward"


@pytest.mark.parametrize(("layer", "shape"), FORMS, ids=lambda each: str(each)[:70])
def test_it_takes_the_convolutions_that_it_knows(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    with FastOperations():
        assert own(layer(x))
        with torch.no_grad():
            assert not own(layer(x))
        with torch.autocast("cpu"):
            assert not own(layer(x))
    assert not own(layer(x))


@pytest.mark.parametrize(("layer", "shape"), LEFT_TO_TORCH, ids=lambda each: str(each)[:70])
def test_it_leaves_the_others_to_torch(layer: nn.Module, shape: tuple[int, ...]) -> None:
    with FastOperations():
        y = layer(torch.randn(shape))
    if not isinstance(layer, nn.Conv2d) or layer.padding_mode == "zeros":
        assert not own(y)


def test_transforms_of_torch_inside_of_a_model() -> None:
    layer, x = nn.Conv2d(1, 2, 3).double(), draw(4, 1, 5, 5)
    per_sample: Callable[[Tensor], Tensor] = torch.func.vmap(lambda one: functional.conv2d(one[None], layer.weight)[0])
    with FastOperations():
        found = per_sample(x)
    torch.testing.assert_close(found, functional.conv2d(x, layer.weight), rtol=1e-12, atol=1e-12)


class Groups(nn.Module):
    """One-dimensional, grouped and strided convolutions, a shared one among them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 4, 3, stride=2, padding=1)
        self.again = nn.Conv1d(4, 4, 3, padding=1, groups=2)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.tanh(self.first(x))
        a = torch.tanh(self.again(torch.tanh(self.again(a))))
        result: Tensor = self.last(a.mean(dim=2))
        return result


@pytest.mark.parametrize("rows", [4, 20])
def test_products_of_a_convolutional_network_are_those_of_its_dense_hessian(rows: int) -> None:
    torch.manual_seed(0)
    model, x, y = Groups().double(), draw(20, 1, 9), torch.arange(20) % 3
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y, rows=rows)
    names = [name for name, _ in model.named_parameters()]
    sizes = [p.numel() for p in model.parameters()]

    def loss(theta: Tensor) -> Tensor:
        parts = [a.view_as(p) for a, p in zip(theta.split(sizes), model.parameters(), strict=True)]
        return functional.cross_entropy(
            torch.func.functional_call(model, dict(zip(names, parts, strict=True)), (x,)), y
        )

    dense = torch.func.hessian(loss)(nn.utils.parameters_to_vector(model.parameters()).detach())
    torch.testing.assert_close(H @ torch.eye(len(dense), dtype=torch.float64), dense, rtol=1e-9, atol=1e-12)
