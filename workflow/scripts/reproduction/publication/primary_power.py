"""The power of the primary tests, from what had been seen when they were fixed.

python -m reproduction.publication.primary_power          paper/primary_tests_power.csv from the pilot's values
python -m reproduction.publication.primary_power pilot    the pilot's values first, from paper/published

The pilot is the published runs of 784-100-100-10, the network that is not the paper's. Once runs of another network are
published, its values stand in paper/primary_tests_pilot.csv alone.
"""

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from reproduction.claims.evidence import Evidence
from reproduction.claims.grading import Region, t_estimate
from reproduction.claims.power import power_inside, power_of_normal, truth_with_power
from reproduction.claims.primary import OVERLAP, PrimaryTest, PrimaryTests, load_primary_tests
from reproduction.claims.primary_quantities import MEASURES
from reproduction.claims.quantities.baseline import baseline_overlap
from reproduction.errors import DataError, EigendriftError
from reproduction.publication.publish import PAPER, PUBLISHED, published_evidence

TESTS, PILOT, POWER = (PAPER / f"primary_tests{end}" for end in (".yaml", "_pilot.csv", "_power.csv"))
# The power that is asked of a test.
_ENOUGH = 0.8
PILOT_PARAMETERS, PILOT_NAME, PROTOTYPE_NAME = 89_610, "784-100-100-10", "784-100-100-10-10"


def pilot_table(found: PrimaryTests, evidence: Evidence) -> pd.DataFrame:
    """One row a test, dataset and unit: what the pilot's runs give. For tau the ends of its interval are rows too."""
    rows: list[tuple[str, str, str, float]] = []
    for test in found.tests.values():
        for role in test.regions:
            dataset = evidence.dataset_of[role]
            if test.measure == OVERLAP:
                tau = baseline_overlap(evidence, dataset)
                low, high = tau.interval or (math.nan, math.nan)
                rows += [(test.id, role, *pair) for pair in (("tau", tau.pooled), ("low", low), ("high", high))]
            elif test.replication != "none":
                values = MEASURES[test.measure](evidence, dataset)
                rows += [(test.id, role, f"{test.replication} {unit}", value) for unit, value in values.items()]
    return pd.DataFrame(rows, columns=["test", "dataset", "unit", "value"])


def power_table(found: PrimaryTests, pilot: pd.DataFrame) -> pd.DataFrame:
    """The power of every test with at least two values to take a spread from, and of the prototype's beside it."""
    return pd.DataFrame(
        [*_from_pilot(found, pilot), *_from_prototype(found)],
        columns=["test", "dataset", "seen", "values", "mean", "sd", "scale", "truth", "units", "power", "truth_80"],
    )


def _from_pilot(found: PrimaryTests, pilot: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    for test in found.tests.values():
        for role, region in test.regions.items():
            rows = pilot[(pilot["test"] == test.id) & (pilot["dataset"] == role)]
            if test.measure == OVERLAP:
                yield _of_overlap(test, role, region, dict(zip(rows["unit"], rows["value"], strict=True)))
            elif len(rows) > 1:
                yield _row(test, role, region, PILOT_NAME, list(rows["value"]))


def _from_prototype(found: PrimaryTests) -> Iterator[tuple[object, ...]]:
    for given in (entry for seen in found.seen for entry in seen.get("values", [])):
        test = found.tests[given["test"]]
        name = f"{PROTOTYPE_NAME}, {given['what']}"
        yield _row(test, given["dataset"], test.regions[given["dataset"]], name, given["numbers"])


def _row(test: PrimaryTest, role: str, region: Region, seen: str, numbers: list[float]) -> tuple[object, ...]:
    mean = t_estimate(dict(enumerate(numbers)), log=test.log).value
    logs = [math.log(number) if test.log else float(number) for number in numbers]
    sd = float(pd.Series(logs).std(ddof=1))
    truth = test.paper.get(role, mean)
    ends = (math.log(truth), region.log()) if test.log else (truth, region)
    power = power_inside(ends[0], sd, test.units, ends[1])
    enough = truth_with_power(_ENOUGH, sd, test.units, ends[1])
    scale = "log" if test.log else "linear"
    needed = math.exp(enough) if test.log else enough
    return (test.id, role, seen, len(numbers), mean, sd, scale, truth, test.units, power, needed)


def _of_overlap(test: PrimaryTest, role: str, region: Region, tau: dict[str, float]) -> tuple[object, ...]:
    """Two means of 100 networks with equal errors, and no true difference."""
    error = (tau["high"] - tau["low"]) / 2.0 / 1.96 * math.sqrt(2.0)
    mean, count = tau["tau"] - test.paper[role], 100
    power = power_of_normal(0.0, error, region)
    return (test.id, role, PILOT_NAME, count, mean, error, "linear", 0.0, count, power, math.nan)


def main(arguments: list[str]) -> int:
    """Write the table of powers, and with `pilot` the values that it is computed from."""
    try:
        found = load_primary_tests(TESTS)
        if arguments == ["pilot"]:
            _write(PILOT, pilot_table(found, pilot_evidence(PUBLISHED)))
        _write(POWER, power_table(found, pd.read_csv(PILOT)))
    except EigendriftError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def pilot_evidence(published: Path) -> Evidence:
    """The tables of the published runs, if they are the pilot's."""
    evidence = published_evidence(published)
    sizes = set(evidence.baseline["n_parameters"])
    if sizes != {PILOT_PARAMETERS}:
        raise DataError(f"{published}: networks of {sorted(sizes)} parameters; the pilot's had {PILOT_PARAMETERS}")
    return evidence


def _write(path: Path, table: pd.DataFrame) -> None:
    table.to_csv(path, index=False, float_format="%.5g")
    print(f"{path}: {len(table)} rows")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
