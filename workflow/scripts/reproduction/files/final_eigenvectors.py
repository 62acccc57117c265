"""The file of v_1 at the end of a run: what is kept of an eigenvector itself once all others are deleted.

It holds two rows: v_1 at the last snapshot, and v_1 at the snapshot of the grid whose inverse participation ratio is
the median of the last tenth of the run, since under Adam one snapshot is a draw from a wide distribution. Entries are
float16 times a power of two for each row, which puts the largest entry near the top of float16's range: entries down to
2e-9 of the largest keep eleven binary digits. A run that diverged before its first snapshot has no rows.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eigendrift.metrics import Floats
from reproduction.files.arrays import ArrayFile, write_arrays
from reproduction.statistics.localization import FINAL_SHARE
from reproduction.statistics.rows import is_on_grid

KIND = "final_eigenvector"
# The largest entry of a row is stored between 2^14 and 2^15; float16 ends at 65504.
TOP_EXPONENT = 15


@dataclass(frozen=True)
class FinalEigenvectors:
    """What the file of one run holds.

    Attributes:
        vectors: Unit vectors (R, N) in float64, R = 2, or 0 for a run without a snapshot. The first is of the last one.
        steps: Their training steps.
        iprs: Their inverse participation ratios, before they were rounded to float16.
        layers: (name, shape) of the network's parameters in the order of the vector.
        identity: Which run it is.
    """

    vectors: Floats
    steps: tuple[int, ...]
    iprs: tuple[float, ...]
    layers: tuple[tuple[str, tuple[int, ...]], ...]
    identity: Mapping[str, Any]

    @property
    def last(self) -> Floats:
        """v_1 at the last snapshot, (N,); empty for a run without one."""
        return self.vectors[0] if len(self.vectors) else np.zeros(0)

    @property
    def shown(self) -> Floats:
        """v_1 at the snapshot with the median IPR of the last tenth, (N,), or at the last one where it is not kept."""
        return self.vectors[1] if len(self.vectors) > 1 else self.last

    def blocks(self, vector: Floats | None = None) -> list[Floats]:
        """The entries of a vector (N,), by default `last`, in the shape of each of the network's parameters."""
        ends = np.cumsum([math.prod(shape) for _, shape in self.layers])
        parts = np.split(self.last if vector is None else vector, ends[:-1])
        return [part.reshape(shape) for part, (_, shape) in zip(parts, self.layers, strict=True)]


def typical_snapshot(steps: ArrayLike, iprs: ArrayLike, every: int) -> int:
    """Index of the snapshot of the grid with the median IPR of v_1 over the last tenth of the steps.

    Of an even number it is the one with the lower of the two middle values, and of equal ones the first. The last
    snapshot counts as one of the grid.

    Args:
        steps: Training steps (S,) of the snapshots, ascending, at least one.
        iprs: Inverse participation ratios (S,).
        every: Interval of the grid in training steps.
    """
    times, values = np.asarray(steps, dtype=np.int64), np.asarray(iprs, dtype=np.float64)
    if times.ndim != 1 or not len(times) or times.shape != values.shape or not np.isfinite(values).all():
        raise ValueError(f"steps and iprs must be finite and (S,), S at least 1, not {times.shape} and {values.shape}")
    late = np.flatnonzero((times >= (1 - FINAL_SHARE) * times[-1]) & is_on_grid(times, every, int(times[-1])))
    order = late[np.argsort(values[late], kind="stable")]
    return int(order[(len(order) - 1) // 2])


def halved(vectors: ArrayLike) -> tuple[NDArray[np.float16], Floats]:
    """Rows (R, N) in float16, and the power of two (R,) that each must be multiplied with to be itself again."""
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all() or not rows.any(axis=1).all():
        raise ValueError(f"vectors must be finite, not 0, and (R, N), not {rows.shape}")
    _, exponents = np.frexp(np.abs(rows).max(axis=1, initial=0.0))
    scales: Floats = np.ldexp(1.0, exponents - TOP_EXPONENT)
    return (rows / scales[:, None]).astype(np.float16), scales


def write_final_eigenvectors(
    path: str | os.PathLike[str],
    vectors: ArrayLike,
    steps: Sequence[int],
    iprs: Sequence[float],
    layers: Sequence[Any],
    identity: Mapping[str, Any],
) -> None:
    """Write unit vectors (R, N) with their steps and IPRs, and [name, shape] of each parameter."""
    stored, scales = halved(vectors)
    if not len(stored) == len(steps) == len(iprs):
        raise ValueError(f"steps and iprs must have one value a vector: {len(stored)}, {len(steps)}, {len(iprs)}")
    found = {"layers": layers, "vector_steps": [int(step) for step in steps], "iprs": [float(value) for value in iprs]}
    write_arrays(
        path,
        {"vectors": stored, "scales": scales},
        kind=KIND,
        identity={**identity, **found},
        units={"vectors": "1", "scales": "1"},
    )


def read_final_eigenvectors(path: str | os.PathLike[str]) -> FinalEigenvectors:
    """Read the vectors of one run, normalised in float64: what float16 rounds changes an IPR by less than 0.001 of it.

    A file of one `vector` in float32, as there were before, has that row alone, without step and IPR.
    """
    file = ArrayFile(path, kind=KIND)
    if "vectors" in file.names:
        vectors = file["vectors"].astype(np.float64) * file["scales"][:, None]
    else:
        single = file["vector"].astype(np.float64)
        vectors = single[None] if single.size else np.zeros((0, 0))
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return FinalEigenvectors(
        vectors=np.divide(vectors, norms, out=vectors, where=norms > 0),
        steps=tuple(file.identity.get("vector_steps", ())),
        iprs=tuple(file.identity.get("iprs", ())),
        layers=tuple((str(name), tuple(map(int, shape))) for name, shape in file.identity["layers"]),
        identity=file.identity,
    )
