"""Tables of overlaps, subspaces, tracks and exchanges of a planted run whose second and first vector change places."""

import math

import numpy as np
import pandas as pd
import pytest
from refusals import refused

from eigendrift.metrics import Floats
from reproduction.experiment.table_catalogue import TABLES
from reproduction.measure.eigenbases import Eigenbases
from reproduction.measure.identity_tables import (
    RELATIONS,
    RunOverlaps,
    identity_table,
    overlaps_table,
    overlaps_units,
    run_overlaps,
    subspaces_table,
    tracks_table,
    with_angle_bounds,
)

N = 8
E = np.eye(N)


def turned(degrees: float, first: int, second: int) -> Floats:
    radians = math.radians(degrees)
    result: Floats = math.cos(radians) * E[first] + math.sin(radians) * E[second]
    return result


def frame(counts: dict[int, int], bound: float = 0.0) -> pd.DataFrame:
    rows = [(step, i) for step, k in counts.items() for i in range(1, k + 1)]
    return pd.DataFrame(rows, columns=["step", "i"]).astype("int64").assign(angle_bound=bound)


# v_1 turns by 20 degrees a step while v_2 stays; between 10 and 20 their eigenvalues cross. From 20 to 30 a third
# direction takes the place of what v_1 was.
COUNTS = {0: 2, 10: 2, 20: 3, 30: 2}
VECTORS = np.stack([E[0], E[1], turned(20, 0, 2), -E[1], E[1], turned(40, 0, 2), E[5], -E[1], turned(90, 2, 3)]).astype(
    np.float32
)
TWO_TIMES = [(0, 10), (0, 20), (0, 30), (10, 10), (10, 15), (10, 0)]


def taken(bound: float = 0.0, vectors: Floats = VECTORS, every: int = 20) -> RunOverlaps:
    return run_overlaps(Eigenbases(frame(COUNTS, bound), vectors), TWO_TIMES, every)


def test_pairs_of_snapshots_are_written_once_with_all_that_they_are() -> None:
    relations = taken().relations
    assert {times: sorted(names) for times, names in relations.items()} == {
        (0, 10): ["consecutive", "two_time"],
        (0, 20): ["grid", "two_time"],
        (0, 30): ["final", "two_time"],
        (10, 20): ["consecutive", "two_time"],
        (10, 30): ["final"],
        (20, 30): ["consecutive", "final", "grid"],
    }
    # Of snapshots with the most pairs there is one; with as many everywhere the chain is left out.
    assert taken().chains["dense"] == [20]
    assert "dense" not in run_overlaps(Eigenbases(frame({0: 2, 5: 2}), VECTORS[:4]), [], 5).chains


def test_all_overlaps_are_in_the_table_with_partners_and_what_is_certain() -> None:
    table = overlaps_table(taken(), 3)
    assert list(table.columns) == list(overlaps_units(3))
    assert list(table.columns)[: len(TABLES["overlaps"].units)] == list(TABLES["overlaps"].units)
    at = table.set_index(["first", "second", "i"])
    assert len(table) == 2 + 2 + 2 + 2 + 2 + 3
    crossing = at.loc[(10, 20)]
    assert crossing[["overlap_1", "overlap_2", "overlap_3"]].to_numpy() == pytest.approx(
        np.array([[0, math.cos(math.radians(20)), 0], [1, 0, 0]]), abs=1e-5
    )
    assert crossing["partner"].tolist() == [2, 1]
    assert crossing["certified"].tolist() == [1, 1]
    assert at.loc[(0, 10), "overlap_3"].isna().all()
    assert at.loc[(0, 30, 1), ["partner", "certified", "broken"]].tolist() == [0, 0, 1]
    assert at.loc[(20, 30), "partner"].tolist() == [1, 0, 0]
    flags = at.loc[(20, 30, 1), list(RELATIONS)].tolist()
    assert flags == [0, 1, 1, 0, 1]
    assert at.loc[(10, 20, 1), list(RELATIONS)].tolist() == [1, 1, 0, 0, 0]


def test_large_bounds_leave_nothing_certain_and_partners_as_they_are() -> None:
    wide = overlaps_table(taken(bound=1.0), 3)
    assert wide["certified"].tolist() == wide["broken"].tolist() == [0] * len(wide)
    assert wide["partner"].tolist() == overlaps_table(taken(), 3)["partner"].tolist()
    # 20 degrees and twice 13 are more than 45, and 0 and twice 13 are not.
    some = overlaps_table(taken(bound=math.sin(math.radians(13))), 3).set_index(["first", "second", "i"])
    assert some.loc[(10, 20), "certified"].tolist() == [0, 1]


def test_bounds_are_joined_from_the_table_ipr() -> None:
    ipr = frame(COUNTS).assign(angle_bound=np.arange(9) / 100)
    joined = with_angle_bounds(overlaps_table(taken(), 3), ipr).set_index(["first", "second", "i"])
    assert joined.loc[(10, 20, 1), "first_angle_bound"] == 0.02
    assert joined.loc[(10, 20, 1), "partner_angle_bound"] == 0.05
    assert np.isnan(joined.loc[(20, 30, 2), "partner_angle_bound"])


def test_the_span_of_both_does_not_see_the_crossing() -> None:
    table = subspaces_table(taken()).set_index(["first", "second", "k"])
    assert list(subspaces_table(taken()).columns) == list(TABLES["subspaces"].units)
    square = math.cos(math.radians(20)) ** 2
    assert table.loc[(10, 20), "overlap"].tolist() == pytest.approx([0, (1 + square) / 2], abs=1e-5)
    assert table.loc[(10, 20), "baseline"].tolist() == [1 / N, 2 / N]
    assert table.loc[(10, 20, 2), "two_time"] == 1


def test_tracks_follow_directions_through_the_crossing() -> None:
    table = tracks_table(taken())
    assert list(table.columns) == list(TABLES["tracks"].units)
    run = table[table["chain"] == "consecutive"].set_index(["step", "i"])
    assert run["track"].to_dict() == {
        (0, 1): 1, (0, 2): 2, (10, 1): 1, (10, 2): 2, (20, 1): 2, (20, 2): 1, (20, 3): 3, (30, 1): 2, (30, 2): 4,
    }  # fmt: skip
    assert run["predecessor"].tolist() == [0, 0, 1, 2, 2, 1, 0, 1, 2]
    assert run["accepted"].tolist() == [0, 0, 1, 1, 1, 1, 0, 1, 0]
    assert run["certified"].tolist() == run["accepted"].tolist()
    assert run.loc[(30, 2), "broken"] == 1
    assert np.isnan(run.loc[(0, 1), "overlap"])
    assert run.loc[(20, 2), "displacement"] == pytest.approx(2 / N * (1 - math.cos(math.radians(20))), rel=1e-5)
    grid = table[table["chain"] == "grid"].set_index(["step", "i"])
    assert grid["track"].to_dict() == {(0, 1): 1, (0, 2): 2, (20, 1): 2, (20, 2): 1, (20, 3): 3, (30, 1): 2, (30, 2): 4}
    assert table[table["chain"] == "dense"]["track"].tolist() == [1, 2, 3]


def test_displacement_by_order_alone_is_told_from_motion() -> None:
    table = identity_table(taken()).set_index(["waiting_time", "lag", "i"])
    assert list(identity_table(taken()).columns) == list(TABLES["identity"].units)
    assert [key for key in table.index if key[2] == 1] == [(0, 10, 1), (0, 20, 1), (0, 30, 1), (10, 10, 1)]
    whole = 2 / N

    def moved(degrees: float) -> float:
        return whole * (1 - math.cos(math.radians(degrees)))

    assert table.loc[(10, 10, 1), "displacement"] == pytest.approx(whole)
    assert table.loc[(10, 10, 1), "partner_displacement"] == pytest.approx(moved(20), rel=1e-5)
    assert table.loc[(10, 10), "exchange_share"].tolist() == pytest.approx([math.cos(math.radians(20)), 1], rel=1e-5)
    assert table.loc[(0, 10, 1), "exchange_share"] == 0
    assert table.loc[(0, 20), "partner"].tolist() == [2, 1]
    # At 40 degrees directly, and by two steps of 20.
    assert table.loc[(0, 20, 1), "partner_displacement"] == pytest.approx(moved(40), rel=1e-5)
    assert table.loc[(0, 20), "tracked_i"].tolist() == [2, 1]
    assert table.loc[(0, 20), "tracked_displacement"].tolist() == pytest.approx([moved(40), 0], rel=1e-5)
    # The direction of v_1 is lost in the end.
    lost = table.loc[(0, 30, 1)]
    assert [lost["accepted"], lost["broken"], lost["exchange_share"], lost["tracked_i"]] == [0, 1, 0, 0]
    assert np.isnan(lost["tracked_displacement"])
    assert table.loc[(0, 30, 2), "tracked_i"] == 1
    assert table["tracked_certified"].tolist() == (table["tracked_i"] > 0).astype(int).tolist()


def test_a_track_is_followed_where_the_two_times_alone_would_lose_it() -> None:
    steps = dict.fromkeys((0, 10, 20, 30), 1)
    vectors = np.stack([turned(angle, 0, 1) for angle in (0, 30, 60, 90)])
    bound = math.sin(math.radians(4))
    sure = frame(steps, bound)
    run = run_overlaps(Eigenbases(sure, vectors), [(0, 30), (10, 10)], 10)
    table = identity_table(run).set_index(["waiting_time", "lag", "i"])
    far = table.loc[(0, 30, 1)]
    assert [far["accepted"], far["tracked_i"], far["tracked_certified"]] == [0, 1, 1]
    assert far["tracked_displacement"] == pytest.approx(2 / N)
    # One uncertain link on the way, and the whole way is.
    unsure = sure.assign(angle_bound=[bound, bound, bound, 0.5])
    table = identity_table(run_overlaps(Eigenbases(unsure, vectors), [(0, 30), (10, 10)], 10))
    assert table["tracked_certified"].tolist() == [0, 1]
    assert table["tracked_i"].tolist() == [1, 1]


def test_nothing_depends_on_the_signs_of_the_vectors() -> None:
    signs = np.where(np.random.default_rng(3).random((len(VECTORS), 1)) < 0.5, -1, 1).astype(np.float32)
    for make in (subspaces_table, tracks_table, identity_table, lambda run: overlaps_table(run, 3)):
        pd.testing.assert_frame_equal(make(taken(vectors=signs * VECTORS)), make(taken()))


def test_a_run_that_diverged_at_once_has_tables_without_rows() -> None:
    run = run_overlaps(Eigenbases(frame({}), np.zeros((0, N), np.float32)), TWO_TIMES, 10)
    tables = [
        (overlaps_table(run, 3), overlaps_units(3)),
        (subspaces_table(run), TABLES["subspaces"].units),
        (tracks_table(run), TABLES["tracks"].units),
        (identity_table(run), TABLES["identity"].units),
    ]
    whole = "first second i k step track predecessor partner waiting_time lag accepted certified broken tracked_i"
    integers = {*whole.split(), "tracked_certified", *RELATIONS}
    for table, units in tables:
        assert (len(table), list(table.columns)) == (0, list(units))
        for name in set(units) - {"chain"}:
            assert str(table[name].dtype) == ("int64" if name in integers else "float64"), name


def test_overlaps_keep_five_digits_of_themselves_or_of_what_is_missing_to_one() -> None:
    angles = np.array([0.001234567, 0.7, math.pi / 2 - 0.001234567, math.pi / 2])
    matrices = {(0, j): np.array([[math.cos(angle)]]) for j, angle in enumerate(angles, start=1)}
    run = RunOverlaps(
        matrices=matrices,
        relations=dict.fromkeys(matrices, frozenset()),
        bounds={step: np.zeros(1) for step in range(5)},
        chains={},
        n_parameters=N,
    )
    assert overlaps_table(run, 1)["overlap_1"].tolist() == [0.9999992, 0.76484, 0.001235, 0.0]


def test_more_pairs_than_columns_are_refused() -> None:
    with refused(ValueError, "k = 2", 3, 20):
        overlaps_table(taken(), 2)


# Eigenbases


def test_bases_are_read_from_several_arrays_in_float64() -> None:
    parts = [VECTORS[:4], VECTORS[4:4], VECTORS[4:]]
    bases = Eigenbases(frame(COUNTS, 0.25), parts)
    assert bases.steps.tolist() == [0, 10, 20, 30]
    assert [bases.count(step) for step in COUNTS] == list(COUNTS.values())
    assert 20 in bases
    assert 15 not in bases
    for step, rows in ((0, VECTORS[:2]), (20, VECTORS[4:7]), (30, VECTORS[7:])):
        assert bases.basis(step).dtype == np.float64
        np.testing.assert_allclose(bases.basis(step), rows, atol=1e-7)
        np.testing.assert_allclose(np.linalg.norm(bases.basis(step), axis=1), 1, rtol=1e-15)
    assert bases.angle_bounds(20).tolist() == [0.25] * 3
    assert bases.overlaps(10, 20) == pytest.approx(np.abs(VECTORS[2:4] @ VECTORS[4:7].T), abs=1e-6)


def test_what_is_no_series_of_bases_is_refused() -> None:
    pairs = frame({0: 2, 10: 1})
    good = E[[0, 1, 2]]
    with refused(ValueError, "pairs", 2, 3):
        Eigenbases(pairs, good[:2])
    with refused(ValueError, "vectors"):
        Eigenbases(pairs, E[0])
    with refused(ValueError, "vectors"):
        Eigenbases(pairs, [good[:2], good[2:, :5]])
    with refused(ValueError, "step", "i"):
        Eigenbases(pairs.iloc[[2, 0, 1]], good)
    with pytest.raises(ValueError, match="i = 1, 2"):
        Eigenbases(pairs.assign(i=[1, 3, 1]), good)
    with refused(ValueError, "step 0", 0.6):
        Eigenbases(pairs, np.stack([E[0], 0.6 * E[0] + 0.8 * E[1], E[2]])).basis(0)
    with refused(ValueError, "step 10", 3):
        Eigenbases(pairs, good * [[1], [1], [2]]).basis(10)
    with refused(ValueError, "step 10"):
        Eigenbases(pairs, good * [[1], [1], [np.nan]]).basis(10)
