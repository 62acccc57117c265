"""Every measuring function of the claims, on tables whose answer is known."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from claims_frames import alignments, baseline, constant, evidence, history, pairs, stack, two_times, vector

from reproduction.claims.evidence import Evidence
from reproduction.claims.quantities import QUANTITIES
from reproduction.claims.quantities.localization import best_split
from reproduction.claims.quantities.solutions import concordance
from reproduction.claims.quantities.training import settling_time
from reproduction.claims.statistics import Measurement, estimate
from reproduction.statistics.rows import spearman
from reproduction.statistics.two_time import at_lag, last_third, late_waiting_time

TAU = 4e-5
OPTIMIZERS = ("sgd", "adam", "sam")


def _plateau(tw: float, lag: float) -> float:
    """1e-5 at lag 1000 and 3e-5 at lag 5000 of the late waiting time 5000; large wherever it must not be read."""
    return {(5000.0, 1000.0): 1e-5, (5000.0, 5000.0): 3e-5}.get((tw, lag), 1.0)


def _ageing(tw: float, lag: float) -> float:
    """At lag 100: 4e-5 for t_w = 1000, 1e-5 for the late 5000, more for smaller ones; 0.5 at all other lags."""
    return {100: 8e-5, 1000: 4e-5, 5000: 1e-5}.get(int(tw), 9e-5) if lag == 100 else 0.5


def _with_tau(frame: pd.DataFrame) -> Evidence:
    null = baseline()
    null.loc[null["i"] == 1, "displacement"] = TAU
    return evidence(displacement=frame, baseline=null)


def _weights() -> Evidence:
    frames = [
        two_times(lambda tw, lag: 0.0, weights=lambda tw, lag: 2.0, dataset="MNIST"),
        two_times(lambda tw, lag: 0.0, weights=lambda tw, lag: 20.0 if tw <= 1000 else 200.0, dataset="FashionMNIST"),
    ]
    return evidence(displacement=stack(frames))


def _accuracies(by_optimizer: dict[str, tuple[float, ...]]) -> Evidence:
    return evidence(
        history=stack(
            history(test_accuracy=value, optimizer=optimizer, seed=seed)
            for optimizer, values in by_optimizer.items()
            for seed, value in enumerate(values)
        )
    )


def _convergence(settled: dict[str, dict[int, int]]) -> Evidence:
    """Overlaps of 0.5 before a step (by optimizer and i) and 1 from it on."""
    return evidence(alignment=stack(_settling(optimizer, at) for optimizer, at in settled.items()))


def _settling(optimizer: str, at: dict[int, int]) -> pd.DataFrame:
    return alignments(convergence=lambda step, i: 1.0 if step >= at[i] else 0.5, optimizer=optimizer)


def _late_jump(seed: int) -> pd.DataFrame:
    """v_2 turns at step 95 000 times the seed."""
    return alignments(convergence=lambda step, i: 0.5 if i == 2 and step < 95_000 * seed else 1.0, seed=seed)


def _solutions() -> Evidence:
    """Sharpness orders all three pairs as claimed; the training loss only one of them."""
    frame = pd.DataFrame(
        {
            "dataset": "MNIST",
            "optimizer": OPTIMIZERS,
            "seed": 0,
            "test_accuracy": [0.97, 0.98, 0.99],
            "train_loss": [0.1, 0.3, 0.2],
            "lambda_1": [30.0, 10.0, 20.0],
            "sharpness": [3.0, 2.0, 1.0],
        }
    )
    return evidence(solutions=stack([frame.assign(epsilon=1e-3), frame.assign(epsilon=5e-4)]))


def _ending_at(value: float) -> Callable[[float, int], float]:
    return lambda step, i: value if step else 5.0


def _correlated_runs() -> Evidence:
    """Four runs: lambda_1 falls with accuracy (-1), the training loss rises with it (+1)."""
    runs = [("sgd", 0, 0.90), ("sgd", 1, 0.92), ("adam", 0, 0.94), ("adam", 1, 0.96)]
    return evidence(
        history=stack(history((2.0, a), a, optimizer=o, seed=s) for o, s, a in runs),
        ipr=stack(pairs(eigenvalue=_ending_at(1.0 - a), optimizer=o, seed=s) for o, s, a in runs),
    )


def _sweeps() -> Evidence:
    """Final IPR 1e-3 (sgd), 1e-1 (adam), 1e-2 (sam) in main runs; adam below sam in one of the two learning rates."""
    main = {"sgd": 1e-3, "adam": 1e-1, "sam": 1e-2}
    values = {
        "main": main,
        "batch_size-32": {name: 2 * value for name, value in main.items()},
        "batch_size-512": {name: value / 4 for name, value in main.items()},
        "batch_size-full": {name: 100 * value for name, value in main.items()},
        "learning_rate-0.3": main,
        "learning_rate-3": {**main, "adam": 5e-3},
    }
    runs = [(variant, optimizer, value) for variant, named in values.items() for optimizer, value in named.items()]
    return evidence(
        history=stack(history(optimizer=o, variant=v) for v, o, _ in runs),
        ipr=stack(pairs(constant(x), optimizer=o, variant=v) for v, o, x in runs),
        alignment=stack(alignments(constant(x), optimizer=o, variant=v) for v, o, x in runs),
    )


_LAYERS = (("0.weight", (2, 1)), ("0.bias", (2,)), ("2.weight", (3, 2)), ("2.bias", (3,)), ("4.weight", (2, 3)))


def _layered() -> Evidence:
    """Unit 0: active, same sign. Unit 1: active, other sign. Unit 2: below a tenth of layer 3, so not counted."""
    layer_2 = np.array([[0.1, 0.6], [0.5, 0.2], [0.9, 0.9]])
    layer_3 = np.array([[0.8, 0.1, 0.01], [-0.2, -0.7, 0.02]])
    entries = np.concatenate([[7.0, 7.0], [7.0, 7.0], layer_2.ravel(), [7.0, 7.0, 7.0], layer_3.ravel()])
    return evidence(vectors=[vector(entries, _LAYERS)])


def _spans(first: Callable[[float, float], float], plane: Callable[[float, float], float]) -> Evidence:
    """D_1, which is the displacement of the span of v_1, and that of the span of v_1 and v_2."""
    rows = two_times(first)
    spans = {1: rows["displacement"], 2: two_times(plane)["displacement"]}
    return evidence(displacement=stack(rows.assign(i=i, subspace_displacement=span) for i, span in spans.items()))


def _readings() -> Evidence:
    """Final IPR 1e-3 in the main runs, 4e-3 (mean over seeds) and 2e-3 with other readings, 9 in a sweep."""
    values = {
        "main": (1e-3, 1e-3),
        "scaling-unit": (1e-3, 7e-3),
        "init-normal": (2e-3, 2e-3),
        "batch_size-32": (9.0, 9.0),
    }
    runs = [(variant, seed, value) for variant, both in values.items() for seed, value in enumerate(both)]
    return evidence(ipr=stack(pairs(constant(value), variant=variant, seed=seed) for variant, seed, value in runs))


def _accuracy_on_the_way() -> Evidence:
    rows = history((2.0, 1.0, 0.5), test_accuracy=0.9, steps=(0, 50, 100))
    return evidence(history=rows.assign(test_accuracy=[0.1, 0.95, 0.9]))


CASES: list[tuple[str, dict[str, Any], Evidence, float]] = [
    ("displacement_plateau", {"optimizer": "sgd"}, _with_tau(two_times(_plateau)), 0.5),
    ("displacement_growth", {"optimizer": "sgd"}, _with_tau(two_times(_plateau)), 0.5 / math.log10(5)),
    ("ageing_ratio", {"optimizer": "sgd"}, evidence(displacement=two_times(_ageing)), 0.25),
    ("ageing_rank_correlation", {"optimizer": "sgd"}, evidence(displacement=two_times(_ageing)), -1.0),
    (
        "displacement_spread",
        {"optimizer": "sgd", "window": "early"},
        evidence(displacement=two_times(lambda tw, lag: {0: 2.0, 10: 4.0}.get(int(tw), 99.0))),
        2.0 / 3.0,
    ),
    (
        "displacement_spread",
        {"optimizer": "sgd", "window": "late"},
        evidence(displacement=two_times(lambda tw, lag: {100: 2.0, 1000: 3.0, 5000: 4.0}.get(int(tw), 99.0))),
        2.0 / 3.0,
    ),
    (
        "weight_displacement_difference",
        {"optimizer": "sgd", "other_dataset": "FashionMNIST", "window": "early"},
        _weights(),
        1.0,
    ),
    (
        "weight_displacement_difference",
        {"optimizer": "sgd", "other_dataset": "FashionMNIST", "window": "late"},
        _weights(),
        2.0,
    ),
    (
        "two_time_alignment",
        {"optimizer": "sgd", "lags": "shortest"},
        evidence(displacement=two_times(lambda tw, lag: 0.0, alignment=lambda tw, lag: 0.1 if lag == 1 else 0.9)),
        0.1,
    ),
    (
        "two_time_alignment",
        {"optimizer": "sgd", "lags": "longest"},
        evidence(displacement=two_times(lambda tw, lag: 0.0, alignment=lambda tw, lag: 0.02 if lag >= 1000 else 0.9)),
        0.02,
    ),
    (
        "alignment_mean",
        {"optimizer": "sgd", "kind": "gradient", "i": 2},
        evidence(alignment=alignments(lambda step, i: 0.2 * i if step else math.nan)),
        0.4,
    ),
    ("alignment_mean", {"optimizer": "sgd", "kind": "update"}, evidence(alignment=alignments()), 0.2),
    ("update_over_gradient", {"optimizer": "sgd"}, evidence(alignment=alignments()), 2.0 / 3.0),
    (
        "alignment_order",
        {"optimizer": "sgd", "kind": "gradient"},
        evidence(alignment=alignments(lambda step, i: {1: 0.5, 2: 0.3, 3: 0.35}[i])),
        -0.05,
    ),
    (
        "high_index_alignment",
        {"optimizer": "sgd", "kind": "update"},
        evidence(
            alignment=stack(
                [
                    alignments(update=lambda step, i: 0.4 if i < 10 else 0.1, k=15, steps=(0, 100)),
                    alignments(update=lambda step, i: 0.9, k=3, steps=(50,)),
                    alignments(update=lambda step, i: 0.7, k=15, steps=(0, 100), seed=1),
                ]
            )
        ),
        0.25,
    ),
    (
        "ipr_final",
        {"optimizer": "sgd"},
        evidence(ipr=pairs(lambda step, i: {90_000: 1e-4, 100_000: 1e-2}.get(int(step), 1.0) if i == 1 else 0.5)),
        1e-3,
    ),
    (
        "ipr_trend",
        {"optimizer": "sgd"},
        evidence(ipr=pairs(lambda step, i: max(step, 1) ** -0.5, steps=(0, 10, 10_000, 40_000, 100_000))),
        -0.5,
    ),
    (
        "ipr_seed_spread",
        {"optimizer": "sgd"},
        evidence(ipr=stack(pairs(constant(1e-4 * (1 + s)), seed=s) for s in range(3))),
        3.0,
    ),
    (
        "ipr_index_spread",
        {"optimizer": "sgd"},
        evidence(ipr=pairs(lambda step, i: 1e-3 / i if step > 80_000 else 1e-3, k=15)),
        15.0,
    ),
    ("ipr_separation", {"optimizer": "sgd"}, evidence(ipr=pairs(lambda step, i: 1e-2 if i <= 9 else 1e-3, k=15)), 9.0),
    ("entry_range", {"optimizer": "adam"}, evidence(vectors=[vector(np.array([-0.5, 0.0, 0.7]), ())]), 1.2),
    ("layer_sign_agreement", {"optimizer": "adam"}, _layered(), 0.5),
    ("lowest_train_loss", {"optimizer": "sgd"}, evidence(history=history((2.0, 0.1, 0.4), steps=(0, 50, 100))), 0.1),
    (
        "loss_jump",
        {"optimizer": "sgd"},
        evidence(history=history((1e-3, 1.0, 1e-4, 1e-2, 1e-4), steps=(0, 5, 50, 60, 100))),
        2.0,
    ),
    ("test_accuracy", {"optimizer": "sgd"}, evidence(history=history(test_accuracy=0.95)), 0.95),
    (
        "accuracy_separation",
        {"optimizer": "sam", "optimizers": ("sgd", "adam")},
        _accuracies({"sam": (0.99, 0.97), "sgd": (0.90, 0.91), "adam": (0.96, 0.93)}),
        0.01,
    ),
    (
        "eigenvalue_mean",
        {"optimizer": "sgd", "i": 2},
        evidence(ipr=pairs(eigenvalue=lambda step, i: step * i, steps=(0, 10, 20))),
        20.0,
    ),
    (
        "early_convergence_share",
        {"optimizers": ("sgd", "adam")},
        _convergence({"sgd": {1: 0, 2: 10_000, 3: 20_000}, "adam": {1: 90_000, 2: 50_000, 3: 10_000}}),
        0.5,
    ),
    (
        "first_before_third_share",
        {"optimizers": OPTIMIZERS},
        _convergence({"sgd": {1: 0, 2: 0, 3: 9}, "adam": {1: 50_000, 2: 0, 3: 10_000}, "sam": {1: 0, 2: 0, 3: 0}}),
        (1 + 0 + 0.5) / 3,
    ),
    (
        "convergence_roughness",
        {"optimizer": "sgd"},
        evidence(
            alignment=alignments(convergence=lambda step, i: (step / 10_000) % 2 * 0.3 if step < 100_000 else 1.0)
        ),
        0.3,
    ),
    (
        "late_jump_runs",
        {"optimizer": "sgd"},
        evidence(alignment=stack(_late_jump(seed) for seed in range(3))),
        2.0,
    ),
    ("baseline_overlap", {}, evidence(baseline=baseline()), 0.0523),
    ("baseline_displacement", {"i": 2}, evidence(baseline=baseline()), 1.0),
    ("network_parameters", {}, evidence(baseline=baseline(n=89_720)), 89_720.0),
    ("solution_concordance", {"predictor": "sharpness"}, _solutions(), 1.0 - 1.0 / 3.0),
    ("solution_concordance", {"predictor": "lambda_1"}, _solutions(), 2.0 / 3.0 - 1.0 / 3.0),
    ("run_correlation", {}, _correlated_runs(), 1.0 - (-1.0)),
    (
        "batch_size_deviation",
        {"optimizer": "adam", "statistic_name": "gradient alignment", "batches": "full batch"},
        _sweeps(),
        2.0,
    ),
    (
        "batch_size_deviation",
        {"optimizer": "adam", "statistic_name": "IPR", "batches": "mini-batches"},
        _sweeps(),
        math.log10(4),
    ),
    ("ordering_agreement", {"optimizers": OPTIMIZERS, "statistic_name": "IPR", "sweep": "batch size"}, _sweeps(), 1.0),
    # Of three pairs in two variants only (adam, sam) at the higher rate is the other way round.
    (
        "ordering_agreement",
        {"optimizers": OPTIMIZERS, "statistic_name": "IPR", "sweep": "learning rate"},
        _sweeps(),
        5 / 6,
    ),
    ("span_share", {"optimizer": "sgd", "span": 2}, _spans(_plateau, lambda tw, lag: _plateau(tw, lag) / 4), 0.25),
    ("span_ageing_ratio", {"optimizer": "sgd", "span": 2}, _spans(lambda tw, lag: 0.1, _ageing), 0.25),
    (
        "middle_plateau",
        {"optimizer": "sgd"},
        _with_tau(two_times(lambda tw, lag: {(1000.0, 1000.0): 1e-5, (1000.0, 9000.0): 3e-5}.get((tw, lag), 1.0))),
        0.5,
    ),
    (
        "spread_around_first_steps",
        {"optimizer": "sgd", "window": "below"},
        evidence(
            displacement=two_times(lambda tw, lag: {0: 2.0, 5: 4.0}.get(int(tw), 99.0), waiting_times=(0, 5, 10, 100))
        ),
        2.0 / 3.0,
    ),
    (
        "spread_around_first_steps",
        {"optimizer": "sgd", "window": "above"},
        evidence(displacement=two_times(lambda tw, lag: {10: 2.0, 100: 4.0}.get(int(tw), 99.0))),
        2.0 / 3.0,
    ),
    (
        "plane_alignment",
        {"optimizer": "sgd", "kind": "gradient"},
        evidence(alignment=alignments(lambda step, i: {1: 0.1, 2: 0.7, 3: 0.2}[i])),
        0.3,
    ),
    ("largest_reading", {"optimizer": "sgd", "statistic_name": "IPR"}, _readings(), 4e-3),
    (
        "ipr_fluctuation",
        {"optimizer": "sgd"},
        evidence(ipr=pairs(lambda step, i: {90_000: 1e-3, 100_000: 6e-3}.get(int(step), 1.0) if i == 1 else 0.5)),
        6.0,
    ),
    ("best_accuracy", {"optimizer": "sgd"}, _accuracy_on_the_way(), 0.95),
    (
        "half_convergence_share",
        {"optimizers": ("sgd", "adam")},
        _convergence({"sgd": {1: 0, 2: 10_000, 3: 60_000}, "adam": {1: 90_000, 2: 50_000, 3: 70_000}}),
        0.5,
    ),
    ("layer_activity_agreement", {"optimizer": "adam"}, _layered(), 1.0),
]


def measure(name: str, found: Evidence, dataset: str = "MNIST", **params: Any) -> Measurement:
    return QUANTITIES[name].measure(found, dataset, **params)


@pytest.mark.parametrize(
    ("name", "params", "found", "expected"), CASES, ids=[f"{c[0]}-{n}" for n, c in enumerate(CASES)]
)
def test_known_answer(name: str, params: dict[str, Any], found: Evidence, expected: float) -> None:
    assert estimate(measure(name, found, **params)).value == pytest.approx(expected, rel=1e-6)


def test_every_quantity_has_a_case() -> None:
    assert {name for name, *_ in CASES} == set(QUANTITIES)


@pytest.mark.parametrize(("name", "params"), [case[:2] for case in CASES])
def test_no_data_gives_no_value(name: str, params: dict[str, Any]) -> None:
    assert math.isnan(estimate(measure(name, evidence(), **params)).value)


# It reads both datasets.
_OF_ONE_DATASET = [c[:3] for c in CASES if c[0] != "weight_displacement_difference"]


@pytest.mark.parametrize(("name", "params", "found"), _OF_ONE_DATASET)
def test_other_dataset_is_not_read(name: str, params: dict[str, Any], found: Evidence) -> None:
    assert math.isnan(estimate(measure(name, found, "FashionMNIST", **params)).value)


@pytest.mark.parametrize(("name", "params", "found"), [case[:3] for case in CASES])
def test_label_names_every_parameter(name: str, params: dict[str, Any], found: Evidence) -> None:
    assert "{" not in QUANTITIES[name].described(params)


def test_short_run_has_no_late_waiting_time() -> None:
    frame = two_times(lambda tw, lag: 1.0, waiting_times=(0, 8), lags=(1, 2), end=10)
    assert math.isnan(estimate(measure("displacement_plateau", _with_tau(frame), optimizer="sgd")).value)


def test_late_waiting_time_needs_a_decade_and_a_lag_half_its_length() -> None:
    curve = {tw: (np.array(lags, dtype=float), np.ones(len(lags))) for tw, lags in {
        0.0: [1, 100], 40.0: [1, 60], 65.0: [1, 35], 70.0: [1, 30], 60.0: [20, 40]}.items()}  # fmt: skip
    assert late_waiting_time(curve) == 65.0


def test_last_third_of_log_lag() -> None:
    assert last_third(np.array([1.0, 10.0, 99.0, 100.0, 1000.0])).tolist() == [False, False, False, True, True]


def test_values_between_lags_are_linear_in_log_lag() -> None:
    assert at_lag((np.array([10.0, 1000.0]), np.array([1.0, 3.0])), 100.0) == pytest.approx(2.0)


def test_settling_is_for_good() -> None:
    times = np.arange(5.0)
    assert settling_time(times, np.array([0.9, 0.7, 0.9, 0.8, 1.0])) == 2.0
    assert settling_time(times, np.ones(5)) == 0.0
    assert settling_time(times, np.zeros(5)) == 4.0


def test_spearman_agrees_with_scipy_with_ties() -> None:
    from scipy.stats import spearmanr

    first, second = np.array([1.0, 2.0, 2.0, 5.0, 4.0]), np.array([3.0, 1.0, 2.0, 2.0, 9.0])
    assert spearman(first, second) == pytest.approx(float(spearmanr(first, second).statistic))
    assert math.isnan(spearman(np.ones(4), np.arange(4.0)))
    assert math.isnan(spearman(np.arange(2.0), np.arange(2.0)))


def test_concordance_counts_ties_one_half() -> None:
    assert concordance(np.array([1.0, 1.0]), np.array([0.3, 0.2])) == 0.5
    assert concordance(np.array([1.0, 2.0]), np.array([0.3, 0.2])) == 1.0
    assert concordance(np.array([2.0, 1.0]), np.array([0.3, 0.2])) == 0.0


@pytest.mark.parametrize("size", range(2, 14))
def test_best_split_finds_the_step(size: int) -> None:
    noise = 0.01 * np.random.default_rng(size).standard_normal(15)
    assert best_split(np.where(np.arange(15) < size, 1.0, 0.0) + noise) == size


def test_sign_agreement_is_blind_to_the_sign_of_the_vector() -> None:
    found = _layered()
    flipped = vector(-found.vectors[0].last, _LAYERS)
    params = {"optimizer": "adam"}
    assert measure("layer_sign_agreement", evidence(vectors=[flipped]), **params).by_seed == {0: 0.5}


def test_sign_agreement_needs_two_layers() -> None:
    found = evidence(vectors=[vector(np.ones(2), [("0.weight", (2, 1))])])
    assert math.isnan(estimate(measure("layer_sign_agreement", found, optimizer="adam")).value)


def test_without_other_readings_none_is_the_largest() -> None:
    measured = measure("largest_reading", evidence(ipr=pairs()), optimizer="sgd", statistic_name="IPR")
    assert math.isnan(estimate(measured).value)
