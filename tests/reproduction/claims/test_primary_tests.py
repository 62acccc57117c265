"""paper/primary_tests.yaml against its schema, the functions that measure, and the power that stands beside it."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from claims_frames import evidence, run_rows, stack
from experiments import CLAIM_NUMBERS

from reproduction.claims.definition import load_claims
from reproduction.claims.evidence import Evidence
from reproduction.claims.grading import CONFIRMED, CONTRADICTED, GRADES, INCONCLUSIVE, LEVEL, SIZE_NOT, Region
from reproduction.claims.primary import (
    OVERLAP,
    grade_of,
    grades_of,
    load_primary_tests,
    measured,
    p_value,
    parse_primary_tests,
)
from reproduction.claims.primary_quantities import (
    MEASURES,
    accuracy_gain_over_sgd,
    ageing_slope_sgd,
    barrier_between_solutions,
    ipr_adam,
    ipr_adam_over_sgd,
    plateau_adam_over_sgd,
    sharpness_minus_loss_concordance,
    weight_growth_at_long_lags,
)
from reproduction.errors import ConfigError, DataError
from reproduction.publication.primary_power import PILOT, POWER, TESTS, main, pilot_evidence, pilot_table, power_table
from reproduction.publication.publish import PUBLISHED

DATASETS = ("MNIST", "FashionMNIST")
OPTIMIZERS = ("sgd", "adam", "sam")


@pytest.fixture(name="document")
def _document() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(TESTS.read_text(encoding="utf-8"))
    return content


# --- the shipped file ---


def test_every_claim_headline_and_statement_is_decided() -> None:
    found = load_primary_tests(TESTS)
    assert sorted(found.claims) == CLAIM_NUMBERS
    assert sorted(claim.number for claim in load_claims(TESTS.with_name("claims.yaml"))) == sorted(found.claims)
    # One test decides; only ageing, which the paper states of three optimizers alike, is a conjunction of three.
    assert {number for number, ids in found.claims.items() if len(ids) != 1} == {2}
    assert list(found.headlines) == ["H1", "H2", "H2b", "H3", "H4", "H5", "H6"]
    assert len(found.headlines["H3"]) == 3
    assert set(found.holm) == {name for ids in found.headlines.values() for name in ids}
    assert found.level == pytest.approx(LEVEL)
    assert not set(found.statements) & {name for ids in found.claims.values() for name in ids}


def test_headlines_are_on_both_datasets() -> None:
    found = load_primary_tests(TESTS)
    for name in found.holm:
        assert tuple(found.tests[name].regions) == DATASETS


def test_grades_and_words_are_those_of_the_code(document: dict[str, Any]) -> None:
    assert set(document["grades"]) == set(GRADES)
    assert all(" ".join(text.split()).endswith(".") for text in document["grades"].values())
    assert "not reproduced" not in TESTS.read_text(encoding="utf-8")


def test_every_measure_is_used_and_says_what_it_is(document: dict[str, Any]) -> None:
    assert {entry["measure"] for entry in document["tests"]} == {*MEASURES, OVERLAP}
    assert all(function.__doc__ for function in MEASURES.values())


def test_the_paper_s_value_lies_in_its_region() -> None:
    for test in load_primary_tests(TESTS).tests.values():
        for role, value in test.paper.items():
            number = 0.0 if test.measure == OVERLAP else value
            assert test.regions[role].holds(number, number), test.id


def test_the_paper_s_ratio_is_that_of_its_numbers(document: dict[str, Any]) -> None:
    tests = {entry["id"]: entry for entry in document["tests"]}
    ratio = tests["adam-update"]["paper"]["MNIST"] / tests["adam-gradient"]["paper"]["MNIST"]
    assert tests["update-over-gradient"]["paper"]["MNIST"] == pytest.approx(ratio, abs=5e-5)


def test_the_network_is_tested_by_the_paper_s_digits() -> None:
    test = load_primary_tests(TESTS).tests["parameter-count"]
    for region in test.regions.values():
        assert region.holds(89_720, 89_720)
        assert region.excludes(89_610, 89_610)


# --- the file's checks ---


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("tests", 0, "region"), {"above": 2, "below": 1}, "no region"),
        (("tests", 0, "region"), {}, "region"),
        (("tests", 0, "region"), {"abov": 2}, "abov"),
        (("tests", 0, "region"), {"above": 0}, "an end lies above 0"),
        (("tests", 0, "direction"), {"above": 3}, "must hold the whole region"),
        (("tests", 0, "direction"), {"above": 2}, "must hold the whole region"),
        (("tests", 0, "direction"), {"above": 0.5, "below": 9}, "direction"),
        (("tests", 0, "measure"), "plateau_adam_over_sdg", "did you mean 'plateau_adam_over_sgd'"),
        (("tests", 0, "scale"), "decibel", "decibel"),
        (("tests", 0, "blind"), {"MNIST": True}, "give each of MNIST, FashionMNIST"),
        (("tests", 0, "id"), "ipr-ratio", "given twice"),
        (("tests", 0, "reason"), "so", "reason"),
        (("claims", "7"), ["no-such-test"], "'no-such-test' is no test"),
        (("claims", "7"), [], "claims.7"),
        (("claims", "19"), ["loss"], "19"),
        (("claims", "7"), None, "claims"),
        (("headlines", "H6"), None, "H6"),
        (("statements",), ["ipr-smooth"], "decides nothing"),
        (("holm", "tests"), ["tau"], "give the tests of the headlines"),
        (("holm", "level"), 0.05, "0.025"),
        (("grades", "inconclusive"), None, "inconclusive"),
        (("seen",), [], "seen"),
        (("date",), "yesterday", "yesterday"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(
    document: dict[str, Any], path: tuple[str | int, ...], value: Any, message: str
) -> None:
    changed: Any = copy.deepcopy(document)
    changed["claims"] = {str(number): ids for number, ids in changed["claims"].items()}
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    with pytest.raises(ConfigError) as error:
        parse_primary_tests(changed)
    assert message in str(error.value)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        load_primary_tests(tmp_path / "nowhere.yaml")
    (tmp_path / "broken.yaml").write_text("tests: [", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load_primary_tests(tmp_path / "broken.yaml")


# --- power ---


def test_power_is_that_of_the_values_that_had_been_seen() -> None:
    again = power_table(load_primary_tests(TESTS), pd.read_csv(PILOT))
    pd.testing.assert_frame_equal(pd.read_csv(POWER), again, rtol=1e-3, atol=1e-4, check_dtype=False)


def test_the_pilot_is_what_the_published_tables_give() -> None:
    config = json.loads((PUBLISHED / "provenance.json").read_text(encoding="utf-8"))["config"]
    if config["model"]["hidden"] != [100, 100]:
        with pytest.raises(DataError, match="the pilot's had 89610"):
            pilot_evidence(PUBLISHED)
        return
    again = pilot_table(load_primary_tests(TESTS), pilot_evidence(PUBLISHED))
    pd.testing.assert_frame_equal(pd.read_csv(PILOT), again, rtol=1e-3, check_dtype=False)


def test_the_command_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("reproduction.publication.primary_power.TESTS", Path("no-such-file.yaml"))
    assert main([]) == 1
    assert "no-such-file.yaml" in capsys.readouterr().err


def test_the_command_writes_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("reproduction.publication.primary_power.POWER", tmp_path / "power.csv")
    assert main([]) == 0
    assert (tmp_path / "power.csv").read_bytes() == POWER.read_bytes()
    assert "power.csv" in capsys.readouterr().out


# --- quantities ---


def two_time(level: dict[str, float], *, ageing: float = 0.0, seeds: int = 2, dataset: str = "MNIST") -> pd.DataFrame:
    """D_1 = level t_w^ageing at all lags, D_w = lag^0.9."""
    waiting = (0.0, 100.0, 1000.0, 10_000.0, 50_000.0)
    frames = []
    for name, height in level.items():
        for seed in range(seeds):
            rows = [(tw, lag) for tw in waiting for lag in 10.0 ** np.arange(5) if tw + lag <= 100_000]
            rows += [(50_000.0, 50_000.0)]
            tw, lag = np.array(rows).T
            columns = {
                "waiting_time": tw,
                "lag": lag,
                "i": 1,
                "displacement": height * np.where(tw > 0, tw, 1.0) ** ageing,
                "weight_displacement": lag**0.9,
                "update_alignment": 0.1 / lag,
                "converged": 1,
            }
            frames.append(run_rows(columns, optimizer=name, seed=seed, dataset=dataset))
    return stack(frames)


BASELINE = pd.DataFrame(
    {
        "dataset": ["MNIST", "FashionMNIST"],
        "n_parameters": 89_720,
        "i": 1,
        "mean_overlap": [0.0524, 0.0560],
        "overlap_low": [0.0514, 0.0550],
        "overlap_high": [0.0534, 0.0570],
        "displacement": 2e-5,
        "displacement_low": 1.9e-5,
        "displacement_high": 2.1e-5,
        "n_initializations": 100,
    }
)


def snapshots(columns: dict[str, Any], steps: np.ndarray, **key: Any) -> pd.DataFrame:
    return run_rows({"step": steps, **columns}, **key)


def test_plateaus_are_divided_seed_by_seed() -> None:
    found = evidence(displacement=two_time({"adam": 2e-5, "sgd": 5e-6}), baseline=BASELINE)
    assert plateau_adam_over_sgd(found, "MNIST") == pytest.approx({0: 4.0, 1: 4.0})
    assert plateau_adam_over_sgd(found, "FashionMNIST") == {}


def test_ageing_slope_is_the_exponent_of_the_waiting_time() -> None:
    found = evidence(displacement=two_time({"sgd": 1e-6}, ageing=-0.3), baseline=BASELINE)
    assert ageing_slope_sgd(found, "MNIST") == pytest.approx({0: -0.3, 1: -0.3})


def test_growth_of_the_weights_is_the_exponent_of_the_lag() -> None:
    found = evidence(displacement=two_time({"sgd": 1e-6, "adam": 1e-6, "sam": 1e-6}), baseline=BASELINE)
    assert weight_growth_at_long_lags(found, "MNIST") == pytest.approx({0: 0.9, 1: 0.9})


def grid_tables(ipr: dict[str, float], *, between: float) -> dict[str, pd.DataFrame]:
    """Snapshots every 10 000 steps, and one more at 95 000 that is not on the grid, where the IPR is `between`."""
    grid, every = np.arange(0, 100_001, 10_000), np.array([*range(0, 100_001, 10_000), 95_000])
    aligned = {"i": 1, "gradient_alignment": 0.2, "update_alignment": 0.1, "convergence": 1.0, "converged": 1}
    alignment = [snapshots(aligned, grid, optimizer=name, seed=seed) for name in ipr for seed in (0, 1)]
    pair = {"i": 1, "eigenvalue": 1.0, "converged": 1}
    pairs = [
        snapshots({**pair, "ipr": np.where(every == 95_000, between, height)}, every, optimizer=name, seed=seed)
        for name, height in ipr.items()
        for seed in (0, 1)
    ]
    return {"alignment": stack(alignment), "ipr": stack(pairs)}


def test_final_ipr_is_that_of_the_grid() -> None:
    found = evidence(**grid_tables({"adam": 0.1, "sgd": 1e-4}, between=1.0))
    assert ipr_adam(found, "MNIST") == pytest.approx({0: 0.1, 1: 0.1})
    assert ipr_adam_over_sgd(found, "MNIST") == pytest.approx({0: 1000.0, 1: 1000.0})


def histories(accuracy: dict[str, float], loss: dict[str, float]) -> pd.DataFrame:
    grid = np.arange(0, 100_001, 10_000)
    return stack(
        snapshots({"train_loss": loss[name], "test_accuracy": accuracy[name]}, grid, optimizer=name, seed=seed)
        for name in accuracy
        for seed in (0, 1)
    )


def test_accuracy_is_that_of_the_optimizer_that_the_paper_puts_first() -> None:
    tables = grid_tables({"sgd": 1e-4, "adam": 0.1, "sam": 1e-4}, between=1.0)
    history = histories({"sgd": 0.97, "adam": 0.98, "sam": 0.975}, {"sgd": 1, "adam": 1, "sam": 1})
    found = evidence(history=history, **tables)
    assert accuracy_gain_over_sgd(found, "MNIST") == pytest.approx({0: 0.01, 1: 0.01})


@pytest.mark.parametrize(
    ("loss", "sharpness", "expected"),
    [
        # Accuracy: adam > sam > sgd. Sharpness orders all three pairs rightly, the loss none.
        ({"sgd": 1, "sam": 2, "adam": 3}, {"sgd": 3, "sam": 2, "adam": 1}, {0: 1.0, 1: 1.0}),
        # Both order all of them rightly: a ceiling, at which they cannot be distinguished.
        ({"sgd": 3, "sam": 2, "adam": 1}, {"sgd": 3, "sam": 2, "adam": 1}, {}),
        ({"sgd": 3, "sam": 2, "adam": 1}, {"sgd": 3, "sam": 1, "adam": 2}, {0: -1 / 3, 1: -1 / 3}),
    ],
)
def test_sharpness_against_loss(
    loss: dict[str, float], sharpness: dict[str, float], expected: dict[int, float]
) -> None:
    tables = grid_tables(dict.fromkeys(OPTIMIZERS, 0.1), between=0.1)
    tables["ipr"]["eigenvalue"] = tables["ipr"]["optimizer"].map(sharpness).astype(float)
    found = evidence(history=histories({"sgd": 0.97, "adam": 0.98, "sam": 0.975}, loss), **tables)
    assert sharpness_minus_loss_concordance(found, "MNIST") == pytest.approx(expected)


def test_barrier_is_over_the_worse_end_and_between_the_two_only() -> None:
    alpha = np.array([-1.0, 0.0, 0.5, 1.0, 2.0])
    interpolation = pd.DataFrame(
        {"dataset": "MNIST", "first": "sgd", "second": "adam", "alpha": alpha, "loss": [9.0, 0.1, 0.6, 0.2, 9.0]}
    )
    assert barrier_between_solutions(evidence(interpolation=interpolation), "MNIST") == pytest.approx({0: 3.0})


def test_nothing_is_measured_on_empty_tables() -> None:
    empty = evidence()
    for name, measure in MEASURES.items():
        for dataset in DATASETS:
            assert measure(empty, dataset) == {}, name


# --- from evidence to a grade ---


def graded(found: Evidence, name: str) -> tuple[dict[str, tuple[str, str]], str, float]:
    test = load_primary_tests(TESTS).tests[name]
    return grades_of(test, found), grade_of(test, found), p_value(test, found)


def test_the_network_is_confirmed_by_its_size() -> None:
    each, whole, _ = graded(evidence(baseline=BASELINE), "parameter-count")
    assert {given for given, _ in each.values()} == {CONFIRMED}
    assert whole == CONFIRMED
    assert graded(evidence(baseline=BASELINE.assign(n_parameters=89_610)), "parameter-count")[1] == CONTRADICTED
    assert graded(evidence(), "parameter-count")[1] == INCONCLUSIVE


def test_tau_is_graded_with_both_errors() -> None:
    test = load_primary_tests(TESTS).tests["tau"]
    found = evidence(baseline=BASELINE)
    close = measured(test, found, "MNIST")
    assert (close.value, close.high - close.value) == pytest.approx((0.0001, 0.001 * math.sqrt(2)))
    each, whole, p = graded(found, "tau")
    assert each["MNIST"][0] == CONFIRMED
    assert each["FashionMNIST"][0] == CONTRADICTED  # 0.0068 away
    assert whole == CONTRADICTED
    assert p > 0.5


def test_a_ratio_is_graded_on_both_datasets() -> None:
    both = stack(
        two_time({"adam": 2e-5, "sgd": 5e-6}, seeds=3, dataset=dataset).assign(
            displacement=lambda rows: rows["displacement"] * (1 + 0.1 * rows["seed"] * (rows["optimizer"] == "adam"))
        )
        for dataset in DATASETS
    )
    found = evidence(displacement=both, baseline=BASELINE)
    each, whole, p = graded(found, "plateau-ratio")
    assert {given for given, _ in each.values()} == {CONFIRMED}
    assert whole == CONFIRMED
    assert p < LEVEL
    # One of the two optimizers is missing on the second dataset.
    lacking = evidence(
        displacement=both[(both["dataset"] == "MNIST") | (both["optimizer"] == "sgd")], baseline=BASELINE
    )
    assert graded(lacking, "plateau-ratio")[1:] == (INCONCLUSIVE, 1.0)


def test_a_small_effect_confirms_the_direction_alone() -> None:
    slopes = stack(
        two_time({"sgd": 1e-6}, ageing=slope, seeds=1, dataset=dataset).assign(seed=seed)
        for dataset in DATASETS
        for seed, slope in enumerate((-0.05, -0.06, -0.055))
    )
    each, whole, _ = graded(evidence(displacement=slopes, baseline=BASELINE), "ageing-sgd")
    assert each["MNIST"] == (SIZE_NOT, "the size is excluded")
    assert whole == SIZE_NOT


def test_regions_of_ratios_are_on_the_scale_of_the_ratio() -> None:
    test = load_primary_tests(TESTS).tests["plateau-ratio"]
    assert test.log
    assert test.regions["MNIST"] == Region(above=2)
