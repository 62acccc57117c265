"""The claims file, the verdicts, the intervals and the tables of claims."""

import copy
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from claims_frames import alignments, baseline, evidence, history, pairs, stack, two_times
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from reproduction.claims.definition import load_claims, parse_claims
from reproduction.claims.evidence import Evidence
from reproduction.claims.quantities import QUANTITIES
from reproduction.claims.report import CLAIMS_UNITS, claims_table, latex, markdown, with_symbols
from reproduction.claims.rounding import implied_parameters
from reproduction.claims.scoring import VERDICTS, Part, ScoredClaim, score_claims
from reproduction.claims.statistics import COVERAGE, Measurement, bootstrap_interval, estimate, paired
from reproduction.errors import ConfigError
from reproduction.experiment.figure_catalogue import FIGURES
from reproduction.files.tables import read_table, write_table

CLAIMS_FILE = Path(__file__).parents[3] / "paper" / "claims.yaml"
LABELS = {"MNIST": "MNIST", "FashionMNIST": "FashionMNIST", "sgd": "SGD", "adam": "Adam", "sam": "SAM"}
TEST: dict[str, Any] = {
    "id": "high",
    "quantity": "test_accuracy",
    "params": {"optimizer": "sgd"},
    "comparison": ">",
    "threshold": 0.9,
    "unit": "1",
}
CLAIM: dict[str, Any] = {
    "id": "accuracy",
    "number": 1,
    "title": "SGD is accurate",
    "statement": "The accuracy under SGD is high.",
    "figures": [5],
    "datasets": ["MNIST"],
}


def document(*tests: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A claims file with one claim and these tests, each TEST with changes; None removes a key."""
    entries = [{key: value for key, value in {**TEST, **test}.items() if value is not None} for test in tests or ({},)]
    return {"claims": [{**CLAIM, "tests": entries, **changes}]}


def accuracies(*values: float, optimizer: str = "sgd", dataset: str = "MNIST", **changes: Any) -> pd.DataFrame:
    """Final test accuracies, one seed each."""
    return stack(
        history(test_accuracy=value, optimizer=optimizer, dataset=dataset, seed=seed, **changes)
        for seed, value in enumerate(values)
    )


def score(found: Evidence, *tests: dict[str, Any], **changes: Any) -> ScoredClaim:
    return score_claims(parse_claims(document(*tests, **changes)), found, LABELS)[0]


def part_of(found: Evidence, test: dict[str, Any], **changes: Any) -> Part:
    (part,) = score(found, test, **changes).parts
    return part


# --- the shipped file ---


def test_shipped_file_holds_the_claims() -> None:
    claims = load_claims(CLAIMS_FILE)
    assert [claim.number for claim in claims] == list(range(1, len(claims) + 1))
    assert {figure for claim in claims for figure in claim.figures} == set(FIGURES) - {12, 19}
    causes = load_claims(CLAIMS_FILE.with_name("causes.yaml"))
    used = {test.quantity for claim in (*claims, *causes) for test in claim.tests}
    assert used == set(QUANTITIES)


def test_shipped_claim_3_is_claims_1_and_2_on_fashion() -> None:
    first, second, third = load_claims(CLAIMS_FILE)[:3]
    assert [t.id for t in third.tests] == [t.id for t in (*first.tests, *second.tests)]
    assert {t.datasets for t in third.tests} == {("FashionMNIST",)}
    assert {t.datasets for t in (*first.tests, *second.tests)} == {("MNIST",)}


def test_shipped_tests_need_the_papers_scale() -> None:
    small = evidence(history=accuracies(0.9, 0.91, 0.92, steps=(0, 3000)), datasets=("digits", "digits_noisy"))
    verdicts = {p.verdict for c in score_claims(load_claims(CLAIMS_FILE), small, {}) for p in c.parts}
    assert verdicts == {"not assessed at this scale"}
    scored = score_claims(load_claims(CLAIMS_FILE), small, {})
    assert {claim.verdict for claim in scored} == {"not assessed at this scale"}


def test_shipped_parameter_counts_are_what_the_paper_s_digits_leave() -> None:
    digits = {"MNIST": ("0.0523", "2.1125e-5"), "FashionMNIST": ("0.0492", "2.1194e-5")}
    null_model = next(claim for claim in load_claims(CLAIMS_FILE) if claim.id == "null-model")
    counts = [test for test in null_model.tests if test.quantity == "network_parameters"]
    assert [test.datasets for test in counts] == [("MNIST",), ("FashionMNIST",)]
    for test in counts:
        low, high = implied_parameters(*digits[test.datasets[0]])
        assert test.strict.bounds == (math.floor(10 * low) / 10, math.ceil(10 * high) / 10)
        # The digits are those that the claim's other tests hold.
        for quantity, printed in zip(
            ("baseline_overlap", "baseline_displacement"), digits[test.datasets[0]], strict=True
        ):
            (other,) = (one for one in null_model.tests if one.quantity == quantity)
            assert other.paper[test.datasets[0]] == float(printed)


@pytest.mark.parametrize(("size", "verdict"), [(89_720, "reproduced"), (89_610, "not reproduced")])
def test_the_network_is_scored_by_its_size(size: int, verdict: str) -> None:
    both = stack(baseline(dataset, n=size) for dataset in ("MNIST", "FashionMNIST"))
    steps = accuracies(0.9, 0.91, 0.92, steps=(0, 100_000))
    scored = score_claims(load_claims(CLAIMS_FILE), evidence(history=steps, baseline=both), LABELS)
    (null_model,) = (claim for claim in scored if claim.claim.id == "null-model")
    counts = [part for part in null_model.parts if part.name.startswith("parameter-count")]
    assert [part.estimate.value for part in counts] == [size, size]
    assert {part.verdict for part in counts} == {verdict}


# --- the file's checks ---


def refusal_of(content: Any) -> str:
    """The one line that a claims file is refused with."""
    with pytest.raises(ConfigError) as caught:
        parse_claims(content)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "key", "named"),
    [
        ({"quantity": "test_acuracy"}, "quantity", ("'test_acuracy'", "'test_accuracy'")),
        ({"treshold": 1}, "treshold", ("'threshold'",)),
        ({"params": {"optimiser": "sgd"}}, "params.optimiser", ("'optimizer'",)),
        ({"params": {"optimizer": "sdg"}}, "params.optimizer", ("'sdg'", "sgd, adam, sam")),
        ({"params": {}}, "params.optimizer", ("test_accuracy",)),
        ({"comparison": "=>"}, "comparison", ("'=>'", "within factor")),
        ({"threshold": None}, "threshold", ()),
        ({"tolerance": 0.1}, "tolerance", ("0.1",)),
        ({"threshold": "0.9"}, "threshold", ("'0.9'", "number")),
        ({"threshold": "1e-3"}, "threshold", ("'1e-3'", "1.0e-3")),
        ({"threshold": True}, "threshold", ("True", "number")),
        ({"comparison": "between", "threshold": [2, 1]}, "threshold", ("[2, 1]", "[low, high]")),
        ({"comparison": "between", "threshold": [1, 2, 3]}, "threshold", ("[1, 2, 3]", "2")),
        ({"comparison": "between", "threshold": 1}, "threshold", ("list",)),
        ({"comparison": "within", "threshold": None, "tolerance": 0.1}, "paper.MNIST", ("'within'",)),
        ({"comparison": "within", "threshold": None, "tolerance": 0, "paper": 1}, "tolerance", ("above 0",)),
        ({"comparison": "within factor", "threshold": None, "tolerance": 1, "paper": 1}, "tolerance", ("above 1",)),
        ({"paper": {"CIFAR": 1}}, "paper.CIFAR", ("MNIST, FashionMNIST",)),
        ({"paper": [1]}, "paper", ("[1]", "number")),
        ({"unit": "nat"}, "unit", ("'nat'", "'1'")),
        ({"unit": None}, "unit", ()),
        ({"versus": {"optimizer": "adam"}}, "combine", ()),
        ({"versus": {}, "combine": "ratio"}, "versus", ("1",)),
        ({"versus": {"optimizer": "adam"}, "combine": "sum"}, "combine", ("'sum'", "difference, ratio")),
        ({"each": {"optimizer": "sgd"}}, "each.optimizer", ("list",)),
        ({"each": {"i": [1]}}, "each.i", ("optimizer",)),
        ({"datasets": ["CIFAR"]}, "datasets.0", ("'CIFAR'",)),
        ({"datasets": ["MNIST", "MNIST"]}, "datasets", ("once",)),
        ({"direction": {"comparison": ">", "treshold": 1}}, "direction.treshold", ("'threshold'",)),
        ({"direction": 3}, "direction", ("3", "keys")),
        ({"requires": {"step": 1}}, "requires.step", ("'steps'",)),
        ({"requires": {"steps": -1}}, "requires.steps", ("-1", "0")),
        ({"quantity": "alignment_mean", "params": {"optimizer": "sgd", "kind": "both"}}, "params.kind", ("'both'",)),
        ({"quantity": "ipr_final", "params": {"optimizer": "sgd", "i": 1.5}}, "params.i", ("1.5", "whole")),
    ],
)
def test_wrong_test_is_refused_by_name(change: dict[str, Any], key: str, named: tuple[str, ...]) -> None:
    message = refusal_of(document(change))
    assert message.startswith(f"claims: claims.0 (accuracy).tests.0 (high).{key}: ")
    assert all(word in message for word in named)


@pytest.mark.parametrize(
    ("change", "key", "named"),
    [
        ({"figures": [0]}, "figures.0", ("0", "1")),
        ({"number": "one"}, "number", ("'one'", "whole")),
        ({"tests": []}, "", ()),
        ({"same_tests_as": ["earlier"]}, "same_tests_as", ("'earlier'",)),
        ({"titel": "x"}, "titel", ("'title'",)),
        ({"title": 3}, "title", ("3", "text")),
    ],
)
def test_wrong_claim_is_refused_by_name(change: dict[str, Any], key: str, named: tuple[str, ...]) -> None:
    message = refusal_of(document(**change))
    assert message.startswith(f"claims: claims.0 (accuracy){'.' if key else ''}{key}: ")
    assert all(word in message for word in named)


def test_an_id_is_made_for_file_names() -> None:
    assert refusal_of(document({"id": "Two Words"})).startswith("claims: claims.0 (accuracy).tests.0 (Two Words).id: ")


def test_parts_and_claims_must_differ() -> None:
    with refused(ConfigError, "'high'"):
        parse_claims(document({}, {"threshold": 0.5}))
    twice = document()
    twice["claims"].append(copy.deepcopy(twice["claims"][0]))
    with pytest.raises(ConfigError, match="given twice"):
        parse_claims(twice)


def test_unreadable_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text("claims: [\n")
    with pytest.raises(ConfigError) as caught:
        load_claims(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="No such file"):
        load_claims(tmp_path / "none.yaml")


def test_requirements_are_inherited() -> None:
    content = document({"requires": {"seeds": 1}}, {"id": "other"}, requires={"steps": 7})
    content["requires"] = {"datasets": ["MNIST"], "seeds": 3, "steps": 5}
    first, second = parse_claims(content)[0].tests
    assert (first.requires.steps, first.requires.seeds, first.requires.datasets) == (7, 1, ("MNIST",))
    assert (second.requires.steps, second.requires.seeds) == (7, 3)


def test_each_makes_a_part_for_every_combination() -> None:
    test = {"params": None, "each": {"optimizer": ["sgd", "sam"]}}
    (claim,) = parse_claims(document(test, datasets=["MNIST", "FashionMNIST"]))
    assert [name for name, _ in claim.tests[0].expanded()] == ["high-sgd", "high-sam"]
    parts = score_claims([claim], evidence(), LABELS)[0].parts
    assert [(p.name, p.role) for p in parts] == [
        ("high-sgd", "MNIST"), ("high-sgd", "FashionMNIST"), ("high-sam", "MNIST"), ("high-sam", "FashionMNIST")
    ]  # fmt: skip


# --- verdicts of a part ---


@pytest.mark.parametrize(
    ("values", "test", "verdict"),
    [
        ((0.95, 0.96, 0.97), {}, "reproduced"),
        ((0.80, 0.96, 0.97), {}, "direction only"),  # the mean passes, the interval does not
        ((0.80, 0.81, 0.82), {}, "not reproduced"),
        ((0.80, 0.81, 0.82), {"direction": {"comparison": ">", "threshold": 0.7}}, "direction only"),
        ((0.60, 0.81, 0.63), {"direction": {"comparison": ">", "threshold": 0.7}}, "not reproduced"),
        ((0.80, 0.81, 0.82), {"comparison": "<"}, "reproduced"),
        ((0.80, 0.81, 0.82), {"comparison": "between", "threshold": [0.7, 0.9]}, "reproduced"),
        ((0.60, 0.81, 0.82), {"comparison": "between", "threshold": [0.7, 0.9]}, "direction only"),
        # The paper's value with a tolerance is judged by the mean alone.
        ((0.70, 0.90), {"comparison": "within", "threshold": None, "tolerance": 0.01, "paper": 0.8}, "reproduced"),
        ((0.70, 0.92), {"comparison": "within", "threshold": None, "tolerance": 0.01, "paper": 0.8}, "not reproduced"),
        ((0.5,), {"comparison": "within factor", "threshold": None, "tolerance": 2, "paper": 1.0}, "reproduced"),
        ((0.49,), {"comparison": "within factor", "threshold": None, "tolerance": 2, "paper": 1.0}, "not reproduced"),
        ((0.5,), {"comparison": "within factor", "threshold": None, "tolerance": 2, "paper": 0.25}, "reproduced"),
        ((0.95,), {}, "reproduced"),  # one seed: the mean alone
        ((0.95, math.nan), {}, "reproduced"),
        ((), {}, "not assessed at this scale"),
    ],
)
def test_verdict(values: tuple[float, ...], test: dict[str, Any], verdict: str) -> None:
    found = evidence(history=accuracies(*values)) if values else evidence()
    assert part_of(found, test).verdict == verdict


@pytest.mark.parametrize(
    ("requires", "note"),
    [
        ({"steps": 200_000}, "100000 of 200000 steps"),
        ({"seeds": 3}, "2 of 3 seeds"),
        ({"k": 15}, "3 of 15 eigenpairs"),
        ({"initializations": 100}, "40 of 100 initializations"),
        ({"datasets": ["MNIST"]}, "digits plays MNIST"),
        ({"steps": 101_000, "seeds": 2, "k": 3, "initializations": 40, "datasets": ["FashionMNIST"]}, ""),
    ],
)
def test_below_the_required_scale_a_part_is_shown_but_not_judged(requires: dict[str, Any], note: str) -> None:
    found = evidence(
        history=accuracies(0.95, 0.97, dataset="digits"),
        ipr=pairs(dataset="digits"),
        baseline=baseline("digits", initializations=40),
        datasets=("digits", "FashionMNIST"),
    )
    part = part_of(found, {"requires": requires})
    assert part.estimate.value == pytest.approx(0.96)
    assert part.verdict == ("not assessed at this scale" if note else "reproduced")
    assert note in "; ".join(part.notes)


def test_an_optimizer_that_is_not_configured_is_named() -> None:
    found = evidence(history=accuracies(0.95), roles={"sgd": "sgd"})
    part = part_of(found, {"versus": {"optimizer": "sam"}, "combine": "difference"})
    assert (part.verdict, part.notes[0]) == ("not assessed at this scale", "no optimizer plays sam")


def test_roles_are_played_by_configured_names() -> None:
    found = evidence(history=accuracies(0.95, optimizer="my_sgd"), roles={"sgd": "my_sgd"})
    assert part_of(found, {}).estimate.value == 0.95


def test_one_dataset_plays_both_roles() -> None:
    found = evidence(history=accuracies(0.95), datasets=("MNIST",))
    parts = score(
        found, {"requires": {"datasets": ["MNIST", "FashionMNIST"]}}, datasets=["MNIST", "FashionMNIST"]
    ).parts
    assert [p.verdict for p in parts] == ["reproduced", "not assessed at this scale"]
    assert parts[1].estimate.value == 0.95


def test_versus_compares_seed_by_seed() -> None:
    found = evidence(history=stack([accuracies(0.9, 0.8, 0.7), accuracies(0.85, 0.75, optimizer="adam")]))
    part = part_of(found, {"versus": {"optimizer": "adam"}, "combine": "difference"})
    assert part.estimate.value == pytest.approx(0.05)
    assert part.estimate.n_seeds == 2
    assert "1 seed(s) without a partner" in part.notes
    ratio = part_of(found, {"versus": {"optimizer": "adam"}, "combine": "ratio"})
    assert ratio.estimate.value == pytest.approx((0.9 / 0.85 + 0.8 / 0.75) / 2)
    assert ratio.quantity == "final test accuracy (SGD) over that of Adam"


def test_versus_another_dataset() -> None:
    found = evidence(history=stack([accuracies(0.9), accuracies(0.6, dataset="FashionMNIST")]))
    part = part_of(found, {"versus": {"dataset": "FashionMNIST"}, "combine": "ratio"})
    assert part.estimate.value == pytest.approx(1.5)


# --- verdict of a claim ---


@pytest.mark.parametrize(
    ("thresholds", "verdict"),
    [
        ((0.5, 0.6), "reproduced"),
        ((0.5, 0.953), "direction only"),
        ((0.5, None), "not assessed at this scale"),
        ((0.953, None), "not assessed at this scale"),
        ((0.5, 0.953, None, 0.99), "not reproduced"),
    ],
)
def test_a_claim_is_as_strong_as_its_weakest_part(thresholds: tuple[float | None, ...], verdict: str) -> None:
    """Of seeds 0.95 and 0.96: 0.5 reproduced, 0.953 direction only, 0.99 not reproduced, None beyond the scale."""
    tests = [
        {"id": f"part-{n}", "threshold": t or 0.5, "requires": {"seeds": 0 if t else 9}}
        for n, t in enumerate(thresholds)
    ]
    assert score(evidence(history=accuracies(0.95, 0.96)), *tests).verdict == verdict


# --- what is left out ---


def test_diverged_runs_are_left_out_and_counted() -> None:
    frames = [accuracies(0.9, 0.8), history((1.0, math.nan), 0.1, seed=2), history(test_accuracy=0.2, seed=3)]
    found = evidence(history=stack(frames), diverged=[("MNIST", "sgd", "main", 3), ("MNIST", "sgd", "sweep", 4)])
    part = part_of(found, {})
    assert part.estimate.value == pytest.approx(0.85)
    assert "left out: 2 diverged run(s)" in part.notes


def test_unconverged_pairs_are_left_out_and_counted() -> None:
    frame = pairs(lambda step, i: 1e-3 if step < 100_000 else 1.0)
    frame.loc[frame["step"] == 100_000, "converged"] = 0
    test = {"quantity": "ipr_final", "comparison": "<"}
    part = part_of(evidence(ipr=frame), test)
    assert part.estimate.value == pytest.approx(1e-3)
    assert "left out: 1 row(s) of unconverged eigenpairs" in part.notes  # of i = 1 alone


def test_weight_displacement_needs_no_eigenvector() -> None:
    frame = two_times(lambda tw, lag: 1.0)
    frame["converged"] = 0
    found = evidence(displacement=stack([frame, frame.assign(dataset="FashionMNIST")]))
    assert found.displacement.empty
    test = {
        "quantity": "weight_displacement_difference",
        "params": {"optimizer": "sgd", "other_dataset": "FashionMNIST", "window": "early"},
        "comparison": "<",
        "unit": "decades",
    }
    assert part_of(found, test).estimate.value == 0.0


def test_missing_alignments_are_passed_over() -> None:
    frame = alignments(lambda step, i: math.nan if step == 0 else 0.3)
    test = {"quantity": "alignment_mean", "params": {"optimizer": "sgd", "kind": "gradient"}}
    assert part_of(evidence(alignment=frame), test).estimate.value == pytest.approx(0.3)


# --- intervals ---


def test_bootstrap_interval_of_two_values_is_their_range() -> None:
    assert bootstrap_interval([3.0, 1.0]) == (1.0, 3.0)


def test_bootstrap_interval_agrees_with_scipy() -> None:
    from scipy.stats import bootstrap

    sample = np.random.default_rng(1).normal(2.0, 1.0, size=12)
    theirs = bootstrap((sample,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(2))
    width = float(np.ptp(theirs.confidence_interval))
    assert bootstrap_interval(sample.tolist()) == pytest.approx(tuple(theirs.confidence_interval), abs=0.03 * width)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8))
def test_bootstrap_interval_lies_in_the_range_and_ignores_order(sample: list[float]) -> None:
    low, high = bootstrap_interval(sample)
    slack = 1e-9 * (1 + max(map(abs, sample)))
    assert min(sample) - slack <= low <= high <= max(sample) + slack
    assert bootstrap_interval(sample[::-1]) == (low, high)


@pytest.mark.parametrize("sample", [[1.0], [], [1.0, math.nan]])
def test_bootstrap_refuses_what_it_cannot_resample(sample: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more finite values"):
        bootstrap_interval(sample)


@pytest.mark.parametrize("n", sorted(COVERAGE))
def test_stated_coverage(n: int) -> None:
    """The share of normal samples whose interval holds the true mean is what the notes say."""
    samples = np.random.default_rng(n).standard_normal((400, n))
    hits = [low <= 0 <= high for low, high in (bootstrap_interval(sample.tolist()) for sample in samples)]
    assert 100 * np.mean(hits) == pytest.approx(COVERAGE[n], abs=7)  # three standard errors of 400 samples


def test_estimate_says_what_few_seeds_can_tell() -> None:
    assert estimate(Measurement(by_seed={0: 1.0})).notes == ("one seed: no interval",)
    three = estimate(Measurement(by_seed={0: 1.0, 1: 2.0, 2: 3.0}))
    assert (three.value, three.low, three.high) == (2.0, 1.0, 3.0)
    assert three.notes == ("3 seeds: the interval is the range of the seeds and covers about 75%, not 95%",)
    assert estimate(Measurement(by_seed=dict.fromkeys(range(40), 1.0))).notes == ()
    lost = estimate(Measurement(by_seed={0: 1.0, 7: math.nan}))
    assert (lost.value, lost.n_seeds, lost.has_interval) == (1.0, 1, False)
    assert "no value for seed 7" in lost.notes


def test_pooled_values_keep_their_own_interval() -> None:
    own = estimate(Measurement(pooled=1.0, interval=(0.5, 2.0), n_pooled=4))
    assert (own.value, own.low, own.high, own.n_seeds) == (1.0, 0.5, 2.0, 4)
    assert paired(Measurement(pooled=6.0), Measurement(pooled=3.0), ratio=True).pooled == 2.0


def test_ratio_to_zero_is_no_value() -> None:
    assert math.isnan(estimate(paired(Measurement(by_seed={0: 1.0}), Measurement(by_seed={0: 0.0}), ratio=True)).value)


# --- tables ---


def _scored() -> tuple[ScoredClaim, ...]:
    content = document({}, {"id": "low", "threshold": 0.99, "direction": {"comparison": ">", "threshold": 0.9}})
    content["claims"][0]["title"] = "v_1 & |50%| of D_1"
    return score_claims(parse_claims(content), evidence(history=accuracies(0.95, 0.97, 0.96)), LABELS)


def test_claims_table_round_trip(tmp_path: Path) -> None:
    table = claims_table(_scored())
    write_table(tmp_path / "claims.csv", table, kind="claims", identity={}, units=CLAIMS_UNITS)
    back = read_table(tmp_path / "claims.csv", kind="claims")
    assert list(back.columns) == list(CLAIMS_UNITS)
    assert back["part"].tolist() == ["claim", "high", "low"]
    assert back["verdict"].tolist() == ["direction only", "reproduced", "direction only"]
    assert back["note"][0] == "1 reproduced, 1 direction only"
    assert [back[name][1] for name in ("value", "low", "high", "n_seeds")] == pytest.approx([0.96, 0.95, 0.97, 3])
    assert back["test"][2] == "> 0.99; direction: > 0.9"
    assert set(back["verdict"]) <= set(VERDICTS)


def test_markdown_has_every_part_and_escapes_cells() -> None:
    text = markdown(_scored(), LABELS, {"steps": 3000, "n_seeds": 3})
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 3 + 4
    assert r"v\_1 & \|50%\| of D\_1" in text
    assert "0.960 [0.950, 0.970]" in text
    assert "steps 3000, seeds 3" in text
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows[:3]} == {6}
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows[3:]} == {10}


def test_latex_has_two_tables_with_every_part() -> None:
    text = latex(_scored(), LABELS, {"steps": 3000})
    assert text.count(r"\begin{longtable}") == text.count(r"\end{longtable}") == 2
    assert r"\label{tab:claims}" in text
    assert r"\label{tab:parts}" in text
    assert r"\ensuremath{0.960} \ensuremath{[0.950, 0.970]}" in text
    assert r"\textbf{1. $v_{1}$ \& \ensuremath{|}50\%\ensuremath{|} of $D_{1}$: direction only}" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v_1 to v_15,", "$v_{1}$ to $v_{15}$,"),
        ("lambda_1 (tau_1)", r"$\lambda_{1}$ ($\tau_{1}$)"),
        ("batch_size", r"batch\_size"),
        ("of order 1e-4 and", r"of order \ensuremath{1\times 10^{-4}} and"),
        ("t_w > 0", r"$t_{w}$ \ensuremath{>} 0"),
    ],
)
def test_symbols(text: str, expected: str) -> None:
    assert with_symbols(text) == expected


def test_shipped_file_is_strict_yaml_without_repeated_keys() -> None:
    class Strict(yaml.SafeLoader):
        pass

    def no_repeats(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"line {node.start_mark.line + 1}: a key is given twice"
        return loader.construct_mapping(node, deep=True)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, no_repeats)
    yaml.load(CLAIMS_FILE.read_text(encoding="utf-8"), Loader=Strict)


def test_roles_that_are_not_the_papers_are_refused() -> None:
    with refused(ConfigError, "'lion'", "sgd, adam, sam"):
        evidence(roles={"lion": "lion"})
    with pytest.raises(ConfigError, match="roles: 'no dataset'"):
        evidence(datasets=[])
