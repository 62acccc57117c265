"""The table of where the eigenvectors of a run live."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from eigendrift import localization
from reproduction.experiment.table_catalogue import TABLES, TOP
from reproduction.measure.columns import significant, typed
from reproduction.measure.eigenbases import Eigenbases

LOCALIZATION_UNITS = TABLES["localization"].units
DIGITS = 4


def localization_table(bases: Eigenbases, shapes: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """Where each eigenvector lives: for every (step, i) a row for the whole network (layer 0) and one for each layer.

    Args:
        bases: The eigenvectors of a run.
        shapes: [name, shape] of each parameter, in the order of the vectors.

    Returns:
        `weight_share`, `bias_share`: shares of the vector's square on weights and biases. `ipr`: inverse participation
        ratio over the parameters, `unit_ipr`: over the output units (each its row of weights and its bias),
        `participation`: exp of the entropy over the parameters; within a layer all three are of the shares normalised
        in the layer, and missing where it holds nothing. `top_m`: share of the m largest entries, of the whole vector
        alone. Four significant digits; no units but that of the step.
    """
    layers = localization.layers_of(shapes)
    found = layers[-1].stop if layers else 0
    if found != bases.n_parameters:
        raise ValueError(f"shapes must be those of {bases.n_parameters} parameters, not of {found}")
    blocks = [_rows(int(step), bases.basis(int(step)), layers) for step in bases.steps]
    return typed(np.concatenate(blocks) if blocks else np.empty((0, len(LOCALIZATION_UNITS))), LOCALIZATION_UNITS)


def _rows(step: int, basis: np.ndarray, layers: Sequence[localization.Layer]) -> np.ndarray:
    """The rows of one step's vectors (k, N), by i and layer."""
    p = localization.shares(basis)
    k, count = len(p), len(layers)
    rows = np.full((k, 1 + count, len(LOCALIZATION_UNITS)), np.nan)
    rows[:, :, 0] = step
    rows[:, :, 1] = np.arange(1, k + 1)[:, None]
    rows[:, :, 2] = np.arange(1 + count)
    weights, biases = localization.layer_shares(p, layers)
    values = rows[:, :, 3:]
    values[:, 1:, 0], values[:, 1:, 1] = weights, biases
    values[:, 0, 0], values[:, 0, 1] = weights.sum(axis=1), biases.sum(axis=1)
    values[:, 1:, 2], values[:, 1:, 3] = localization.layer_ipr(p, layers), localization.unit_ipr(p, layers)
    units = np.concatenate(localization.unit_shares(p, layers), axis=1)
    values[:, 0, 2], values[:, 0, 3] = np.vecdot(p, p), np.vecdot(units, units)
    values[:, 0, 4] = localization.participation(p)
    for row, layer in enumerate(layers, start=1):
        values[:, row, 4] = localization.participation(p[:, layer.start : layer.stop])
    values[:, 0, 5:] = localization.top_mass(p, TOP)
    values[:] = significant(values, DIGITS)
    return rows.reshape(k * (1 + count), -1)
