"""Cost of an experiment before it starts: runs, jobs, disk, and time from a few timed products and steps.

Time is an estimate. Its unit, one Hessian product with the full data, is timed here; how many of them a solve takes is
what was measured on MNIST.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from eigendrift.hessian.operator import HessianOperator
from reproduction.experiment.figure_catalogue import FIGURES
from reproduction.experiment.resources import JobResources
from reproduction.experiment.runs import SENSITIVITY, Experiment, Run
from reproduction.experiment.schedule import two_time_pairs
from reproduction.experiment.table_catalogue import RUN_TABLES, TABLES
from reproduction.measure.identity_tables import snapshot_pairs
from reproduction.measure.inputs import make_model
from reproduction.planning.cost_model import Durations, Machine, Measured
from reproduction.training.cuda_graph import GraphedCallable
from reproduction.training.gradients import FlatParameters, batch_gradient
from reproduction.training.optimizers import OptimizerStep

# Rules that make tables of a run, besides its training, and tables of a data set for the claims.
METRIC_RULES = len({table.rule for table in TABLES.values() if table.of_run}) - 1
DATASET_RULES = len({table.rule for table in TABLES.values() if not table.of_run and table.scored is not None})
# Bytes of a number with its separator, as measured on tables of MNIST.
BYTES_PER_ENTRY = 6
# Timed products take this many samples on a CPU, and the others are estimated from them.
SAMPLES = 6000


@dataclass(frozen=True)
class Plan:
    """Counts of runs, jobs and snapshots; bytes of all arrays, of one run's and of all tables; seconds by rule.

    The seconds are of one core or GPU. `gpu_megabytes`: at most what a job takes of a GPU's memory. `supplement`: runs
    and seconds that the target of that name adds.
    """

    runs: int
    jobs: int
    snapshots: int
    disk: int
    largest: int
    tables: int
    seconds: dict[str, float]
    gpu_megabytes: int
    supplement: tuple[int, float] = (0, 0.0)

    def lines_on_gpus(self, gpus: int, jobs_per_gpu: int) -> Iterator[str]:
        """The plan as it is shown for a machine with so many GPUs, each shared by so many jobs.

        Jobs that share a GPU take turns, so that the time has none of the gain that sharing is for.
        """
        gpus = max(gpus, 1)
        yield from self.lines(gpus * jobs_per_gpu, gpus)
        taken = self.gpu_megabytes / 1e3
        together = f"{jobs_per_gpu * taken:.1f} GB with {jobs_per_gpu} at once"
        yield f"GPU        at most {taken:.1f} GB of its memory a job, {together}"

    def lines(self, jobs_at_once: int, computing: int | None = None) -> Iterator[str]:
        """The plan as it is shown, for so many jobs at once; `computing` of them (None: all) do not take turns."""
        computing = jobs_at_once if computing is None else computing
        yield f"runs       {self.runs}"
        yield f"snapshots  {self.snapshots}"
        yield f"jobs       {self.jobs}"
        # A running job's arrays are in its scratch folder, and again in its output while that is written.
        yield f"disk       at most {(self.disk + jobs_at_once * self.largest) / 1e9:.1f} GB"
        yield f"tables     about {self.tables / 1e6:.1f} MB of it, which stay"
        for rule, seconds in self.seconds.items():
            yield f"time       {rule}: {_duration(seconds)} of one job after the other"
        total = sum(self.seconds.values())
        together = _duration(total / computing)
        yield f"time       in all about {together} with {computing} at once, estimated from timed products"
        yield f"supplement {self.supplement[0]} runs and {_duration(self.supplement[1] / computing)} more"


def make_plan(experiment: Experiment, machine: Machine) -> Plan:
    """The plan of an experiment on a machine."""
    runs, durations = list(experiment), Durations(experiment, machine)
    fixed = len(FIGURES) + 2  # claims and figure set
    jobs = sum(1 + METRIC_RULES + experiment.chunks(run) for run in runs)
    jobs += (1 + DATASET_RULES) * len(experiment.datasets()) + fixed
    seconds = {
        "train": sum(map(durations.train, runs)),
        "eigensnapshot": sum(sum(durations.chunks(run)) for run in runs),
        "baseline": sum(map(durations.baseline, experiment.datasets())),
    }
    snapshots = sum(len(experiment.snapshots(run)) for run in runs)
    sizes = [_bytes(durations, run) for run in runs]
    tables = sum(table_bytes(durations, run) for run in runs)
    memory = max(map(JobResources(experiment).gpu_megabytes, runs))
    return Plan(len(runs), jobs, snapshots, sum(sizes), max(sizes), tables, seconds, memory, _supplement(durations))


def _supplement(durations: Durations) -> tuple[int, float]:
    """Runs of figure S1 alone, and the seconds of these, of their baselines and of the permuted networks."""
    experiment = durations.experiment
    runs = [run for run in experiment.select(variants=SENSITIVITY) if experiment.is_supplementary(run)]
    seconds = sum(durations.train(run) + sum(durations.chunks(run)) for run in runs)
    for variant in experiment.own_baselines:
        seconds += sum(durations.baseline(dataset, variant) for dataset in experiment.datasets())
    share = experiment.config["baseline"]["permutations"] / experiment.config["baseline"]["initializations"]
    permuted = len(experiment.config["optimizers"]) * share
    return len(runs), seconds + permuted * sum(map(durations.baseline, experiment.datasets()))


def _bytes(durations: Durations, run: Run) -> int:
    """Weights, gradients and updates of every snapshot, and every eigenvector."""
    experiment, vectors = durations.experiment, sum(solve.k for solve in durations.solves(run))
    return 4 * experiment.n_parameters(run.dataset, run.variant) * (3 * len(experiment.snapshots(run)) + vectors)


def table_rows(durations: Durations, run: Run) -> dict[str, int]:
    """Rows of each table of a run that reaches its end, by kind."""
    experiment, counts = durations.experiment, {solve.step: solve.k for solve in durations.solves(run)}
    every, k = experiment.schedule(run)["every"], experiment.config["eigen"]["k"]
    chains, relations = snapshot_pairs(counts, two_time_pairs(**experiment.two_time(run)), every)
    last = max(counts)
    both = {times: min(counts[times[0]], counts[times[1]]) for times in relations}
    on_grid = [n for step, n in counts.items() if step % every == 0 or step == last]
    # What there is a row of -> number of rows.
    rows = {
        "snapshot": len(counts),
        "snapshot, i": sum(counts.values()),
        "snapshot of the grid or the last, i": sum(on_grid),
        "waiting time, lag, i": sum(both[times] for times, found in relations.items() if "two_time" in found),
        "waiting time, lag, leading i": sum(min(k, both[t]) for t, found in relations.items() if "two_time" in found),
        "two snapshots, i": sum(counts[first] for first, _ in relations),
        "two snapshots, k": sum(both[times] for times, found in relations.items() if found & {"two_time", "final"}),
        "chain, snapshot, i": sum(counts[step] for chain in chains.values() for step in chain),
        "snapshot, i, layer": sum(counts.values()) * (1 + experiment.network(run.dataset, run.variant).layers),
    }
    return {kind: rows[TABLES[kind].row] for kind in RUN_TABLES}


def table_bytes(durations: Durations, run: Run) -> int:
    """Approximate bytes of the tables of a run that reaches its end."""
    widths = {kind: len(TABLES[kind].units) for kind in RUN_TABLES}
    widths["overlaps"] += durations.experiment.most_pairs(run)
    return BYTES_PER_ENTRY * sum(rows * widths[kind] for kind, rows in table_rows(durations, run).items())


def measure(experiment: Experiment, device: torch.device) -> Measured:
    """Time a few products and training steps of each data set's network on the device, as one job takes them."""
    product, step = {}, {}
    batch = experiment.config["training"]["batch_size"]
    for dataset in experiment.datasets():
        record = experiment.records[dataset]
        n, inputs = record.samples, record.inputs
        generator = torch.Generator().manual_seed(0)
        # On a GPU the time is not proportional to the samples.
        samples = n if device.type == "cuda" else min(n, SAMPLES)
        x = torch.randn(samples, inputs, generator=generator).to(device)
        y = torch.randint(record.classes, (len(x),), generator=generator).to(device)
        network = make_model(experiment.config["model"], record.image_shape, record.classes, 0).to(device)
        operator = HessianOperator(network, nn.functional.cross_entropy, x, y)
        vector = torch.randn(1, operator.shape[0], generator=generator).to(device)
        product[dataset] = _seconds(partial(operator.product, vector), device) / len(x)
        size = n if batch == "full" else batch
        taken = torch.arange(size, device=device) % len(x)
        for name, spec in experiment.config["optimizers"].items():
            step[dataset, name] = _seconds(_stepper(network, spec, x[taken], y[taken]), device)
    return Measured(product, step)


def _stepper(network: nn.Module, spec: dict[str, Any], x: torch.Tensor, y: torch.Tensor) -> Callable[[], object]:
    flat = FlatParameters(network)
    step, gradient = OptimizerStep.of(flat, spec), batch_gradient(flat)

    def take() -> None:
        gradient(x, y)
        step(lambda: gradient(x, y))

    return GraphedCallable(take, x.device, step.capturable)


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
