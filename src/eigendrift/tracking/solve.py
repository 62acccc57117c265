"""Eigenpairs at the snapshots of a trajectory, while training or afterwards, one row a snapshot."""

import os
import sys
import time
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eigendrift import metrics
from eigendrift.eigensolver.lanczos import check_request, top_eigenpairs
from eigendrift.operators import Which
from eigendrift.tracking.folder import FolderError, RowWriter, checksum
from eigendrift.tracking.track import DESCRIPTION, FORMAT, Track, pairs_folder
from eigendrift.tracking.trajectory import (
    TrackerWarning,
    Trajectory,
    as_operator,
    check_same_parameters,
    move_to_snapshot,
)

# Relative difference of the loss at a snapshot that was solved before, above which the problem is taken for another.
SAME_LOSS = 1e-3


def solve(
    folder: str | os.PathLike[str],
    hessian: Any,
    k: int = 3,
    tol: float = 1e-3,
    *,
    which: Which = "LA",
    seed: int = 0,
    steps: Collection[int] | None = None,
    progress: bool = True,
) -> Track:
    """Solve for the eigenpairs at the snapshots of a trajectory.

    What is solved is on disk at once: a call that was interrupted goes on where it stopped, and a call for a trajectory
    that has grown solves for the new snapshots.

    Args:
        folder: The folder of a Tracker.
        hessian: A HessianOperator of the same parameters, or another operator with `move_to`; or a function of no
            arguments that makes one. The operator is moved to each snapshot; the model stays as it is.
        k: Number of eigenpairs.
        tol: Largest relative residual norm of a converged pair.
        which: "LA", "SA" or "LM", as `top_eigenpairs` takes it.
        seed: Seed of the solver's start vectors.
        steps: The steps to solve for; by default all that were recorded.
        progress: Whether to say on standard error how far it is, where that is a terminal.

    Returns:
        The eigenpairs and their statistics.

    Raises:
        ValueError: The folder holds no trajectory, one of other parameters, or eigenpairs of another loss; a step was
            not recorded; k, tol or `which` is out of its range.

    Warns:
        TrackerWarning: Nothing was recorded, or buffers were not.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> from eigendrift import HessianOperator, Tracker
        >>> model, loss = nn.Linear(4, 3), nn.CrossEntropyLoss()
        >>> inputs, targets = torch.randn(30, 4), torch.arange(30) % 3
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with Tracker(model, tempfile.mkdtemp(), every=5, quiet=True).attach(optimizer) as tracker:
        ...     for _ in range(10):
        ...         optimizer.zero_grad()
        ...         loss(model(inputs), targets).backward()
        ...         optimizer.step()
        >>> track = solve(tracker.folder, HessianOperator(model, loss, inputs, targets), k=2)
        >>> track.values.shape
        (3, 2)
    """
    trajectory = Trajectory(folder)
    unknown = sorted(set(steps or ()) - set(trajectory.steps.tolist()))
    if unknown:
        raise ValueError(f"steps holds {unknown[0]}, which was not recorded in {trajectory.folder}")
    operator = as_operator(hessian)
    check_same_parameters(trajectory, operator)
    check_request(operator.shape[0], k, tol, which)
    if not len(trajectory):
        warnings.warn(
            f"{trajectory.folder} has no snapshot; attach the tracker to the optimizer before the training, or call "
            "record()",
            TrackerWarning,
            stacklevel=2,
        )
    if trajectory.left_out:
        warnings.warn(
            f"the buffers of {trajectory.folder} were not recorded ({trajectory.left_out[0]} and so on); the Hessian "
            "is taken with those that the operator has now",
            TrackerWarning,
            stacklevel=2,
        )
    writer = PairsWriter(trajectory.folder, operator, k, tol, which, seed)
    try:
        checksums = dict(zip(trajectory.steps.tolist(), trajectory.checksums, strict=True))
        # Snapshots that were recorded anew after a run was resumed are solved for again.
        writer.rows.drop(lambda line: line["weights"] != checksums.get(line["step"]))
        solved = {line["step"] for line in writer.rows.index}
        due = [row for row, step in enumerate(trajectory.steps.tolist()) if step not in solved]
        if steps is not None:
            due = [row for row in due if int(trajectory.steps[row]) in steps]
        if due and solved:
            _check_same_loss(trajectory, operator, writer.rows.index[0])
        start = time.monotonic()
        for done, row in enumerate(due):
            move_to_snapshot(operator, trajectory, row)
            writer.add(int(trajectory.steps[row]), checksums[int(trajectory.steps[row])])
            if progress:
                _show(done + 1, len(due), time.monotonic() - start)
    finally:
        writer.close()
    return Track(trajectory.folder, k=k, tol=tol, which=which)


class PairsWriter:
    """Appends the eigenpairs at the operator's point to a folder."""

    def __init__(self, folder: Path, operator: Any, k: int, tol: float, which: Which, seed: int) -> None:
        self.operator, self.k, self.tol, self.which, self.seed = operator, k, tol, which, seed
        made = {
            "format": FORMAT,
            "operator": type(operator).__name__,
            "n_parameters": operator.shape[0],
            "k": k,
            "tol": tol,
            "which": which,
            "seed": seed,
        }
        self.rows = RowWriter(pairs_folder(folder, k, tol, which), DESCRIPTION, made)

    def add(self, step: int, weights: int) -> tuple[dict[str, Any], Tensor]:
        """Solve and append; the line of the index, and the vectors (k, N). `weights`: checksum of the weights."""
        start = time.monotonic()
        pairs = top_eigenpairs(self.operator, self.k, self.tol, self.seed, which=self.which)
        gradient = self.operator.gradient.double()
        norm = float(torch.linalg.vector_norm(gradient))
        vectors = pairs.vectors.T.contiguous().cpu()
        aligned = (vectors.double() @ gradient.cpu()).abs() / norm if norm > 0 else torch.full((self.k,), torch.nan)
        line = {
            "step": step,
            "weights": weights,
            "loss": float(self.operator.loss),
            "gradient_norm": norm,
            "full_gradient_alignment": aligned.tolist(),
            "seconds": time.monotonic() - start,
            "next_bound": pairs.next_bound,
            "bound_source": pairs.bound_source,
            "miss_probability": pairs.miss_probability,
            "matvecs": pairs.matvecs,
        }
        columns = ("values", "residuals", "converged", "gaps", "angle_bounds", "clustered", "clusters", "span_bounds")
        line |= {name: getattr(pairs, name).tolist() for name in columns}
        self.rows.append(line, vectors=vectors.to(torch.float32).numpy())
        return line, vectors

    def close(self) -> None:
        """Close the files."""
        self.rows.close()


class Inline:
    """Solves for the eigenpairs at snapshots while the model is trained."""

    def __init__(
        self, folder: Path, hessian: Any, k: int, tol: float, log: Callable[[dict[str, float], int], Any] | None
    ) -> None:
        self._folder, self._hessian, self._k, self._tol, self._log = folder, hessian, k, tol, log
        self._writer: PairsWriter | None = None
        self._before: Tensor | None = None

    def _opened(self) -> PairsWriter:
        if self._writer is None:
            operator = as_operator(self._hessian)
            check_same_parameters(Trajectory(self._folder), operator)
            self._writer = PairsWriter(self._folder, operator, self._k, self._tol, "LA", 0)
        return self._writer

    def solve(self, step: int, weights: Tensor, state: dict[str, Tensor]) -> None:
        """Solve at a point, and log its numbers."""
        writer = self._opened()
        writer.operator.move_to(weights.to(writer.operator.device), state)
        line, vectors = writer.add(step, checksum(weights.cpu().numpy()))
        if self._log is not None:
            self._log(_numbers(line, vectors, self._before), step)
        self._before = vectors

    def drop(self, step: int) -> None:
        """Remove the eigenpairs of a step and of later ones."""
        if pairs_folder(self._folder, self._k, self._tol, "LA").is_dir():
            self._opened().rows.drop(lambda line: bool(line["step"] >= step))

    def close(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()


def _numbers(line: dict[str, Any], vectors: Tensor, before: Tensor | None) -> dict[str, float]:
    """What is logged of a snapshot."""
    found = {"loss": line["loss"], "gradient_norm": line["gradient_norm"]}
    for i, v in enumerate(vectors.numpy()):
        found |= {
            f"eigenvalue_{i + 1}": line["values"][i],
            f"residual_{i + 1}": line["residuals"][i],
            f"angle_bound_{i + 1}": line["angle_bounds"][i],
            f"ipr_{i + 1}": float(metrics.inverse_participation_ratio(v)),
            f"gradient_alignment_{i + 1}": line["full_gradient_alignment"][i],
        }
        if before is not None:
            found[f"displacement_{i + 1}"] = float(metrics.displacement(before[i].numpy(), v))
    return {f"eigendrift/{name}": float(value) for name, value in found.items()}


def _check_same_loss(trajectory: Trajectory, operator: Any, line: dict[str, Any]) -> None:
    row = int(np.flatnonzero(trajectory.steps == line["step"])[0])
    move_to_snapshot(operator, trajectory, row)
    before, now = line["loss"], float(operator.loss)
    if abs(now - before) > SAME_LOSS * max(abs(now), abs(before)):
        raise FolderError(
            f"the loss at step {line['step']} is {now:.6g}, and was {before:.6g} when {trajectory.folder} was solved; "
            "give the same loss and data, or delete its pairs-* folder"
        )


def _show(done: int, count: int, seconds: float) -> None:
    if sys.stderr.isatty():
        left = seconds / done * (count - done)
        end = "\n" if done == count else ""
        print(
            f"\rsolving: {done} of {count} snapshots, {seconds:.0f} s gone, about {left:.0f} s left ",
            end=end,
            file=sys.stderr,
        )
