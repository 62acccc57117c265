"""Gradients of a batch against autograd and finite differences in float64, and one step on one vector against many."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from eigendrift.fully_connected import ACTIVATIONS
from reproduction.training.gradients import FlatParameters, batch_gradient
from reproduction.training.mlp_gradient import MLPGradient
from reproduction.training.model import flatten, initialize, mlp
from reproduction.training.optimizers import _ELEMENTWISE, OptimizerStep

N, D, CLASSES = 17, 6, 4


def batch(n: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(n, D, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(CLASSES, (n,), generator=generator)


def network(hidden: list[int], activation: str = "tanh") -> nn.Sequential:
    model = mlp(D, hidden, CLASSES, activation)
    initialize(model, 3, bias_init="uniform")
    return model.double()


def loss(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(model(inputs), targets)


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "softplus", "gelu", "silu", "elu"])
@pytest.mark.parametrize("hidden", [[], [5], [7, 5], [4, 4, 4]])
def test_the_gradient_is_that_of_autograd(activation: str, hidden: list[int], either_way: str) -> None:
    model = network(hidden, activation)
    flat = FlatParameters(copy.deepcopy(model))
    gradient = batch_gradient(flat)
    by_hand = all(type(layer) in ACTIVATIONS for layer in list(model)[1::2])
    assert isinstance(gradient, MLPGradient) == by_hand
    for n in (N, 5, N):  # the memory of a batch is used again, and made anew for another size
        inputs, targets = batch(n)
        gradient(inputs, targets)
        expected = torch.autograd.grad(loss(model, inputs, targets), list(model.parameters()))
        torch.testing.assert_close(flat.gradient, torch.cat([g.reshape(-1) for g in expected]), rtol=1e-12, atol=1e-15)


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    model, (inputs, targets) = network([5]), batch()
    flat = FlatParameters(model)
    batch_gradient(flat)(inputs, targets)
    slope, h = flat.gradient.clone(), 1e-6
    for index in range(0, len(slope), 7):
        sides = []
        for sign in (1, -1):
            flat.vector.data[index] += sign * h
            sides.append(float(loss(model, inputs, targets).detach()))
            flat.vector.data[index] -= sign * h
        assert float(slope[index]) == pytest.approx((sides[0] - sides[1]) / (2 * h), rel=1e-6, abs=1e-9)


def test_a_model_sees_the_vector_and_the_vector_the_model() -> None:
    model = network([5])
    before = flatten(model)
    flat = FlatParameters(model)
    assert torch.equal(flat.vector.detach(), before)
    flat.vector.data.mul_(2)
    assert torch.equal(flatten(model), 2 * before)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert not flat.vector.any()


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_gradients_are_written_where_the_optimizer_reads_them(activation: str, either_way: str) -> None:
    flat = FlatParameters(network([5], activation))
    gradient = batch_gradient(flat)
    for _ in range(2):
        gradient(*batch())
        assert flat.vector.grad is flat.gradient
        grads = [p.grad.reshape(-1) for p in flat.model.parameters() if p.grad is not None]
        assert torch.equal(torch.cat(grads), flat.gradient)


SPECS: list[dict[str, Any]] = [
    *({"class": name, "lr": 0.01} for name in _ELEMENTWISE),
    {"class": "SGD", "lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    {"class": "SAM", "base": "Adam", "lr": 0.01, "rho": 0.05},
    {"class": "Adafactor", "lr": 0.01},
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: "-".join(map(str, spec.values())))
def test_a_step_on_the_vector_is_the_steps_on_the_layers(spec: dict[str, Any]) -> None:
    one, many = network([5]), network([5])
    flat = FlatParameters(one)
    steps = {one: OptimizerStep.of(flat, spec), many: OptimizerStep(many.parameters(), spec)}
    inputs, targets = batch()
    take = batch_gradient(flat)

    def autograd() -> None:
        many.zero_grad()
        loss(many, inputs, targets).backward()

    for _ in range(5):
        take(inputs, targets)
        autograd()
        steps[one](lambda: take(inputs, targets))
        steps[many](autograd)
    torch.testing.assert_close(flat.vector.detach(), flatten(many), rtol=1e-9, atol=1e-12)
