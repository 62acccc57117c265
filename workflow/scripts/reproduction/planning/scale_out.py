"""How an experiment spreads over the GPUs of a cluster, by a model.

PYTHONPATH=src:workflow/scripts python -m reproduction.planning.scale_out config/paper.yaml

The model takes the submissions of profiles/slurm, gives each a duration from the sizes of its runs and what
`cost_model.Assumed` says, and starts each on the first GPU that is free once all that it needs is there.
"""

import heapq
import random
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml
from snakemake.utils import update_config

from reproduction.experiment.config import validate
from reproduction.experiment.figure_catalogue import FIGURES
from reproduction.experiment.runs import Experiment, Run
from reproduction.planning.cost_model import Assumed, Durations, cut
from reproduction.planning.plan import METRIC_RULES

# (GPUs, jobs that share one) of the machines on the page.
MACHINES = ((1, 1), (1, 4), (4, 4))


@dataclass(frozen=True)
class Outcome:
    """Result for a number of GPUs: hours from the first submission to the end, and hours of GPUs in use."""

    gpus: int
    hours: float
    busy: float


class Model:
    """The submissions of an experiment with these numbers of jobs in each."""

    def __init__(self, experiment: Experiment, gpu: Assumed, components: dict[str, int]) -> None:
        durations = Durations(experiment, gpu)
        runs = list(experiment)
        self.gpu = gpu
        # Snakemake puts jobs of different runs into one group, in an order of its own.
        mixed = random.Random(0)
        trainings = [(run, durations.train(run)) for run in runs]
        self.trainings = cut(mixed.sample(trainings, len(trainings)), components["trainings"])
        chunks = [(run, seconds) for run in runs for seconds in durations.chunks(run)]
        self.chunks = cut(mixed.sample(chunks, len(chunks)), components["chunks"])
        # Each kind of table of a run in turn, on the CPU nodes, of which there are enough.
        tables = min(components["tables"], METRIC_RULES * len(runs))
        figures = len(FIGURES) + 2  # claims and figure set
        self.end = tables * gpu.table + figures * gpu.figure
        self.networks = 2 * sum(map(durations.baseline, experiment.datasets()))

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

    def on_one_machine(self, gpus: int, jobs_per_gpu: int) -> Outcome:
        """The experiment in one Snakemake on a machine with so many GPUs and as many cores as it has use for.

        Jobs that share a GPU take turns on it, and start while others compute.
        """
        jobs = [seconds for group in (*self.trainings, *self.chunks) for _, seconds in group]
        computing = sum(jobs) - len(jobs) * self.gpu.start + self.networks
        seconds = (computing + len(jobs) * self.gpu.forked_start / jobs_per_gpu) / gpus
        return Outcome(gpus, (seconds + self.gpu.table + self.gpu.figure) / 3600, computing / 3600)

    def machine_lines(self, numbers: Iterable[tuple[int, int]]) -> list[str]:
        """A table in Markdown of (GPUs, jobs that share one)."""
        head = ["| GPUs | jobs_per_gpu | hours | of which each GPU computes |", "|---|---|---|---|"]
        found = [(self.on_one_machine(gpus, jobs), jobs) for gpus, jobs in numbers]
        return head + [f"| {o.gpus} | {jobs} | {o.hours:.2f} | {o.busy / o.gpus:.2f} |" for o, jobs in found]

    def lines(self, numbers: Iterable[int]) -> list[str]:
        """A table in Markdown."""
        alone = self.on(1).hours
        head = ["| GPUs | hours | times as fast as one GPU | GPUs in use, on average |", "|---|---|---|---|"]
        found = [self.on(gpus) for gpus in numbers]
        return head + [f"| {o.gpus} | {o.hours:.2f} | {alone / o.hours:.1f} | {o.busy / o.hours:.1f} |" for o in found]


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


if __name__ == "__main__":
    whole, overlay = (yaml.safe_load(Path(path).read_text(encoding="utf-8")) for path in ("config.yaml", sys.argv[1]))
    update_config(whole, overlay)
    model = Model(Experiment(validate(whole)), Assumed(), components(Path("profiles/slurm/config.yaml")))
    print("\n".join([*model.lines((1, 4, 8, 16, 64)), "", *model.machine_lines(MACHINES)]))
