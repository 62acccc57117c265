"""The general path, for any module: a small convolutional network on real images."""

from collections.abc import Sequence
from math import prod
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.double_backward import DoubleBackward
from benchmarks.methods import Method, Point, curvlinops, eigsh_on_double_backward, ours
from benchmarks.problem import BATCH_SIZE, SEED, Data, Scale, load
from benchmarks.reference import Reference, cached_pairs, tight_pairs
from benchmarks.results import arguments, scale_of, write
from benchmarks.solvers import OURS, K, pair_rows, run_all, run_row
from benchmarks.timing import Timing
from eigendrift import HessianOperator
from eigendrift.hessian.autograd import FunctionalHessian
from reproduction.seeds import stream_seed
from reproduction.training.model import flatten

CHANNELS = (8, 16)


def convolutional(data: Data) -> nn.Sequential:
    """Two strided convolutions and a linear layer; parameters drawn from a fixed seed."""
    first, second = CHANNELS
    # Each convolution halves a side, rounding up.
    sides = [(length + 3) // 4 for length in data.image_shape]
    with torch.random.fork_rng():
        torch.manual_seed(stream_seed("convolutional", SEED) % 2**31)
        return nn.Sequential(
            nn.Conv2d(1, first, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(first, second, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(second * prod(sides), data.classes),
        )


def trained(data: Data, images: Tensor, targets: Tensor, steps: int) -> nn.Sequential:
    """The network after so many steps of Adam."""
    model = convolutional(data)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(steps):
        chosen = torch.randint(len(images), (BATCH_SIZE,), generator=generator)
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(images[chosen]), targets[chosen]).backward()
        optimizer.step()
    return model


def reference(point: Point, scale: Scale, cache: Path) -> Reference:
    """Tight pairs from double-backward products in float64."""
    double = convolutional(load(scale.dataset)).double()
    nn.utils.vector_to_parameters(point.weights.double(), double.parameters())

    def compute() -> Reference:
        return tight_pairs(
            DoubleBackward(double, point.inputs, point.targets, keep_graph=True), len(point.weights), K, 987
        )

    return cached_pairs(cache, point.weights, K, compute, f"{scale.dataset}/convolutional/{len(point.inputs)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Ours, eigsh on double backward and curvlinops at one point."""
    given = arguments(__doc__, argv)
    scale = scale_of(given)
    data = load(scale.dataset)
    inputs, targets = data.tensors()
    images, targets = inputs.view(-1, 1, *data.image_shape)[: scale.images], targets[: scale.images]
    model = trained(data, images, targets, scale.image_steps)
    operator = HessianOperator(model, nn.CrossEntropyLoss(), images, targets)
    assert isinstance(operator.path, FunctionalHessian)
    point = Point(model, images, targets, flatten(model), operator)
    chosen = {
        OURS: Method(ours),
        "eigsh, double backward": Method(eigsh_on_double_backward()),
        "eigsh, double backward, graph kept": Method(eigsh_on_double_backward(keep_graph=True)),
        "curvlinops, eigsh": Method(curvlinops(len(images)), "curvlinops"),
    }
    outcomes = run_all(point, chosen, seed=0)
    seconds = Timing(tuple(outcomes[OURS].seconds)).median
    where: dict[str, object] = {"images": len(images), "parameters": operator.shape[0]}
    pairs = pd.DataFrame(list(pair_rows(point, reference(point, scale, given.cache), outcomes, where)))
    runs = pd.DataFrame([run_row(name, outcome, seconds, where) for name, outcome in outcomes.items()])
    worst = pairs.groupby("method").agg(worst_true_residual=("true_residual", "max"), worst_overlap=("overlap", "min"))
    write(given.output, "general", runs.join(worst, on="method"))


if __name__ == "__main__":
    main()
