"""The eigenvectors of a run, one orthonormal basis a snapshot, read from mapped files when it is asked for."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eigendrift.metrics import UNIT_TOLERANCE, Floats

# A run is gone through in the order of its steps, and each step is compared with few others at a time.
KEPT = 8


class Eigenbases:
    """v_1..v_k of each snapshot as rows (k, N) in float64, of norm 1 to its precision; k may differ from step to step.

    Args:
        pairs: One row a pair (P rows) with `step`, `i` and `angle_bound`, as `eigenpairs.map_run` gives them: by step
            and by i, which runs from 1 to k.
        vectors: The rows of the vectors (P, N), in one array or in several, one after the other.

    Raises:
        ValueError: If numbers of rows, the order of the pairs or the lengths of the vectors do not fit together; and by
            `basis` if a snapshot's vectors are not orthonormal within `metrics.UNIT_TOLERANCE`, or not finite.
    """

    def __init__(self, pairs: pd.DataFrame, vectors: NDArray[Any] | Sequence[NDArray[Any]]) -> None:
        self._arrays = [vectors] if isinstance(vectors, np.ndarray) else list(vectors)
        self._starts = np.cumsum([0, *(len(array) for array in self._arrays)])
        lengths = {array.shape[1:] for array in self._arrays if array.ndim == 2}
        if len(lengths) != 1 or any(array.ndim != 2 for array in self._arrays):
            raise ValueError(f"vectors must be (P, N) with one N, not {[array.shape for array in self._arrays]}")
        if self._starts[-1] != len(pairs):
            raise ValueError(f"vectors must have one row a pair: {self._starts[-1]} rows, and pairs has {len(pairs)}")
        self.n_parameters = int(lengths.pop()[0])
        step, i = (pairs[name].to_numpy(dtype=np.int64) for name in ("step", "i"))
        self.steps, first, self._counts = np.unique(step, return_index=True, return_counts=True)
        self._first = first
        expected = np.concatenate([np.arange(1, count + 1) for count in self._counts]) if len(step) else i
        if (np.diff(step) < 0).any() or not np.array_equal(i, expected):
            raise ValueError("pairs must be in order of step and i, with i = 1, 2, ... at every step")
        self._at = {int(value): row for row, value in enumerate(self.steps)}
        self._sines = pairs["angle_bound"].to_numpy(dtype=np.float64)
        self._kept: OrderedDict[int, Floats] = OrderedDict()

    def __contains__(self, step: object) -> bool:
        return step in self._at

    def count(self, step: int) -> int:
        """k, the number of vectors at a step."""
        return int(self._counts[self._at[step]])

    def angle_bounds(self, step: int) -> Floats:
        """The bounds on the sines of the angles between computed and true eigenvectors, (k,)."""
        return self._sines[self._rows(step)]

    def basis(self, step: int) -> Floats:
        """The vectors at a step, (k, N)."""
        if step not in self._kept:
            while len(self._kept) >= KEPT:
                self._kept.popitem(last=False)
            self._kept[step] = self._read(step)
        self._kept.move_to_end(step)
        return self._kept[step]

    def overlaps(self, first: int, second: int) -> Floats:
        """C_ij = |v_i(first) . v_j(second)|, (k, m), from 0 to 1, no unit; summed in float64."""
        result: Floats = np.minimum(np.abs(self.basis(first) @ self.basis(second).T), 1.0)
        return result

    def _rows(self, step: int) -> slice:
        first = int(self._first[self._at[step]])
        return slice(first, first + self.count(step))

    def _read(self, step: int) -> Floats:
        rows = self._rows(step)
        chunk = int(np.searchsorted(self._starts, rows.start, side="right")) - 1
        start = rows.start - int(self._starts[chunk])
        basis = self._arrays[chunk][start : start + self.count(step)].astype(np.float64)
        gram = basis @ basis.T
        if len(basis) < self.count(step) or not np.isfinite(gram).all():
            raise ValueError(f"vectors at step {step} must be finite, and in one array")
        apart = float(np.abs(gram - np.eye(len(gram))).max(initial=0.0))
        if apart > UNIT_TOLERANCE:
            raise ValueError(f"vectors at step {step} must be orthonormal; a product of two is {apart:.3g} off")
        result: Floats = basis / np.sqrt(np.diagonal(gram))[:, None]
        return result
