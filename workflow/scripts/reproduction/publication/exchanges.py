"""How much of the motion of v_1 is an exchange with the eigenvectors beside it."""

import pandas as pd

from reproduction.statistics.two_time import curves, plateau

D_1, PLANE, SPAN = "v_1", "span of v_1, v_2", "span of v_1 to v_3"


def late_plateaus(displacement: pd.DataFrame) -> pd.DataFrame:
    """Of each run, the late plateau of D_1 and that of the spans of the two and three leading vectors; no unit.

    `displacement` is the `Evidence`'s table of the main runs. The plateau is that of the claims, the mean over the last
    third of log lag at the late waiting time; NaN for a run without one. The displacement of a span is that of
    `metrics.subspace_displacement`, 2/N (1 - mean cosine of the principal angles): zero where its vectors only change
    places or turn within it, so that what is missing to D_1 is motion of that kind.
    """
    found = []
    for (dataset, optimizer, seed), run in displacement.groupby(["dataset", "optimizer", "seed"], sort=False):
        first, second, third = (run[run["i"] == i] for i in (1, 2, 3))
        plateaus = {
            D_1: plateau(curves(first)),
            PLANE: plateau(curves(second, "subspace_displacement")),
            SPAN: plateau(curves(third, "subspace_displacement")),
        }
        found.append({"dataset": dataset, "optimizer": optimizer, "seed": seed, **plateaus})
    return pd.DataFrame(found)
