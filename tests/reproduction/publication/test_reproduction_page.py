"""The page's numbers, from a claims table and figures of a few rows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reproduction.claims.primary import load_primary_tests
from reproduction.errors import DataError
from reproduction.publication.reproduction_page import Numbers, fill_page

CLAIMS = pd.DataFrame(
    {
        "claim": ["falls", "falls", "falls", "null"],
        "part": ["claim", "below", "below", "claim"],
        "number": [1, 1, 1, 12],
        "title": ["It falls", "It falls", "It falls", "A null model"],
        "dataset": [np.nan, "MNIST", "FashionMNIST", np.nan],
        "value": [np.nan, 0.5, 0.25, np.nan],
        "low": [np.nan, 0.4, 0.2, np.nan],
        "high": [np.nan, 0.6, np.nan, np.nan],
        "paper_value": [np.nan, 0.26, np.nan, np.nan],
        "verdict": ["not reproduced", "reproduced", "not reproduced", "direction only"],
        "note": ["1 reproduced, 1 not reproduced", "", "", ""],
    }
)
RECORD = {
    "config": {"datasets": ["MNIST", "FashionMNIST"], "optimizers": {"sgd": {}, "adam": {}}},
    "hours": {"train": 1.25, "fig01": 0.01, "eigensnapshot": 2.0},
    "device": "cpu",
    "versions": {"torch": "2.11.0"},
    "commit": "0123456789abcdef",
}
SENSITIVITY = pd.DataFrame(
    {
        "fingerprint": ["ipr_adam", "ipr_adam", "gap", "gap"],
        "dataset": "MNIST",
        "variant": ["main", "unit", "main", "unit"],
        "value": [0.025, np.nan, 1e-4, 0.02],
        "paper": [0.1, 0.1, np.nan, np.nan],
        "distance": [2.0, np.nan, 0.0, 1.25],
    }
)
NULLS = pd.DataFrame(
    {
        "dataset": "MNIST",
        "source": ["sphere"] * 4,
        "i": [1, 1, 2, 2],
        "mean_overlap": [0.0027, 0.0027, 0.0028, 0.0028],
        "overlap": [0.1, 0.2, 0.3, 0.4],
    }
)
ACCURACY = pd.DataFrame(
    {"dataset": "MNIST", "optimizer": "sgd", "i": [1, 1, 1], "lag": [0, 10, 100], "within": [1.0, 0.5, 0.0]}
)
ENTRIES = pd.DataFrame(
    {"dataset": "MNIST", "optimizer": "adam", "layer": [1, 1, 2], "entry": [0.5, -0.5, np.sqrt(0.5)]},
)


EXCHANGES = pd.DataFrame(
    {
        "dataset": "MNIST",
        "optimizer": ["sgd", "adam", "adam"],
        **{f"late_{name}{end}": [0.25, 0.5, 0.5] for name in ("v1", "plane", "span") for end in ("", "_min", "_max")},
        **{
            f"{name}{end}": [np.nan, 0.125, 0.125]
            for name in ("late_direction", "decided")
            for end in ("", "_min", "_max")
        },
        "exchange": [np.nan, 0.75, 0.75],
        "exchange_min": [np.nan, 0.7, 0.7],
        "exchange_max": [np.nan, 0.8, 0.8],
    }
)
TESTS = load_primary_tests(Path(__file__).parents[3] / "paper" / "primary_tests.yaml")
HEAD = {"statement": "It is 0.1.", "test": "ipr-adam", "decides": "H2b, claim 6", "reason": ""}
GRADES = pd.DataFrame(
    [
        {**HEAD, "dataset": "MNIST", "value": 0.09, "low": 0.07, "high": 0.12, "n": 5, "grade": "confirmed"},
        {**HEAD, "dataset": "FashionMNIST", "value": 0.3, "low": 0.15, "high": 0.6, "n": 3, "grade": "inconclusive"},
        {**HEAD, "dataset": "all", "grade": "inconclusive"},
    ]
).assign(paper=[0.1, 0.1, np.nan], region="0.05 to 0.2", n_planned=5)


def made(**changes: Any) -> Numbers:
    """What a page is filled from, with these changes."""
    given: dict[str, Any] = {
        "claims": CLAIMS,
        "record": RECORD,
        "scale": "steps 100000, seeds 3",
        "plotted": {"fig16": ENTRIES, "figS1": SENSITIVITY, "figS2": NULLS, "figS3": ACCURACY, "figS4": EXCHANGES},
        "causes": (),
        "grades": GRADES,
        "tests": replace(TESTS, headlines={"H2b": ("ipr-adam",)}),
        "missing": "none",
        "n_parameters": 89_720,
    }
    return Numbers(**{**given, **changes})


NUMBERS = made()


def filled(mark: str, numbers: Numbers = NUMBERS) -> str:
    return fill_page(f"before <!-- {mark} -->old\ntext<!-- / --> after", numbers)


def between(mark: str, numbers: Numbers = NUMBERS) -> str:
    return filled(mark, numbers).removeprefix(f"before <!-- {mark} -->").removesuffix("<!-- / --> after")


@pytest.mark.parametrize(
    ("mark", "text"),
    [
        ("value falls below first", "0.500 [0.400, 0.600]"),
        ("value falls below last", "0.250"),
        ("paper falls below first", "0.26"),
        ("verdict falls below first", "reproduced"),
        ("verdict falls", "not reproduced"),
        ("verdict null", "direction only"),
        ("grade ipr-adam", "*inconclusive*"),
        ("measured ipr-adam first", "0.0900 [0.0700, 0.1200]"),
        ("missing", "All main and sweep runs are here."),
    ],
)
def test_one_number(mark: str, text: str) -> None:
    assert between(mark) == text


def test_all_verdicts() -> None:
    text = between("verdicts")
    assert "2 claims: 0 reproduced, 1 direction only, 1 not reproduced, 0 not assessed at this scale." in text
    assert "Their 2 parts: 1 reproduced, 0 direction only, 1 not reproduced, 0 not assessed at this scale." in text
    assert "| 1 | It falls | not reproduced | 1 reproduced, 1 not reproduced |\n" in text
    assert text.count("\n|") == 4


def test_the_runs() -> None:
    text = between("runs")
    assert "steps 100000, seeds 3" in text
    assert "3.3 hours of one core: eigensnapshot 2.0, train 1.2" in text
    assert "device cpu, torch 2.11.0, commit `0123456789ab`" in text


def test_the_supplement() -> None:
    sensitivity = between("sensitivity")
    assert "| number | dataset | paper | main | unit |" in sensitivity
    assert "| ipr\\_adam | MNIST | 0.1 | 0.025 (2.0) |  |" in sensitivity
    assert "| gap | MNIST |  | 0.0001 (0.0) | 0.02 (1.2) |" in sensitivity
    assert "| MNIST | sphere | 0.00270 | 0.00280 |" in between("null_models")
    # Lag 0 is no movement at all.
    assert "| MNIST | sgd | 0.250 |" in between("accuracy")
    for name in ("sensitivity", "null_models", "accuracy", "layers", "exchanges"):
        assert between(name, made(plotted={})) == "\nNot drawn from these runs.\n"


def test_how_much_is_exchange() -> None:
    text = between("exchanges")
    assert "| MNIST | adam | 0.500 [0.500, 0.500] | 0.125 [0.125, 0.125] |" in text
    assert "| 0.750 [0.700, 0.800] | 0.125 [0.125, 0.125] |\n" in text
    # Without the table of identities nothing is said of the direction.
    assert "| MNIST | sgd | 0.250 [0.250, 0.250] | -- |" in text


def test_a_graded_statement_shows_each_dataset_and_how_many_seeds_there_are() -> None:
    (row,) = [line for line in between("grades headlines").splitlines() if "It is" in line]
    cells = row.strip("| ").split(" | ")
    assert cells[0] == "It is 0.1."
    assert cells[1] == "0.1 (asked: 0.05 to 0.2)"
    assert cells[2] == "MNIST: 0.0900 [0.0700, 0.1200]<br>FashionMNIST: 0.300 [0.150, 0.600], 3 of 5"
    assert cells[3] == "inconclusive (MNIST: confirmed; FashionMNIST: inconclusive)"


def test_another_network_and_missing_runs_are_said() -> None:
    config = {**RECORD["config"], "model": {"hidden": [100, 100]}}  # type: ignore[dict-item]
    other = made(n_parameters=89_610, record={**RECORD, "config": config}, missing="2 of 30 main runs")
    assert "89 610" in between("network", other)
    assert between("network", other) != between("network", made(record={**RECORD, "config": config}))
    assert "2 of 30 main runs" in between("missing", other)


def test_the_final_eigenvector_layer_by_layer() -> None:
    text = between("layers")
    assert "| share of squares, layer 2 | part of the IPR, layer 1 |" in text
    assert "| MNIST | adam | 0.50 | 0.50 | 0.125 | 0.250 |\n" in text


def test_what_is_not_marked_stays_and_filling_again_changes_nothing() -> None:
    page = "# Title\n<!-- a remark -->\n<!-- verdict null --><!-- / -->, <!-- value falls below first -->x<!-- / -->.\n"
    page = page.replace("<!-- a remark -->", "<!-- a remark! -->")
    once = fill_page(page, NUMBERS)
    assert once.startswith("# Title\n<!-- a remark! -->\n<!-- verdict null -->direction only<!-- / -->, ")
    assert fill_page(once, NUMBERS) == once


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("value falls above first", "no part above of claim falls on the first dataset"),
        ("value falls below middle", "no part below of claim falls on the middle dataset"),
        ("value falls", "takes CLAIM PART PLACE"),
        ("verdict rises", "no claim rises"),
        ("cause 1", "takes the NUMBER of a claim with a cause"),
        ("grades all", "takes one of headlines"),
        ("grade nothing", "takes the id of a primary TEST"),
        ("measured ipr-adam middle", "takes the id of a primary TEST"),
        ("colour falls", "unknown; known are value, paper"),
    ],
)
def test_a_mark_that_names_nothing_is_an_error(mark: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        filled(mark)
    assert f"<!-- {mark} -->" in str(error.value)


def test_a_mark_that_is_not_closed_swallows_nothing() -> None:
    with pytest.raises(DataError, match="not closed"):
        fill_page("<!-- verdict null --> all of this, and <!-- verdict falls -->x<!-- / -->\n", NUMBERS)
    with pytest.raises(DataError, match="not closed"):
        fill_page("<!-- verdict null --> to the end\n", NUMBERS)


def test_text_in_tables_is_shown_as_it_is() -> None:
    claims = CLAIMS.assign(title="v_1 | *all* < 1")
    assert r"| 1 | v\_1 \| \*all\* \< 1 | not reproduced |" in between("verdicts", made(claims=claims))
