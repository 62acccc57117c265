"""Times that can be compared on a machine that other work shares: interleaved repeats, the median, and the noise."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds of every repeat of one task."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure to quote."""
        return statistics.median(self.seconds)

    @property
    def quartile(self) -> float:
        """A quarter of the repeats took less: for many short ones, since other work only ever adds."""
        return statistics.quantiles(self.seconds, n=4, method="inclusive")[0]

    @property
    def best(self) -> float:
        """The shortest: the one least disturbed."""
        return min(self.seconds)

    @property
    def noise(self) -> float:
        """Relative distance of the median from the shortest: what a quiet machine would show as 0."""
        return self.median / self.best - 1


def stopwatch(task: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def interleaved(tasks: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 1) -> dict[str, Timing]:
    """Time the tasks in turn, `repeats` times each, every round starting with another one.

    A drift of the machine's speed falls on all of them alike. `warm_up` rounds are not counted.
    """
    names = list(tasks)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warm_up, repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            taken = stopwatch(tasks[name])
            if turn >= 0:
                seconds[name].append(taken)
    return {name: Timing(tuple(each)) for name, each in seconds.items()}
