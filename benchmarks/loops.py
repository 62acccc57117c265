"""One optimizer's training in several ways, each as a function of the number of steps; one thread."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain, count, islice, pairwise, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.problem import BATCH_SIZE, OPTIMIZERS, SEED, Data, Scale, load, network
from reproduction.files.checkpoint import Scratch
from reproduction.training.batches import Samples
from reproduction.training.gradients import FlatParameters
from reproduction.training.loop import Trainer, train
from reproduction.training.optimizers import OptimizerStep

# Takes so many steps, on from where it was unless it says otherwise.
Loop = Callable[[int], object]


def whole_run(scale: Scale, spec: Mapping[str, Any]) -> Loop:
    """reproduction.training.loop from the start, with one snapshot at the end."""
    data, cpu = load(scale.dataset), torch.device("cpu")
    train_samples = data.train_samples(cpu)
    test_samples = Samples(data.test_inputs[:1], data.test_targets[:1], cpu)

    def run(steps: int) -> None:
        with TemporaryDirectory() as folder:
            model = network(data, scale.hidden)
            scratch = Scratch(Path(folder), "run", {})
            train(model, train_samples, test_samples, spec, BATCH_SIZE, SEED, [steps], scratch)

    return run


def ours(scale: Scale, spec: Mapping[str, Any]) -> Loop:
    """The steps of reproduction.training.loop."""
    data = load(scale.dataset)
    flat, steps = FlatParameters(network(data, scale.hidden)), count()
    trainer = Trainer(flat, spec, data.train_samples(torch.device("cpu")), BATCH_SIZE, SEED)

    def run(times: int) -> None:
        for t in islice(steps, times):
            trainer.train_step(t)

    return run


def eager(scale: Scale, spec: Mapping[str, Any]) -> Loop:
    """The plain loop on data in memory: autograd, and torch's own optimizer."""
    data = load(scale.dataset)
    inputs, targets = data.tensors()
    generator, step = torch.Generator().manual_seed(SEED), _stepper(data, scale, spec)

    def run(steps: int) -> None:
        for chosen in torch.randint(len(inputs), (steps, BATCH_SIZE), generator=generator):
            step(inputs[chosen], targets[chosen])

    return run


def data_loader(scale: Scale, spec: Mapping[str, Any]) -> Loop:
    """The plain loop on batches of torch's DataLoader, in the same process."""
    data = load(scale.dataset)
    loader = DataLoader(TensorDataset(*data.tensors()), BATCH_SIZE, shuffle=True, drop_last=True)
    batches, step = chain.from_iterable(repeat(loader)), _stepper(data, scale, spec)

    def run(steps: int) -> None:
        for inputs, targets in islice(batches, steps):
            step(inputs, targets)

    return run


def _stepper(data: Data, scale: Scale, spec: Mapping[str, Any]) -> Callable[[torch.Tensor, torch.Tensor], None]:
    model = network(data, scale.hidden)
    step = OptimizerStep(model.parameters(), spec)

    def take(inputs: torch.Tensor, targets: torch.Tensor) -> None:
        def gradient() -> None:
            model.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(inputs), targets).backward()

        gradient()
        step(gradient)

    return take


def matrix_products(scale: Scale, spec: Mapping[str, Any]) -> Loop:
    """The matrix products of the gradients alone, outputs allocated beforehand; SAM takes two gradients a step.

    As our gradients take them, with samples as columns: of every layer W X, D X' and, but for the first, W' D.
    """
    widths = [load(scale.dataset).train_inputs.shape[1], *scale.hidden, load(scale.dataset).classes]
    products: list[Callable[[], object]] = []
    generator = torch.Generator().manual_seed(SEED)
    x = torch.randn(BATCH_SIZE, widths[0], generator=generator).T
    for depth, (d_in, d_out) in enumerate(pairwise(widths)):
        w = torch.randn(d_out, d_in, generator=generator)
        d = torch.randn(d_out, BATCH_SIZE, generator=generator)
        z, g, back = torch.empty(d_out, BATCH_SIZE), torch.empty(d_out, d_in), torch.empty(d_in, BATCH_SIZE)
        products.append(partial(torch.mm, w, x, out=z))
        products.append(partial(torch.mm, d, x.T, out=g))
        if depth:
            products.append(partial(torch.mm, w.T, d, out=back))
        x = torch.randn(d_out, BATCH_SIZE, generator=generator)
    gradients = 2 if spec["class"] == "SAM" else 1

    def run(steps: int) -> None:
        with torch.no_grad():
            for _ in range(steps * gradients):
                for product in products:
                    product()

    return run


def step_parts(scale: Scale, spec: Mapping[str, Any]) -> dict[str, Loop]:
    """What our step consists of, each part so many times: matrix products, whole gradients, batches, steps."""
    data, cpu = load(scale.dataset), torch.device("cpu")
    flat = FlatParameters(network(data, scale.hidden))
    trainer = Trainer(flat, spec, data.train_samples(cpu), BATCH_SIZE, SEED)
    trainer.compute_gradient(0)
    weights = flat.vector.detach().clone()

    def gradient(times: int) -> None:
        for _ in range(times):
            trainer.gradient()

    def batch(times: int) -> None:
        for t in range(times):
            trainer.loader.select(t)
            trainer.loader.gather()

    def step(times: int) -> None:
        # From the same point: steps along one gradient must not lead to where numbers are denormal, and slow.
        flat.vector.detach().copy_(weights)
        for _ in range(times):
            trainer.step(trainer.gradient)
        flat.vector.detach().copy_(weights)

    return {"matrix products": matrix_products(scale, spec), "gradient": gradient, "batch": batch, "step": step}


LOOPS: Mapping[str, Callable[[Scale, Mapping[str, Any]], Loop]] = {
    "matrix products alone": matrix_products,
    "eigendrift": ours,
    "plain eager loop": eager,
    "DataLoader loop": data_loader,
}


def loops(scale: Scale, optimizer: str) -> dict[str, Loop]:
    """All ways of training with one optimizer."""
    return {name: make(scale, OPTIMIZERS[optimizer]) for name, make in LOOPS.items()}
