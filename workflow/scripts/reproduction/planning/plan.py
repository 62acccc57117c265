"""What an experiment will take before it starts: runs, jobs, disk, and time from a few timed products and steps.

Time is an estimate. Its unit, one Hessian product with the full data, is timed here; how many of them a solve takes is
what was measured on MNIST.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from eigendrift.hessian.operator import HessianOperator
from eigendrift.hessian.surrogate import FEWEST_SAMPLES, FLOAT32_TOLERANCE, SURROGATE_TOLERANCE
from reproduction.experiment.datasets import DATASETS
from reproduction.experiment.figure_catalogue import FIGURES
from reproduction.experiment.labels import MAIN
from reproduction.experiment.runs import SENSITIVITY, Experiment, Run
from reproduction.measure.eigenpairs import Request, requests
from reproduction.training.cuda_graph import Captured
from reproduction.training.gradients import FlatParameters, batch_gradient
from reproduction.training.model import mlp
from reproduction.training.optimizers import Step

# Rules that make tables of a run.
METRIC_RULES = 6
# Timed products take this many samples on a CPU, and longer ones are reckoned from them.
SAMPLES = 6000


@dataclass(frozen=True)
class Costs:
    """Seconds on one core, or on the GPU: of a product a sample by data set, of a step by (data set, optimizer)."""

    product: dict[str, float]
    step: dict[tuple[str, str], float]


@dataclass(frozen=True)
class Plan:
    """Counts of runs, jobs and snapshots; bytes of all files and of one run's; seconds of one core or GPU by rule.

    `supplement`: runs and seconds that the target of that name adds.
    """

    runs: int
    jobs: int
    snapshots: int
    disk: int
    largest: int
    seconds: dict[str, float]
    supplement: tuple[int, float] = (0, 0.0)

    def lines(self, jobs_at_once: int) -> Iterator[str]:
        """The plan as it is shown, for so many jobs side by side: one a core, or one a GPU."""
        yield f"runs       {self.runs}"
        yield f"snapshots  {self.snapshots}"
        yield f"jobs       {self.jobs}"
        # A running job's arrays are in its scratch folder, and again in its output while that is written.
        yield f"disk       at most {(self.disk + jobs_at_once * self.largest) / 1e9:.1f} GB"
        for rule, seconds in self.seconds.items():
            yield f"time       {rule}: {_duration(seconds)} of one job after the other"
        total = sum(self.seconds.values())
        together = _duration(total / jobs_at_once)
        yield f"time       in all about {together} with {jobs_at_once} at once, estimated from timed products"
        yield f"supplement {self.supplement[0]} runs and {_duration(self.supplement[1] / jobs_at_once)} more"


def make_plan(experiment: Experiment, costs: Costs) -> Plan:
    """The plan of an experiment on a machine with these costs."""
    runs = list(experiment)
    fixed = len(FIGURES) + 2  # claims and figure set
    jobs = sum(1 + METRIC_RULES + experiment.chunks(run) for run in runs) + 3 * len(experiment.datasets()) + fixed
    seconds = {
        "train": sum(_train_seconds(experiment, run, costs) for run in runs),
        "eigensnapshot": sum(_eigen_seconds(experiment, run, costs) for run in runs),
        "baseline": sum(_baseline_seconds(experiment, name, costs) for name in experiment.datasets()),
    }
    snapshots = sum(len(experiment.snapshots(run)) for run in runs)
    sizes = [_bytes(experiment, run) for run in runs]
    return Plan(len(runs), jobs, snapshots, sum(sizes), max(sizes), seconds, _supplement(experiment, costs))


def _supplement(experiment: Experiment, costs: Costs) -> tuple[int, float]:
    """Runs of figure S1 alone, and the seconds of these, of their baselines and of the permuted networks."""
    runs = [run for run in experiment.select(variants=SENSITIVITY) if experiment.is_supplementary(run)]
    seconds = sum(_train_seconds(experiment, run, costs) + _eigen_seconds(experiment, run, costs) for run in runs)
    for variant in experiment.own_baselines:
        seconds += sum(_baseline_seconds(experiment, dataset, costs, variant) for dataset in experiment.datasets())
    share = experiment.config["baseline"]["permutations"] / experiment.config["baseline"]["initializations"]
    permuted = len(experiment.config["optimizers"]) * share
    return len(runs), seconds + permuted * sum(_baseline_seconds(experiment, d, costs) for d in experiment.datasets())


def products(k: int, tolerance: float, samples: int) -> float:
    """Full-data products, or their worth in others, that k pairs to this tolerance take."""
    plain = 2.5 * (k + 2) * (1 + 0.25 * max(0.0, math.log10(1e-3 / tolerance)))
    if tolerance >= SURROGATE_TOLERANCE and samples >= FEWEST_SAMPLES:
        return 0.65 * plain
    return plain * (2 if tolerance < FLOAT32_TOLERANCE else 1)


def _solves(experiment: Experiment, run: Run) -> list[Request]:
    own = experiment.eigen_parameters(run)
    return requests(experiment.snapshots(run), own["k"], own["tolerance"], own.get("dense"))


def _eigen_seconds(experiment: Experiment, run: Run, costs: Costs) -> float:
    samples = DATASETS[run.dataset].samples
    taken = sum(products(solve.k, solve.tolerance, samples) for solve in _solves(experiment, run))
    return taken * samples * costs.product[run.dataset]


def _train_seconds(experiment: Experiment, run: Run, costs: Costs) -> float:
    identity = experiment.identity(run)
    main = experiment.config["training"]["batch_size"]
    reference = identity["n_train"] if main == "full" else main
    step = costs.step[run.dataset, run.optimizer] * max(0.3, identity["batch_size"] / reference)
    # A forward pass is a quarter of a product.
    evaluation = 0.3 * identity["n_train"] * costs.product[run.dataset]
    return float(identity["steps"] * step + len(experiment.snapshots(run)) * evaluation)


def _baseline_seconds(experiment: Experiment, dataset: str, costs: Costs, variant: str = MAIN) -> float:
    own, samples = experiment.baseline_parameters(variant), DATASETS[dataset].samples
    each = products(own["k"], own["tolerance"], samples) * samples * costs.product[dataset]
    return float(own["initializations"] * each)


def _bytes(experiment: Experiment, run: Run) -> int:
    """Weights, gradients and updates of every snapshot, and every eigenvector."""
    vectors = sum(solve.k for solve in _solves(experiment, run))
    return 4 * experiment.n_parameters(run.dataset, run.variant) * (3 * len(experiment.snapshots(run)) + vectors)


def measure(experiment: Experiment, device: torch.device) -> Costs:
    """Time a few products and training steps of each data set's network on the device, as one job takes them."""
    product, step = {}, {}
    batch = experiment.config["training"]["batch_size"]
    for dataset in experiment.datasets():
        record = DATASETS[dataset]
        n, inputs = record.samples, record.inputs
        generator = torch.Generator().manual_seed(0)
        # A GPU is not ten times as fast with a tenth of the samples.
        samples = n if device.type == "cuda" else min(n, SAMPLES)
        x = torch.randn(samples, inputs, generator=generator).to(device)
        y = torch.randint(record.classes, (len(x),), generator=generator).to(device)
        model = experiment.config["model"]
        network = mlp(inputs, model["hidden"], record.classes, model["activation"]).to(device)
        operator = HessianOperator(network, nn.functional.cross_entropy, x, y)
        vector = torch.randn(1, operator.shape[0], generator=generator).to(device)
        product[dataset] = _seconds(partial(operator.product, vector), device) / len(x)
        size = n if batch == "full" else batch
        taken = torch.arange(size, device=device) % len(x)
        for name, spec in experiment.config["optimizers"].items():
            step[dataset, name] = _seconds(_stepper(network, spec, x[taken], y[taken]), device)
    return Costs(product, step)


def _stepper(network: nn.Sequential, spec: dict[str, Any], x: torch.Tensor, y: torch.Tensor) -> Callable[[], object]:
    flat = FlatParameters(network)
    step, gradient = Step.of(flat, spec), batch_gradient(flat)

    def take() -> None:
        gradient(x, y)
        step(lambda: gradient(x, y))

    return Captured(take, x.device, step.capturable)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """The median of repeated calls, for half a second and at least five."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    call()
    times: list[float] = []
    while len(times) < 5 or sum(times) < 0.5:
        wait()
        begun = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - begun)
    return sorted(times)[len(times) // 2]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
