"""From one value for each seed to a mean with an interval, and how much so few seeds can say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
BOOTSTRAP_SEED = 20260630
CONFIDENCE = 0.95
# Share of normal samples of size n whose percentile bootstrap 95% interval of the mean holds the true mean, in percent.
# The unit tests recompute it by simulation.
COVERAGE = {2: 50, 3: 75, 4: 80, 5: 83, 6: 86, 7: 87, 8: 88, 9: 89, 10: 90}


@dataclass(frozen=True)
class Measurement:
    """The result of a measuring function.

    `by_seed` maps a seed to its value. A quantity that is one number for all seeds, or has no seeds, is in `pooled`,
    with its own interval where its table brings one, and `n_pooled` seeds in it.
    """

    by_seed: Mapping[int, float] | None = None
    pooled: float = math.nan
    interval: tuple[float, float] | None = None
    n_pooled: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval, NaN where there is none; `n_seeds` is 0 for a quantity without seeds."""

    value: float
    low: float
    high: float
    n_seeds: int
    notes: tuple[str, ...] = ()

    @property
    def has_interval(self) -> bool:
        """Whether `low` and `high` are numbers."""
        return math.isfinite(self.low) and math.isfinite(self.high)


def bootstrap_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` (n,), n >= 2 (Efron 1979), with a fixed random seed."""
    sample = np.sort(np.asarray(values, dtype=np.float64))
    if len(sample) < 2 or not np.isfinite(sample).all():
        raise ValueError(f"a bootstrap needs two or more finite values, got {values}")
    picks = np.random.default_rng(BOOTSTRAP_SEED).integers(0, len(sample), size=(RESAMPLES, len(sample)))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(sample[picks].mean(axis=1), [tail, 1.0 - tail])
    return float(low), float(high)


def estimate(measured: Measurement) -> Estimate:
    """Mean and bootstrap interval over the seeds with a finite value; the notes say which seeds have none."""
    if measured.by_seed is None:
        low, high = measured.interval or (math.nan, math.nan)
        return Estimate(measured.pooled, low, high, measured.n_pooled, measured.notes)
    finite = {seed: value for seed, value in sorted(measured.by_seed.items()) if math.isfinite(value)}
    lost = [seed for seed in sorted(measured.by_seed) if seed not in finite]
    notes = measured.notes + ((f"no value for seed {', '.join(map(str, lost))}",) if lost else ())
    if not finite:
        return Estimate(math.nan, math.nan, math.nan, 0, notes)
    values = list(finite.values())
    low, high = bootstrap_interval(values) if len(values) > 1 else (math.nan, math.nan)
    return Estimate(math.fsum(values) / len(values), low, high, len(values), (*notes, *_seed_notes(len(values))))


def _seed_notes(n_seeds: int) -> tuple[str, ...]:
    if n_seeds == 1:
        return ("one seed: no interval",)
    if n_seeds in COVERAGE:
        span = "is the range of the seeds and " if n_seeds <= 3 else ""
        return (f"{n_seeds} seeds: the interval {span}covers about {COVERAGE[n_seeds]}%, not 95%",)
    return ()


def paired(first: Measurement, second: Measurement, *, ratio: bool) -> Measurement:
    """Quotient or difference of two measurements, seed by seed where both have seeds."""
    notes = tuple(dict.fromkeys((*first.notes, *second.notes)))
    if first.by_seed is None or second.by_seed is None:
        value = _combine(estimate(first).value, estimate(second).value, ratio)
        return Measurement(pooled=value, n_pooled=max(first.n_pooled, second.n_pooled), notes=notes)
    common = sorted(set(first.by_seed) & set(second.by_seed))
    alone = len(set(first.by_seed) ^ set(second.by_seed))
    extra = (f"{alone} seed(s) without a partner",) if alone else ()
    values = {seed: _combine(first.by_seed[seed], second.by_seed[seed], ratio) for seed in common}
    return Measurement(by_seed=values, notes=(*notes, *extra))


def _combine(first: float, second: float, ratio: bool) -> float:
    if not ratio:
        return first - second
    return first / second if second else math.nan
