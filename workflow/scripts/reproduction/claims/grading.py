"""Grades of the primary tests: from an interval, a region and a direction; p-values and Holm's step-down method.

A region is the open interval of values that a statement, read with the smallest effect of interest, allows; a direction
the open half-line on the statement's side of no effect. See paper/primary_tests.yaml for what the grades mean.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scipy import stats

from reproduction.claims.statistics import CONFIDENCE, Estimate

CONFIRMED = "confirmed"
SIZE_NOT = "direction confirmed, size not"
INCONCLUSIVE = "inconclusive"
CONTRADICTED = "contradicted"
GRADES = (CONFIRMED, SIZE_NOT, INCONCLUSIVE, CONTRADICTED)
# Order in which the grade of one member decides that of a conjunction.
_WEAKEST_FIRST = (CONTRADICTED, INCONCLUSIVE, SIZE_NOT, CONFIRMED)
# The probability outside a two-sided 95% interval, on each side.
LEVEL = round((1.0 - CONFIDENCE) / 2.0, 12)


@dataclass(frozen=True)
class Region:
    """The open interval (`above`, `below`); one of the two may be infinite."""

    above: float = -math.inf
    below: float = math.inf

    def __post_init__(self) -> None:
        if not self.above < self.below or (math.isinf(self.above) and math.isinf(self.below)):
            raise ValueError(f"({self.above}, {self.below}) is no region; give above < below, one of them finite")

    def holds(self, low: float, high: float) -> bool:
        """Whether the closed interval [low, high] lies inside."""
        return self.above < low and high < self.below

    def excludes(self, low: float, high: float) -> bool:
        """Whether the closed interval [low, high] lies outside; both are false where it straddles an end."""
        return high <= self.above or low >= self.below

    def log(self) -> "Region":
        """The region of the logarithm; an end at or below 0 becomes minus infinity."""
        low, high = (math.log(end) if end > 0 else -math.inf for end in (self.above, self.below))
        return Region(low, high)


def grade(low: float, high: float, value: float, region: Region, direction: Region | None = None) -> tuple[str, str]:
    """Grade of a value with its interval, and the reason where the numbers do not make it plain.

    Without a number, or without an interval (one seed), it is inconclusive. An interval that ends exactly on an end of
    the open region is not inside it.
    """
    if not math.isfinite(value):
        return INCONCLUSIVE, "no value"
    if not (math.isfinite(low) and math.isfinite(high)):
        return INCONCLUSIVE, "no interval"
    if low > high:
        raise ValueError(f"an interval from {low} to {high}")
    if region.holds(low, high):
        return CONFIRMED, ""
    outside = region.excludes(low, high)
    if direction is not None and direction.holds(low, high):
        return SIZE_NOT, "the size is excluded" if outside else "the size is open"
    return (CONTRADICTED, "") if outside else (INCONCLUSIVE, "the interval straddles an end of the region")


def grade_estimate(result: Estimate, region: Region, direction: Region | None = None) -> tuple[str, str]:
    """`grade` of an estimate."""
    return grade(result.low, result.high, result.value, region, direction)


def combined(grades: Iterable[str]) -> str:
    """Grade of a conjunction: contradicted if a member is, else inconclusive if one is, and so on."""
    return min(grades, key=_WEAKEST_FIRST.index)


def t_estimate(by_unit: Mapping[int, float], *, log: bool = False, confidence: float = CONFIDENCE) -> Estimate:
    """Mean with Student's t interval over the units (seeds) that have a finite value.

    `log`: mean and interval of the logarithms, given as ratios; a value that is not positive has none. One unit gives
    no interval.
    """
    kept = {unit: value for unit, value in sorted(by_unit.items()) if _usable(value, log=log)}
    lost = [unit for unit in sorted(by_unit) if unit not in kept]
    notes = (f"no value for {', '.join(map(str, lost))}",) if lost else ()
    if not kept:
        return Estimate(math.nan, math.nan, math.nan, 0, notes)
    numbers = [math.log(value) if log else float(value) for value in kept.values()]
    mean, error, n = _mean_and_error(numbers)
    half = float(stats.t.ppf(0.5 + confidence / 2.0, n - 1)) * error if n > 1 else math.nan
    ends = [mean, mean - half, mean + half]
    value, low, high = (math.exp(end) for end in ends) if log else ends
    return Estimate(value, low, high, n, notes)


def _usable(value: float, *, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def _mean_and_error(numbers: list[float]) -> tuple[float, float, int]:
    """Mean, its standard error (NaN for one number) and the count."""
    n = len(numbers)
    mean = math.fsum(numbers) / n
    if n == 1:
        return mean, math.nan, n
    return mean, math.sqrt(math.fsum((x - mean) ** 2 for x in numbers) / (n - 1) / n), n


def difference_to_paper(result: Estimate, paper: float) -> Estimate:
    """An estimate with a symmetric 95% interval minus the paper's value, with the sampling error of both.

    The paper gives no error and took as many networks, so that it is given ours: the interval is wider by sqrt(2).
    """
    half = math.sqrt(2.0) * (result.high - result.low) / 2.0
    value = result.value - paper
    note = "the paper's sampling error is taken to be ours"
    return Estimate(value, value - half, value + half, result.n_seeds, (*result.notes, note))


def outside_p_value(by_unit: Mapping[int, float], region: Region, *, log: bool = False) -> float:
    """p-value of the hypothesis that the true mean lies outside the region: one-sided t, the larger of two (TOST).

    It is below `LEVEL` exactly where the interval of `t_estimate` lies inside the region. 1 for fewer than two values.
    """
    numbers = [math.log(v) if log else float(v) for v in by_unit.values() if _usable(v, log=log)]
    if len(numbers) < 2:
        return 1.0
    mean, error, n = _mean_and_error(numbers)
    return _outside(mean, error, n - 1, region.log() if log else region)


def outside_p_value_of(result: Estimate, region: Region) -> float:
    """The same for an estimate with a symmetric normal 95% interval; 1 without one."""
    if not (math.isfinite(result.value) and result.has_interval):
        return 1.0
    error = (result.high - result.low) / 2.0 / float(stats.norm.ppf(0.5 + CONFIDENCE / 2.0))
    return _outside(result.value, error, math.inf, region)


def _outside(mean: float, error: float, df: float, region: Region) -> float:
    gaps = [gap for gap in (mean - region.above, region.below - mean) if math.isfinite(gap)]
    if error == 0:
        return 0.0 if min(gaps) > 0 else 1.0
    tail = stats.norm.sf if math.isinf(df) else stats.t(df).sf
    return max(float(tail(gap / error)) for gap in gaps)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's (1979) adjusted p-values: an hypothesis is rejected at level a where its adjusted p-value is below a.

    The k-th smallest of m is multiplied by m - k + 1, and is at least as large as those before it, at most 1. NaN
    counts as 1.
    """
    known = {name: 1.0 if math.isnan(p) else p for name, p in p_values.items()}
    if any(not 0.0 <= p <= 1.0 for p in known.values()):
        raise ValueError(f"p-values between 0 and 1, not {dict(p_values)}")
    adjusted, running = {}, 0.0
    for rank, name in enumerate(sorted(known, key=lambda name: known[name])):
        running = max(running, min(1.0, (len(known) - rank) * known[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def after_holm(given: str, adjusted: float, level: float = LEVEL) -> tuple[str, str]:
    """The grade of a headline after Holm's method: confirmed only where its hypothesis is rejected."""
    if given == CONFIRMED and not adjusted < level:
        return INCONCLUSIVE, "confirmed alone, not among the headlines (Holm)"
    return given, ""
