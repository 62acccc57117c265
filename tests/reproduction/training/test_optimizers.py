"""Optimizer steps against their definitions written out in NumPy, in float64."""

import copy
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reproduction.errors import ConfigError
from reproduction.experiment.optimizer_arguments import torch_optimizers
from reproduction.training.optimizers import OptimizerStep, check_optimizer_is_made

Vector = NDArray[np.float64]
N, SPLIT, STEPS = 7, 3, 12
RANDOM = np.random.default_rng(0)
ROOT = RANDOM.standard_normal((N, N))
MATRIX, TARGET, START = ROOT @ ROOT.T / N, RANDOM.standard_normal(N), RANDOM.standard_normal(N)


def slope(theta: Vector) -> Vector:
    """Gradient of theta' A theta / 2 - b' theta + sum log cosh theta."""
    result: Vector = MATRIX @ theta - TARGET + np.tanh(theta)
    return result


class Run:
    """A OptimizerStep on two tensors that hold theta, and the points at which its gradient was taken."""

    def __init__(
        self, spec: dict[str, Any], gradient: Callable[[Vector], Vector] = slope, dtype: torch.dtype = torch.float64
    ) -> None:
        self.parameters = [torch.tensor(START[:SPLIT], dtype=dtype), torch.tensor(START[SPLIT:], dtype=dtype)]
        self.step = OptimizerStep(self.parameters, spec)
        self.slope = gradient
        self.points: list[Vector] = []

    @property
    def theta(self) -> Vector:
        return np.concatenate([p.detach().numpy() for p in self.parameters])

    def gradient(self) -> None:
        self.points.append(self.theta)
        values = torch.tensor(self.slope(self.theta), dtype=self.parameters[0].dtype)
        self.parameters[0].grad, self.parameters[1].grad = values[:SPLIT], values[SPLIT:]

    def __call__(self, steps: int = STEPS) -> Vector:
        taken = []
        for _ in range(steps):
            self.gradient()
            self.step(self.gradient)
            taken.append(self.theta)
        return np.array(taken)


# The definitions. Each gives the next theta from theta, the gradient and what it keeps in `memory`.

Rule = Callable[[Vector, Vector, dict[str, Any]], Vector]


def sgd(theta: Vector, g: Vector, memory: dict[str, Any]) -> Vector:
    return theta - 0.1 * g


def momentum(theta: Vector, g: Vector, memory: dict[str, Any]) -> Vector:
    memory["v"] = 0.9 * memory.get("v", 0.0) + g
    return theta - 0.1 * memory["v"]


def nesterov(theta: Vector, g: Vector, memory: dict[str, Any]) -> Vector:
    memory["v"] = 0.9 * memory.get("v", 0.0) + g
    return theta - 0.1 * (g + 0.9 * memory["v"])


def adam(theta: Vector, g: Vector, memory: dict[str, Any]) -> Vector:
    t = memory["t"] = memory.get("t", 0) + 1
    memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * g
    memory["v"] = 0.999 * memory.get("v", 0.0) + 0.001 * g**2
    mean, variance = memory["m"] / (1 - 0.9**t), memory["v"] / (1 - 0.999**t)
    result: Vector = theta - 0.1 * mean / (np.sqrt(variance) + 1e-8)
    return result


def adamw(theta: Vector, g: Vector, memory: dict[str, Any]) -> Vector:
    return adam((1 - 0.1 * 0.05) * theta, g, memory)


def rmsprop(theta: Vector, g: Vector, memory: dict[str, Any]) -> Vector:
    memory["v"] = 0.9 * memory.get("v", 0.0) + 0.1 * g**2
    result: Vector = theta - 0.1 * g / (np.sqrt(memory["v"]) + 1e-8)
    return result


def adadelta(theta: Vector, g: Vector, memory: dict[str, Any]) -> Vector:
    memory["v"] = 0.5 * memory.get("v", 0.0) + 0.5 * g**2
    change = np.sqrt(memory.get("d", 0.0) + 1e-6) / np.sqrt(memory["v"] + 1e-6) * g
    memory["d"] = 0.5 * memory.get("d", 0.0) + 0.5 * change**2
    result: Vector = theta - 0.1 * change
    return result


ORACLES: dict[str, tuple[dict[str, Any], Rule]] = {
    "sgd": ({"class": "SGD", "lr": 0.1}, sgd),
    "momentum": ({"class": "SGD", "lr": 0.1, "momentum": 0.9}, momentum),
    "nesterov": ({"class": "SGD", "lr": 0.1, "momentum": 0.9, "nesterov": True}, nesterov),
    "adam": ({"class": "Adam", "lr": 0.1}, adam),
    "adamw": ({"class": "AdamW", "lr": 0.1, "weight_decay": 0.05}, adamw),
    "rmsprop": ({"class": "RMSprop", "lr": 0.1, "alpha": 0.9}, rmsprop),
    "adadelta": ({"class": "Adadelta", "lr": 0.1, "rho": 0.5}, adadelta),
}


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_steps_are_those_of_the_definition(name: str, either_way: str) -> None:
    spec, rule = ORACLES[name]
    theta, memory, expected = START, {}, []
    for _ in range(STEPS):
        theta = rule(theta, slope(theta), memory)
        expected.append(theta)
    run = Run(spec)
    np.testing.assert_allclose(run(), expected, rtol=1e-12, atol=1e-13)
    # One gradient a step, taken by the caller.
    assert len(run.points) == STEPS


# Not Adadelta: its own rho is SAM's there.
@pytest.mark.parametrize("name", sorted(set(ORACLES) - {"adadelta"}))
def test_sam_is_its_base_with_the_gradient_at_the_top_of_the_ball(name: str, either_way: str) -> None:
    spec, rule = ORACLES[name]
    theta, memory, expected, tops = START, {}, [], []
    for _ in range(STEPS):
        g = slope(theta)
        tops.append(theta + 0.3 * g / np.linalg.norm(g))
        theta = rule(theta, slope(tops[-1]), memory)
        expected.append(theta)
    run = Run({**spec, "class": "SAM", "base": spec["class"], "rho": 0.3})
    taken = run()
    np.testing.assert_allclose(taken, expected, rtol=1e-12, atol=1e-13)
    assert len(run.points) == 2 * STEPS
    np.testing.assert_allclose(run.points[1::2], tops, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(run.points[::2], [START, *taken[:-1]])


def test_sam_steps_from_theta_itself_not_from_what_is_left_of_it_after_the_climb() -> None:
    # Up 1e9 and down again, theta would have 7 digits left.
    run = Run({"class": "SAM", "base": "SGD", "lr": 0.1, "rho": 1e9}, gradient=lambda theta: TARGET)
    np.testing.assert_allclose(run(1)[0], START - 0.1 * TARGET, rtol=1e-14)


def test_sam_with_a_tiny_radius_is_its_base() -> None:
    plain, sam = Run({"class": "SGD", "lr": 0.1}), Run({"class": "SAM", "base": "SGD", "lr": 0.1, "rho": 1e-12})
    np.testing.assert_allclose(sam(), plain(), rtol=1e-10)


@pytest.mark.parametrize("rho", [0.05, 0.0])
@pytest.mark.parametrize("base", ["SGD", "Adam"])
def test_sam_stays_at_a_point_without_gradient(base: str, rho: float) -> None:
    run = Run({"class": "SAM", "base": base, "lr": 0.1, "rho": rho}, gradient=lambda theta: 0.0 * theta)
    np.testing.assert_array_equal(run(3), np.tile(START, (3, 1)))


def test_sam_leaves_a_parameter_without_gradient_alone() -> None:
    run = Run({"class": "SAM", "base": "SGD", "lr": 0.1, "rho": 0.05})
    unused = torch.ones(2, dtype=torch.float64)
    step = OptimizerStep(
        [run.parameters[0], unused, run.parameters[1]], {"class": "SAM", "base": "SGD", "lr": 0.1, "rho": 0.05}
    )
    run.gradient()
    step(run.gradient)
    assert unused.tolist() == [1.0, 1.0]
    np.testing.assert_array_equal(run.theta, Run({"class": "SAM", "base": "SGD", "lr": 0.1, "rho": 0.05})(1)[0])


def test_sam_takes_a_gradient_that_comes_at_the_top_only_from_where_the_parameter_is() -> None:
    early, late = (torch.nn.Parameter(torch.full((3,), value)) for value in (1.0, 2.0))
    early.grad = torch.ones(3)
    step = OptimizerStep([early, late], {"class": "SAM", "base": "SGD", "lr": 0.5, "rho": 0.1})

    def gradient() -> None:
        early.grad, late.grad = torch.ones(3), torch.full((3,), 4.0)

    step(gradient)
    torch.testing.assert_close(early.detach(), torch.full((3,), 0.5))
    torch.testing.assert_close(late.detach(), torch.zeros(3))


def test_arguments_reach_the_optimizer() -> None:
    step = OptimizerStep(
        [torch.zeros(2)], {"class": "SAM", "base": "Adam", "lr": 0.2, "rho": 0.4, "betas": [0.5, 0.6], "eps": 1e-3}
    )
    group = step.state()["param_groups"][0]
    assert (group["lr"], list(group["betas"]), group["eps"], step.rho) == (0.2, [0.5, 0.6], 1e-3, 0.4)
    assert group["fused"]
    plain = OptimizerStep([torch.zeros(2)], {"class": "Adadelta", "lr": 0.2, "rho": 0.4})
    assert (plain.optimizer.param_groups[0]["rho"], plain.rho) == (0.4, None)


EVERY = [{"class": name, "lr": 0.01} for name in sorted(torch_optimizers())]
EVERY += [{"class": "SAM", "base": name, "lr": 0.01, "rho": 0.05} for name in sorted(torch_optimizers())]


@pytest.mark.parametrize("spec", EVERY, ids=[f"{spec['class']} {spec.get('base', '')}" for spec in EVERY])
def test_every_optimizer_goes_on_from_its_saved_state_to_the_same_bits(spec: dict[str, Any], either_way: str) -> None:
    # In the type that networks are trained in: torch gives a restored state the type of the parameters.
    whole, halted, resumed = (Run(spec, dtype=torch.float32) for _ in range(3))
    expected = whole(10)
    assert np.isfinite(expected).all()
    assert not np.isclose(expected[-1], START, rtol=1e-4).any()
    halted(4)
    stored = io.BytesIO()
    torch.save(halted.step.state(), stored)
    stored.seek(0)
    with torch.no_grad():
        for mine, theirs in zip(resumed.parameters, halted.parameters, strict=True):
            mine.copy_(theirs)
    resumed.step.restore(torch.load(stored, weights_only=True))
    np.testing.assert_array_equal(resumed(6), expected[4:])


def test_a_step_without_its_state_goes_elsewhere() -> None:
    """The test above would notice a state that is not restored."""
    whole, forgetful = Run(ORACLES["adam"][0]), Run(ORACLES["adam"][0])
    expected = whole(5)
    forgetful(3)
    forgetful.step = OptimizerStep(forgetful.parameters, copy.deepcopy(ORACLES["adam"][0]))
    assert not np.allclose(forgetful(2), expected[3:])


def test_adam_reads_the_gradient_as_it_lies_now(either_way: str) -> None:
    """Every other number of memory whose first half was the gradient before, and the first half again."""
    memory = torch.randn(2 * N, generator=torch.Generator().manual_seed(1))
    ours, theirs = torch.from_numpy(START).float(), torch.from_numpy(START).float()
    step, optimizer = OptimizerStep([ours], {"class": "Adam", "lr": 0.03}), torch.optim.Adam([theirs], lr=0.03)
    for gradient in (memory[:N], memory[:N], memory[::2], memory[:N], memory[N:]):
        ours.grad, theirs.grad = gradient, gradient.clone()
        step(lambda: None)
        optimizer.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("lr", [0.1, 1e-3, 3.0])
def test_plain_sgd_is_torch_s_to_the_bit(lr: float) -> None:
    ours, theirs = torch.from_numpy(START).float(), torch.from_numpy(START).float()
    step, optimizer = OptimizerStep([ours], {"class": "SGD", "lr": lr}), torch.optim.SGD([theirs], lr=lr)
    for seed in range(20):
        gradient = torch.randn(N, generator=torch.Generator().manual_seed(seed))
        ours.grad, theirs.grad = gradient, gradient.clone()
        step(lambda: None)
        optimizer.step()
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "arguments", [{}, {"betas": [0.5, 0.6], "eps": 1e-3}, {"weight_decay": 0.1}], ids=lambda given: "-".join(given)
)
def test_adam_is_torch_s_to_the_bit_or_to_the_rounding_of_a_loop(
    arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch, either_way: str
) -> None:
    ours, theirs = ([torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (300, 20)] for _ in range(2))
    step = OptimizerStep(ours, {"class": "Adam", "lr": 0.03, **arguments})
    optimizer = torch.optim.Adam(theirs, lr=0.03, fused=True, **arguments)
    taken = []
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, take=torch.optim.Adam.step: (taken.append(self), take(self))
    )
    for seed in range(20):
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            # At two steps a parameter has no gradient: the operator cannot take these.
            gradient = torch.randn(len(mine), generator=torch.Generator().manual_seed(seed))
            mine.grad, other.grad = (None, None) if index and seed in (0, 7) else (gradient, gradient.clone())
        step(lambda: None)
        optimizer.step()
        for mine, other in zip(ours, theirs, strict=True):
            if either_way == "operators":
                assert torch.equal(mine, other)
            torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-7)
    # The first two make the states of two parameters; all else but the step without a gradient is the operator's alone.
    assert len([each for each in taken if each is not optimizer]) == 3


# Classes that are not torch's, and values that a constructor refuses


class Halving(torch.optim.Optimizer):
    """theta <- theta - lr g / 2, with a state of its own."""

    def __init__(self, params: Any, lr: float, power: int = 1) -> None:
        if power < 0:
            raise ValueError(f"power must not be negative,\nnot {power}")
        super().__init__(params, {"lr": lr, "power": power})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad * 0.5 ** group["power"]
                self.state[p]["taken"] = self.state[p].get("taken", 0) + 1


class NeedsClosure(Halving):
    def step(self, closure: Any) -> None:  # type: ignore[override]
        pass


OUTSIDE = f"{__name__}:Halving"


def test_a_class_from_anywhere_takes_the_step() -> None:
    steps = Run({"class": OUTSIDE, "lr": 0.2})(4)
    theta = START
    for taken in steps:
        theta = theta - 0.1 * slope(theta)
        np.testing.assert_allclose(taken, theta, rtol=1e-14)
    sam = Run({"class": "SAM", "base": OUTSIDE, "lr": 0.2, "rho": 0.05})
    plain = Run({"class": "SAM", "base": "SGD", "lr": 0.1, "rho": 0.05})
    np.testing.assert_allclose(sam(4), plain(4), rtol=1e-13)
    assert sam.step.state()["state"][0]["taken"] == 4
    assert not sam.step.capturable


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class": "absent_package:Lion"}, ["x.class: 'absent_package:Lion'", "cannot be imported", "absent_package"]),
        ({"class": f"{__name__}:Absent"}, ["x.class: ", "cannot be imported", "Absent"]),
        ({"class": "collections:OrderedDict"}, ["x.class: 'collections:OrderedDict'", "no torch.optim.Optimizer"]),
        ({"class": f"{__name__}:slope"}, ["x.class: ", "no torch.optim.Optimizer"]),
        ({"class": f"{__name__}:NeedsClosure"}, ["x.class: ", "without a closure"]),
        ({"class": "SAM", "base": "absent_package:Lion", "rho": 0.1}, ["x.base: 'absent_package:Lion'", "imported"]),
        ({"class": OUTSIDE, "powr": 1}, ["x.powr: 1", "unexpected keyword"]),
        ({"class": OUTSIDE, "power": -1}, ["x.power: -1", "must not be negative, not -1"]),
        ({"class": "SGD", "momentum": -0.9}, ["x.momentum: -0.9", "Invalid momentum"]),
        ({"class": "SGD", "nesterov": True}, ["x.nesterov: True", "momentum"]),
        ({"class": "Adam", "betas": [0.9, 1.0]}, ["x: ", "[0.9, 1.0]", "Invalid beta"]),
    ],
)
def test_what_cannot_be_made_is_refused_before_training(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        check_optimizer_is_made("optimizers.x", {"lr": 0.1, **change})
    message = str(refused.value)
    assert message.startswith("config: optimizers.")
    assert message.isprintable()
    assert all(word in message for word in words), message


def test_what_can_be_made_passes() -> None:
    for spec in ({"class": OUTSIDE}, {"class": "Adam"}, {"class": "SAM", "base": OUTSIDE, "rho": 0.1}):
        check_optimizer_is_made("optimizers.x", {"lr": 0.1, **spec})
