"""When snapshots are taken: grids, lags, and that every two-time pair has its two snapshots."""

import itertools
import math

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from reproduction.experiment.schedule import lag_grid, most_snapshots, scaled_every, snapshot_steps, two_time_pairs

SCHEDULES = st.fixed_dictionaries(
    {
        "steps": st.integers(1, 5000),
        "waiting_times": st.lists(st.integers(0, 6000), min_size=1, max_size=6, unique=True),
        "lags_per_decade": st.integers(1, 30),
    }
)
EVERY = st.integers(1, 6000)


def test_lags_are_powers_of_ten() -> None:
    assert lag_grid(1000, 1) == [1, 10, 100, 1000]
    assert lag_grid(1, 5) == [1]
    assert lag_grid(2, 1) == [1, 2]
    assert lag_grid(999, 1) == [1, 10, 100, 999]
    assert lag_grid(100, 2) == [1, 3, 10, 32, 100]
    assert lag_grid(0, 3) == lag_grid(-5, 3) == []


@given(st.integers(1, 10**9), st.integers(1, 40))
@settings(derandomize=True, deadline=None)
def test_lags_ascend_from_one_to_the_longest_evenly_in_the_logarithm(longest: int, per_decade: int) -> None:
    lags = lag_grid(longest, per_decade)
    assert lags[0] == 1
    assert lags[-1] == longest
    assert all(a < b for a, b in itertools.pairwise(lags))
    for lag in lags[:-1]:
        exponent = math.floor(math.log10(lag) * per_decade)
        nearest = min(abs(lag - 10 ** (j / per_decade)) for j in (exponent, exponent + 1))
        assert nearest <= 0.5 + 1e-6 * lag
    # None is left out: from 100 on, no two of them round to the same integer at 40 a decade.
    above = [lag for lag in lags if lag >= 100]
    if longest >= 100:
        assert abs(len(above) - math.log10(longest / 100) * per_decade) <= 2


def test_a_schedule_by_hand() -> None:
    assert snapshot_steps(20, 10, [0, 5], 1) == [0, 1, 5, 6, 10, 15, 20]
    assert snapshot_steps(25, 10, [], 1) == [0, 10, 20, 25]
    assert snapshot_steps(1, 1, [0], 1) == [0, 1]
    assert two_time_pairs(20, [5, 0], 1) == [(0, 1), (0, 10), (0, 20), (5, 1), (5, 10), (5, 15)]
    assert two_time_pairs(20, [20, 30], 1) == []


@given(SCHEDULES, EVERY)
@settings(derandomize=True, deadline=None)
def test_snapshots_hold_the_grid_the_ends_and_both_times_of_every_pair(schedule: dict[str, int], every: int) -> None:
    taken = snapshot_steps(every=every, **schedule)
    steps = schedule["steps"]
    assert taken == sorted(set(taken))
    assert taken[0] == 0
    assert taken[-1] == steps
    assert set(range(0, steps + 1, every)) <= set(taken)
    pairs = two_time_pairs(**schedule)
    assert len(set(pairs)) == len(pairs)
    assert {tw for tw, _ in pairs} | {tw + lag for tw, lag in pairs} <= set(taken)
    assert {tw for tw, _ in pairs} == {tw for tw in schedule["waiting_times"] if tw < steps}
    # Nothing else is taken: a snapshot costs an eigenproblem.
    grid = {*range(0, steps + 1, every), steps}
    assert set(taken) == grid | {tw for tw, _ in pairs} | {tw + lag for tw, lag in pairs}


@given(SCHEDULES, EVERY)
@settings(derandomize=True, deadline=None)
def test_the_bound_on_the_number_of_snapshots(schedule: dict[str, int], every: int) -> None:
    assert len(snapshot_steps(every=every, **schedule)) <= most_snapshots(every=every, **schedule)


def test_the_bound_is_of_the_right_size_and_costs_nothing() -> None:
    times = {"waiting_times": [0, 10, 100, 1000], "lags_per_decade": 10}
    exact = len(snapshot_steps(100_000, 100, **times))
    assert exact <= most_snapshots(100_000, 100, **times) < 1.2 * exact
    assert most_snapshots(10**9, 1, [0], 1000) > 10**9


@pytest.mark.parametrize(
    ("every", "steps", "main", "expected"),
    [(400, 1200, 2000, 240), (400, 600, 2000, 120), (1, 1, 2000, 1), (3, 10, 20, 2)],
)
def test_the_grid_of_a_sweep_run_is_scaled_with_its_length(every: int, steps: int, main: int, expected: int) -> None:
    assert scaled_every(every, steps, main) == expected
