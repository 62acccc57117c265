"""Eigenpairs of many points: the snapshots of a run, or the initializations of the baseline."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from eigendrift.eigensolver.lanczos import top_eigenpairs
from eigendrift.hessian.operator import HessianOperator
from reproduction.files.checkpoint import Scratch, row_sum
from reproduction.files.eigenpairs import UNITS
from reproduction.progress import Progress


@dataclass(frozen=True)
class Request:
    """What is wanted at one point: the first k pairs, to this true relative residual."""

    step: int
    k: int
    tolerance: float


def requests(steps: Sequence[int], k: int, tolerance: float, dense: dict[str, float] | None) -> list[Request]:
    """One request a snapshot; `dense` (k, tolerance, every) applies at multiples of `every` and at both ends."""
    wanted = []
    for step in steps:
        if dense is not None and (step % int(dense["every"]) == 0 or step in (steps[0], steps[-1])):
            wanted.append(Request(step, int(dense["k"]), dense["tolerance"]))
        else:
            wanted.append(Request(step, k, tolerance))
    return wanted


def solve(
    operator: HessianOperator,
    wanted: Sequence[Request],
    parameters: Callable[[int], torch.Tensor],
    scratch: Scratch,
    what: str,
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of each request in turn: numbers (P, 13) in the order of files.eigenpairs.UNITS, and vectors (P, N).

    `parameters(j)` gives the point of request j. The start vector of a solve is drawn from the request's step, so a
    chunk gives what the whole would. A kill costs the solve that it hits: each finished request is in `scratch`, with a
    checksum, so that a chunk that a power cut damaged is solved again.
    """
    ends = np.cumsum([0, *(request.k for request in wanted)])
    numbers = scratch.array("numbers", (int(ends[-1]), len(UNITS)), np.float64)
    vectors = scratch.array("vectors", (int(ends[-1]), operator.shape[0]))
    done = scratch.array("done", (1,), np.int64)
    sums = scratch.array("sums", (len(wanted),), np.int64)
    if scratch.fresh:
        done[0] = 0
    for j in range(int(done[0])):
        if sums[j] != row_sum(numbers[ends[j] : ends[j + 1]], vectors[ends[j] : ends[j + 1]]):
            done[0] = j
            break
    progress = Progress(what, len(wanted), int(done[0]))
    for j in range(int(done[0]), len(wanted)):
        request = wanted[j]
        operator.move_to(parameters(j).to(operator.device))
        pairs = top_eigenpairs(operator, request.k, request.tolerance, seed=request.step)
        gradient = operator.gradient
        norm = float(torch.linalg.vector_norm(gradient))
        # A gradient of norm 0 has no direction.
        cosines = (gradient @ pairs.vectors.to(gradient)).abs() / (norm or math.nan)
        rows = slice(ends[j], ends[j + 1])
        numbers[rows] = np.stack(
            [
                np.full(request.k, request.step),
                np.arange(1, request.k + 1),
                pairs.values.numpy(),
                pairs.residuals.numpy(),
                pairs.gaps.numpy(),
                pairs.angle_bounds.numpy(),
                pairs.clustered.numpy(),
                pairs.span_bounds.numpy(),
                np.full(request.k, pairs.orthogonality),
                np.full(request.k, pairs.matvecs),
                pairs.converged.numpy(),
                np.full(request.k, norm),
                cosines.cpu().numpy().clip(max=1.0),
            ],
            axis=1,
        )
        vectors[rows] = pairs.vectors.T.cpu().numpy()
        sums[j] = row_sum(numbers[rows], vectors[rows])
        done[0] = j + 1
        progress.update(j + 1)
    return numbers, vectors
