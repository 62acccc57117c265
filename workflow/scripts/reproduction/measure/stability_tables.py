"""The table of how a run's curvature lies to the edge of stability of its optimizer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from eigendrift.stability import edge_of, preconditioned_edge_of
from reproduction.experiment.table_catalogue import TABLES
from reproduction.measure.columns import significant, typed

STABILITY_UNITS = TABLES["stability"].units


def stability_table(pairs: pd.DataFrame, optimizer: Mapping[str, Any]) -> pd.DataFrame:
    """One row a snapshot: lambda_1 against the optimizer's edge, and the gaps behind it.

    Args:
        pairs: One row a pair with `step`, `i`, `eigenvalue`, `converged` and `gradient_norm`, the norm of the full
            data's gradient at its step; without it the edge of SAM is missing.
        optimizer: `class`, `lr` and further arguments, as the configuration has them.

    Returns:
        `scaled_lambda_1` is eta lambda_1; `edge` the optimizer's own (`stability.edge_of`), missing for those that
        scale each parameter's step: under Adam lambda_1 of the Hessian has none, and `preconditioned_edge` is one of
        the largest eigenvalue of the preconditioned Hessian, which is not here. `gap_12` is lambda_1 - lambda_2,
        `gap_23` lambda_2 - lambda_3; missing where fewer pairs were taken. `converged`: whether those of the three that
        there are have converged. Six significant digits.
    """
    needed = ["step", "i", "eigenvalue", "converged", "gradient_norm"]
    leading = pairs[pairs["i"] <= 3].reindex(columns=needed)
    values = leading.pivot(index="step", columns="i", values="eigenvalue").reindex(columns=[1, 2, 3])
    one, two, three = (values[i].to_numpy(dtype=np.float64) for i in (1, 2, 3))
    by_step = leading.groupby("step", sort=True)
    norms = by_step["gradient_norm"].first().to_numpy(dtype=np.float64)
    edges = edge_of(optimizer, norms)
    columns = {
        "step": values.index.to_numpy(),
        "lambda_1": one,
        "scaled_lambda_1": optimizer["lr"] * one,
        "edge": edges,
        "lambda_1_over_edge": np.divide(one, edges, out=np.full(len(one), np.nan), where=edges > 0),
        "preconditioned_edge": np.full(len(one), preconditioned_edge_of(optimizer)),
        "gap_12": one - two,
        "gap_23": two - three,
        "gradient_norm": norms,
        "converged": by_step["converged"].min().to_numpy(),
    }
    columns |= {name: significant(columns[name]) for name in columns.keys() - {"step", "converged"}}
    rows = list(zip(*columns.values(), strict=True))
    return typed(rows, STABILITY_UNITS)
