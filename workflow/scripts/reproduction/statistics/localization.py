"""The final inverse participation ratio of a run, for figures and claims."""

import pandas as pd

from reproduction.statistics.rows import values

# Share of the training, at its end, over which a final value is averaged: one snapshot alone is noise under Adam.
FINAL_SHARE = 0.1


def tail(run: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last tenth of one run's steps."""
    kept: pd.DataFrame = run[values(run, "step") >= (1.0 - FINAL_SHARE) * values(run, "step").max()]
    return kept
