"""How much of the motion of v_1 is an exchange of order with the eigenvectors beside it, for figures and pages.

All of it is taken at the late waiting time, over the last third of log lag: the plateau of the claims.
"""

import math

import numpy as np
import pandas as pd

from reproduction.statistics.rows import values
from reproduction.statistics.two_time import curves, last_third, late_waiting_time, plateau

D_1, PLANE, SPAN = "v_1", "span of v_1, v_2", "span of v_1 to v_3"
# D_1 without what goes with the order of eigenvalues alone.
IDENTITY = "direction"
# Shares of the lags at which v_1 is accepted to be one of the later vectors, and at which that, or that it is none, is
# certain whatever the solver's errors.
FOUND, DECIDED = "found", "decided"
RUN = ["dataset", "optimizer", "seed"]


def late_plateaus(displacement: pd.DataFrame, identity: pd.DataFrame | None = None) -> pd.DataFrame:
    """Of each main run the late plateaus of D_1, of the direction that v_1 was, and of spans; no unit.

    Args:
        displacement: Rows of the table of that kind. The displacement of a span is that of
            `metrics.subspace_displacement`, 2/N (1 - mean cosine of the principal angles): zero where its vectors only
            change places or turn within it.
        identity: Rows of the table of that kind, where runs have one.

    Returns:
        One row a run with RUN, the late waiting time, D_1, PLANE, SPAN, IDENTITY, FOUND and DECIDED; NaN for what a run
        does not have.
    """
    found = []
    named = {} if identity is None else dict(list(identity[identity["i"] == 1].groupby(RUN, observed=True)))
    for key, run in displacement.dropna(subset=["i"]).groupby(RUN, sort=False, observed=True):
        first, second, third = (run[run["i"] == i] for i in (1, 2, 3))
        late = late_waiting_time(curves(first))
        row = {
            "waiting_time": late,
            D_1: plateau(curves(first)),
            PLANE: plateau(curves(second, "subspace_displacement")),
            SPAN: plateau(curves(third, "subspace_displacement")),
        }
        found.append({**dict(zip(RUN, key, strict=True)), **row, **_identities(named.get(key), late)})
    return pd.DataFrame(found)


def without_exchanges(identity: pd.DataFrame) -> np.ndarray:
    """(2/N)(1 - overlap) of the direction that v_i was, by row: of v_i itself where no vector is that direction."""
    kept: np.ndarray = values(identity, "displacement") * (1.0 - values(identity, "exchange_share"))
    return kept


def _identities(rows: pd.DataFrame | None, waiting_time: float) -> dict[str, float]:
    if rows is None or math.isnan(waiting_time):
        return dict.fromkeys((IDENTITY, FOUND, DECIDED), math.nan)
    late = rows[rows["waiting_time"] == waiting_time].sort_values("lag")
    late = late[last_third(values(late, "lag"))]
    decided = np.maximum(values(late, "certified"), values(late, "broken"))
    return {
        IDENTITY: float(without_exchanges(late).mean()),
        FOUND: float(values(late, "accepted").mean()),
        DECIDED: float(decided.mean()),
    }
