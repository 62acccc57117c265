"""The tables of one run, on vectors whose statistics are known."""

import math

import numpy as np
import pandas as pd
import pytest

from reproduction.experiment.table_catalogue import TABLES
from reproduction.files.eigenpairs import UNITS
from reproduction.measure.run_tables import (
    alignment_table,
    displacement_table,
    ipr_table,
    on_grid,
    significant,
)
from reproduction.statistics.rows import is_on_grid

N = 8
E = np.eye(N, dtype=np.float32)


def turned(angle: float, first: int = 0, second: int = 1) -> np.ndarray:
    """A unit vector at an angle to one axis, in degrees, towards another."""
    radians = math.radians(angle)
    vector: np.ndarray = (math.cos(radians) * E[first] + math.sin(radians) * E[second]).astype(np.float32)
    return vector


def pairs(rows: list[tuple[int, int]], **columns: list[float]) -> pd.DataFrame:
    """Eigenpairs at (step, i), converged unless said otherwise."""
    frame = pd.DataFrame({name: np.zeros(len(rows)) for name in UNITS})
    frame["step"] = [step for step, _ in rows]
    frame["i"] = [i for _, i in rows]
    frame["matvecs"] = 20
    frame["converged"] = 1
    for name, values in columns.items():
        frame[name] = values
    return frame.astype(dict.fromkeys(("step", "i", "matvecs", "converged"), int))


# Displacement: v_1 turns by 60 degrees from step 0 to 10 and by 90 from 0 to 20; v_2 stays, but changes its sign.

STEPS = np.array([0, 10, 20])
PAIRS = pairs(
    [(0, 1), (0, 2), (10, 1), (10, 2), (20, 1)],
    angle_bound=[0.1, 0.2, 0.3, 0.4, 0.95],
    converged=[1, 1, 1, 0, 1],
)
VECTORS = np.stack([E[0], E[2], turned(60), -E[2], turned(90)])
WEIGHTS = np.stack([0 * E[0], 3 * E[0] + 4 * E[1], 5 * E[1]])


def displacements(two_times: list[tuple[int, int]]) -> pd.DataFrame:
    return displacement_table(PAIRS, VECTORS, STEPS, WEIGHTS, two_times).set_index(["waiting_time", "lag", "i"])


def test_displacement_and_overlap_of_known_angles() -> None:
    table = displacements([(0, 10), (0, 20), (10, 10)])
    assert list(table.index) == [(0, 10, 1), (0, 10, 2), (0, 20, 1), (10, 10, 1)]
    assert table["overlap"].tolist() == pytest.approx([0.5, 1.0, 0.0, math.cos(math.radians(30))], abs=1e-7)
    expected = [2 / N * (1 - cosine) for cosine in (0.5, 1.0, 0.0, math.cos(math.radians(30)))]
    assert table["displacement"].tolist() == pytest.approx(expected, abs=1e-8)


def test_the_span_of_the_leading_vectors_ignores_their_order() -> None:
    swapped = pairs([(0, 1), (0, 2), (10, 1), (10, 2), (20, 1)], angle_bound=[0.0] * 5)
    vectors = np.stack([E[0], E[1], -E[1], E[0], turned(60)])
    table = displacement_table(swapped, vectors, STEPS, WEIGHTS, [(0, 10), (0, 20)])
    table = table.set_index(["waiting_time", "lag", "i"])
    assert table.loc[(0, 10, 1), "subspace_displacement"] == pytest.approx(2 / N)
    assert table.loc[(0, 10, 2), "displacement"] == pytest.approx(2 / N)
    assert table.loc[(0, 10, 2), "subspace_displacement"] == pytest.approx(0, abs=1e-12)
    assert table.loc[(0, 20, 1), "subspace_displacement"] == pytest.approx(table.loc[(0, 20, 1), "displacement"])


def test_weight_displacement_and_two_time_alignment() -> None:
    table = displacements([(0, 10), (0, 20), (10, 10)])
    # |theta_10 - theta_0| = 5, |theta_20 - theta_0| = 5, theta_20 - theta_10 = (-3, 1, ...)
    assert table["weight_displacement"].tolist() == pytest.approx([25 / N, 25 / N, 25 / N, 10 / N])
    towards = abs(-3 * 0.5 + 1 * math.sqrt(0.75)) / math.sqrt(10)
    assert table["update_alignment"].tolist() == pytest.approx([3 / 5, 0.0, 0.0, towards], abs=1e-7)


def test_what_the_solver_leaves_open_is_passed_on() -> None:
    table = displacements([(0, 10), (0, 20), (10, 10)])
    assert table["angle_bound"].tolist() == pytest.approx([0.4, 0.6, 1.0, 1.0])
    assert table["converged"].tolist() == [1, 0, 1, 1]


def test_no_statistic_of_two_times_depends_on_signs() -> None:
    times = [(0, 10), (0, 20), (10, 10)]
    signs = np.array([[-1], [1], [-1], [-1], [1]], np.float32)
    flipped = displacement_table(PAIRS, signs * VECTORS, STEPS, WEIGHTS, times)
    pd.testing.assert_frame_equal(flipped, displacements(times).reset_index())


def test_times_without_a_snapshot_are_left_out() -> None:
    assert list(displacements([(0, 10), (0, 15), (5, 5), (20, 10)]).index) == [(0, 10, 1), (0, 10, 2)]


def test_a_lag_of_zero_has_no_displacement_and_no_direction() -> None:
    table = displacements([(10, 0)])
    assert table["displacement"].tolist() == [0.0, 0.0]
    assert table["overlap"].tolist() == pytest.approx([1.0, 1.0])
    assert table["update_alignment"].isna().all()


def test_a_network_that_does_not_move_has_no_two_time_alignment() -> None:
    table = displacement_table(PAIRS, VECTORS, STEPS, np.ones((3, N), np.float32), [(0, 10)])
    assert table["weight_displacement"].tolist() == [0.0, 0.0]
    assert table["update_alignment"].isna().all()
    assert table["displacement"].tolist() == pytest.approx([1 / N, 0.0], abs=1e-8)


# Localization


def test_ipr_of_known_vectors() -> None:
    spread = np.full(N, N**-0.5, np.float32)
    two = turned(45)
    frame = pairs(
        [(0, 1), (0, 2), (5, 1)], eigenvalue=[3.0, 2.0, 1.0], residual=[1e-4] * 3, gap=[1, 1, 0.5], clustered=[0, 1, 1]
    )
    table = ipr_table(frame, np.stack([E[3], spread, two]))
    assert list(table.columns) == list(TABLES["ipr"].units)
    assert table["ipr"].tolist() == pytest.approx([1.0, 1 / N, 0.5], rel=1e-6)
    for name in ("step", "i", "eigenvalue", "residual", "gap", "clustered", "matvecs", "converged"):
        assert table[name].tolist() == frame[name].tolist()
    for name in ("angle_bound", "span_bound"):
        assert table[name].tolist() == frame[name].tolist()
    flipped = ipr_table(frame, -np.stack([E[3], spread, two]))
    pd.testing.assert_frame_equal(flipped, table)


# Alignment


def test_alignment_with_gradient_update_and_the_end() -> None:
    frame = pairs([(0, 1), (0, 2), (10, 1), (10, 2)], converged=[1, 0, 1, 1])
    vectors = np.stack([E[0], -E[1], turned(60), E[3]])
    gradients = np.stack([3 * E[0] - 4 * E[1], 1e-30 * E[0], E[7]])
    updates = np.stack([-2 * E[0], E[0] + E[1], E[7]])
    table = alignment_table(frame, vectors, STEPS, gradients, updates, {1: turned(60)})
    assert list(table.columns) == list(TABLES["alignment"].units)
    assert table["step"].tolist() == [0, 0, 10, 10]
    assert table["gradient_alignment"].tolist() == pytest.approx([0.6, 0.8, 0.5, 0.0], abs=1e-7)
    towards = (0.5 + math.sqrt(0.75)) / math.sqrt(2)
    assert table["update_alignment"].tolist() == pytest.approx([1.0, 0.0, towards, 0.0], abs=1e-7)
    assert table["convergence"].tolist()[::2] == pytest.approx([0.5, 1.0], abs=1e-7)
    assert table["convergence"].isna().tolist() == [False, True, False, True]
    assert table["converged"].tolist() == [1, 0, 1, 1]
    flipped = alignment_table(frame, -vectors, STEPS, -gradients, updates, {1: -turned(60)})
    pd.testing.assert_frame_equal(flipped, table)


def test_overlaps_with_the_full_gradient_are_passed_on_where_there_are_any() -> None:
    frame = pairs([(0, 1), (0, 2)])
    without = frame.drop(columns=["gradient_norm", "gradient_overlap"], errors="ignore")
    assert ipr_table(without, E[:2])[["gradient_norm", "gradient_overlap"]].isna().all(axis=None)
    table = ipr_table(without.assign(gradient_norm=0.5, gradient_overlap=[0.6, 0.8]), E[:2])
    assert table["gradient_norm"].tolist() == [0.5, 0.5]
    assert table["gradient_overlap"].tolist() == [0.6, 0.8]


def test_shares_of_gradient_and_update_add_up_within_the_span() -> None:
    # By i, whatever the order of the rows; each step by itself.
    frame = pairs([(10, 2), (10, 1), (0, 1), (0, 3)])
    vectors = np.stack([E[1], turned(60), E[0], E[2]])
    gradients = np.stack([3 * E[0] + 4 * E[1], E[1], E[7]])
    updates = np.stack([E[0] + E[2] + E[3], 0 * E[0], E[7]])
    table = alignment_table(frame.iloc[[0, 2, 3]], vectors[[0, 2, 3]], STEPS, gradients, updates, {})
    # v_1 is missing at step 10, and v_2 at step 0: only the span of v_1 there is known.
    assert table["gradient_share"].isna().tolist() == [True, False, True]
    assert table["gradient_share"][1] == pytest.approx(0.36)
    assert table["update_share"][1] == pytest.approx(1 / 3, rel=1e-5)
    whole = alignment_table(pairs([(0, 2), (0, 1)]), np.stack([E[1], E[0]]), STEPS, gradients, updates, {})
    assert whole["gradient_share"].tolist() == pytest.approx([1.0, 0.36])
    assert whole["update_share"].tolist() == pytest.approx([1 / 3, 1 / 3], rel=1e-5)
    nothing = alignment_table(pairs([(10, 1)]), E[:1], STEPS, gradients, updates, {})
    assert nothing["update_share"].isna().all()


def test_significant_digits() -> None:
    numbers = [0.0, 1.0, -123456.789, 1.23456789e-7, 9.9999999, 1e300, 1e-305, 1e-320]
    expected = [0.0, 1.0, -123457.0, 1.23457e-7, 10.0, 1e300, 1e-305, 0.0]
    assert significant(numbers).tolist() == pytest.approx(expected, rel=1e-14)
    assert math.isnan(float(significant(math.nan)))
    assert float(significant(0.123456, 2)) == 0.12


def test_each_row_uses_the_gradient_of_its_own_step() -> None:
    frame = pairs([(20, 1), (0, 1)])
    gradients = np.stack([E[0], E[1], E[2]])
    table = alignment_table(frame, np.stack([E[2], E[0]]), STEPS, gradients, gradients, {})
    assert table["gradient_alignment"].tolist() == pytest.approx([1.0, 1.0])


def test_a_gradient_of_zero_has_no_alignment() -> None:
    table = alignment_table(pairs([(0, 1)]), E[:1], STEPS, 0 * WEIGHTS, 0 * WEIGHTS, {})
    assert table[["gradient_alignment", "update_alignment", "convergence"]].isna().all(axis=None)


def test_pairs_on_the_grid_are_those_at_multiples_of_its_interval() -> None:
    frame = pairs([(0, 1), (0, 2), (3, 1), (10, 1), (15, 1), (20, 1), (20, 2)])
    vectors = np.arange(7 * N).reshape(7, N)
    kept, found = on_grid(frame, vectors, 10, 20)
    assert list(zip(kept["step"], kept["i"], strict=True)) == [(0, 1), (0, 2), (10, 1), (20, 1), (20, 2)]
    assert kept.index.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(found, vectors[[0, 1, 3, 5, 6]])
    nothing, none = on_grid(pairs([]), np.zeros((0, N)), 10, 0)
    assert (len(nothing), none.shape) == (0, (0, N))


def test_the_last_snapshot_is_on_the_grid_whether_or_not_the_interval_divides_the_run() -> None:
    frame = pairs([(0, 1), (4, 1), (7, 1), (9, 1), (9, 2)])
    kept, found = on_grid(frame, np.arange(5 * N).reshape(5, N), 4, 9)
    assert list(zip(kept["step"], kept["i"], strict=True)) == [(0, 1), (4, 1), (9, 1), (9, 2)]
    assert found[:, 0].tolist() == [0, N, 3 * N, 4 * N]
    assert is_on_grid(np.array([0, 7, 8, 9]), 4, 9).tolist() == [True, False, True, True]


# No rows


def test_a_run_that_diverged_at_once_has_tables_without_rows() -> None:
    nothing, none = pairs([]), np.zeros((0, N), np.float32)
    no_steps = np.zeros(0, np.int64)
    tables = [
        (displacement_table(nothing, none, no_steps, none, [(0, 10)]), TABLES["displacement"].units),
        (ipr_table(nothing, none), TABLES["ipr"].units),
        (alignment_table(nothing, none, no_steps, none, none, {}), TABLES["alignment"].units),
    ]
    for table, units in tables:
        assert (len(table), list(table.columns)) == (0, list(units))
        # Stacked with other runs' rows, numbers stay numbers.
        whole = {"waiting_time", "lag", "step", "i", "matvecs", "converged"}
        assert {name: str(table[name].dtype) for name in units} == {
            name: "int64" if name in whole else "float64" for name in units
        }
