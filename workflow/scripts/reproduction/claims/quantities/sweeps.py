"""Appendix F: how far the runs of a sweep are from the main runs, and whether they order the optimizers alike."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from reproduction.claims.evidence import Evidence
from reproduction.claims.quantities.alignment import alignment_mean
from reproduction.claims.quantities.displacement import displacement_plateau
from reproduction.claims.quantities.localization import ipr_final
from reproduction.claims.quantities.registry import quantity
from reproduction.claims.statistics import Measurement
from reproduction.experiment.labels import MAIN

FULL_BATCH = "batch_size-full"
Sweep = Literal["batch size", "learning rate"]
Statistic = Literal["gradient alignment", "IPR", "displacement"]


def sweep_variants(evidence: Evidence, dataset: str, sweep: Sweep) -> list[str]:
    """Names of a sweep's variants on a dataset, without the full batch."""
    frame = evidence.history
    if frame.empty:
        return []
    names = {str(name) for name in frame.loc[frame["dataset"] == dataset, "variant"]}
    prefix = f"{sweep.replace(' ', '_')}-"
    return sorted(name for name in names if name.startswith(prefix) and name != FULL_BATCH)


def statistic(evidence: Evidence, dataset: str, name: Statistic, optimizer: str, variant: str) -> dict[int, float]:
    """seed -> run mean of the gradient alignment with v_1, final IPR of v_1, or late plateau of D_1."""
    if name == "gradient alignment":
        measured = alignment_mean(evidence, dataset, optimizer=optimizer, kind="gradient", variant=variant)
    elif name == "IPR":
        measured = ipr_final(evidence, dataset, optimizer=optimizer, variant=variant)
    else:
        measured = displacement_plateau(evidence, dataset, optimizer=optimizer, variant=variant)
    return {seed: value for seed, value in (measured.by_seed or {}).items() if math.isfinite(value)}


def deviations(
    evidence: Evidence, dataset: str, name: Statistic, optimizer: str, variants: Sequence[str]
) -> dict[int, float]:
    """seed -> largest |log10 of the statistic over that of the main run of the same seed| among the variants."""
    reference = statistic(evidence, dataset, name, optimizer, MAIN)
    found: dict[int, list[float]] = {}
    for variant in variants:
        for seed, value in statistic(evidence, dataset, name, optimizer, variant).items():
            if value > 0 and reference.get(seed, 0.0) > 0:
                found.setdefault(seed, []).append(abs(math.log10(value / reference[seed])))
    return {seed: max(numbers) for seed, numbers in sorted(found.items()) if len(numbers) == len(variants)}


@quantity(
    "deviation of {statistic_name} from the main runs, {batches} ({optimizer})",
    unit="decades",
    tables=("alignment", "ipr", "displacement"),
    sweeps=True,
)
def batch_size_deviation(
    evidence: Evidence,
    dataset: str,
    *,
    optimizer: str,
    statistic_name: Statistic,
    batches: Literal["full batch", "mini-batches"],
) -> Measurement:
    """|log10 of a statistic over that of the seed's main run|: of the full batch, or the largest of the others."""
    variants = [FULL_BATCH] if batches == "full batch" else sweep_variants(evidence, dataset, "batch size")
    return Measurement(by_seed=deviations(evidence, dataset, statistic_name, optimizer, variants) if variants else {})


@quantity(
    "share of pairs of {optimizers} ordered in {statistic_name} as in the main runs, {sweep} sweep",
    unit="1",
    tables=("displacement", "ipr"),
    sweeps=True,
)
def ordering_agreement(
    evidence: Evidence, dataset: str, *, optimizers: Sequence[str], statistic_name: Statistic, sweep: Sweep
) -> Measurement:
    """Share of (pair of optimizers, variant) with the sign of difference that the main run of the same seed has.

    The full batch is left out.
    """
    reference = {name: statistic(evidence, dataset, statistic_name, name, MAIN) for name in optimizers}
    found: dict[int, list[float]] = {}
    for variant in sweep_variants(evidence, dataset, sweep):
        swept = {name: statistic(evidence, dataset, statistic_name, name, variant) for name in optimizers}
        for first, second in itertools.combinations(optimizers, 2):
            seeds = set(swept[first]) & set(swept[second]) & set(reference[first]) & set(reference[second])
            for seed in sorted(seeds):
                here = np.sign(swept[first][seed] - swept[second][seed])
                main = np.sign(reference[first][seed] - reference[second][seed])
                found.setdefault(seed, []).append(float(here == main))
    return Measurement(by_seed={seed: sum(hits) / len(hits) for seed, hits in sorted(found.items())})
