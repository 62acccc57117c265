"""What recording with a tracker adds to a training step: steps with and without one, timed in turn.

A step's own time is that of batches of a size that makes it take about 5 ms, the shortest for which a promise is made.
"""

import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from benchmarks.results import arguments, write
from benchmarks.timing import interleaved
from eigendrift import Tracker

# Steps timed at a time, a multiple of the steps between snapshots.
STRETCH = 100
EVERY = (100, 10, 1)


class Loop:
    """A training loop of its own model and optimizer."""

    def __init__(self, samples: int, every: int | None, folder: Path) -> None:
        torch.manual_seed(0)
        widths = [784, 100, 100, 10]
        layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        self.model = nn.Sequential(*layers, nn.Linear(10, 10))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.inputs, self.targets = torch.randn(samples, 784), torch.randint(10, (samples,))
        self.tracker = None if every is None else Tracker(self.model, folder, every=every, quiet=True)
        if self.tracker is not None:
            self.tracker.attach(self.optimizer)

    def run(self) -> None:
        """Take some steps."""
        for _ in range(STRETCH):
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.model(self.inputs), self.targets).backward()
            self.optimizer.step()


def rows(samples: int, repeats: int) -> list[dict[str, object]]:
    """One row for each number of steps between snapshots."""
    with tempfile.TemporaryDirectory() as folder:
        ways: tuple[int | None, ...] = (None, *EVERY)
        loops = {every: Loop(samples, every, Path(folder) / str(every)) for every in ways}
        times = interleaved({str(every): loop.run for every, loop in loops.items()}, repeats)
    alone = times["None"].quartile / STRETCH
    return [
        {
            "steps_between_snapshots": every,
            "ms_per_step": 1e3 * alone,
            "added_ms_per_step": 1e3 * (times[str(every)].quartile / STRETCH - alone),
            "added_share": times[str(every)].quartile / STRETCH / alone - 1,
            "noise": times["None"].noise,
        }
        for every in EVERY
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """The table."""
    given = arguments(__doc__, argv)
    write(given.output, "tracking", pd.DataFrame(rows(64 if given.quick else 1024, 2 if given.quick else 15)))


if __name__ == "__main__":
    main()
