"""Progress lines of a log: not too many, the last one always, and right."""

import logging
import time

import pytest

from reproduction.progress import Progress


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    caplog.set_level(logging.INFO, "eigendrift")
    return clock


def test_at_most_one_line_in_every_interval_and_one_at_the_end(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress("step", 100, interval=10.0)
    for done in range(1, 101):
        clock.now += 0.25
        progress.update(done)
    # 25 seconds: after 10, after 20, and the end.
    assert caplog.messages == [
        "step: 40 of 100, 10 s gone, about 15 s left",
        "step: 80 of 100, 20 s gone, about 5 s left",
        "step: 100 of 100, 25 s gone, about 0 s left",
    ]


def test_a_short_job_says_that_it_is_done(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress("step", 3)
    for done in (1, 2, 3):
        progress.update(done)
    assert caplog.messages == ["step: 3 of 3, 0 s gone, about 0 s left"]


def test_a_job_that_goes_on_counts_only_what_it_does_itself(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress("snapshot", 100, done=90, interval=1.0)
    clock.now += 4
    progress.update(92)
    assert caplog.messages == ["snapshot: going on at 90 of 100", "snapshot: 92 of 100, 4 s gone, about 16 s left"]


def test_an_update_before_anything_is_done(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress("snapshot", 10, done=5, interval=1.0)
    clock.now += 2
    progress.update(5)
    assert caplog.messages[-1].startswith("snapshot: 5 of 10, 2 s gone")


def test_steps_that_take_longer_than_the_interval_get_a_line_each(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    progress = Progress("snapshot", 3, interval=1.0)
    for done in (1, 2, 3):
        clock.now += 60
        progress.update(done)
    assert [message.split(",")[0] for message in caplog.messages] == [f"snapshot: {n} of 3" for n in (1, 2, 3)]
