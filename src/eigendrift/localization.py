"""Where in the network an eigenvector lives: in which layers, on which units, on how many parameters.

Everything is a function of the shares p_j = v_j^2 of a unit vector's square, which `shares` computes: rows (S, N), one
vector a row, each with the sum 1. No result has a unit, and none depends on the vector's sign. A part of the network
without any share of a vector has no localization of its own, which is given as nan.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from eigendrift.metrics import UNIT_TOLERANCE, Floats


@dataclass(frozen=True)
class Layer:
    """Where the parameters of one layer lie in the vector of all.

    Attributes:
        start: Index of the first weight.
        units: Number of output units, the rows of the weight matrix.
        inputs: Weights of each unit.
        biased: Whether a bias for each unit follows the weights.
    """

    start: int
    units: int
    inputs: int
    biased: bool

    @property
    def bias(self) -> int:
        """Index behind the last weight, where the biases start."""
        return self.start + self.units * self.inputs

    @property
    def stop(self) -> int:
        """Index behind the last parameter."""
        return self.bias + (self.units if self.biased else 0)


def layers_of(shapes: Sequence[Sequence[Any]]) -> list[Layer]:
    """The layers of a network, from the shapes of its parameters.

    A weight is (units, inputs), or has more axes, the first of which runs over the units. A parameter of one axis that
    follows a weight of the same module is its bias if it has one entry a unit; else it is a layer of its own with one
    weight a unit. The module is the name up to its last point.

    Args:
        shapes: [name, shape] of each parameter, in the order of the parameter vector.

    Returns:
        The layers, in the same order.

    Example:
        >>> layers_of([["0.weight", (5, 3)], ["0.bias", (5,)]])
        [Layer(start=0, units=5, inputs=3, biased=True)]
    """
    found: list[Layer] = []
    start, before = 0, ""
    for name, shape in shapes:
        module = str(name).rpartition(".")[0]
        units, size = int(shape[0]) if shape else 1, math.prod(map(int, shape))
        last = found[-1] if found else None
        follows = last is not None and not last.biased and last.units == units and module == before
        if len(shape) == 1 and last is not None and follows:
            found[-1] = Layer(last.start, units, last.inputs, biased=True)
        else:
            found.append(Layer(start, units, size // units if units else 0, biased=False))
        start, before = start + size, module
    return found


def shares(v: ArrayLike) -> Floats:
    """The shares p = v^2 of unit vectors.

    Args:
        v: Unit vectors, (N,) or (S, N).

    Returns:
        Shares (S, N) without a unit, each row with the sum 1.

    Raises:
        ValueError: The shape is another one, a value is not finite, or a norm differs from 1 by more than
            `metrics.UNIT_TOLERANCE`.

    Example:
        >>> shares([0.6, -0.8]).round(2).tolist()
        [[0.36, 0.64]]
    """
    rows = np.atleast_2d(np.asarray(v, dtype=np.float64))
    if rows.ndim != 2 or not rows.shape[1]:
        raise ValueError(f"v must be a vector (N,) or a series (S, N), not {np.shape(v)}")
    squares = rows**2
    sums = squares.sum(axis=1)
    if not np.isfinite(sums).all():
        raise ValueError(f"v must be finite; row {int(np.flatnonzero(~np.isfinite(sums))[0])} is not")
    wrong = np.abs(np.sqrt(sums) - 1) > UNIT_TOLERANCE
    if wrong.any():
        raise ValueError(f"v must hold unit vectors, one a row; one has norm {math.sqrt(sums[wrong][0]):.6g}")
    result: Floats = squares / sums[:, None]
    return result


def layer_shares(p: ArrayLike, layers: Sequence[Layer]) -> tuple[Floats, Floats]:
    """Shares of the weights and of the biases of each layer; all of them sum to 1 in each row.

    Args:
        p: Shares (S, N), as `shares` gives them.
        layers: The L layers, as `layers_of` gives them.

    Returns:
        Shares of the weights (S, L) and of the biases (S, L), without a unit.

    Raises:
        ValueError: p is not (S, N) of these layers, or not at least 0 and finite.

    Example:
        >>> layer_shares([[0.5, 0.25, 0.25]], layers_of([["w", (1, 2)], ["b", (1,)]]))
        (array([[0.75]]), array([[0.25]]))
    """
    rows = _rows(p, layers)
    weights = [rows[:, layer.start : layer.bias].sum(axis=1) for layer in layers]
    biases = [rows[:, layer.bias : layer.stop].sum(axis=1) for layer in layers]
    return np.stack(weights, axis=1), np.stack(biases, axis=1)


def layer_ipr(p: ArrayLike, layers: Sequence[Layer]) -> Floats:
    """Inverse participation ratio I_l = sum p_j^2 / share_l^2 within each layer.

    The inverse participation ratio of the whole vector is the sum of share_l^2 I_l.

    Args:
        p: Shares (S, N), as `shares` gives them.
        layers: The L layers, as `layers_of` gives them.

    Returns:
        Numbers (S, L) without a unit, from 1 over the layer's number of parameters to 1; nan for a layer of share 0.

    Raises:
        ValueError: p is not (S, N) of these layers, or not at least 0 and finite.

    Example:
        >>> layer_ipr([[0.25, 0.25, 0.5, 0.0]], layers_of([["w", (1, 2)], ["v", (2, 1)]])).tolist()
        [[0.5, 1.0]]
    """
    rows = _rows(p, layers)
    return np.stack([_ratio(rows[:, layer.start : layer.stop]) for layer in layers], axis=1)


def unit_shares(p: ArrayLike, layers: Sequence[Layer]) -> list[Floats]:
    """Share of each output unit, its row of weights and its bias, in the whole vector.

    Args:
        p: Shares (S, N), as `shares` gives them.
        layers: The L layers, as `layers_of` gives them.

    Returns:
        For each layer an array (S, units), without a unit of measurement.

    Raises:
        ValueError: p is not (S, N) of these layers, or not at least 0 and finite.

    Example:
        >>> [layer.tolist() for layer in unit_shares([[0.5, 0.0, 0.25, 0.25]], layers_of([["w", (2, 2)]]))]
        [[[0.5, 0.5]]]
    """
    rows = _rows(p, layers)
    found = []
    for layer in layers:
        units = rows[:, layer.start : layer.bias].reshape(len(rows), layer.units, layer.inputs).sum(axis=2)
        found.append(units + rows[:, layer.bias : layer.stop] if layer.biased else units)
    return found


def unit_ipr(p: ArrayLike, layers: Sequence[Layer]) -> Floats:
    """Inverse participation ratio sum_u p_u^2 over the output units of each layer, with shares normalised in the layer.

    Args:
        p: Shares (S, N), as `shares` gives them.
        layers: The L layers, as `layers_of` gives them.

    Returns:
        Numbers (S, L) without a unit, from 1 over the number of units to 1; nan for a layer of share 0.

    Raises:
        ValueError: p is not (S, N) of these layers, or not at least 0 and finite.

    Example:
        >>> unit_ipr([[0.5, 0.0, 0.25, 0.25]], layers_of([["w", (2, 2)]])).tolist()
        [[0.5]]
    """
    return np.stack([_ratio(units) for units in unit_shares(p, layers)], axis=1)


def participation(p: ArrayLike) -> Floats:
    """Participation number exp(S_1) with the entropy S_1 = -sum p ln p: on how many parameters a vector lives.

    The inverse participation ratio is the corresponding measure of order 2, which the largest entries dominate: 1/IPR
    is at most exp(S_1). Rows with another sum than 1 are normalised.

    Args:
        p: Shares (S, N), at least 0.

    Returns:
        Numbers (S,) without a unit, from 1 (one parameter) to N (spread evenly).

    Raises:
        ValueError: p has another shape, or a value that is negative or nan.

    Example:
        >>> participation([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]]).round(12).tolist()
        [4.0, 1.0]
    """
    rows = np.asarray(p, dtype=np.float64)
    if rows.ndim != 2 or not (rows >= 0).all():
        raise ValueError(f"p must be shares (S, N), at least 0; its shape is {rows.shape}")
    totals = rows.sum(axis=1)
    positive = np.where(totals > 0, totals, np.nan)
    logarithms = np.log(rows, out=np.zeros(rows.shape), where=rows > 0)
    # -sum q ln q of q = p / sum p
    result: Floats = np.exp(np.log(positive) - np.vecdot(rows, logarithms) / positive)
    return result


def top_mass(p: ArrayLike, sizes: Sequence[int]) -> Floats:
    """Share of the m largest entries, for each m.

    Args:
        p: Shares (S, N), at least 0.
        sizes: The numbers m, at least 1; where m exceeds N, all entries are counted.

    Returns:
        Shares (S, len(sizes)) without a unit.

    Raises:
        ValueError: p has another shape or a value that is negative or nan, or a size is below 1.

    Example:
        >>> top_mass([[0.25, 0.5, 0.25]], sizes=[1, 2, 9]).tolist()
        [[0.5, 0.75, 1.0]]
    """
    rows = np.asarray(p, dtype=np.float64)
    if rows.ndim != 2 or not (rows >= 0).all():
        raise ValueError(f"p must be shares (S, N), at least 0; its shape is {rows.shape}")
    if not sizes or min(sizes) < 1:
        raise ValueError(f"sizes must be numbers of entries, at least 1, not {list(sizes)}")
    most = min(max(sizes), rows.shape[1])
    largest = -np.sort(-np.partition(rows, rows.shape[1] - most, axis=1)[:, -most:], axis=1)
    sums = largest.cumsum(axis=1)
    result: Floats = np.minimum(sums[:, [min(size, most) - 1 for size in sizes]], 1.0)
    return result


def _rows(p: ArrayLike, layers: Sequence[Layer]) -> Floats:
    rows = np.asarray(p, dtype=np.float64)
    n = layers[-1].stop if layers else 0
    if rows.ndim != 2 or rows.shape[1] != n or not n:
        raise ValueError(f"p must be shares (S, {n}) of the parameters of {len(layers)} layers, not {rows.shape}")
    if not (rows >= 0).all():
        raise ValueError("p must be shares, at least 0 and finite")
    return rows


def _ratio(rows: Floats) -> Floats:
    """sum p^2 / (sum p)^2 of each row, nan where there is nothing."""
    totals = rows.sum(axis=1)
    result: Floats = np.vecdot(rows, rows) / np.where(totals > 0, totals, np.nan) ** 2
    return result
