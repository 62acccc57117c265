"""How an experiment spreads over the GPUs of a cluster, by a model.

PYTHONPATH=src:workflow/scripts python -m reproduction.planning.scale_out config/paper.yaml

The model takes the submissions of profiles/slurm, gives each a duration from the sizes of its runs and what `Speed`
assumes, and starts each on the first GPU that is free once all that it needs is there.
"""

import heapq
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from reproduction.experiment.config import validate
from reproduction.experiment.datasets import DATASETS
from reproduction.experiment.optimizer_arguments import gradients_per_step
from reproduction.experiment.runs import Experiment, Run
from reproduction.measure.eigenpairs import requests
from reproduction.planning.plan import METRIC_RULES, products

Job = TypeVar("Job")


@dataclass(frozen=True)
class Speed:
    """What is assumed of one GPU and its node, in seconds and FLOP/s."""

    # Float32 matrix products, half of the peak of an A100 outside its tensor cores.
    flops: float = 1e13
    # A training step whatever its size: Python and launches of kernels.
    step: float = 5e-4
    # The same of a solve, a pair.
    pair: float = 2e-2
    # From the start of a job in SLURM, or of the next one in its group, to its first computation: Snakemake twice,
    # torch, CUDA, data.
    start: float = 20.0
    # A table, with its start.
    table: float = 8.0
    # A figure, with its start.
    figure: float = 5.0


class Durations:
    """Seconds that each job takes."""

    def __init__(self, experiment: Experiment, speed: Speed) -> None:
        self.experiment, self.speed = experiment, speed

    def _products(self, dataset: str) -> float:
        """One full Hessian product."""
        return self.experiment.network(dataset).product_flops(DATASETS[dataset].samples) / self.speed.flops

    def train(self, run: Run) -> float:
        """A training run."""
        identity = self.experiment.identity(run)
        passes = gradients_per_step(self.experiment.config["optimizers"][run.optimizer])
        step = passes * max(self.speed.step, 6.0 * identity["batch_size"] * identity["n_parameters"] / self.speed.flops)
        evaluations = len(self.experiment.snapshots(run)) * 0.3 * self._products(run.dataset)
        return float(self.speed.start + identity["steps"] * step + evaluations)

    def chunks(self, run: Run) -> list[float]:
        """The eigenpairs of a run, chunk by chunk."""
        own = self.experiment.eigen_parameters(run)
        wanted = requests(self.experiment.snapshots(run), own["k"], own["tolerance"], own.get("dense"))
        samples, each = DATASETS[run.dataset].samples, self._products(run.dataset)
        seconds = [solve.k * self.speed.pair + products(solve.k, solve.tolerance, samples) * each for solve in wanted]
        return [self.speed.start + sum(chunk) for chunk in _cut(seconds, own["snapshots_per_job"])]

    def baseline(self, dataset: str) -> float:
        """The baseline of a data set; the interpolation is taken to last as long."""
        own, samples = self.experiment.baseline_parameters(), DATASETS[dataset].samples
        solve = own["k"] * self.speed.pair + products(own["k"], own["tolerance"], samples) * self._products(dataset)
        return float(self.speed.start + own["initializations"] * solve)


@dataclass(frozen=True)
class Outcome:
    """What comes out for a number of GPUs: hours from the first submission to the end, and hours of GPUs in use."""

    gpus: int
    hours: float
    busy: float


class Model:
    """The submissions of an experiment with these numbers of jobs in each."""

    def __init__(self, durations: Durations, components: dict[str, int]) -> None:
        self.durations, self.components = durations, components
        runs = list(durations.experiment)
        # Snakemake puts jobs of different runs into one group, in no order of ours.
        mixed = random.Random(0)
        trainings = [(run, durations.train(run)) for run in runs]
        self.trainings = _cut(mixed.sample(trainings, len(trainings)), components["trainings"])
        chunks = [(run, seconds) for run in runs for seconds in durations.chunks(run)]
        self.chunks = _cut(mixed.sample(chunks, len(chunks)), components["chunks"])
        # Each kind of table of a run in turn, on the CPU nodes, of which there are enough.
        tables = min(components["tables"], METRIC_RULES * len(runs))
        figures = 21 + 2
        self.end = tables * durations.speed.table + figures * durations.speed.figure
        self.networks = 2 * sum(durations.baseline(dataset) for dataset in durations.experiment.datasets())

    def on(self, gpus: int) -> Outcome:
        """The experiment on so many GPUs."""
        free = [0.0] * gpus
        trained: dict[Run, float] = {}
        for group in self.trainings:
            ended = _start(free, 0.0, sum(seconds for _, seconds in group))
            trained |= {run: ended for run, _ in group}
        ready = [(max(trained[run] for run, _ in group), sum(seconds for _, seconds in group)) for group in self.chunks]
        solved = max(_start(free, since, seconds) for since, seconds in sorted(ready))
        busy = sum(seconds for group in (*self.trainings, *self.chunks) for _, seconds in group) + self.networks
        return Outcome(gpus, (solved + self.networks + self.end) / 3600, busy / 3600)

    def lines(self, numbers: Iterable[int]) -> list[str]:
        """A table in Markdown."""
        alone = self.on(1).hours
        head = ["| GPUs | hours | times as fast as one GPU | GPUs in use, on average |", "|---|---|---|---|"]
        found = [self.on(gpus) for gpus in numbers]
        return head + [f"| {o.gpus} | {o.hours:.2f} | {alone / o.hours:.1f} | {o.busy / o.hours:.1f} |" for o in found]


def _cut(jobs: Sequence[Job], size: int) -> list[Sequence[Job]]:
    return [jobs[first : first + size] for first in range(0, len(jobs), size)]


def _start(free: list[float], since: float, seconds: float) -> float:
    """Start a submission on the first free GPU; when it ends."""
    ended = max(heapq.heappop(free), since) + seconds
    heapq.heappush(free, ended)
    return ended


def components(profile: Path) -> dict[str, int]:
    """Jobs in each kind of submission, as a profile has them."""
    text = profile.read_text(encoding="utf-8")
    # The file is a template; this block of it is plain.
    block = text[text.index("group-components:") :].split("\n\n")[0]
    return dict(yaml.safe_load(block)["group-components"])


def _read(path: str | Path) -> dict[str, Any]:
    return dict(yaml.safe_load(Path(path).read_text(encoding="utf-8")))


def _overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key: _overlaid(below[key], value)
        if isinstance(value, Mapping) and isinstance(below.get(key), Mapping)
        else value
        for key, value in above.items()
    }
    return {**below, **both}


if __name__ == "__main__":
    configuration = validate(_overlaid(_read("config.yaml"), _read(sys.argv[1])))
    model = Model(Durations(Experiment(configuration), Speed()), components(Path("profiles/slurm/config.yaml")))
    print("\n".join(model.lines((1, 4, 8, 16, 64))))
