"""The final inverse participation ratio of a run, for figures and claims."""

import pandas as pd

from reproduction.statistics.rows import geometric_mean, values

# Share of the training, at its end, over which a final value is averaged: one snapshot alone is noise under Adam.
FINAL_SHARE = 0.1


def tail(run: pd.DataFrame, share: float = FINAL_SHARE) -> pd.DataFrame:
    """The rows of the last `share` of one run's steps."""
    kept: pd.DataFrame = run[values(run, "step") >= (1.0 - share) * values(run, "step").max(initial=0.0)]
    return kept


def final_ipr(run: pd.DataFrame) -> float:
    """Geometric mean of the IPR over the last tenth of one run's steps; NaN without a row.

    The rows are those of one eigenvector, of pairs that converged.
    """
    return geometric_mean(values(tail(run), "ipr"))
