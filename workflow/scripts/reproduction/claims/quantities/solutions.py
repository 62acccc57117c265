"""Which of sharpness and training loss predicts the better solution: lower should mean a higher test accuracy."""

import itertools
import math
from typing import Literal

import numpy as np
import pandas as pd

from reproduction.claims.evidence import Evidence
from reproduction.claims.quantities.registry import quantity
from reproduction.claims.quantities.training import test_accuracy as final_accuracy
from reproduction.claims.statistics import Measurement
from reproduction.experiment.labels import MAIN
from reproduction.statistics.rows import spearman, values


def concordance(predictor: np.ndarray, accuracy: np.ndarray) -> float:
    """Share of the pairs of solutions (n,) whose lower predictor has the higher accuracy; a tie counts one half."""
    pairs = list(itertools.combinations(range(len(accuracy)), 2))
    signs = [np.sign(predictor[b] - predictor[a]) * np.sign(accuracy[a] - accuracy[b]) for a, b in pairs]
    return float(np.mean([(1.0 + sign) / 2.0 for sign in signs])) if signs else math.nan


@quantity(
    "concordance with test accuracy of {predictor} minus that of training loss, best solutions",
    unit="1",
    tables=("solutions",),
)
def solution_concordance(
    evidence: Evidence, dataset: str, *, predictor: Literal["sharpness", "lambda_1"]
) -> Measurement:
    """`concordance` of a sharpness minus that of the training loss, over the best solution of each optimizer.

    For the epsilon-sharpness (Keskar et al. 2017, eq. 4) the mean over the epsilons of the table.
    """
    frame = evidence.solutions
    frame = frame if frame.empty else frame[frame["dataset"] == dataset]
    if frame.empty:
        return Measurement(by_seed={})
    differences = [_difference(group, predictor) for _, group in frame.groupby("epsilon", sort=True)]
    count = int(frame.groupby(["optimizer", "seed"]).ngroups)
    return Measurement(pooled=float(np.mean(differences)), notes=(f"{count} solutions: no interval",))


def _difference(solutions: pd.DataFrame, predictor: str) -> float:
    kept = solutions[
        np.isfinite(solutions[[predictor, "train_loss", "test_accuracy"]].to_numpy(dtype=float)).all(axis=1)
    ]
    accuracy = values(kept, "test_accuracy")
    return concordance(values(kept, predictor), accuracy) - concordance(values(kept, "train_loss"), accuracy)


@quantity(
    "rank correlation with test accuracy: training loss minus final lambda_1, all runs",
    unit="1",
    tables=("history", "ipr"),
)
def run_correlation(evidence: Evidence, dataset: str) -> Measurement:
    """Spearman(training loss, accuracy) - Spearman(lambda_1, accuracy) over all main runs, at their last snapshots.

    Positive where lambda_1 has the more negative correlation, and so predicts more.
    """
    runs = []
    for optimizer in evidence.optimizer_of.values():
        for seed, accuracy in (final_accuracy(evidence, dataset, optimizer=optimizer).by_seed or {}).items():
            loss = _at_end(evidence.history, (dataset, optimizer, seed), "train_loss")
            sharpness = _at_end(evidence.ipr, (dataset, optimizer, seed), "eigenvalue")
            runs.append((loss, sharpness, accuracy))
    table = np.array([run for run in runs if np.isfinite(run).all()], dtype=np.float64).reshape(-1, 3)
    difference = spearman(table[:, 0], table[:, 2]) - spearman(table[:, 1], table[:, 2])
    return Measurement(
        pooled=difference,
        n_pooled=len({seed for _, seed in _runs(evidence, dataset)}),
        notes=(f"one number for {len(table)} runs: no interval",),
    )


def _runs(evidence: Evidence, dataset: str) -> set[tuple[str, int]]:
    frame = evidence.history
    if frame.empty:
        return set()
    main = frame[(frame["dataset"] == dataset) & (frame["variant"] == MAIN)]
    return {(str(optimizer), int(seed)) for optimizer, seed in zip(main["optimizer"], main["seed"], strict=True)}


def _at_end(frame: pd.DataFrame, run: tuple[str, str, int], column: str) -> float:
    if frame.empty:
        return math.nan
    dataset, optimizer, seed = run
    chosen = frame[(frame["dataset"] == dataset) & (frame["optimizer"] == optimizer)]
    chosen = chosen[(chosen["variant"] == MAIN) & (chosen["seed"] == seed)]
    if "i" in chosen:
        chosen = chosen[chosen["i"] == 1]
    return float(values(chosen.sort_values("step"), column)[-1]) if len(chosen) else math.nan
