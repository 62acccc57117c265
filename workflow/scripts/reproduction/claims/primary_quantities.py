"""What the primary tests of paper/primary_tests.yaml measure: one number a seed from the tables of one results folder.

Every function has the signature `measure(evidence, dataset)` and returns seed -> value; `dataset` is a configured name.
A value is on its natural scale: a ratio is a ratio, and the logarithm that its test asks for is taken afterwards. NaN
stands where a run lacks what is needed, and a seed that one side of a pair lacks is not there.

The grid: the snapshots at equal intervals, which are those of the alignment table. T: the last step of a run.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

from reproduction.claims.evidence import Evidence
from reproduction.claims.quantities.alignment import Kind
from reproduction.claims.quantities.displacement import (
    displacement_plateau,
    two_time_alignment,
    weight_displacement_difference,
)
from reproduction.claims.quantities.localization import entry_range
from reproduction.claims.quantities.registry import rows
from reproduction.claims.quantities.solutions import concordance
from reproduction.claims.quantities.sweeps import FULL_BATCH, sweep_variants
from reproduction.claims.quantities.training import first_before_third_share, lowest_train_loss
from reproduction.experiment.labels import MAIN
from reproduction.statistics.localization import final_ipr, tail
from reproduction.statistics.rows import by_seed, geometric_mean, mean, values
from reproduction.statistics.two_time import Curve, at_lag, common_lags, curves, late_waiting_time

BySeed = dict[int, float]
NAN = math.nan
OPTIMIZERS = ("sgd", "adam", "sam")
# Waiting times of the ageing slope, and steps of trends and roughness, begin at these shares of T.
AGEING_FROM, TREND_FROM = 0.01, 0.1
DENSE_PAIRS = 15


def _seedwise(sides: Iterable[Mapping[int, float]], combine: Callable[..., float]) -> BySeed:
    """`combine` of the values of every seed that all sides have."""
    listed = list(sides)
    common = set(listed[0]).intersection(*listed[1:]) if listed else set()
    return {seed: float(combine(*(side[seed] for side in listed))) for seed in sorted(common)}


def _ratio(first: float, second: float) -> float:
    return first / second if second > 0 else NAN


def _geometric(*numbers: float) -> float:
    return geometric_mean(np.array(numbers)) if all(number > 0 for number in numbers) else NAN


def _mean(*numbers: float) -> float:
    return math.fsum(numbers) / len(numbers)


def _names(evidence: Evidence, roles: Iterable[str] = OPTIMIZERS) -> list[str]:
    """Configured names of optimizer roles; a role without an optimizer keeps its name, which no row has."""
    return [evidence.optimizer_of.get(role, role) for role in roles]


def on_grid(evidence: Evidence, frame: pd.DataFrame, dataset: str, optimizer: str, variant: str = MAIN) -> pd.DataFrame:
    """The rows of a table of snapshots that lie on the grid, main runs of one optimizer."""
    grid = rows(evidence.alignment, dataset, optimizer, variant)
    if frame.empty or grid.empty:
        return frame.iloc[:0]
    kept = set(zip(grid["seed"], grid["step"], strict=True))
    chosen = rows(frame, dataset, optimizer, variant)
    return chosen[[key in kept for key in zip(chosen["seed"], chosen["step"], strict=True)]]


# --- displacement ---


def _plateau(evidence: Evidence, dataset: str, role: str, variant: str = MAIN) -> BySeed:
    (name,) = _names(evidence, [role])
    return dict(displacement_plateau(evidence, dataset, optimizer=name, variant=variant).by_seed or {})


def plateau_adam_over_sgd(evidence: Evidence, dataset: str) -> BySeed:
    """Late plateau of D_1 under Adam over that under SGD (plateau: mean of D_1 over the last third of log lag)."""
    return _seedwise([_plateau(evidence, dataset, "adam"), _plateau(evidence, dataset, "sgd")], _ratio)


def plateau_adam_minus_sgd(evidence: Evidence, dataset: str) -> BySeed:
    """Late plateau of D_1 under Adam minus that under SGD, in units of tau_1."""
    return _seedwise([_plateau(evidence, dataset, "adam"), _plateau(evidence, dataset, "sgd")], float.__sub__)


def plateau_sam_minus_sgd(evidence: Evidence, dataset: str) -> BySeed:
    """Late plateau of D_1 under SAM minus that under SGD, in units of tau_1."""
    return _seedwise([_plateau(evidence, dataset, "sam"), _plateau(evidence, dataset, "sgd")], float.__sub__)


def _log_level(run_curves: Mapping[float, Curve], chosen: Iterable[float]) -> dict[float, float]:
    """t_w -> mean of ln D over the lags of the shortest of the chosen curves that all of them cover."""
    picked = {tw: run_curves[tw] for tw in chosen}
    if len(picked) < 2:
        return {}
    low, high = common_lags(list(picked.values()))
    lags = picked[max(picked)][0]
    lags = lags[(lags >= low) & (lags <= high)]
    if len(lags) < 2:
        return {}
    level = {}
    for tw, curve in picked.items():
        numbers = np.array([at_lag(curve, lag) for lag in lags])
        level[tw] = float(np.log(numbers).mean()) if (numbers > 0).all() else NAN
    return level


def ageing_slope(evidence: Evidence, dataset: str, role: str) -> BySeed:
    """Slope of the mean over all lags of ln D_1(t_w, t_w + t) on ln t_w, over t_w from T/100 to the late one."""
    (name,) = _names(evidence, [role])

    def slope(run: pd.DataFrame) -> float:
        run_curves = curves(run)
        end = float((values(run, "waiting_time") + values(run, "lag")).max())
        chosen = [tw for tw in run_curves if AGEING_FROM * end <= tw <= late_waiting_time(run_curves)]
        level = _log_level(run_curves, chosen)
        if len(level) < 3:
            return NAN
        return float(np.polyfit(np.log(list(level)), list(level.values()), 1)[0])

    return by_seed(rows(evidence.displacement, dataset, name, i=1), slope)


def ageing_slope_sgd(evidence: Evidence, dataset: str) -> BySeed:
    """`ageing_slope` under SGD."""
    return ageing_slope(evidence, dataset, "sgd")


def ageing_slope_adam(evidence: Evidence, dataset: str) -> BySeed:
    """`ageing_slope` under Adam."""
    return ageing_slope(evidence, dataset, "adam")


def ageing_slope_sam(evidence: Evidence, dataset: str) -> BySeed:
    """`ageing_slope` under SAM."""
    return ageing_slope(evidence, dataset, "sam")


def diffusion_adam_over_sgd(evidence: Evidence, dataset: str) -> BySeed:
    """Geometric mean over all waiting times t_w > 0 and all lags of D_1 under Adam over D_1 under SGD."""
    key = ["seed", "waiting_time", "lag"]
    adam, sgd = (rows(evidence.displacement, dataset, name, i=1) for name in _names(evidence, ["adam", "sgd"]))
    if adam.empty or sgd.empty:
        return {}
    joined = adam[[*key, "displacement"]].merge(sgd[[*key, "displacement"]], on=key)
    joined = joined[joined["waiting_time"] > 0]
    return by_seed(joined, lambda run: geometric_mean(values(run, "displacement_x") / values(run, "displacement_y")))


def plateau_ratio_at_learning_rates(evidence: Evidence, dataset: str) -> BySeed:
    """The smallest, over the learning rates of the sweep, of the plateau under Adam over that under SGD."""
    sides = [
        _seedwise([_plateau(evidence, dataset, "adam", name), _plateau(evidence, dataset, "sgd", name)], _ratio)
        for name in sweep_variants(evidence, dataset, "learning rate")
    ]
    return _seedwise(sides, lambda *ratios: NAN if any(map(math.isnan, ratios)) else min(ratios))


# --- localization ---


def _final_ipr(evidence: Evidence, dataset: str, role: str) -> BySeed:
    """Geometric mean of the IPR of v_1 over the last tenth of the grid."""
    (name,) = _names(evidence, [role])
    frame = on_grid(evidence, evidence.ipr, dataset, name)
    frame = frame if frame.empty else frame[frame["i"] == 1]
    return by_seed(frame, final_ipr)


def ipr_adam_over_sgd(evidence: Evidence, dataset: str) -> BySeed:
    """Final IPR of v_1 under Adam over that under SGD."""
    return _seedwise([_final_ipr(evidence, dataset, role) for role in ("adam", "sgd")], _ratio)


def ipr_adam(evidence: Evidence, dataset: str) -> BySeed:
    """Final IPR of v_1 under Adam."""
    return _final_ipr(evidence, dataset, "adam")


def _roughness(evidence: Evidence, dataset: str, role: str) -> BySeed:
    """Root mean square change of ln IPR of v_1 between neighbouring snapshots of the grid, from T/10 on."""
    (name,) = _names(evidence, [role])
    frame = on_grid(evidence, evidence.ipr, dataset, name)
    frame = frame if frame.empty else frame[frame["i"] == 1]

    def rough(run: pd.DataFrame) -> float:
        late = tail(run.sort_values("step"), 1.0 - TREND_FROM)
        changes = np.diff(np.log(values(late, "ipr")))
        return float(np.sqrt((changes**2).mean())) if len(changes) else NAN

    return by_seed(frame, rough)


def ipr_roughness_over_adam(evidence: Evidence, dataset: str) -> BySeed:
    """Geometric mean of the roughness of ln IPR under SGD and SAM, over that under Adam."""
    sides = [_roughness(evidence, dataset, role) for role in OPTIMIZERS]
    return _seedwise(sides, lambda sgd, adam, sam: _ratio(_geometric(sgd, sam), adam))


def ipr_spread_over_indices(evidence: Evidence, dataset: str) -> BySeed:
    """Mean |log10 IPR_i - mean over i| for i = 1..15, mean over optimizers, at each dense snapshot after T/2.

    The key is the step of the snapshot, not a seed: the dense seed is one run.
    """
    sides = []
    for name in _names(evidence):
        frame = rows(evidence.ipr, dataset, name, seed=evidence.dense_seed)
        if frame.empty:
            return {}
        table = frame[frame["i"] <= DENSE_PAIRS].pivot_table(index="step", columns="i", values="ipr").dropna()
        if len(table.columns) < DENSE_PAIRS:
            return {}
        logs = np.log10(table[table.index > table.index.max() / 2].to_numpy(dtype=np.float64))
        spread = np.abs(logs - logs.mean(axis=1, keepdims=True)).mean(axis=1)
        sides.append(dict(zip(map(int, table.index[table.index > table.index.max() / 2]), spread, strict=True)))
    return _seedwise(sides, _mean)


def colour_range_adam_over_sgd(evidence: Evidence, dataset: str) -> BySeed:
    """Largest minus smallest entry of v_1 at the last step, Adam over SGD."""
    sides = [dict(entry_range(evidence, dataset, optimizer=n).by_seed or {}) for n in _names(evidence, ["adam", "sgd"])]
    return _seedwise(sides, _ratio)


# --- alignment ---


def _alignment(
    evidence: Evidence, dataset: str, role: str, kind: Kind, i: int = 1, variant: str = MAIN, after: int = -1
) -> BySeed:
    """Mean over the grid (of the steps above `after`) of the gradient or update alignment with v_i."""
    (name,) = _names(evidence, [role])
    frame = rows(evidence.alignment, dataset, name, variant, i=i)
    frame = frame if frame.empty else frame[frame["step"] > after]
    return by_seed(frame, lambda run: mean(values(run, f"{kind}_alignment")))


def adam_update_over_gradient(evidence: Evidence, dataset: str) -> BySeed:
    """Run mean of the update alignment over run mean of the gradient alignment, i = 1, Adam."""
    return _seedwise([_alignment(evidence, dataset, "adam", kind) for kind in ("update", "gradient")], _ratio)


def adam_update_alignment(evidence: Evidence, dataset: str) -> BySeed:
    """Run mean of the update alignment, i = 1, Adam."""
    return _alignment(evidence, dataset, "adam", "update")


def adam_gradient_alignment(evidence: Evidence, dataset: str) -> BySeed:
    """Run mean of the gradient alignment, i = 1, Adam."""
    return _alignment(evidence, dataset, "adam", "gradient")


def alignment_first_over_third(evidence: Evidence, dataset: str) -> BySeed:
    """Run mean of the gradient alignment with v_1 over that with v_3, geometric mean over the three optimizers."""
    sides = [
        _seedwise([_alignment(evidence, dataset, role, "gradient", i) for i in (1, 3)], _ratio) for role in OPTIMIZERS
    ]
    return _seedwise(sides, _geometric)


def two_time_longest_over_shortest(evidence: Evidence, dataset: str) -> BySeed:
    """Two-time update alignment at the longest over that at the shortest lag, geometric mean over optimizers."""
    sides = []
    for name in _names(evidence):
        ends = [
            dict(two_time_alignment(evidence, dataset, optimizer=name, lags=lags).by_seed or {})
            for lags in ("longest", "shortest")
        ]
        sides.append(_seedwise(ends, _ratio))
    return _seedwise(sides, _geometric)


def full_batch_deviation(evidence: Evidence, dataset: str) -> BySeed:
    """By which factor, either way, the run mean of the gradient alignment under the full batch differs from 128's.

    Of the steps after 0, geometric mean over the three optimizers before the absolute value is taken.
    """
    sides = [
        _seedwise(
            [_alignment(evidence, dataset, role, "gradient", variant=v, after=0) for v in (FULL_BATCH, MAIN)], _ratio
        )
        for role in OPTIMIZERS
    ]
    ratios = _seedwise(sides, _geometric)
    return {seed: max(ratio, 1.0 / ratio) if ratio > 0 else NAN for seed, ratio in ratios.items()}


def alignment_drift(evidence: Evidence, dataset: str) -> BySeed:
    """Change of the alignments over the training, relative to their mean, mean over gradient, update, i and optimizer.

    The slope of a on step / T over steps from T/10 on, divided by the mean there, and averaged with its sign.
    """
    found: dict[int, list[float]] = {}
    for name in _names(evidence):
        frame = rows(evidence.alignment, dataset, name)
        if frame.empty:
            return {}
        for seed, run in frame.groupby("seed"):
            late = tail(run, 1.0 - TREND_FROM)
            drifts = [
                _relative_slope(values(part, "step"), values(part, f"{kind}_alignment"))
                for i, part in late[late["i"] <= 3].groupby("i")
                for kind in ("gradient", "update")
            ]
            found.setdefault(int(str(seed)), []).append(float(np.mean(drifts)))
    return {seed: _mean(*drifts) for seed, drifts in sorted(found.items()) if len(drifts) == len(OPTIMIZERS)}


def _relative_slope(steps: np.ndarray, numbers: np.ndarray) -> float:
    kept = np.isfinite(numbers)
    if kept.sum() < 3:
        return NAN
    return float(np.polyfit(steps[kept] / steps.max(), numbers[kept], 1)[0] / numbers[kept].mean())


# --- training, weights and solutions ---


def loss_adam_over_others(evidence: Evidence, dataset: str) -> BySeed:
    """Lowest training loss under Adam over the lower of those under SGD and SAM."""
    sides = [dict(lowest_train_loss(evidence, dataset, optimizer=name).by_seed or {}) for name in _names(evidence)]
    return _seedwise(sides, lambda sgd, adam, sam: _ratio(adam, min(sgd, sam)))


def _late_mean(evidence: Evidence, frame: pd.DataFrame, dataset: str, role: str, column: str) -> BySeed:
    (name,) = _names(evidence, [role])
    kept = on_grid(evidence, frame, dataset, name)
    if "i" in kept:
        kept = kept[kept["i"] == 1]
    return by_seed(kept, lambda run: mean(values(tail(run), column)))


def accuracy_gain_over_sgd(evidence: Evidence, dataset: str) -> BySeed:
    """Test accuracy, mean over the last tenth of the grid, of Adam (first dataset) or SAM (last one), minus SGD's."""
    best = "adam" if dataset == evidence.dataset_of["MNIST"] else "sam"
    sides = [_late_mean(evidence, evidence.history, dataset, role, "test_accuracy") for role in (best, "sgd")]
    return _seedwise(sides, float.__sub__)


def eigenvalues_fashion_over_mnist(evidence: Evidence, dataset: str) -> BySeed:
    """Run mean of lambda_i over the grid, FashionMNIST over MNIST, geometric mean over i = 1..3 and optimizers."""
    sides = []
    for name, i in itertools.product(_names(evidence), (1, 2, 3)):
        pair = []
        for data in (dataset, evidence.dataset_of["MNIST"]):
            frame = on_grid(evidence, evidence.ipr, data, name)
            frame = frame if frame.empty else frame[frame["i"] == i]
            pair.append(by_seed(frame, lambda run: mean(values(run, "eigenvalue"))))
        sides.append(_seedwise(pair, _ratio))
    return _seedwise(sides, _geometric)


def first_settles_before_third(evidence: Evidence, dataset: str) -> BySeed:
    """Share of optimizers and datasets for which v_1 settles (0.8 for good) before v_3; a tie counts one half."""
    names = tuple(_names(evidence))
    sides = [
        dict(first_before_third_share(evidence, data, optimizers=names).by_seed or {})
        for data in dict.fromkeys(evidence.dataset_of.values())
    ]
    return _seedwise(sides, _mean)


def sharpness_minus_loss_concordance(evidence: Evidence, dataset: str) -> BySeed:
    """Concordance of lambda_1 with test accuracy minus that of the training loss, among a seed's three optimizers.

    All three are means over the last tenth of the grid. Empty where both order every pair of every seed rightly: at
    that ceiling neither can be the better one.
    """
    tables = [
        [_late_mean(evidence, frame, dataset, role, column) for role in OPTIMIZERS]
        for frame, column in (
            (evidence.history, "test_accuracy"),
            (evidence.ipr, "eigenvalue"),
            (evidence.history, "train_loss"),
        )
    ]

    def share(predictor: int) -> BySeed:
        chosen = [*tables[0], *tables[predictor]]
        return _seedwise(chosen, lambda *n: concordance(np.array(n[len(OPTIMIZERS) :]), np.array(n[: len(OPTIMIZERS)])))

    sharpness, loss = share(1), share(2)
    if all(value == 1 for value in (*sharpness.values(), *loss.values())):
        return {}
    return _seedwise([sharpness, loss], float.__sub__)


def weights_alike(evidence: Evidence, dataset: str) -> BySeed:
    """Mean |log10 D_w / D_w on the first dataset| over t_w up to T/10 and all lags, mean over optimizers."""
    sides = [
        dict(
            weight_displacement_difference(
                evidence, dataset, optimizer=name, other_dataset=evidence.dataset_of["MNIST"], window="early"
            ).by_seed
            or {}
        )
        for name in _names(evidence)
    ]
    return _seedwise(sides, _mean)


def weight_growth_at_long_lags(evidence: Evidence, dataset: str) -> BySeed:
    """Slope of ln D_w on ln t over the last decade of lag at the waiting time nearest T/100, mean over optimizers."""
    sides = []
    for name in _names(evidence):

        def slope(run: pd.DataFrame) -> float:
            run_curves = {tw: curve for tw, curve in curves(run, "weight_displacement").items() if tw > 0}
            if not run_curves:
                return NAN
            end = max(tw + lags[-1] for tw, (lags, _) in run_curves.items())
            lags, moved = run_curves[min(run_curves, key=lambda tw: abs(math.log(tw / (AGEING_FROM * end))))]
            last = (lags >= lags[-1] / 10.0) & (moved > 0)
            return float(np.polyfit(np.log(lags[last]), np.log(moved[last]), 1)[0]) if last.sum() > 1 else NAN

        sides.append(by_seed(rows(evidence.weights, dataset, name), slope))
    return _seedwise(sides, _mean)


def barrier_between_solutions(evidence: Evidence, dataset: str) -> BySeed:
    """Largest loss between two solutions over the larger one of the two at its ends, for each pair of optimizers.

    The key is the number of the pair, not a seed: one solution of each optimizer is interpolated.
    """
    frame = evidence.interpolation
    frame = frame if frame.empty else frame[frame["dataset"] == dataset]
    if frame.empty:
        return {}
    found = {}
    for position, (_, pair) in enumerate(frame.groupby(["first", "second"], sort=True)):
        alpha, loss = values(pair, "alpha"), values(pair, "loss")
        between = (alpha >= 0) & (alpha <= 1)
        ends = max(float(loss[np.abs(alpha).argmin()]), float(loss[np.abs(alpha - 1).argmin()]))
        found[position] = _ratio(float(loss[between].max()), ends)
    return found


def configured_parameters(evidence: Evidence, dataset: str) -> BySeed:
    """Number of parameters of the network that was run; the key is 0, since no seed has another one."""
    frame = evidence.baseline
    if frame.empty or "n_parameters" not in frame:
        return {}
    sizes = values(frame[frame["dataset"] == dataset], "n_parameters")
    return {0: float(sizes[0])} if len(sizes) else {}


# Every measuring function by its name, for the key `measure` of a test.
MEASURES: dict[str, Callable[[Evidence, str], BySeed]] = {
    function.__name__: function
    for function in (
        plateau_adam_over_sgd,
        plateau_adam_minus_sgd,
        plateau_sam_minus_sgd,
        ageing_slope_sgd,
        ageing_slope_adam,
        ageing_slope_sam,
        diffusion_adam_over_sgd,
        plateau_ratio_at_learning_rates,
        ipr_adam_over_sgd,
        ipr_adam,
        ipr_roughness_over_adam,
        ipr_spread_over_indices,
        colour_range_adam_over_sgd,
        adam_update_over_gradient,
        adam_update_alignment,
        adam_gradient_alignment,
        alignment_first_over_third,
        two_time_longest_over_shortest,
        full_batch_deviation,
        alignment_drift,
        loss_adam_over_others,
        accuracy_gain_over_sgd,
        eigenvalues_fashion_over_mnist,
        first_settles_before_third,
        sharpness_minus_loss_concordance,
        weights_alike,
        weight_growth_at_long_lags,
        barrier_between_solutions,
        configured_parameters,
    )
}
