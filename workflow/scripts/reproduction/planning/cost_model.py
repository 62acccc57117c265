"""Duration of jobs: one formula, for a machine that was timed and for one whose speed is assumed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from eigendrift.hessian.surrogate import FEWEST_SAMPLES, FLOAT32_TOLERANCE, SURROGATE_TOLERANCE
from reproduction.experiment.labels import MAIN
from reproduction.experiment.optimizer_arguments import gradients_per_step
from reproduction.experiment.runs import Experiment, Run
from reproduction.measure.eigenpairs import Request, requests

Job = TypeVar("Job")


def products(k: int, tolerance: float, samples: int) -> float:
    """Full-data products, or their worth in others, that k pairs to this tolerance take, as measured on MNIST."""
    plain = 2.5 * (k + 2) * (1 + 0.25 * max(0.0, math.log10(1e-3 / tolerance)))
    if tolerance >= SURROGATE_TOLERANCE and samples >= FEWEST_SAMPLES:
        return 0.65 * plain
    return plain * (2 if tolerance < FLOAT32_TOLERANCE else 1)


class Machine(Protocol):
    """What one core or one GPU takes, in seconds."""

    @property
    def start(self) -> float:
        """From the start of a job to its first computation."""

    @property
    def pair(self) -> float:
        """Of each pair of a solve, besides its products."""

    def product(self, experiment: Experiment, dataset: str, variant: str) -> float:
        """One product of the Hessian of the full data with a vector."""

    def step(self, experiment: Experiment, run: Run) -> float:
        """One training step."""


@dataclass(frozen=True)
class Measured:
    """One core, or the GPU, as timed with the main network: a product a sample by data set, a step by (data set,
    optimizer).
    """

    products: Mapping[str, float]
    steps: Mapping[tuple[str, str], float]
    start: float = 0.0
    pair: float = 0.0

    def product(self, experiment: Experiment, dataset: str, variant: str) -> float:
        """Of a variant's network, in proportion to its operations."""
        work, timed = (experiment.network(dataset, name).product_flops(1) for name in (variant, MAIN))
        return experiment.records[dataset].samples * self.products[dataset] * work / timed

    def step(self, experiment: Experiment, run: Run) -> float:
        """Of another batch size, in proportion to it where it is not small."""
        identity, main = experiment.identity(run), experiment.config["training"]["batch_size"]
        reference = identity["n_train"] if main == "full" else main
        return float(self.steps[run.dataset, run.optimizer] * max(0.3, identity["batch_size"] / reference))


@dataclass(frozen=True)
class Assumed:
    """One GPU and its node, by what is assumed of them."""

    # Float32 matrix products, half of the peak of an A100 outside its tensor cores.
    flops: float = 1e13
    # The least time of a training step: Python and kernel launches.
    launches: float = 5e-4
    # The same for each pair of a solve.
    pair: float = 2e-2
    # A job in SLURM, or the next one in its group, starts Snakemake twice, torch and CUDA, and loads data.
    start: float = 20.0
    # The same for a job of one Snakemake on a machine of its own, forked with torch: CUDA, and data.
    forked_start: float = 3.0
    # A table, with its start.
    table: float = 8.0
    # A figure, with its start.
    figure: float = 5.0

    def product(self, experiment: Experiment, dataset: str, variant: str) -> float:
        """By its operations."""
        return experiment.network(dataset, variant).product_flops(experiment.records[dataset].samples) / self.flops

    def step(self, experiment: Experiment, run: Run) -> float:
        """By the operations of its gradients, or the launches."""
        passes = gradients_per_step(experiment.config["optimizers"][run.optimizer])
        work = experiment.network(run.dataset, run.variant).gradient_flops(experiment.identity(run)["batch_size"])
        return passes * max(self.launches, work / self.flops)


class Durations:
    """Seconds that each job of an experiment takes on a machine."""

    def __init__(self, experiment: Experiment, machine: Machine) -> None:
        self.experiment, self.machine = experiment, machine

    def train(self, run: Run) -> float:
        """A training run; an evaluation is a forward pass, a quarter of a product, of training and test set."""
        evaluation = 0.3 * self.machine.product(self.experiment, run.dataset, run.variant)
        steps = self.experiment.identity(run)["steps"] * self.machine.step(self.experiment, run)
        return float(self.machine.start + steps + len(self.experiment.snapshots(run)) * evaluation)

    def chunks(self, run: Run) -> list[float]:
        """The eigenpairs of a run, chunk by chunk."""
        seconds = [self._solve(solve.k, solve.tolerance, run.dataset, run.variant) for solve in self.solves(run)]
        chunks = cut(seconds, self.experiment.eigen_parameters(run)["snapshots_per_job"])
        return [self.machine.start + sum(chunk) for chunk in chunks]

    def solves(self, run: Run) -> list[Request]:
        """What is asked for at each of a run's snapshots."""
        own = self.experiment.eigen_parameters(run)
        return requests(self.experiment.snapshots(run), own["k"], own["tolerance"], own.get("dense"))

    def baseline(self, dataset: str, variant: str = MAIN) -> float:
        """The baseline of a data set; the interpolation is taken to last as long."""
        own = self.experiment.baseline_parameters(variant)
        each = self._solve(own["k"], own["tolerance"], dataset, variant)
        return float(self.machine.start + own["initializations"] * each)

    def _solve(self, k: int, tolerance: float, dataset: str, variant: str) -> float:
        taken = products(k, tolerance, self.experiment.records[dataset].samples)
        return k * self.machine.pair + taken * self.machine.product(self.experiment, dataset, variant)


def cut(jobs: Sequence[Job], size: int) -> list[Sequence[Job]]:
    """Jobs in groups of `size`, in their order."""
    return [jobs[first : first + size] for first in range(0, len(jobs), size)]
