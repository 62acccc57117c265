"""Where a vector lives: planted vectors whose layer, unit and spread are known."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eigendrift.localization import (
    Layer,
    layer_ipr,
    layer_shares,
    layers_of,
    participation,
    shares,
    top_mass,
    unit_ipr,
    unit_shares,
)
from eigendrift.metrics import Floats, inverse_participation_ratio
from reproduction.measure.eigenbases import Eigenbases
from reproduction.measure.localization_tables import LOCALIZATION_UNITS, localization_table

SHAPES = [["0.weight", [4, 3]], ["0.bias", [4]], ["2.weight", [2, 4]], ["2.bias", [2]]]
LAYERS = layers_of(SHAPES)
N = 12 + 4 + 8 + 2


def planted(**entries: float) -> Floats:
    """A unit vector with squares at named places: w1_2_0 is unit 2, input 0 of layer 1, b2_1 a bias of layer 2."""
    p = np.zeros(N)
    for name, value in entries.items():
        layer, unit, *rest = name[1:].split("_")
        where = LAYERS[int(layer) - 1]
        p[where.start + int(unit) * where.inputs + int(rest[0]) if name[0] == "w" else where.bias + int(unit)] = value
    return np.sqrt(p)


def random_unit(seed: int, rows: int = 1) -> Floats:
    v = np.random.default_rng(seed).standard_normal((rows, N)) ** 3
    result: Floats = v / np.linalg.norm(v, axis=1, keepdims=True)
    return result


def test_layers_are_read_from_shapes() -> None:
    assert [Layer(0, 4, 3, True), Layer(16, 2, 4, True)] == LAYERS
    assert LAYERS[-1].stop == N
    # Without biases, with axes of a kernel, and a vector that is no bias of what comes before it.
    assert layers_of([["a", [2, 3]], ["b", [4, 1, 2]], ["c", [5]]]) == [
        Layer(0, 2, 3, False),
        Layer(6, 4, 2, False),
        Layer(14, 5, 1, False),
    ]
    assert layers_of([]) == []


def test_a_bias_belongs_to_the_module_of_its_weight() -> None:
    # A linear layer without a bias, and a normalization behind it with a weight and a bias for each unit.
    shapes = [["linear.weight", [4, 3]], ["norm.weight", [4]], ["norm.bias", [4]], ["out.bias", [4]]]
    assert [(layer.start, layer.units, layer.inputs, layer.biased) for layer in layers_of(shapes)] == [
        (0, 4, 3, False),
        (12, 4, 1, True),
        (20, 4, 1, False),
    ]


def test_planted_squares_are_found_in_their_layers() -> None:
    p = shares(planted(w1_2_0=0.2, b1_3=0.1, w2_0_1=0.3, b2_1=0.4))
    weights, biases = layer_shares(p, LAYERS)
    np.testing.assert_allclose(weights, [[0.2, 0.3]])
    np.testing.assert_allclose(biases, [[0.1, 0.4]])
    np.testing.assert_allclose(layer_ipr(p, LAYERS), [[0.05 / 0.09, 0.25 / 0.49]])
    one, two = unit_shares(p, LAYERS)
    np.testing.assert_allclose(one, [[0, 0, 0.2, 0.1]], atol=1e-16)
    np.testing.assert_allclose(two, [[0.3, 0.4]])
    np.testing.assert_allclose(unit_ipr(p, LAYERS), [[0.05 / 0.09, 0.25 / 0.49]])


def test_a_unit_is_its_row_and_its_bias() -> None:
    p = shares(planted(w1_1_0=0.25, w1_1_1=0.25, w1_1_2=0.25, b1_1=0.25))
    assert unit_ipr(p, LAYERS)[0, 0] == pytest.approx(1)
    assert layer_ipr(p, LAYERS)[0, 0] == pytest.approx(1 / 4)
    # The other layer holds nothing.
    assert np.isnan(unit_ipr(p, LAYERS)[0, 1])
    assert np.isnan(layer_ipr(p, LAYERS)[0, 1])


@given(st.integers(0, 2**32 - 1))
def test_parts_make_up_the_whole(seed: int) -> None:
    v = random_unit(seed, 3)
    p = shares(v)
    weights, biases = layer_shares(p, LAYERS)
    share = weights + biases
    np.testing.assert_allclose(share.sum(axis=1), 1)
    np.testing.assert_allclose((share**2 * layer_ipr(p, LAYERS)).sum(axis=1), inverse_participation_ratio(v))
    for units, total in zip(unit_shares(p, LAYERS), share.T, strict=True):
        np.testing.assert_allclose(units.sum(axis=1), total)
    assert (participation(p) >= 1 / inverse_participation_ratio(v) * (1 - 1e-12)).all()
    assert (participation(p) <= N * (1 + 1e-12)).all()
    mass = top_mass(p, [1, 3, N, 10 * N])
    np.testing.assert_allclose(mass[:, 0], p.max(axis=1))
    assert (np.diff(mass, axis=1) >= 0).all()
    np.testing.assert_allclose(mass[:, 2:], 1)
    for flipped in (shares(-v), shares(v * np.array([[1], [-1], [1]]))):
        np.testing.assert_array_equal(flipped, p)


@pytest.mark.parametrize("count", [1, 2, 7, N])
def test_participation_of_equal_entries_is_their_number(count: int) -> None:
    v = np.zeros(N)
    v[:count] = 1 / math.sqrt(count)
    assert participation(shares(v))[0] == pytest.approx(count)
    np.testing.assert_allclose(top_mass(shares(v), [1, count])[0], [1 / count, 1])


def test_participation_of_two_unequal_entries() -> None:
    expected = math.exp(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))
    assert participation([[0.9, 0.1, 0.0]])[0] == pytest.approx(expected)
    # Of a part that does not sum to 1 it is that of the part by itself.
    assert participation([[0.45, 0.05, 0.0]])[0] == pytest.approx(expected)
    assert np.isnan(participation([[0.0, 0.0]])[0])


@pytest.mark.parametrize(
    ("v", "message"),
    [
        (np.zeros((2, 2, 2)), r"series \(S, N\)"),
        (np.array([1.0, np.nan]), "finite; row 0"),
        (np.array([1.0, 1.0]), "norm 1.41421"),
        (np.zeros(3), "norm 0"),
    ],
)
def test_what_is_no_unit_vector_is_refused(v: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shares(v)


def test_shares_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match=rf"\(S, {N}\) of the parameters of 2 layers, not \(1, 3\)"):
        layer_shares(np.ones((1, 3)) / 3, LAYERS)
    with pytest.raises(ValueError, match="at least 0"):
        layer_ipr(np.full((1, N), -1.0), LAYERS)
    with pytest.raises(ValueError, match="sizes"):
        top_mass(np.ones((1, 3)) / 3, [0])
    with pytest.raises(ValueError, match="at least 0"):
        participation([[np.nan]])


# The table


def bases(steps: list[tuple[int, int]], vectors: Floats) -> Eigenbases:
    rows = [(step, i) for step, k in steps for i in range(1, k + 1)]
    frame = pd.DataFrame(rows, columns=["step", "i"]).astype("int64").assign(angle_bound=0.0)
    return Eigenbases(frame, vectors)


def test_the_table_has_a_row_for_the_network_and_one_for_each_layer() -> None:
    v = planted(w1_2_0=0.2, b1_3=0.1, w2_0_1=0.3, b2_1=0.4)
    w = planted(w1_1_0=0.5, w1_1_1=0.5)
    table = localization_table(bases([(0, 2), (10, 1)], np.stack([v, w, -w])), SHAPES)
    assert list(table.columns) == list(LOCALIZATION_UNITS)
    assert list(zip(table["step"], table["i"], table["layer"], strict=True)) == [
        (step, i, layer) for step, i in ((0, 1), (0, 2), (10, 1)) for layer in (0, 1, 2)
    ]
    whole, first, second = (table.iloc[row] for row in range(3))
    assert [whole["weight_share"], whole["bias_share"], whole["ipr"], whole["unit_ipr"]] == pytest.approx(
        [0.5, 0.5, 0.04 + 0.01 + 0.09 + 0.16, 0.04 + 0.01 + 0.09 + 0.16], rel=1e-4
    )
    assert [whole[f"top_{m}"] for m in (1, 10, 100, 1000)] == pytest.approx([0.4, 1, 1, 1])
    assert [first["weight_share"], first["bias_share"]] == pytest.approx([0.2, 0.1])
    assert [second["weight_share"], second["ipr"]] == pytest.approx([0.3, 0.25 / 0.49], rel=1e-4)
    assert table[table["layer"] > 0]["top_1"].isna().all()
    # A layer that holds nothing has no localization.
    nothing = table[(table["step"] == 10) & (table["layer"] == 2)].iloc[0]
    assert nothing["weight_share"] == 0
    assert np.isnan([nothing["ipr"], nothing["unit_ipr"], nothing["participation"]]).all()
    same = table[table["step"] == 10].reset_index(drop=True).drop(columns=["step", "i"])
    pd.testing.assert_frame_equal(same, table.iloc[3:6].reset_index(drop=True).drop(columns=["step", "i"]))


def test_the_table_of_no_snapshots_has_its_types() -> None:
    table = localization_table(bases([], np.zeros((0, N), np.float32)), SHAPES)
    assert (len(table), list(table.columns)) == (0, list(LOCALIZATION_UNITS))
    whole = {"step", "i", "layer"}
    assert {name: str(table[name].dtype) for name in table} == {
        name: "int64" if name in whole else "float64" for name in table
    }


def test_the_shapes_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes must be those of 26 parameters, not of 16"):
        localization_table(bases([(0, 1)], random_unit(0)), SHAPES[:2])
