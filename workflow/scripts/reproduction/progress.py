"""Progress lines in a rule's log: what is done, elapsed time, remaining time."""

import logging
import time

log = logging.getLogger("eigendrift")


class Progress:
    """Logs at most one line every `interval` seconds, and one at the end."""

    def __init__(self, what: str, total: int, done: int = 0, interval: float = 10.0) -> None:
        self.what, self.total, self.first, self.interval = what, total, done, interval
        self.started = self.last = time.monotonic()
        if done:
            log.info("%s: going on at %d of %d", what, done, total)

    def update(self, done: int) -> None:
        """Report that `done` of the total are finished."""
        now = time.monotonic()
        if done < self.total and now - self.last < self.interval:
            return
        self.last = now
        elapsed = now - self.started
        left = elapsed / max(done - self.first, 1) * (self.total - done)
        log.info("%s: %d of %d, %.0f s gone, about %.0f s left", self.what, done, self.total, elapsed, left)
