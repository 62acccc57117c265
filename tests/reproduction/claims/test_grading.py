"""Grades, intervals, p-values, Holm's method, power and the arithmetic of printed digits."""

import itertools
import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reproduction.claims.grading import (
    CONFIRMED,
    CONTRADICTED,
    GRADES,
    INCONCLUSIVE,
    LEVEL,
    SIZE_NOT,
    Region,
    after_holm,
    combined,
    difference_to_paper,
    grade,
    grade_estimate,
    holm,
    outside_p_value,
    outside_p_value_of,
    t_estimate,
)
from reproduction.claims.power import power_inside, power_of_normal, truth_with_power
from reproduction.claims.rounding import implied_parameters, rounding_interval
from reproduction.claims.statistics import Estimate

NAN, INF = math.nan, math.inf
MORE, UP = Region(above=2), Region(above=1)
LESS, DOWN = Region(below=-0.1), Region(below=0)
BAND = Region(0.05, 0.2)


@pytest.mark.parametrize(
    ("low", "high", "region", "direction", "expected", "reason"),
    [
        (2.1, 3.0, MORE, UP, CONFIRMED, ""),
        (2.0, 3.0, MORE, UP, SIZE_NOT, "open"),  # ends on the end of the open region
        (1.5, 3.0, MORE, UP, SIZE_NOT, "open"),
        (1.1, 1.9, MORE, UP, SIZE_NOT, "excluded"),
        (1.1, 2.0, MORE, UP, SIZE_NOT, "excluded"),  # touches the region from outside
        (1.0, 1.9, MORE, UP, CONTRADICTED, ""),  # no effect is not excluded
        (0.5, 1.9, MORE, UP, CONTRADICTED, ""),
        (0.1, 0.9, MORE, UP, CONTRADICTED, ""),  # the opposite direction
        (0.5, 3.0, MORE, UP, INCONCLUSIVE, "straddles"),
        (1.0, 3.0, MORE, UP, INCONCLUSIVE, "straddles"),
        (1.1, 1.9, MORE, None, CONTRADICTED, ""),
        (1.5, 3.0, MORE, None, INCONCLUSIVE, "straddles"),
        (-0.5, -0.2, LESS, DOWN, CONFIRMED, ""),
        (-0.5, -0.05, LESS, DOWN, SIZE_NOT, "open"),
        (-0.08, -0.01, LESS, DOWN, SIZE_NOT, "excluded"),
        (-0.08, 0.2, LESS, DOWN, CONTRADICTED, ""),
        (-0.5, 0.2, LESS, DOWN, INCONCLUSIVE, "straddles"),
        (0.06, 0.19, BAND, None, CONFIRMED, ""),
        (0.05, 0.19, BAND, None, INCONCLUSIVE, "straddles"),
        (0.06, 0.20, BAND, None, INCONCLUSIVE, "straddles"),
        (0.01, 0.5, BAND, None, INCONCLUSIVE, "straddles"),
        (0.01, 0.05, BAND, None, CONTRADICTED, ""),
        (0.2, 0.3, BAND, None, CONTRADICTED, ""),
        (0.2, 0.3, BAND, Region(above=0.03), SIZE_NOT, "excluded"),
        (0.04, 0.3, BAND, Region(above=0.03), SIZE_NOT, "open"),
        (3.0, 3.0, MORE, UP, CONFIRMED, ""),
        (2.0, 2.0, MORE, None, CONTRADICTED, ""),
        (NAN, NAN, MORE, UP, INCONCLUSIVE, "no interval"),
        (2.5, INF, MORE, UP, INCONCLUSIVE, "no interval"),
    ],
)
def test_grade(low: float, high: float, region: Region, direction: Region | None, expected: str, reason: str) -> None:
    middle = 3.0 if math.isnan(low) else low
    found = grade(low, high, middle, region, direction)
    assert found[0] == expected
    assert reason in found[1]
    assert grade_estimate(Estimate(middle, low, high, 5), region, direction) == found


def test_without_a_value_or_with_one_seed_it_is_inconclusive() -> None:
    assert grade(1.0, 2.0, NAN, MORE) == (INCONCLUSIVE, "no value")
    assert grade_estimate(t_estimate({0: 5.0}), MORE, UP) == (INCONCLUSIVE, "no interval")
    assert grade_estimate(t_estimate({}), MORE, UP) == (INCONCLUSIVE, "no value")
    assert grade_estimate(t_estimate({0: NAN, 1: NAN}), MORE, UP) == (INCONCLUSIVE, "no value")


def test_an_interval_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(ValueError, match="an interval from 3"):
        grade(3.0, 2.0, 2.5, MORE)


@pytest.mark.parametrize("ends", [(2.0, 1.0), (1.0, 1.0), (-INF, INF), (NAN, 1.0), (0.0, NAN)])
def test_what_is_no_region_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="no region"):
        Region(*ends)


@given(st.floats(-10, 10), st.floats(0, 10), st.floats(-10, 10), st.floats(0, 5))
def test_every_interval_has_one_grade_and_a_direction_never_makes_it_worse(
    low: float, width: float, end: float, beyond: float
) -> None:
    high, region = low + width, Region(above=end)
    order = (CONTRADICTED, INCONCLUSIVE, SIZE_NOT, CONFIRMED)
    alone, _ = grade(low, high, low, region)
    with_direction, _ = grade(low, high, low, region, Region(above=end - beyond))
    assert {alone, with_direction} <= set(GRADES)
    assert order.index(with_direction) >= order.index(alone)
    assert (alone == CONFIRMED) == (with_direction == CONFIRMED)


def test_the_weakest_member_grades_the_whole() -> None:
    assert combined([CONFIRMED, CONFIRMED]) == CONFIRMED
    assert combined([CONFIRMED, SIZE_NOT]) == SIZE_NOT
    assert combined([SIZE_NOT, INCONCLUSIVE, CONFIRMED]) == INCONCLUSIVE
    assert combined([INCONCLUSIVE, CONTRADICTED, CONFIRMED]) == CONTRADICTED


# --- intervals ---


def test_t_interval_against_scipy() -> None:
    numbers = [0.2, 0.5, 0.1, 0.9, 0.4]
    found = t_estimate(dict(enumerate(numbers)))
    low, high = stats.t.interval(0.95, 4, loc=np.mean(numbers), scale=stats.sem(numbers))
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(numbers), low, high))
    assert found.n_seeds == 5


def test_log_interval_is_that_of_the_logarithms() -> None:
    numbers = [1.0, 10.0, 100.0]
    found = t_estimate(dict(enumerate(numbers)), log=True)
    half = 4.302652729911275 * math.log(10) / math.sqrt(3)
    assert found.value == pytest.approx(10.0)
    assert (found.low, found.high) == pytest.approx((10 * math.exp(-half), 10 * math.exp(half)))


def test_a_value_that_has_no_logarithm_is_reported_and_left_out() -> None:
    found = t_estimate({0: 1.0, 1: 0.0, 2: 4.0, 3: NAN}, log=True)
    assert found.n_seeds == 2
    assert found.value == pytest.approx(2.0)
    assert found.notes == ("no value for 1, 3",)


def test_difference_to_the_paper_has_both_errors() -> None:
    found = difference_to_paper(Estimate(0.051, 0.049, 0.053, 0, ("jackknife",)), 0.05)
    assert found.value == pytest.approx(0.001)
    assert found.high - found.value == pytest.approx(0.002 * math.sqrt(2))
    assert found.notes[0] == "jackknife"


# --- p-values ---


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=6), st.floats(-2, 2), st.one_of(st.none(), st.floats(0.1, 3)))
def test_p_value_is_below_the_level_where_the_interval_lies_inside(
    numbers: list[float], end: float, width: float | None
) -> None:
    region = Region(above=end) if width is None else Region(end, end + width)
    by_seed = dict(enumerate(numbers))
    found = t_estimate(by_seed)
    p = outside_p_value(by_seed, region)
    if abs(p - LEVEL) > 1e-9 and found.high - found.low > 1e-9:
        assert (p < LEVEL) == region.holds(found.low, found.high)


def test_p_value_against_scipy() -> None:
    numbers = [1.2, 2.5, 1.9, 3.0, 2.2]
    one_sided = stats.ttest_1samp(numbers, 1.0, alternative="greater").pvalue
    assert outside_p_value(dict(enumerate(numbers)), Region(above=1.0)) == pytest.approx(one_sided)
    above = stats.ttest_1samp(numbers, 5.0, alternative="less").pvalue
    assert outside_p_value(dict(enumerate(numbers)), Region(1.0, 5.0)) == pytest.approx(max(one_sided, above))
    logs = stats.ttest_1samp(np.log(numbers), np.log(1.5), alternative="greater").pvalue
    assert outside_p_value(dict(enumerate(numbers)), Region(above=1.5), log=True) == pytest.approx(logs)


def test_p_value_without_spread_or_numbers() -> None:
    assert outside_p_value({0: 3.0}, MORE) == 1.0
    assert outside_p_value({0: 3.0, 1: 3.0}, MORE) == 0.0
    assert outside_p_value({0: 2.0, 1: 2.0}, MORE) == 1.0
    assert outside_p_value_of(Estimate(NAN, NAN, NAN, 0), MORE) == 1.0
    # An interval that ends at the end of the region has the level as its p-value.
    assert outside_p_value_of(Estimate(3.0, 2.0, 4.0, 0), MORE) == pytest.approx(LEVEL, rel=1e-9)


# --- Holm ---


def test_holm_by_hand() -> None:
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1; the last is raised to the one before it.
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(found) == ["a", "b", "c", "d"]
    # At 0.05 Bonferroni rejects those below 0.0125, Holm here the same two; at 0.025 one.
    assert [name for name, p in found.items() if p < 0.05] == ["a", "d"]


def test_holm_steps_down_no_further_than_the_first_that_is_kept() -> None:
    found = holm({"first": 0.3, "second": 0.31, "third": 0.0})
    assert found == pytest.approx({"first": 0.6, "second": 0.6, "third": 0.0})
    assert holm({"unknown": NAN, "known": 0.01}) == pytest.approx({"unknown": 1.0, "known": 0.02})
    assert holm({"one": 0.02}) == {"one": 0.02}
    assert holm({}) == {}
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm({"a": 1.5})


@given(st.dictionaries(st.text(min_size=1), st.floats(0, 1), min_size=1, max_size=9))
def test_holm_lies_between_the_p_value_and_bonferroni(p_values: dict[str, float]) -> None:
    found = holm(p_values)
    for name, p in p_values.items():
        assert p <= found[name] <= min(1.0, len(p_values) * p)
    ordered = sorted(p_values, key=lambda name: p_values[name])
    assert all(found[a] <= found[b] for a, b in itertools.pairwise(ordered))


def test_a_headline_is_confirmed_only_where_holm_rejects() -> None:
    assert after_holm(CONFIRMED, 0.02) == (CONFIRMED, "")
    assert after_holm(CONFIRMED, 0.03)[0] == INCONCLUSIVE
    assert after_holm(CONFIRMED, NAN)[0] == INCONCLUSIVE
    for other in (SIZE_NOT, INCONCLUSIVE, CONTRADICTED):
        assert after_holm(other, 1.0) == (other, "")


# --- power ---


def test_power_at_the_end_of_the_region_is_the_level() -> None:
    assert power_inside(2.0, 1.0, 5, MORE) == pytest.approx(0.025, rel=1e-6)
    assert power_inside(-0.1, 0.3, 5, LESS) == pytest.approx(0.025, rel=1e-6)


def test_power_by_simulation() -> None:
    draws = np.random.default_rng(0).normal(0.8, 0.4, size=(200_000, 5))
    half = stats.t.ppf(0.975, 4) * draws.std(axis=1, ddof=1) / math.sqrt(5)
    mean = draws.mean(axis=1)
    for region in (Region(above=0.5), Region(below=1.4), Region(0.1, 1.7)):
        share = float(((mean - half > region.above) & (mean + half < region.below)).mean())
        assert power_inside(0.8, 0.4, 5, region) == pytest.approx(share, abs=0.004)


def test_power_against_a_published_value() -> None:
    # Paired t test, five pairs: 1.7 standard deviations have a power of 80%; three pairs: 3.3.
    assert power_inside(1.7, 1.0, 5, Region(above=0)) == pytest.approx(0.80, abs=0.02)
    assert power_inside(3.3, 1.0, 3, Region(above=0)) == pytest.approx(0.80, abs=0.02)


def test_power_of_a_known_error_is_the_limit_of_many_values() -> None:
    region = Region(-0.004, 0.004)
    assert power_of_normal(0.0, 0.0011, region) == pytest.approx(
        power_inside(0.0, 0.0011 * math.sqrt(5000), 5000, region), abs=2e-3
    )


def test_truth_with_a_given_power() -> None:
    for region in (Region(above=0.5), Region(below=0.5), Region(0.0, 4.0)):
        truth = truth_with_power(0.8, 0.3, 5, region)
        assert power_inside(truth, 0.3, 5, region) == pytest.approx(0.8, abs=1e-4)
    assert math.isnan(truth_with_power(0.8, 1.0, 5, Region(0.0, 0.5)))
    assert math.isnan(truth_with_power(0.8, 0.0, 5, MORE))


def test_power_without_spread_and_what_it_refuses() -> None:
    assert power_inside(3.0, 0.0, 5, MORE) == 1.0
    assert power_inside(2.0, 0.0, 5, MORE) == 0.0
    for bad in ({"n": 1}, {"sd": -1.0}, {"truth": NAN}):
        with pytest.raises(ValueError, match="n >= 2"):
            power_inside(**{"truth": 1.0, "sd": 1.0, "n": 5, "region": MORE, **bad})  # type: ignore[arg-type]


# --- printed digits ---


@pytest.mark.parametrize(
    ("printed", "low", "high"),
    [
        ("0.0523", "0.05225", "0.05235"),
        ("2.1125e-5", "2.11245e-5", "2.11255e-5"),
        ("0.0520", "0.05195", "0.05205"),
        ("7", "6.5", "7.5"),
    ],
)
def test_what_rounds_to_printed_digits(printed: str, low: str, high: str) -> None:
    assert rounding_interval(printed) == (Decimal(low), Decimal(high))


@pytest.mark.parametrize(
    ("overlap", "displacement", "low", "high"),
    [("0.0523", "2.1125e-5", 89_716.22, 89_729.93), ("0.0492", "2.1194e-5", 89_716.67, 89_730.34)],
)
def test_the_paper_s_digits_imply_the_network_with_another_layer(
    overlap: str, displacement: str, low: float, high: float
) -> None:
    found = implied_parameters(overlap, displacement)
    assert found == pytest.approx((low, high), abs=0.01)
    corners = [2 * (1 - float(overlap) + e) / (float(displacement) + d) for e in (-5e-5, 5e-5) for d in (-5e-10, 5e-10)]
    assert found == pytest.approx((min(corners), max(corners)))
    widths = {"784-100-100-10": (784, 100, 100, 10), "784-100-100-10-10": (784, 100, 100, 10, 10)}
    sizes = {name: sum((a + 1) * b for a, b in itertools.pairwise(w)) for name, w in widths.items()}
    assert sizes == {"784-100-100-10": 89_610, "784-100-100-10-10": 89_720}
    assert [name for name, size in sizes.items() if Region(*found).holds(size, size)] == ["784-100-100-10-10"]


@pytest.mark.parametrize(("overlap", "displacement"), [("1.5", "2e-5"), ("0.05", "0"), ("-0.2", "2e-5")])
def test_digits_that_imply_no_number_are_refused(overlap: str, displacement: str) -> None:
    with pytest.raises(ValueError, match="imply no number"):
        implied_parameters(overlap, displacement)
    with pytest.raises(ValueError, match="no finite number"):
        rounding_interval("nan")
