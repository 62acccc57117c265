"""When snapshots are taken: a grid of equal intervals, and log-spaced lags after every waiting time."""

import math
from bisect import bisect_left
from collections.abc import Sequence


def lag_grid(longest: int, per_decade: int) -> list[int]:
    """Log-spaced integer lags 1, ..., `longest`, about `per_decade` of them in each decade; empty if `longest` < 1."""
    if longest < 1:
        return []
    count = math.floor(math.log10(longest) * per_decade) + 1
    return sorted({min(round(10 ** (j / per_decade)), longest) for j in range(count)} | {longest})


def snapshot_steps(steps: int, every: int, waiting_times: Sequence[int], lags_per_decade: int) -> list[int]:
    """The training steps at which a snapshot is taken, ascending; 0 and `steps` are always among them."""
    taken = {*range(0, steps + 1, every), steps}
    for waiting_time in waiting_times:
        if waiting_time < steps:
            taken.add(waiting_time)
            taken.update(waiting_time + lag for lag in lag_grid(steps - waiting_time, lags_per_decade))
    return sorted(taken)


def most_snapshots(steps: int, every: int, waiting_times: Sequence[int], lags_per_decade: int) -> int:
    """A number that the length of `snapshot_steps` does not exceed, without making the list."""
    lags = 0
    for longest in (steps - waiting_time for waiting_time in waiting_times if waiting_time < steps):
        lags += 1 + min(longest, math.floor(math.log10(longest) * lags_per_decade) + 2)
    return steps // every + 2 + lags


def scaled_every(every: int, steps: int, main_steps: int) -> int:
    """`every`, in steps of a main run, for a run of `steps` steps: at least 1."""
    return max(1, round(every * steps / main_steps))


def two_time_pairs(
    steps: int, waiting_times: Sequence[int], lags_per_decade: int, recorded: Sequence[int] | None = None
) -> list[tuple[int, int]]:
    """All (waiting time, lag) that the two-time statistics are drawn at; every waiting time + lag is a snapshot.

    With `recorded`, the steps of a run that has other snapshots: a waiting time is then the first snapshot at or after
    it, and a lag that of the first snapshot at or after the log-spaced one.
    """
    if recorded is not None:
        return _recorded_pairs(recorded, waiting_times, lags_per_decade)
    return [(tw, lag) for tw in sorted(waiting_times) if tw < steps for lag in lag_grid(steps - tw, lags_per_decade)]


def _recorded_pairs(
    recorded: Sequence[int], waiting_times: Sequence[int], lags_per_decade: int
) -> list[tuple[int, int]]:
    steps = sorted(recorded)
    starts = sorted({steps[bisect_left(steps, time)] for time in waiting_times if time < steps[-1]} - {steps[-1]})
    pairs = set()
    for start in starts:
        for lag in lag_grid(steps[-1] - start, lags_per_decade):
            pairs.add((start, steps[bisect_left(steps, start + lag)] - start))
    return sorted(pairs)
