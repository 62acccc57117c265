"""Which eigenvector is which after a crossing: planted crossings, closed forms, and bounds that must hold."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eigendrift.identity import broken, certified, continue_tracks, exchange_share, match, predecessors, start_tracks
from eigendrift.metrics import Floats

HALF = math.sqrt(0.5)


def rotation(seed: int, n: int) -> Floats:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


def overlaps(v: Floats, w: Floats) -> Floats:
    return np.minimum(np.abs(v @ w.T), 1.0)


def cosine(degrees: float) -> float:
    return math.cos(math.radians(degrees))


def sine(degrees: float) -> float:
    return math.sin(math.radians(degrees))


# Partners


def test_an_exchange_of_two_vectors_is_followed() -> None:
    v = np.eye(6)[:3]
    found = match(overlaps(v, -v[[1, 0, 2]]))
    assert found.partner.tolist() == [1, 0, 2]
    assert found.overlap.tolist() == [1, 1, 1]
    assert found.accepted.tolist() == [True, True, True]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.permutations(range(4)))
def test_any_exchange_is_found_behind_a_small_rotation_whatever_the_signs(seed: int, order: list[int]) -> None:
    random = np.random.default_rng(seed)
    v = rotation(seed, 12)[:4]
    w = np.linalg.qr((v[order] + 0.05 * random.standard_normal((4, 12))).T)[0].T * random.choice([-1, 1], (4, 1))
    found = match(overlaps(v, w))
    assert found.accepted.all()
    assert [order[j] for j in found.partner] == [0, 1, 2, 3]


def test_a_partner_must_keep_more_than_half_of_the_square() -> None:
    turned = [[cosine(44), sine(44)], [sine(44), cosine(44)]]
    assert match(turned).accepted.tolist() == [True, True]
    assert match(turned).partner.tolist() == [0, 1]
    assert not match([[HALF, HALF], [HALF, HALF]]).accepted.any()
    assert not match(np.zeros((2, 2))).accepted.any()


def test_an_overlap_above_the_limit_is_never_given_up_for_two_below() -> None:
    # The other assignment has the larger sum: 0.6 + 0.69 against 0.71.
    found = match([[0.71, 0.6], [0.69, 0.0]])
    assert found.partner.tolist() == [0, 1]
    assert found.accepted.tolist() == [True, False]


def test_what_has_no_partner_says_so() -> None:
    found = match([[0.1], [0.9], [0.2]])
    assert found.partner.tolist() == [-1, 0, -1]
    assert found.accepted.tolist() == [False, True, False]
    np.testing.assert_array_equal(found.overlap, [np.nan, 0.9, np.nan])
    assert match(np.zeros((0, 3))).partner.shape == (0,)
    assert match(np.zeros((2, 0))).partner.tolist() == [-1, -1]
    assert predecessors(found, 1).tolist() == [1]
    assert predecessors(match([[0.9, 0.1, 0.0]]), 3).tolist() == [0, -1, -1]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([0.5, 0.5], r"matrix \(k, m\), not \(2,\)"),
        ([[1.5]], "between 0 and 1; one is 1.5"),
        ([[-0.1]], "between 0 and 1; one is -0.1"),
        ([[math.nan]], "between 0 and 1; one is nan"),
        ([[0.9, 0.9]], "orthonormal vectors; a row's squares sum to 1.62"),
        ([[0.9], [0.9]], "orthonormal"),
    ],
)
def test_what_is_no_overlap_of_orthonormal_bases_is_refused(matrix: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        match(matrix)


# What the solver's errors leave certain


def test_angles_add_up_to_what_is_certain() -> None:
    c = [[cosine(30)]]
    assert certified(c, [sine(7)], [sine(7.9)])[0, 0]
    assert not certified(c, [sine(7)], [sine(8.1)])[0, 0]
    far = [[cosine(60)]]
    assert broken(far, [sine(7)], [sine(7.9)])[0]
    assert not broken(far, [sine(7)], [sine(8.1)])[0]


def test_without_a_bound_nothing_is_certain() -> None:
    for value in (0.0, 0.5, 0.99, 1.0):
        assert not certified([[value]], [1.0], [0.0])[0, 0]
        assert not broken([[value]], [1.0], [0.0])[0]
    assert certified([[1.0]], [0.0], [0.0])[0, 0]
    # Both bounds together beyond 90 degrees: the angle is kept within what lines can have.
    assert not certified([[0.0]], [1.0], [1.0])[0, 0]
    assert not broken([[0.0]], [1.0], [1.0])[0]


def test_broken_speaks_of_all_others() -> None:
    c = [[0.1, 0.8], [0.2, 0.3]]
    assert broken(c, [0.0, 0.0], [0.0, 0.0]).tolist() == [False, True]
    assert broken(np.zeros((2, 0)), [0.0, 0.0], []).tolist() == [True, True]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 0.9))
def test_what_is_certain_holds_for_the_true_vectors(seed: int, size: float) -> None:
    random = np.random.default_rng(seed)
    v, w = rotation(seed, 6)[:3], rotation(seed + 1, 6)[:3]
    if seed % 2:
        w = np.linalg.qr((v + 0.5 * w).T)[0].T
    # Computed bases at known angles to the true ones.
    off = [np.linalg.qr((b + size * random.standard_normal((3, 6)) / 3).T)[0].T for b in (v, w)]
    a, b = (np.sqrt(np.clip(1 - np.vecdot(true, found) ** 2, 0, 1)) for true, found in zip((v, w), off, strict=True))
    true, found = overlaps(v, w), overlaps(*off)
    sure, gone = certified(found, a, b), broken(found, a, b)
    assert (true[sure] > HALF - 1e-9).all()
    assert (true[gone] < HALF + 1e-9).all()
    matching = match(found)
    # What is certified is accepted, with the same partner.
    for i, j in zip(*np.nonzero(sure), strict=True):
        assert matching.partner[i] == j
        assert matching.accepted[i]
        assert not gone[i]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([0.1, 0.1], [0.1], r"first_bounds must be \(1,\)"),
        ([0.1], [[0.1]], r"second_bounds must be \(1,\)"),
        ([1.5], [0.1], "first_bounds must be sines.* 1.5"),
        ([0.1], [math.nan], "second_bounds must be sines.* nan"),
    ],
)
def test_bounds_that_are_none_are_refused(first: Any, second: Any, message: str) -> None:
    for function in (certified, broken):
        with pytest.raises(ValueError, match=message):
            function([[0.9]], first, second)


# Tracks


def test_a_track_goes_through_a_crossing_and_ends_where_its_direction_is_lost() -> None:
    tracks = start_tracks(3)
    assert tracks.tolist() == [1, 2, 3]
    crossed = continue_tracks(tracks, match(np.eye(3)[[1, 0, 2]]), 3, 4)
    assert crossed.tolist() == [2, 1, 3]
    lost = continue_tracks(crossed, match([[1, 0, 0], [0, 1, 0], [0, 0, 0.5]]), 3, 4)
    assert lost.tolist() == [2, 1, 4]
    more = continue_tracks(lost, match(np.eye(3, 5)), 5, 5)
    assert more.tolist() == [2, 1, 4, 5, 6]
    fewer = continue_tracks(more, match(np.eye(5, 2)), 2, 7)
    assert fewer.tolist() == [2, 1]


def test_tracks_of_other_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="matching"):
        continue_tracks([1, 2], match(np.eye(3)), 3, 4)
    with pytest.raises(ValueError, match="matching"):
        continue_tracks([1, 2, 3], match(np.eye(3)), 2, 4)


# The share of order


def test_the_share_of_an_exchange_alone_and_of_none() -> None:
    np.testing.assert_allclose(exchange_share([2.0, 2.0, 2.0, 0.0], [0.0, 0.5, math.nan, 0.0]), [1.0, 0.75, 0.0, 0.0])
    # A tie in the last digit is no negative share.
    assert exchange_share(1.0, 1.0 + 1e-16) == 0


@pytest.mark.parametrize(("whole", "rest"), [(math.nan, 0.0), (-1.0, 0.0), (1.0, -1.0)])
def test_a_share_of_what_is_no_displacement_is_refused(whole: float, rest: float) -> None:
    with pytest.raises(ValueError, match="displacement"):
        exchange_share(whole, rest)
