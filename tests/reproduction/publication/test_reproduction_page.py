"""The page's numbers, from a claims table and figures of a few rows."""

import numpy as np
import pandas as pd
import pytest

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
        "dataset": "MNIST",
        "optimizer": ["adam", "adam", "adam", "sgd"],
        "scaling": ["unit", "unit", "unit", "unit"],
        "init": "xavier_uniform",
        "seed": [0, 1, 2, 0],
        "complete": [1, 1, 0, 1],
        "ipr": [0.02, 0.04, 9.0, 1e-4],
        "displacement": [1e-5, 1e-5, 1e-5, 1e-6],
        "tau": 2e-5,
        "gradient_alignment": [0.25, 0.35, 9.0, 0.125],
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


def displacement_rows(seed: int, plateau: tuple[float, float, float]) -> pd.DataFrame:
    """D_1 and the displacement of the spans of two and of three vectors, flat at their plateaus."""
    first, plane, span = plateau
    columns = {"displacement": [first, 9.0, 9.0], "subspace_displacement": [first, plane, span]}
    grid = [(tw, lag, i, seed) for tw in (0, 10, 100) for lag in (1, 10, 100) for i in (1, 2, 3)]
    rows = pd.DataFrame(grid, columns=["waiting_time", "lag", "i", "seed"])
    values = {name: [column[i - 1] for i in rows["i"]] for name, column in columns.items()}
    return rows.assign(dataset="MNIST", optimizer="adam", variant="main", **values)


DISPLACEMENT = pd.concat([displacement_rows(0, (8e-6, 2e-6, 3e-6)), displacement_rows(1, (1.2e-5, 4e-6, 3e-6))])
NUMBERS = Numbers(
    claims=CLAIMS,
    record=RECORD,
    scale="steps 100000, seeds 3",
    plotted={"fig16": ENTRIES, "figS1": SENSITIVITY, "figS2": NULLS, "figS3": ACCURACY},
    causes=(),
    displacement=DISPLACEMENT,
)


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
        ("reading first unit xavier_uniform adam ipr", "0.0300 [0.0200, 0.0400]"),
        ("reading first unit xavier_uniform sgd gradient_alignment", "0.125 [0.125, 0.125]"),
        ("reading first unit xavier_normal adam ipr", "not drawn"),
        ("reading last unit xavier_uniform adam ipr", "not drawn"),
        # Of the seed that both have.
        ("reading first unit xavier_uniform adam-over-sgd ipr", "200 [200, 200]"),
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
    # The run that ended early is left out.
    assert (
        "| MNIST | adam | unit | xavier\\_uniform | 2 | 0.0300 [0.0200, 0.0400] | 0.500 [0.500, 0.500] "
        "| 0.300 [0.250, 0.350] |" in sensitivity
    )
    assert "| MNIST | sgd | unit | xavier\\_uniform | 1 | 1.00e-04 [1.00e-04, 1.00e-04] | 0.0500" in sensitivity
    assert "| MNIST | sphere | 0.00270 | 0.00280 |" in between("null_models")
    # Lag 0 is no movement at all.
    assert "| MNIST | sgd | 0.250 |" in between("accuracy")
    bare = Numbers(CLAIMS, RECORD, "", {}, (), DISPLACEMENT)
    for name in ("sensitivity", "null_models", "accuracy", "layers"):
        assert between(name, bare) == "\nNot drawn from these runs.\n"
    assert between("reading first unit xavier_uniform adam ipr", bare) == "not drawn"


def test_plateaus_of_the_spans_are_in_units_of_the_baseline() -> None:
    tau = {"claim": "null-model", "part": "displacement", "dataset": "MNIST", "value": 2e-5}
    claims = pd.concat([CLAIMS, pd.DataFrame([tau])], ignore_index=True)
    text = between("exchanges", Numbers(claims, RECORD, "", {}, (), DISPLACEMENT))
    assert "| dataset | optimizer | v\\_1 | span of v\\_1, v\\_2 | span of v\\_1 to v\\_3 |\n" in text
    assert "| MNIST | adam | 0.500 [0.400, 0.600] | 0.150 [0.100, 0.200] | 0.150 [0.150, 0.150] |\n" in text


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
        ("reading first unit xavier_uniform adam", "takes PLACE SCALING INIT OPTIMIZER and one of ipr"),
        ("reading first unit xavier_uniform adam weight", "takes PLACE SCALING INIT OPTIMIZER and one of ipr"),
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
    assert r"| 1 | v\_1 \| \*all\* \< 1 | not reproduced |" in between(
        "verdicts", Numbers(claims, RECORD, "", {}, (), DISPLACEMENT)
    )
