"""The table of grades, from chosen values, and what is shown of it."""

import numpy as np
import pandas as pd
import pytest
from claims_frames import alignments, evidence, stack

from reproduction.claims.grades import OTHER_DATA, WHOLE, grade_of_several, grades_table, latex_tables, region_text
from reproduction.claims.grading import CONFIRMED, CONTRADICTED, INCONCLUSIVE, Region
from reproduction.claims.primary import PrimaryTests, load_primary_tests
from reproduction.publication.primary_power import TESTS


@pytest.fixture(name="tests", scope="module")
def _tests() -> PrimaryTests:
    return load_primary_tests(TESTS)


def table_of(
    tests: PrimaryTests, update: list[float], datasets: tuple[str, ...] = ("MNIST", "FashionMNIST")
) -> pd.DataFrame:
    """Grades where all that was measured is Adam's alignment: of the gradient 0.26, of the update one value a seed."""
    runs = [
        alignments(
            gradient=lambda step, i: 0.26, update=lambda step, i, v=value: v, optimizer="adam", seed=seed, dataset=name
        )
        for name in dict.fromkeys(datasets)
        for seed, value in enumerate(update)
    ]
    return grades_table(tests, evidence(datasets=datasets, alignment=stack(runs)))


def rows(table: pd.DataFrame, test: str) -> dict[str, str]:
    own = table[table["test"] == test]
    return dict(zip(own["dataset"], own["grade"], strict=True))


def test_what_was_measured_is_graded_and_the_rest_inconclusive(tests: PrimaryTests) -> None:
    table = table_of(tests, [0.048, 0.05, 0.051, 0.052, 0.049])
    assert set(table["test"]) == set(tests.tests)
    assert set(rows(table, "adam-update").values()) == {CONFIRMED}
    assert set(rows(table, "update-over-gradient").values()) == {CONFIRMED}
    assert rows(table, "plateau-ratio")[WHOLE] == INCONCLUSIVE
    measured = table[(table["test"] == "adam-update") & (table["dataset"] == "MNIST")].iloc[0]
    assert measured["value"] == pytest.approx(np.exp(np.mean(np.log([0.048, 0.05, 0.051, 0.052, 0.049]))))
    assert (measured["n"], measured["n_planned"], measured["paper"]) == (5, 5, 0.05)
    assert grade_of_several(table, ["adam-update", "plateau-ratio"]) == INCONCLUSIVE


def test_one_seed_decides_nothing(tests: PrimaryTests) -> None:
    table = table_of(tests, [0.05])
    assert set(rows(table, "adam-update").values()) == {INCONCLUSIVE}
    assert table.loc[table["test"] == "adam-update", "n"].dropna().unique().tolist() == [1]


def test_a_value_outside_is_contradicted(tests: PrimaryTests) -> None:
    assert rows(table_of(tests, [0.4, 0.41, 0.42, 0.4, 0.41]), "adam-update")[WHOLE] == CONTRADICTED


def test_other_data_are_not_graded(tests: PrimaryTests) -> None:
    table = table_of(tests, [0.05, 0.05, 0.051], datasets=("digits", "digits"))
    assert set(table["grade"]) == {OTHER_DATA}
    assert table["holm_p"].isna().all()


def test_latex_has_each_group(tests: PrimaryTests) -> None:
    text = latex_tables(table_of(tests, [0.05, 0.051]), tests)
    for group in ("headlines", "claims", "statements"):
        body = text.split(f"eigendrift@grades@{group}", 1)[1].split("eigendrift@grades@", 1)[0]
        expected = sum(len(tests.tests[name].regions) for name in _ids(tests, group))
        assert body.count(r"\textcolor") == expected, group


def _ids(tests: PrimaryTests, group: str) -> list[str]:
    if group == "statements":
        return list(tests.statements)
    of = tests.headlines if group == "headlines" else tests.claims
    return list(dict.fromkeys(name for ids in of.values() for name in ids))


def test_regions_in_words() -> None:
    assert [region_text(r) for r in (Region(above=2), Region(below=0.5), Region(0.05, 0.2))] == [
        "> 2",
        "< 0.5",
        "0.05 to 0.2",
    ]
