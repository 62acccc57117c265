"""How much of the motion of v_1 is an exchange with the eigenvectors beside it."""

import math

import pandas as pd

from eigendrift.claims.quantities.displacement import curves, last_third, late_waiting_time

D_1, PLANE, SPAN = "v_1", "span of v_1, v_2", "span of v_1 to v_3"


def late_plateaus(displacement: pd.DataFrame) -> pd.DataFrame:
    """Of each run, the late plateau of D_1 and that of the spans of the two and three leading vectors, in units of 1/N.

    `displacement` is `read_runs(..., "displacement")`. The plateau is that of the claims: the mean over the last third
    of log lag at the late waiting time; NaN for a run without one. The displacement of a span is
    `metrics.subspace_displacement`, 2/N (1 - mean cosine of the principal angles): zero where its vectors only change
    places or turn within it, so that what is missing to D_1 is motion of that kind.
    """
    found = []
    for (dataset, optimizer, seed), run in displacement.groupby(["dataset", "optimizer", "seed"], sort=False):
        first, second, third = (run[run["i"] == i] for i in (1, 2, 3))
        plateaus = {
            D_1: _plateau(first, "displacement"),
            PLANE: _plateau(second, "subspace_displacement"),
            SPAN: _plateau(third, "subspace_displacement"),
        }
        found.append({"dataset": dataset, "optimizer": optimizer, "seed": seed, **plateaus})
    return pd.DataFrame(found)


def _plateau(run: pd.DataFrame, column: str) -> float:
    found = curves(run, column)
    waiting_time = late_waiting_time(found)
    if math.isnan(waiting_time):
        return math.nan
    lags, values = found[waiting_time]
    return float(values[last_third(lags)].mean())
