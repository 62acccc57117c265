"""Power of the primary tests: the probability of the grade confirmed, for a given truth and spread between seeds."""

import math

import numpy as np
from scipy import optimize, stats

from reproduction.claims.grading import Region
from reproduction.claims.statistics import CONFIDENCE

_NODES = 4000
# No truth is farther than this many standard errors from an end that matters.
_FAR = 1e3


def power_inside(truth: float, sd: float, n: int, region: Region, *, confidence: float = CONFIDENCE) -> float:
    """Probability that Student's t interval for the mean of n normal values lies inside a region.

    `truth` and `sd` are mean and standard deviation of the values. One finite end: the non-central t distribution. Two:
    the probability given the sample's standard deviation, averaged over that one's distribution.
    """
    if n < 2 or sd < 0 or not math.isfinite(truth) or not math.isfinite(sd):
        raise ValueError(f"n = {n}, sd = {sd}, truth = {truth}; give n >= 2 and finite numbers, sd >= 0")
    if sd == 0:
        return float(region.holds(truth, truth))
    error = sd / math.sqrt(n)
    quantile = float(stats.t.ppf(0.5 + confidence / 2.0, n - 1))
    gaps = [(truth - region.above) / error, (region.below - truth) / error]
    finite = [gap for gap in gaps if math.isfinite(gap)]
    if len(finite) == 1:
        return float(stats.nct.sf(quantile, n - 1, finite[0]))
    shares = (np.arange(_NODES) + 0.5) / _NODES
    half = quantile * np.sqrt(stats.chi2.ppf(shares, n - 1) / (n - 1))
    return float(np.maximum(stats.norm.cdf(gaps[1] - half) - stats.norm.cdf(half - gaps[0]), 0.0).mean())


def power_of_normal(truth: float, error: float, region: Region, *, confidence: float = CONFIDENCE) -> float:
    """The same for a normal interval with a known standard error."""
    half = float(stats.norm.ppf(0.5 + confidence / 2.0))
    gaps = [(truth - region.above) / error - half, (region.below - truth) / error - half]
    return float(max(stats.norm.cdf(gaps[1]) - stats.norm.cdf(-gaps[0]), 0.0))


def truth_with_power(power: float, sd: float, n: int, region: Region) -> float:
    """The truth nearest to an end of the region at which `power_inside` has this value; NaN if no truth gives so much.

    For a region with two ends it is the one nearest to the upper end, up to the region's middle.
    """
    error = sd / math.sqrt(n)
    if sd == 0:
        return math.nan
    end, inward = (region.below, -1.0) if math.isfinite(region.below) else (region.above, 1.0)
    width = region.below - region.above
    depth = width / 2.0 if math.isfinite(width) else _FAR * error

    def missing(distance: float) -> float:
        return power_inside(end + inward * distance, sd, n, region) - power

    if missing(depth) < 0:
        return math.nan
    return float(end + inward * optimize.brentq(missing, 0.0, depth, xtol=1e-6 * depth))
