"""How a snapshot's cost grows with the samples, the width of the network and the number of pairs.

Two lines go with each point. The floor: whoever certifies k pairs takes at least k products with the full data, and
those take at least their operations at the machine's rate. And the products that were really taken, at that rate.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.methods import Point, ours
from benchmarks.problem import BATCH_SIZE, OPTIMIZERS, SEED, Scale, load, network, widened
from benchmarks.rate import machine_rate
from benchmarks.results import arguments, scale_of, write
from benchmarks.snapshots import trajectory
from benchmarks.timing import stopwatch
from eigendrift import HessianOperator
from eigendrift.hessian.mlp import MLPHessian
from reproduction.files.checkpoint import Scratch
from reproduction.training.loop import train

K = 3
TOLERANCE = 1e-3
SOLVED = ("sgd", "adam")
# A solve that takes less (s) is repeated, and the shortest counts.
SHORT = 3.0


class Study:
    """Times of solves, beside what they need at the machine's rate."""

    def __init__(self, scale: Scale, cache: Path) -> None:
        self.scale, self.cache, self.data = scale, cache, load(scale.dataset)
        self.inputs, self.targets = self.data.tensors()
        self.rate, _ = machine_rate(self.inputs, scale.hidden[0], scale.repeats)
        self.rows: list[dict[str, object]] = []

    def add(
        self, axis: str, value: int, optimizer: str, hidden: tuple[int, ...], n: int, k: int, weights: Tensor
    ) -> None:
        """One point of one of the three curves."""
        model = network(self.data, hidden)
        inputs, targets = self.inputs[:n], self.targets[:n]
        point = Point(model, inputs, targets, weights, HessianOperator(model, nn.CrossEntropyLoss(), inputs, targets))
        products: list[int] = []

        def solve() -> None:
            products.append(ours(point, k, TOLERANCE, 0).products)

        seconds = stopwatch(solve)
        if seconds < SHORT:
            seconds = min(seconds, *(stopwatch(solve) for _ in range(2)))
        assert isinstance(point.operator.path, MLPHessian)
        one = point.operator.path.flops / self.rate
        self.rows.append(
            {
                "axis": axis,
                "value": value,
                "optimizer": optimizer,
                "samples": n,
                "parameters": point.weights.numel(),
                "k": k,
                "seconds": seconds,
                "products": products[-1],
                "floor_seconds": k * one,
                "products_at_machine_rate_seconds": products[-1] * one,
            }
        )

    def trained(self, width: int) -> Tensor:
        """Parameters of a network of another width after a few steps, from the cache if they are there."""
        hidden = widened(self.scale.hidden, width)
        samples = self.data.train_samples(torch.device("cpu"))
        scratch = Scratch(self.cache, f"widths/{self.scale.dataset}/{width}", {"steps": self.scale.width_steps})
        model, steps = network(self.data, hidden), [self.scale.width_steps]
        run = train(model, samples, samples, OPTIMIZERS["sgd"], BATCH_SIZE, SEED, steps, scratch)
        return torch.from_numpy(run.weights[-1].copy())


def main(argv: Sequence[str] | None = None) -> None:
    """Samples and pairs at a late snapshot of two runs, widths early in training."""
    given = arguments(__doc__, argv)
    scale = scale_of(given)
    study = Study(scale, given.cache)
    everything = len(study.inputs)
    for optimizer in SOLVED:
        run = trajectory(scale, optimizer, given.cache)
        late = torch.from_numpy(run.weights[list(run.steps).index(scale.compared[0])].copy())
        for fraction in scale.fractions:
            n = round(fraction * everything)
            study.add("samples", n, optimizer, scale.hidden, n, K, late)
        for k in scale.pairs:
            study.add("k", k, optimizer, scale.hidden, everything, k, late)
    for width in scale.widths:
        hidden = widened(scale.hidden, width)
        study.add("width", width, "sgd", hidden, everything, K, study.trained(width))
    write(given.output, "scaling", pd.DataFrame(study.rows))


if __name__ == "__main__":
    main()
