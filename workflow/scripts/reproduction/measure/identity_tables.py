"""Tables of overlaps between all eigenvectors of two snapshots, and of which is which through crossings.

They are kept of a run's eigenvectors once these are deleted, together with `localization_tables`: every
overlap that one of the tables here or a later question is drawn from is written.

Pairs of snapshots (s, t), s < t, are those at (waiting time, waiting time + lag); neighbours among all snapshots
("consecutive"), among those of the grid and the last ("grid"), and among those with the most pairs where not all have
as many ("dense"); and every snapshot with the last ("final"). A pair that is several of these is written once, with 1
in the column of each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from eigendrift import identity
from eigendrift.metrics import Floats, overlap_to_displacement, random_subspace_overlap, subspace_overlap
from reproduction.experiment.table_catalogue import RELATIONS, TABLES
from reproduction.measure.columns import decimal_rounded, significant, typed
from reproduction.measure.eigenbases import Eigenbases
from reproduction.statistics.rows import is_on_grid

CHAINS = ("consecutive", "grid", "dense")
# Of an overlap C, or of 1 - C where that is smaller: five digits, and at most so many decimals of each.
OVERLAP_DIGITS, SMALL_DECIMALS, LARGE_DECIMALS = 5, 6, 7

Times = tuple[int, int]


@dataclass(frozen=True)
class RunOverlaps:
    """All overlaps that are taken of a run.

    Attributes:
        matrices: (s, t) -> C_ij = |v_i(s) . v_j(t)| (k, m), in the order of s and t.
        relations: (s, t) -> which of RELATIONS it is.
        bounds: step -> bounds (k,) on the sines of the angles to the true eigenvectors.
        chains: Which of CHAINS the run has -> its steps.
        n_parameters: N.
    """

    matrices: Mapping[Times, Floats]
    relations: Mapping[Times, frozenset[str]]
    bounds: Mapping[int, Floats]
    chains: Mapping[str, Sequence[int]]
    n_parameters: int


def run_overlaps(bases: Eigenbases, two_times: Sequence[Times], every: int) -> RunOverlaps:
    """Take the overlaps of a run's eigenvectors; times at which it has no snapshot are omitted.

    Args:
        bases: Its eigenvectors.
        two_times: (waiting time, lag) in training steps, of lags above 0.
        every: Interval of the grid in training steps.
    """
    steps = [int(step) for step in bases.steps]
    chains, relations = snapshot_pairs({step: bases.count(step) for step in steps}, two_times, every)
    return RunOverlaps(
        matrices={times: bases.overlaps(*times) for times in relations},
        relations=relations,
        bounds={step: np.minimum(bases.angle_bounds(step), 1.0) for step in steps},
        chains=chains,
        n_parameters=bases.n_parameters,
    )


def snapshot_pairs(
    counts: Mapping[int, int], two_times: Sequence[Times], every: int
) -> tuple[dict[str, list[int]], dict[Times, frozenset[str]]]:
    """Which of CHAINS a run has -> its steps; pairs of snapshots in their order -> which of RELATIONS each is.

    Args:
        counts: Step of each snapshot, ascending -> how many pairs it has.
        two_times: (waiting time, lag) in training steps, of lags above 0.
        every: Interval of the grid in training steps.
    """
    steps = list(counts)
    chains: dict[str, list[int]] = {"consecutive": steps}
    if steps:
        kept = is_on_grid(np.array(steps), every, steps[-1])
        chains["grid"] = [step for step, keep in zip(steps, kept, strict=True) if keep]
    if len(set(counts.values())) > 1:
        chains["dense"] = [step for step in steps if counts[step] == max(counts.values())]
    relations: dict[Times, set[str]] = {}
    for name, chain in chains.items():
        for times in pairwise(chain):
            relations.setdefault(times, set()).add(name)
    for waiting_time, lag in two_times:
        if lag > 0 and waiting_time in counts and waiting_time + lag in counts:
            relations.setdefault((waiting_time, waiting_time + lag), set()).add("two_time")
    for step in steps[:-1]:
        relations.setdefault((step, steps[-1]), set()).add("final")
    return chains, {times: frozenset(relations[times]) for times in sorted(relations)}


def overlaps_units(k: int) -> dict[str, str]:
    """Units of the table of overlaps for runs of up to k pairs a snapshot."""
    return {**TABLES["overlaps"].units, **{f"overlap_{j}": "1" for j in range(1, k + 1)}}


def overlaps_table(taken: RunOverlaps, k: int) -> pd.DataFrame:
    """The overlaps of v_i(first) with v_1(second), v_2(second), ..., a row for every i; no units but those of time.

    Args:
        taken: The overlaps of the run.
        k: The most pairs that one of its snapshots may have, which is the number of columns `overlap_j`.

    Returns:
        `partner` is the j that v_i has become (overlap above 1/sqrt(2); 0: none), `certified` whether that holds for
        the true eigenvectors too, `broken` whether no j can have a true overlap above 1/sqrt(2). The bounds behind the
        latter two are `angle_bound` of the table ipr, which `with_angle_bounds` joins. Overlaps C have five significant
        digits of C, or of 1 - C where that is smaller, and at most six decimals, or seven above 1/2; those with vectors
        that were not taken are missing.
    """
    names = overlaps_units(k)
    blocks = []
    for times, matrix in taken.matrices.items():
        if max(matrix.shape) > k:
            raise ValueError(f"k = {k} is too small: {max(matrix.shape)} pairs at steps {times[0]} or {times[1]}")
        matching, sure, gone = _matched(taken, times)
        rows = len(matrix)
        block = np.full((rows, len(names)), np.nan)
        block[:, :2] = times
        block[:, 2:7] = [name in taken.relations[times] for name in RELATIONS]
        block[:, 7] = np.arange(1, rows + 1)
        block[:, 8] = np.where(matching.accepted, matching.partner + 1, 0)
        block[:, 9], block[:, 10] = sure, gone
        block[:, 11 : 11 + matrix.shape[1]] = _rounded(matrix)
        blocks.append(block)
    rows_of_all = np.concatenate(blocks) if blocks else np.empty((0, len(names)))
    return typed(rows_of_all, names)


def with_angle_bounds(overlaps: pd.DataFrame, ipr: pd.DataFrame) -> pd.DataFrame:
    """The table of overlaps with `first_angle_bound` of v_i(first) and `partner_angle_bound` of its partner, a sine.

    Args:
        overlaps: `overlaps_table` of a run.
        ipr: Its table of that kind, which has `angle_bound` at every (step, i).
    """
    bounds = ipr.set_index(["step", "i"])["angle_bound"]
    keys = {"first_angle_bound": ("first", "i"), "partner_angle_bound": ("second", "partner")}
    found = {
        name: bounds.reindex(pd.MultiIndex.from_frame(overlaps[list(key)])).to_numpy() for name, key in keys.items()
    }
    return overlaps.assign(**found)


def subspaces_table(taken: RunOverlaps) -> pd.DataFrame:
    """O_k of the spans of v_1..v_k for every k that both snapshots have, and its mean k/N for random spans.

    At every (waiting time, lag), and of every snapshot with the last; of other neighbours it follows from the table of
    overlaps, as the sum of the squares of overlap_j of i, for i and j up to k, over k.
    """
    rows = []
    for times, matrix in taken.matrices.items():
        if not taken.relations[times] & {"two_time", "final"}:
            continue
        found = _rounded(subspace_overlap(matrix))
        flags = tuple(int(name in taken.relations[times]) for name in RELATIONS)
        for k, value in enumerate(found, start=1):
            baseline = _short(random_subspace_overlap(k, taken.n_parameters))
            rows.append((*times, *flags, k, value, baseline))
    return typed(rows, TABLES["subspaces"].units)


def tracks_table(taken: RunOverlaps) -> pd.DataFrame:
    """Directions followed from snapshot to snapshot, along each chain; a row for every snapshot of it and i.

    `track` numbers the directions of a chain, 1, 2, ... in the order of their first snapshot and their i there.
    `predecessor` is the i at the snapshot before that v_i is assigned to (0: none), `overlap` and `displacement` are
    those between the two. Where they are `accepted` (overlap above 1/sqrt(2)) the track goes on; else it ends there,
    and a new one starts here. `certified`: accepted whatever the solver's errors; `broken`: no vector of the snapshot
    before has a true overlap above 1/sqrt(2) with this one.
    """
    rows: list[tuple[object, ...]] = []
    for chain in taken.chains:
        for step, link in _followed(taken, chain).items():
            moved = significant(overlap_to_displacement(np.nan_to_num(link.overlap), taken.n_parameters))
            known = link.predecessor > 0
            for row, track in enumerate(link.tracks):
                overlap = float(_rounded(link.overlap[row : row + 1])[0])
                displacement = float(moved[row]) if known[row] else np.nan
                flags = int(link.accepted[row]), int(link.certified[row]), int(link.broken[row])
                rows.append(
                    (chain, step, row + 1, int(track), int(link.predecessor[row]), overlap, displacement, *flags)
                )
    return typed(rows, TABLES["tracks"].units)


def identity_table(taken: RunOverlaps) -> pd.DataFrame:
    """For each (waiting time, lag) and i: how far v_i has moved, and how far the direction that it was.

    `displacement` compares v_i with v_i. `partner` is the j at the later time that v_i is assigned to by the overlaps
    of the two times (0: none); it is the same direction where `accepted`. `exchange_share` is the share of the
    displacement that goes with the order of the eigenvalues alone, 1 - partner_displacement/displacement, and 0 where
    no partner is accepted. `tracked_i` is where the direction is when it is followed through all snapshots in between
    (0: its track has ended), and `tracked_certified` whether every step of the way is. Displacements are
    (2/N)(1 - overlap).
    """
    links = _followed(taken, "consecutive")
    rows = []
    for (first, second), matrix in taken.matrices.items():
        if "two_time" not in taken.relations[first, second]:
            continue
        matching, sure, gone = _matched(taken, (first, second))
        overlaps = np.append(matrix, np.full((len(matrix), 1), np.nan), axis=1)
        here = np.arange(len(matrix))
        at_end = {int(track): j for j, track in enumerate(links[second].tracks)}
        tracked = np.array([at_end.get(int(track), -1) for track in links[first].tracks])
        since = links[second].certified_since
        for i in range(min(matrix.shape)):
            own = overlaps[i, i]
            by_partner, by_track = overlaps[here, matching.partner][i], overlaps[here, tracked][i]
            moved, to_partner, to_track = (_moved(value, taken.n_parameters) for value in (own, by_partner, by_track))
            followed = to_partner if matching.accepted[i] else np.nan
            rows.append(
                (
                    first,
                    second - first,
                    i + 1,
                    _short(moved),
                    int(matching.partner[i]) + 1,
                    _rounded(np.array([by_partner]))[0],
                    _short(to_partner),
                    int(matching.accepted[i]),
                    int(sure[i]),
                    int(gone[i]),
                    _short(identity.exchange_share(moved, followed)),
                    int(tracked[i]) + 1,
                    _rounded(np.array([by_track]))[0],
                    _short(to_track),
                    int(tracked[i] >= 0 and since[tracked[i]] <= first),
                )
            )
    return typed(rows, TABLES["identity"].units)


@dataclass(frozen=True)
class _Link:
    """The vectors (k,) of one snapshot of a chain, and how they go back to those of the one before."""

    tracks: identity.Integers
    predecessor: identity.Integers  # its i, 0 for none
    overlap: Floats
    accepted: identity.Truths
    certified: identity.Truths
    broken: identity.Truths
    certified_since: identity.Integers  # first step from which on every link of the track is certified


def _followed(taken: RunOverlaps, chain: str) -> dict[int, _Link]:
    """Step -> link, along a chain."""
    steps = taken.chains[chain]
    links: dict[int, _Link] = {}
    if not steps:
        return links
    k = len(taken.bounds[steps[0]])
    none = np.zeros(k, bool)
    start = identity.start_tracks(k), np.zeros(k, np.int64), np.full(k, np.nan)
    link = links[steps[0]] = _Link(*start, none, none, none, np.full(k, steps[0]))
    next_track = k + 1
    for before, now in pairwise(steps):
        matrix, bounds = taken.matrices[before, now], (taken.bounds[before], taken.bounds[now])
        matching = identity.match(matrix)
        count = matrix.shape[1]
        tracks = identity.continue_tracks(link.tracks, matching, count, next_track)
        back = identity.predecessors(matching, count)
        known = back >= 0
        pick = np.where(known, back, 0)
        accepted = known & matching.accepted[pick]
        certified = accepted & identity.certified(matrix, *bounds)[pick, np.arange(count)]
        since = np.where(certified, link.certified_since[pick], now)
        gone = identity.broken(matrix.T, bounds[1], bounds[0])
        overlap = np.where(known, matching.overlap[pick], np.nan)
        link = links[now] = _Link(tracks, back + 1, overlap, accepted, certified, gone, since)
        next_track = max(next_track, int(tracks.max(initial=0)) + 1)
    return links


def _matched(taken: RunOverlaps, times: Times) -> tuple[identity.Matching, identity.Truths, identity.Truths]:
    """Partners of the vectors of the first time, whether they are certified, and whether none is possible."""
    matrix, bounds = taken.matrices[times], (taken.bounds[times[0]], taken.bounds[times[1]])
    matching = identity.match(matrix)
    sure = matching.accepted.copy()
    sure[sure] = identity.certified(matrix, *bounds)[np.flatnonzero(sure), matching.partner[sure]]
    return matching, sure, identity.broken(matrix, *bounds)


def _short(value: ArrayLike) -> float:
    return float(significant(value))


def _moved(overlap: float, n_parameters: int) -> float:
    return float("nan") if np.isnan(overlap) else float(overlap_to_displacement(overlap, n_parameters))


def _rounded(overlaps: Floats) -> Floats:
    """As `overlaps_table` says."""
    smaller = np.minimum(overlaps, 1 - overlaps)
    most = np.where(overlaps > 0.5, LARGE_DECIMALS, SMALL_DECIMALS)
    sizes = np.floor(np.log10(np.maximum(smaller, 10.0**-LARGE_DECIMALS)))
    result: Floats = decimal_rounded(overlaps, np.minimum(OVERLAP_DIGITS - 1 - sizes, most))
    return result
