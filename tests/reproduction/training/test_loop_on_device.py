"""Training as a GPU runs it, on a stand-in in this process: no wait within a step, and the CPU's bits."""

from typing import Any

import numpy as np
import pytest
import torch
from accelerator import DEVICE, Accelerator, Far
from torch import Tensor, nn

from reproduction.training import batches
from reproduction.training.batches import Samples
from reproduction.training.cuda_graph import GraphedCallable
from reproduction.training.gradients import FlatParameters
from reproduction.training.loop import Trainer, evaluate
from reproduction.training.model import initialize, mlp
from reproduction.training.optimizers import OptimizerStep

N, D, CLASSES, BATCH, STEPS, SEED = 90, 7, 4, 16, 12, 5
CPU = torch.device("cpu")
SPECS: dict[str, dict[str, Any]] = {
    "sgd": {"class": "SGD", "lr": 0.1},
    "momentum": {"class": "SGD", "lr": 0.1, "momentum": 0.9, "foreach": False},
    # Fused steps are known for real devices alone.
    "adam": {"class": "Adam", "lr": 0.01, "foreach": False},
    "sam": {"class": "SAM", "base": "SGD", "lr": 0.1, "rho": 0.05},
}


# The loops that numba compiles are for a CPU alone.
pytestmark = pytest.mark.usefixtures("one_thread", "no_loops")


def samples(device: torch.device) -> Samples:
    random = np.random.default_rng(0)
    return Samples(random.standard_normal((N, D)).astype(np.float32), random.integers(0, CLASSES, N), device)


def network(device: torch.device, activation: str = "tanh") -> nn.Sequential:
    model = mlp(D, [6, 5], CLASSES, activation)
    initialize(model, 1)
    for layer in model:
        for name, parameter in list(layer.named_parameters()):
            setattr(layer, name, nn.Parameter(parameter.detach().to(device)))
    return model


def trained(device: torch.device, spec: dict[str, Any], size: int = BATCH) -> tuple[Tensor, list[tuple[int, int, int]]]:
    """The parameters after some steps, and transfers down and up and launches of each step."""
    with Accelerator() as counter:
        flat = FlatParameters(network(device))
        trainer = Trainer(flat, spec, samples(device), size, SEED)
        counts = []
        for t in range(STEPS):
            before = counter.down, counter.up, counter.launches
            trainer.train_step(t)
            after = counter.down, counter.up, counter.launches
            counts.append(tuple(b - a for a, b in zip(before, after, strict=True)))
        vector = flat.vector.detach()
    return (vector.near if isinstance(vector, Far) else vector), counts


@pytest.mark.parametrize("size", [BATCH, N])
@pytest.mark.parametrize("name", sorted(SPECS))
def test_a_step_is_the_cpu_s_and_nobody_waits_for_it(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCHES_AHEAD", 5)
    expected, _ = trained(CPU, SPECS[name], size)
    found, counts = trained(DEVICE, SPECS[name], size)
    assert torch.equal(found, expected)
    assert not torch.equal(found, torch.cat([p.detach().reshape(-1) for p in network(CPU).parameters()]))
    assert [down for down, _, _ in counts] == [0] * STEPS
    # Indices come up for five steps at a time.
    assert [up for _, up, _ in counts] == [int(size < N and t % 5 == 0) for t in range(STEPS)]
    # The same launches every time, after what an optimizer makes at its first step: this can be recorded.
    assert len({launches for _, _, launches in counts[1:] if name != "adam"}) <= 1 + (size < N)
    assert max(launches for _, _, launches in counts) < 100


def test_an_evaluation_is_looked_at_once() -> None:
    expected = evaluate(network(CPU), samples(CPU), rows=25)
    with Accelerator() as counter:
        model, far = network(DEVICE), samples(DEVICE)
        before = counter.down
        assert evaluate(model, far, rows=25) == expected
        assert counter.down == before + 1


def test_a_step_in_two_halves_is_the_whole_step() -> None:
    whole, halves = (FlatParameters(network(CPU)) for _ in range(2))
    one, two = (Trainer(flat, SPECS["sam"], samples(CPU), BATCH, SEED) for flat in (whole, halves))
    for t in range(STEPS):
        one.train_step(t)
        two.compute_gradient(t)
        before = halves.gradient.clone()
        two.finish()
        assert torch.equal(whole.vector, halves.vector)
        assert not torch.equal(before, halves.gradient)


def test_what_is_not_recorded_is_done_at_every_call() -> None:
    done: list[int] = []
    work = GraphedCallable(lambda: done.append(len(done)), CPU)
    for _ in range(6):
        work()
    assert done == list(range(6))
    assert work.graph is None


@pytest.mark.parametrize(
    ("spec", "capturable"),
    [
        (SPECS["sgd"], True),
        (SPECS["momentum"], True),
        (SPECS["sam"], True),
        # On a CPU nothing is recorded, and torch refuses the argument there.
        ({"class": "RMSprop", "lr": 0.1}, False),
        ({"class": "Adam", "lr": 0.1, "capturable": True}, True),
        ({"class": "Adagrad", "lr": 0.1}, False),
        ({"class": "Adafactor", "lr": 0.1}, False),
    ],
    ids=lambda value: value["class"] if isinstance(value, dict) else "",
)
def test_what_may_be_recorded(spec: dict[str, Any], capturable: bool) -> None:
    assert OptimizerStep([torch.zeros(3)], spec).capturable == capturable


def test_a_capturable_adam_takes_the_same_steps() -> None:
    """With the argument that a GPU's steps get; the fused step of a CPU takes it too."""
    plain, recorded = (FlatParameters(network(CPU)) for _ in range(2))
    spec = {"class": "Adam", "lr": 0.01}
    takers = [
        Trainer(plain, spec, samples(CPU), BATCH, SEED),
        Trainer(recorded, {**spec, "capturable": True}, samples(CPU), BATCH, SEED),
    ]
    for t in range(STEPS):
        for trainer in takers:
            trainer.train_step(t)
        assert torch.equal(plain.vector, recorded.vector)
