"""Read paper/primary_tests.yaml: the one test that decides each headline, claim and statement, ready to be measured."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reproduction.claims.evidence import Evidence
from reproduction.claims.grading import (
    Region,
    combined,
    difference_to_paper,
    grade_estimate,
    outside_p_value,
    outside_p_value_of,
    t_estimate,
)
from reproduction.claims.primary_quantities import MEASURES
from reproduction.claims.quantities.baseline import baseline_overlap
from reproduction.claims.rounding import implied_parameters
from reproduction.claims.statistics import Estimate, estimate
from reproduction.errors import ConfigError, nearest
from reproduction.schema import SCHEMAS, check, read_document, read_schema, with_text_keys

SCHEMA = SCHEMAS / "primary_tests.schema.yaml"
# The one quantity that is no mean of values: it comes with its own interval.
OVERLAP = "baseline_overlap"


@dataclass(frozen=True)
class PrimaryTest:
    """One test. `regions` maps a dataset's role to its region; `units` is the number of values that are expected."""

    id: str
    statement: str
    quantity: str
    measure: str
    log: bool
    unit: str
    replication: str
    units: int
    regions: Mapping[str, Region]
    direction: Region | None
    paper: Mapping[str, float]
    means: Mapping[str, str]
    blind: Mapping[str, bool]


@dataclass(frozen=True)
class PrimaryTests:
    """All tests by id, and what they decide: names of headlines and numbers of claims -> ids."""

    tests: Mapping[str, PrimaryTest]
    headlines: Mapping[str, tuple[str, ...]]
    claims: Mapping[int, tuple[str, ...]]
    statements: tuple[str, ...]
    holm: tuple[str, ...]
    level: float
    seen: tuple[Mapping[str, Any], ...] = field(default=())


def load_primary_tests(path: str | os.PathLike[str]) -> PrimaryTests:
    """The tests of a YAML file; `ConfigError` names what in it is wrong."""
    return parse_primary_tests(read_document(path), where=Path(path).name)


def parse_primary_tests(content: Any, *, where: str = "primary tests") -> PrimaryTests:
    """`load_primary_tests` for content that is already read."""
    document = with_text_keys(content)
    check(document, read_schema(SCHEMA), where, example="paper/primary_tests.yaml")
    tests: dict[str, PrimaryTest] = {}
    for entry in document["tests"]:
        if entry["id"] in tests:
            raise ConfigError(f"{where}: test {entry['id']!r} is given twice")
        tests[entry["id"]] = _test(entry, f"{where}: {entry['id']}", int(document["power"]["units"]))
    found = PrimaryTests(
        tests=tests,
        headlines={name: tuple(ids) for name, ids in document["headlines"].items()},
        claims={int(number): tuple(ids) for number, ids in document["claims"].items()},
        statements=tuple(document["statements"]),
        holm=tuple(document["holm"]["tests"]),
        level=float(document["holm"]["level"]),
        seen=tuple(document["seen"]),
    )
    _check_names(found, where)
    return found


def _test(entry: Mapping[str, Any], where: str, units: int) -> PrimaryTest:
    if entry["measure"] not in (*MEASURES, OVERLAP):
        raise ConfigError(f"{where}.measure: {entry['measure']!r} is not known{nearest(entry['measure'], MEASURES)}")
    for key in ("blind", "paper_digits"):
        if key in entry and set(entry[key]) != set(entry["datasets"]):
            raise ConfigError(f"{where}.{key}: give each of {', '.join(entry['datasets'])} and no other")
    if not set(entry.get("paper", {})) <= set(entry["datasets"]):
        raise ConfigError(f"{where}.paper: a dataset that is none of {', '.join(entry['datasets'])}")
    if entry["measure"] == OVERLAP and set(entry.get("paper", {})) != set(entry["datasets"]):
        raise ConfigError(f"{where}.paper: a difference to the paper needs its value for every dataset")
    log = entry["scale"] == "log"
    regions = {name: _region(entry, name, where, log=log) for name in entry["datasets"]}
    direction = _ends(entry["direction"], f"{where}.direction", log=log) if "direction" in entry else None
    if direction is not None and not all(_reaches(region, direction) for region in regions.values()):
        raise ConfigError(f"{where}.direction: it must hold the whole region")
    return PrimaryTest(
        id=entry["id"],
        statement=" ".join(entry["statement"].split()),
        quantity=" ".join(entry["quantity"].split()),
        measure=entry["measure"],
        log=log,
        unit=entry["unit"],
        replication=entry["replication"],
        units=int(entry.get("units", units)),
        regions=regions,
        direction=direction,
        paper=dict(entry.get("paper", {})),
        means=dict(entry["means"]),
        blind=dict(entry["blind"]),
    )


def _region(entry: Mapping[str, Any], dataset: str, where: str, *, log: bool) -> Region:
    if "region" in entry:
        return _ends(entry["region"], f"{where}.region", log=log)
    digits = entry["paper_digits"][dataset]
    low, high = implied_parameters(digits["tau"], digits["tau_1"])
    return Region(low, high)


def _ends(given: Mapping[str, float], where: str, *, log: bool) -> Region:
    if log and any(end <= 0 for end in given.values()):
        raise ConfigError(f"{where}: on a logarithmic scale an end lies above 0")
    try:
        return Region(float(given.get("above", -math.inf)), float(given.get("below", math.inf)))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _reaches(region: Region, direction: Region) -> bool:
    """Whether the direction holds the region, and more."""
    return direction.above <= region.above and region.below <= direction.below and direction != region


def _check_names(found: PrimaryTests, where: str) -> None:
    deciding = {
        "headlines": [i for ids in found.headlines.values() for i in ids],
        "claims": [i for ids in found.claims.values() for i in ids],
        "statements": list(found.statements),
        "holm.tests": list(found.holm),
    }
    for key, ids in deciding.items():
        for name in ids:
            if name not in found.tests:
                raise ConfigError(f"{where}: {key}: {name!r} is no test{nearest(name, found.tests)}")
    if unused := sorted(set(found.tests) - {name for ids in deciding.values() for name in ids}):
        raise ConfigError(f"{where}: test {unused[0]!r} decides nothing")
    if sorted(found.holm) != sorted(deciding["headlines"]):
        raise ConfigError(f"{where}: holm.tests: give the tests of the headlines, each once")


def measured(test: PrimaryTest, evidence: Evidence, role: str) -> Estimate:
    """What a test measures on the dataset that plays a role, with its interval."""
    dataset = evidence.dataset_of[role]
    if test.measure == OVERLAP:
        return difference_to_paper(estimate(baseline_overlap(evidence, dataset)), test.paper[role])
    by_unit = MEASURES[test.measure](evidence, dataset)
    if test.replication == "none":
        value = next(iter(by_unit.values()), math.nan)
        return Estimate(value, value, value, 0)
    return t_estimate(by_unit, log=test.log)


def p_value(test: PrimaryTest, evidence: Evidence) -> float:
    """Largest p-value among a test's datasets, of the hypothesis that the truth lies outside the region."""
    return max(
        outside_p_value_of(measured(test, evidence, role), region)
        if test.measure == OVERLAP
        else outside_p_value(MEASURES[test.measure](evidence, evidence.dataset_of[role]), region, log=test.log)
        for role, region in test.regions.items()
    )


def grades_of(test: PrimaryTest, evidence: Evidence) -> dict[str, tuple[str, str]]:
    """Role of a dataset -> grade and reason; `combined` makes one of them."""
    return {
        role: grade_estimate(measured(test, evidence, role), region, test.direction)
        for role, region in test.regions.items()
    }


def grade_of(test: PrimaryTest, evidence: Evidence) -> str:
    """The grade of a test over its datasets, before Holm's method."""
    return combined(given for given, _ in grades_of(test, evidence).values())
