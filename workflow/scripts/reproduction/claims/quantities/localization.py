"""Inverse participation ratios, and the entries of the final v_1."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from eigendrift.localization import layers_of
from reproduction.claims.evidence import Evidence
from reproduction.claims.quantities.registry import quantity, rows
from reproduction.claims.statistics import Measurement
from reproduction.experiment.labels import MAIN
from reproduction.files.final_eigenvectors import FinalEigenvectors
from reproduction.statistics.localization import FINAL_SHARE, final_ipr
from reproduction.statistics.rows import by_seed, values

# An entry of a layer is active if it is at least this share of the layer's largest.
ACTIVE_SHARE = 0.1


@quantity("final IPR of v_{i} ({optimizer})", unit="1", tables=("ipr",))
def ipr_final(evidence: Evidence, dataset: str, *, optimizer: str, i: int = 1, variant: str = MAIN) -> Measurement:
    """Geometric mean of the IPR of v_i over the last tenth of the steps."""
    frame = rows(evidence.ipr, dataset, optimizer, variant, i=i)
    return Measurement(by_seed=by_seed(frame, final_ipr))


@quantity("trend of the IPR of v_1 over the last decade of steps ({optimizer})", unit="decades/decade", tables=("ipr",))
def ipr_trend(evidence: Evidence, dataset: str, *, optimizer: str) -> Measurement:
    """Least-squares slope of log10 IPR of v_1 against log10 step, over steps from T/10 to T."""

    def slope(run: pd.DataFrame) -> float:
        late = run[(values(run, "step") > 0) & (values(run, "step") >= values(run, "step").max() / 10.0)]
        if len(late) < 3:
            return math.nan
        return float(np.polyfit(np.log10(values(late, "step")), np.log10(values(late, "ipr")), 1)[0])

    return Measurement(by_seed=by_seed(rows(evidence.ipr, dataset, optimizer, i=1), slope))


@quantity("largest over smallest final IPR of v_1 among the seeds ({optimizer})", unit="1", tables=("ipr",))
def ipr_seed_spread(evidence: Evidence, dataset: str, *, optimizer: str) -> Measurement:
    """max / min over the seeds of `ipr_final`; one number for all seeds, two at least."""
    final = [value for value in (ipr_final(evidence, dataset, optimizer=optimizer).by_seed or {}).values() if value > 0]
    spread = max(final) / min(final) if len(final) > 1 else math.nan
    return Measurement(pooled=spread, n_pooled=len(final), notes=("one number for all seeds: no interval",))


def _dense_log_ipr(evidence: Evidence, dataset: str, optimizer: str, *, last: bool) -> dict[int, np.ndarray]:
    """seed -> mean log10 IPR (15,) of v_1..v_15 of the dense seed, at its dense snapshots (the last tenth)."""
    found: dict[int, np.ndarray] = {}
    frame = rows(evidence.ipr, dataset, optimizer, seed=evidence.dense_seed)
    if frame.empty:
        return found
    for seed, run in frame[frame["i"] <= 15].groupby("seed"):
        table = run.pivot_table(index="step", columns="i", values="ipr").dropna()
        if len(table.columns) < 15 or table.empty:
            continue
        chosen = table[table.index >= (1.0 - FINAL_SHARE) * table.index.max()] if last else table
        found[int(str(seed))] = np.log10(chosen.to_numpy(dtype=np.float64)).mean(axis=0)
    return found


@quantity(
    "largest over smallest final IPR among v_1 to v_15 ({optimizer})",
    unit="1",
    tables=("ipr",),
    pairs=tuple(range(1, 16)),
)
def ipr_index_spread(evidence: Evidence, dataset: str, *, optimizer: str) -> Measurement:
    """max / min over i = 1..15 of the geometric mean IPR of the last tenth of the steps; the dense seed."""
    means = _dense_log_ipr(evidence, dataset, optimizer, last=True)
    return Measurement(by_seed={seed: float(10.0 ** np.ptp(logs)) for seed, logs in means.items()})


@quantity(
    "index after which the IPR of v_1 to v_15 separates ({optimizer})",
    unit="i",
    tables=("ipr",),
    pairs=tuple(range(1, 16)),
)
def ipr_separation(evidence: Evidence, dataset: str, *, optimizer: str) -> Measurement:
    """The j that splits the run means of log10 IPR best into v_1..v_j and v_{j+1}..v_15; the dense seed.

    Best is the largest sum of squares between the two groups (Otsu's criterion), j = 2..13.
    """
    means = _dense_log_ipr(evidence, dataset, optimizer, last=False)
    return Measurement(by_seed={seed: float(best_split(logs)) for seed, logs in means.items()})


def best_split(numbers: np.ndarray) -> int:
    """The j, 2 <= j <= n - 2, with the largest sum of squares between `numbers[:j]` and `numbers[j:]`."""
    n = len(numbers)
    between = {j: j * (n - j) / n * (numbers[:j].mean() - numbers[j:].mean()) ** 2 for j in range(2, n - 1)}
    return max(between, key=lambda j: between[j])


def final_vectors(evidence: Evidence, dataset: str, optimizer: str) -> list[FinalEigenvectors]:
    wanted = {"dataset": dataset, "optimizer": optimizer, "variant": MAIN}
    return [vector for vector in evidence.vectors if wanted.items() <= vector.identity.items()]


@quantity("colour range of the final v_1 ({optimizer})", unit="1", tables=("final_eigenvector",))
def entry_range(evidence: Evidence, dataset: str, *, optimizer: str) -> Measurement:
    """Largest minus smallest entry of v_1 at the last step."""
    found = final_vectors(evidence, dataset, optimizer)
    return Measurement(by_seed={v.identity["seed"]: float(np.ptp(v.last)) for v in found})


@quantity(
    "active units whose layer 2 entry has the sign of their layer 3 entry ({optimizer})",
    unit="1",
    tables=("final_eigenvector",),
)
def layer_sign_agreement(evidence: Evidence, dataset: str, *, optimizer: str) -> Measurement:
    """Share of the active hidden units for which layers 2 and 3 of the final v_1 agree in sign.

    A unit h of the last hidden layer has a column of layer 3, the weights that leave it, and a row of layer 2, the
    weights that enter it. It is active if the largest |entry| of its column is at least a tenth of the largest of layer
    3. It agrees if the largest |entry| of its row is at least a tenth of the largest of layer 2 and has the same sign
    as the column's.
    """
    found = final_vectors(evidence, dataset, optimizer)
    return Measurement(by_seed={v.identity["seed"]: unit_agreement(v, signs=True) for v in found})


def unit_agreement(final: FinalEigenvectors, *, signs: bool) -> float:
    """Share of the units active in layer 3 that are active in layer 2 too, if `signs` with the same sign.

    NaN for a network with fewer than two weight matrices, and for one that is not fully connected.
    """
    blocks = [block for block in final.blocks() if block.ndim == 2]
    if len(blocks) < 2 or not _is_chain(final, blocks):
        return math.nan
    leaving, entering = _dominant(blocks[-1].T), _dominant(blocks[-2])
    active, paired = (np.abs(units) >= ACTIVE_SHARE * np.abs(units).max() for units in (leaving, entering))
    if signs:
        paired &= np.sign(entering) == np.sign(leaving)
    return float(paired[active].mean()) if leaving.any() else math.nan


def _is_chain(final: FinalEigenvectors, blocks: Sequence[np.ndarray]) -> bool:
    """Whether the parameters are those of linear layers, each with as many inputs as the one before has units."""
    layers = layers_of(final.layers)
    linear = len(layers) == len(blocks) and all(len(shape) < 3 for _, shape in final.layers)
    return linear and all(below.shape[0] == above.shape[1] for below, above in pairwise(blocks))


def _dominant(block: np.ndarray) -> np.ndarray:
    """The entry of largest size in each row of a (units, weights) block, with its sign."""
    entries: np.ndarray = block[np.arange(len(block)), np.abs(block).argmax(axis=1)]
    return entries
