"""Losses, accuracies, eigenvalues, and convergence to the final eigenvector."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from reproduction.claims.evidence import Evidence
from reproduction.claims.quantities.registry import quantity, rows
from reproduction.claims.statistics import Measurement
from reproduction.statistics.rows import by_seed, mean, values

# Below this a mean cross-entropy in float32 is rounding.
LOSS_FLOOR = 1e-10
SETTLED = 0.8
EARLY_SHARE = 0.1
LATE_SHARE = 0.9


def _loss(run: pd.DataFrame) -> np.ndarray:
    loss: np.ndarray = np.maximum(values(run.sort_values("step"), "train_loss"), LOSS_FLOOR)
    return loss


@quantity("lowest training loss ({optimizer})", unit="nat", tables=("history",))
def lowest_train_loss(evidence: Evidence, dataset: str, *, optimizer: str) -> Measurement:
    """Smallest training loss of the run's snapshots, at least 1e-10."""
    return Measurement(by_seed=by_seed(rows(evidence.history, dataset, optimizer), lambda run: float(_loss(run).min())))


@quantity("largest jump of the training loss ({optimizer})", unit="decades", tables=("history",))
def loss_jump(evidence: Evidence, dataset: str, *, optimizer: str) -> Measurement:
    """Largest log10 of the training loss over the lowest one reached before it, after the first tenth of the steps."""

    def jump(run: pd.DataFrame) -> float:
        steps, loss = np.sort(values(run, "step")), _loss(run)
        rise = np.log10(loss / np.minimum.accumulate(loss))
        return float(rise[steps >= EARLY_SHARE * steps[-1]].max())

    return Measurement(by_seed=by_seed(rows(evidence.history, dataset, optimizer), jump))


def _last(run: pd.DataFrame, column: str) -> float:
    return float(values(run.sort_values("step"), column)[-1])


@quantity("final test accuracy ({optimizer})", unit="1", tables=("history",))
def test_accuracy(evidence: Evidence, dataset: str, *, optimizer: str) -> Measurement:
    """Test accuracy at the last snapshot, 0 to 1."""
    frame = rows(evidence.history, dataset, optimizer)
    return Measurement(by_seed=by_seed(frame, lambda run: _last(run, "test_accuracy")))


@quantity("worst seed's test accuracy ({optimizer}) minus best of {optimizers}", unit="1", tables=("history",))
def accuracy_separation(evidence: Evidence, dataset: str, *, optimizer: str, optimizers: Sequence[str]) -> Measurement:
    """Smallest final test accuracy of one optimizer's seeds minus the largest of the others' seeds."""
    own, *others = (
        list((test_accuracy(evidence, dataset, optimizer=name).by_seed or {}).values())
        for name in (optimizer, *optimizers)
    )
    if not own or not all(others):
        return Measurement(by_seed={})
    separation = min(own) - max(max(other) for other in others)
    return Measurement(pooled=separation, n_pooled=len(own), notes=("one number for all seeds: no interval",))


@quantity("run mean of lambda_{i} ({optimizer})", unit="1", tables=("ipr",))
def eigenvalue_mean(evidence: Evidence, dataset: str, *, optimizer: str, i: int = 1) -> Measurement:
    """Mean of lambda_i over all snapshots."""
    frame = rows(evidence.ipr, dataset, optimizer, i=i)
    return Measurement(by_seed=by_seed(frame, lambda run: mean(values(run, "eigenvalue"))))


def _convergence_curves(
    evidence: Evidence, dataset: str, optimizer: str, i: int
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """seed -> (steps over the last step, |v_i(t_final) . v_i(t)|), without missing values."""
    found = {}
    frame = rows(evidence.alignment, dataset, optimizer, i=i)
    if frame.empty:
        return {}
    for seed, run in frame.groupby("seed"):
        kept = run[np.isfinite(values(run, "convergence"))].sort_values("step")
        if len(kept) > 2:
            steps = values(kept, "step")
            found[int(str(seed))] = (steps / steps[-1], values(kept, "convergence"))
    return found


def settling_time(times: np.ndarray, overlap: np.ndarray) -> float:
    """First of `times` (n,) from which `overlap` (n,) stays at 0.8 or above; the last time if it never does."""
    below = np.flatnonzero(overlap < SETTLED)
    first = int(below[-1]) + 1 if len(below) else 0
    return float(times[min(first, len(times) - 1)])


def _share(found: dict[int, list[float]], notes: tuple[str, ...] = ()) -> Measurement:
    return Measurement(by_seed={seed: sum(hits) / len(hits) for seed, hits in sorted(found.items())}, notes=notes)


@quantity(
    "share of curves (i = 1..3; {optimizers}) that reach 0.8 in the first tenth of training",
    unit="1",
    tables=("alignment",),
    pairs=(1, 2, 3),
)
def early_convergence_share(evidence: Evidence, dataset: str, *, optimizers: Sequence[str]) -> Measurement:
    """Share of the curves |v_i(t_final) . v_i(t)|, over optimizers and i = 1..3, with a value of 0.8 before T/10."""
    return converged_share(evidence, dataset, optimizers, EARLY_SHARE)


def converged_share(evidence: Evidence, dataset: str, optimizers: Sequence[str], share: float) -> Measurement:
    """`early_convergence_share` within a given share of the steps."""
    found: dict[int, list[float]] = {}
    for optimizer in optimizers:
        for i in (1, 2, 3):
            for seed, (times, overlap) in _convergence_curves(evidence, dataset, optimizer, i).items():
                early = overlap[times <= share]
                found.setdefault(seed, []).append(float(bool(len(early)) and early.max() >= SETTLED))
    return _share(found)


@quantity("share of runs ({optimizers}) in which v_1 settles before v_3", unit="1", tables=("alignment",), pairs=(1, 3))
def first_before_third_share(evidence: Evidence, dataset: str, *, optimizers: Sequence[str]) -> Measurement:
    """Share of the optimizers for which v_1's settling time is before v_3's; a tie counts one half.

    The settling time is the first step from which |v_i(t_final) . v_i(t)| stays at 0.8 or above.
    """
    found: dict[int, list[float]] = {}
    for optimizer in optimizers:
        first, third = (_convergence_curves(evidence, dataset, optimizer, i) for i in (1, 3))
        for seed in sorted(set(first) & set(third)):
            gap = settling_time(*third[seed]) - settling_time(*first[seed])
            found.setdefault(seed, []).append(0.5 + 0.5 * float(np.sign(gap)))
    return _share(found)


@quantity("roughness of the convergence of v_1 ({optimizer})", unit="1", tables=("alignment",))
def convergence_roughness(evidence: Evidence, dataset: str, *, optimizer: str) -> Measurement:
    """Mean |change| of |v_1(t_final) . v_1(t)| between neighbouring snapshots, from T/10 on, without the last one.

    The last snapshot is left out because it is 1 by definition.
    """
    rough = {}
    for seed, (times, overlap) in _convergence_curves(evidence, dataset, optimizer, 1).items():
        chosen = overlap[:-1][times[:-1] >= EARLY_SHARE]
        rough[seed] = float(np.abs(np.diff(chosen)).mean()) if len(chosen) > 1 else math.nan
    return Measurement(by_seed=rough)


@quantity(
    "runs with a v_1, v_2 or v_3 below 0.8 in the last tenth of training ({optimizer})",
    unit="runs",
    tables=("alignment",),
    pairs=(1, 2, 3),
)
def late_jump_runs(evidence: Evidence, dataset: str, *, optimizer: str) -> Measurement:
    """Number of runs with a curve (i = 1..3) below 0.8 at some snapshot after 0.9 T, which so jumps to 1 at the end."""
    found: dict[int, bool] = {}
    for i in (1, 2, 3):
        for seed, (times, overlap) in _convergence_curves(evidence, dataset, optimizer, i).items():
            found[seed] = found.get(seed, False) or bool(overlap[times >= LATE_SHARE].min() < SETTLED)
    if not found:
        return Measurement(by_seed={})
    return Measurement(
        pooled=float(sum(found.values())), n_pooled=len(found), notes=("one number for all seeds: no interval",)
    )
