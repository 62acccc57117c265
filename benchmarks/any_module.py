"""Three pairs of networks without an analytic path, early and late in training: a convolutional one, a transformer.

    python -m benchmarks.any_module --threads 1                              every point, for an hour or two
    python -m benchmarks.any_module --threads 1 --points transformer/late    one point; the rows of the others stay

Not part of benchmarks.run. Training and tight solves are kept in the cache. On a machine that other work shares, a
single thread makes CPU time comparable: threads that wait for each other take CPU time too.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import general
from benchmarks.double_backward import DoubleBackward
from benchmarks.methods import (
    Method,
    Point,
    Solution,
    curvlinops,
    fastest_rows,
    hessian_eigenthings,
    ours,
    sorted_solution,
)
from benchmarks.problem import BATCH_SIZE, SEED, Data, load
from benchmarks.reference import Reference, cached_pairs, tight_pairs
from benchmarks.results import arguments, read, scale_of, write
from benchmarks.solvers import OURS, K, Outcome, pair_rows, run_all, run_row
from benchmarks.timing import Timing, stopwatch
from eigendrift import HessianOperator, top_eigenpairs
from reproduction.seeds import stream_seed
from reproduction.training.model import flatten

# Relative residual of the tight solve, in float64: its vectors err by 1e-6 over a relative gap.
TIGHT = 1e-6
LEARNING_RATE = 2e-3
PLAIN, FLOOR, MADE = f"{OURS}, no surrogate", "three products of eigendrift", "making the operator, once"
# Images by which the number of samples at once is chosen for the other libraries.
TRIED = 2000


@dataclass(frozen=True)
class Length:
    """Images, and steps at which each network's spectrum is taken, by stage; the last one ends the training."""

    images: int
    convolutional: dict[str, int]
    transformer: dict[str, int]
    # Samples at once, of which the fastest number is taken for each of the other libraries.
    rows: tuple[int, ...]


FULL = Length(
    10_000,
    {"early": 50, "middle": 500, "late": 4000},
    {"early": 100, "middle": 1000, "late": 6000},
    (500, 2000),
)
QUICK = Length(200, {"early": 5, "late": 40}, {"late": 40}, (200,))


class Transformer(nn.Module):
    """Two encoder layers of width 32 over square patches of an image, and a linear layer on their mean."""

    def __init__(self, data: Data, patch: int, width: int = 32) -> None:
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(patch * patch, width)
        self.place = nn.Parameter(0.1 * torch.randn(math.prod(side // patch for side in data.image_shape), width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, data.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (n, classes) of images (n, 1, height, width)."""
        p = self.patch
        patches = images.unfold(2, p, p).unfold(3, p, p).reshape(len(images), -1, p * p)
        outputs: Tensor = self.head(self.norm(self.blocks(self.embed(patches) + self.place)).mean(dim=1))
        return outputs


def transformer(data: Data) -> Transformer:
    """Parameters drawn from a fixed seed; a patch is a quarter of a side."""
    with torch.random.fork_rng():
        torch.manual_seed(stream_seed("transformer", SEED) % 2**31)
        return Transformer(data, data.image_shape[0] // 4)


NETWORKS: dict[str, Callable[[Data], nn.Module]] = {
    "convolutional": general.convolutional,
    "transformer": transformer,
}


def weights(
    name: str, data: Data, images: Tensor, targets: Tensor, steps: dict[str, int], cache: Path
) -> dict[str, Tensor]:
    """Parameters at each stage of one run of Adam, whose learning rate falls linearly."""
    key = hashlib.sha256(f"{steps}{len(images)}{LEARNING_RATE}{BATCH_SIZE}{data.image_shape}".encode()).hexdigest()[:12]
    kept = cache / "runs" / f"{name}-{key}.pt"
    if kept.exists():
        found: dict[str, Tensor] = torch.load(kept, weights_only=True)
        return found
    model, last = NETWORKS[name](data), max(steps.values())
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    generator = torch.Generator().manual_seed(SEED)
    at, found = {step: stage for stage, step in steps.items()}, {}
    for step in range(1, last + 1):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - (step - 1) / last)
        chosen = torch.randint(len(images), (BATCH_SIZE,), generator=generator)
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(images[chosen]), targets[chosen]).backward()
        optimizer.step()
        if step in at:
            found[at[step]] = flatten(model)
    kept.parent.mkdir(parents=True, exist_ok=True)
    torch.save(found, kept)
    return found


def without_surrogate(point: Point, k: int, tol: float, seed: int) -> Solution:
    """Our solver on products with all samples alone."""
    point.operator.move_to(point.weights)
    pairs = top_eigenpairs(point.operator, k, tol, seed=seed, surrogate=None)
    return replace(sorted_solution(pairs.values, pairs.vectors, pairs.matvecs), stated=pairs.residuals)


def methods(rows: int, curvlinops_rows: int) -> dict[str, Method]:
    """Every method that is compared here."""
    return {
        OURS: Method(ours),
        PLAIN: Method(without_surrogate),
        "curvlinops, eigsh": Method(curvlinops(curvlinops_rows), "curvlinops"),
        "hessian-eigenthings": Method(partial(hessian_eigenthings, rows=rows), "hessian_eigenthings"),
    }


def reference(name: str, point: Point, data: Data, cache: Path) -> Reference:
    """Tight pairs from double-backward products in float64."""
    double = NETWORKS[name](data).double()
    nn.utils.vector_to_parameters(point.weights.double(), double.parameters())

    def compute() -> Reference:
        product = DoubleBackward(double, point.inputs, point.targets, rows=500)
        return tight_pairs(product, len(point.weights), K, 987, TIGHT)

    return cached_pairs(cache, point.weights, K, compute, f"{name}/{data.image_shape}/{len(point.inputs)}/{TIGHT}")


def timed(task: Callable[[], object], repeats: int = 1) -> Outcome:
    """Seconds and CPU seconds of a task."""
    outcome = Outcome()
    for _ in range(repeats):
        started = time.process_time()
        outcome.seconds.append(stopwatch(task))
        outcome.cpu_seconds.append(time.process_time() - started)
    return outcome


def floor(point: Point) -> Outcome:
    """A move and three products at once: what no solver of three pairs can do without."""
    block = torch.randn(len(point.weights), K, generator=torch.Generator().manual_seed(0))

    def three() -> None:
        point.operator.move_to(point.weights)
        point.operator @ block

    return timed(three, repeats=2)


def measured(name: str, stage: str, data: Data, length: Length, seed: int, cache: Path) -> Iterator[dict[str, object]]:
    """The rows of one point."""
    inputs, targets = data.tensors()
    images, targets = inputs.view(-1, 1, *data.image_shape)[: length.images], targets[: length.images]
    steps = length.convolutional if name == "convolutional" else length.transformer
    theta = weights(name, data, images, targets, steps, cache)[stage]
    model = NETWORKS[name](data)
    nn.utils.vector_to_parameters(theta.clone(), model.parameters())
    made: list[HessianOperator] = []
    making = timed(lambda: made.append(HessianOperator(model, nn.CrossEntropyLoss(), images, targets)))
    operator = made[0]
    point = Point(model, images, targets, theta, operator)
    with sdpa_kernel(SDPBackend.MATH):
        tight = reference(name, point, data, cache)
        rows = fastest_rows(replace(point, inputs=images[:TRIED], targets=targets[:TRIED]), length.rows)
        print(f"{name}, {stage}: loss {operator.loss:.3g}, rows {rows}", flush=True)
        outcomes = run_all(point, methods(*rows), seed)
    seconds = Timing(tuple(outcomes[OURS].seconds)).median
    where: dict[str, object] = {
        "network": name,
        "stage": stage,
        "loss": operator.loss,
        "images": len(images),
        "parameters": operator.shape[0],
        "threads": torch.get_num_threads(),
    }
    pairs = pd.DataFrame(list(pair_rows(point, tight, outcomes, where)))
    worst = pairs.groupby("method").agg(worst_true_residual=("true_residual", "max"), worst_overlap=("overlap", "min"))
    worst_of = worst.to_dict("index")
    cpu = Timing(tuple(outcomes[OURS].cpu_seconds)).median
    outcomes |= {FLOOR: floor(point), MADE: making}
    for method, outcome in outcomes.items():
        row = run_row(method, outcome, seconds, where)
        if outcome.seconds:
            own = Timing(tuple(outcome.cpu_seconds)).median
            row |= {"cpu_seconds": own, "cpu_ratio_to_ours": own / cpu}
        yield row | {str(name): value for name, value in worst_of.get(method, {}).items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the points that are named, and keep the rows of the others."""
    every = [f"{name}/{stage}" for name in NETWORKS for stage in FULL.convolutional]
    points = {"nargs": "+", "default": every, "choices": every, "help": "network and stage"}
    given = arguments(__doc__, argv, points=points)
    length = QUICK if given.quick else FULL
    data = load(scale_of(given).dataset)
    for seed, each in enumerate(given.points):
        name, stage = each.split("/")
        if stage not in (length.convolutional if name == "convolutional" else length.transformer):
            continue
        rows = pd.DataFrame(list(measured(name, stage, data, length, seed, given.cache)))
        known = read(given.output, "any_module")
        if known is not None:
            others = known[(known["network"] != name) | (known["stage"] != stage)]
            rows = pd.concat([others, rows], ignore_index=True)
        write(given.output, "any_module", rows)


if __name__ == "__main__":
    main()
