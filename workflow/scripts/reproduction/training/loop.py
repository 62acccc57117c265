"""Train one network and keep theta, gradient and update at the snapshots."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from reproduction.files.checkpoint import Scratch, row_sum
from reproduction.progress import Progress, log
from reproduction.training.batches import Samples, batch_loader
from reproduction.training.cuda_graph import GraphedCallable
from reproduction.training.gradients import FlatParameters, batch_gradient
from reproduction.training.optimizers import OptimizerStep

HISTORY = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


@dataclass(frozen=True)
class Trajectory:
    """The result of a run, one row a snapshot: steps (S,), weights, gradients, updates (S, N) float32, history (S, 4).

    `diverged_at` is the step of the first snapshot at which something was not finite; that snapshot and all later ones
    are left out. None for a run that reached its end.
    """

    steps: np.ndarray
    weights: np.ndarray
    gradients: np.ndarray
    updates: np.ndarray
    history: np.ndarray
    diverged_at: int | None


@torch.no_grad()
def evaluate(model: nn.Module, samples: Samples, rows: int = 4096) -> tuple[float, float]:
    """Mean cross-entropy and accuracy over all samples, `rows` at a time, summed in float64."""
    sums = torch.zeros(2, dtype=torch.float64, device=samples.targets.device)
    for start in range(0, len(samples), rows):
        targets = samples.targets[start : start + rows]
        outputs = model(samples.inputs[start : start + rows])
        sums[0] += nn.functional.cross_entropy(outputs, targets, reduction="sum")
        sums[1] += (outputs.argmax(dim=1) == targets).sum()
    # Copied to the host once, at the end: a GPU would have to be waited for at each part.
    loss, hits = sums.cpu().tolist()
    return loss / len(samples), hits / len(samples)


class Trainer:
    """Takes training steps one at a time: the batch, its gradient, and the optimizer's step."""

    def __init__(
        self,
        flat: FlatParameters,
        optimizer: Mapping[str, Any],
        samples: Samples,
        size: int,
        seed: int,
        graph: bool = True,
    ) -> None:
        """`optimizer` as for `OptimizerStep`, `size` samples a batch; `graph`: as a CUDA graph on a GPU."""
        self.step = OptimizerStep.of(flat, optimizer)
        self.loader = batch_loader(samples, size, seed)
        self.gradient = partial(batch_gradient(flat), self.loader.inputs, self.loader.targets)
        self._whole = GraphedCallable(self._take, samples.inputs.device, graph and self.step.capturable)

    def _take(self) -> None:
        self.loader.gather()
        self.gradient()
        self.step(self.gradient)

    def train_step(self, t: int) -> None:
        """Step t."""
        self.loader.select(t)
        self._whole()

    def compute_gradient(self, t: int) -> None:
        """The first half of step t: leave the gradient of its batch. `finish` is the other half."""
        self.loader.select(t)
        self.loader.gather()
        self.gradient()

    def finish(self) -> None:
        """Take the step from the gradient that `compute_gradient` left."""
        self.step(self.gradient)


class _Record:
    """The growing rows of a trajectory in scratch, with a checkpoint after each: a kill loses what followed."""

    def __init__(self, scratch: Scratch, snapshots: int, n_parameters: int) -> None:
        self.arrays = {
            name: scratch.array(name, (snapshots, n_parameters)) for name in ("weights", "gradients", "updates")
        }
        self.history = scratch.array("history", (snapshots, len(HISTORY)), np.float64)
        self.scratch = scratch
        self.sums: list[int] = []

    def load(self) -> dict[str, Any] | None:
        # A checkpoint counts the rows of the arrays beside it, and says nothing of arrays that were made anew.
        if self.scratch.fresh or (content := self.scratch.read("checkpoint.pt")) is None:
            return None
        loaded: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
        self.sums = loaded.pop("sums")
        return loaded if self.sums == [self._sum(row) for row in range(loaded["done"])] else None

    def _sum(self, row: int) -> int:
        return row_sum(*(array[row] for array in (*self.arrays.values(), self.history)))

    def save(self, state: Mapping[str, Any]) -> None:
        done = state["done"]
        self.sums = [*self.sums[: done - 1], self._sum(done - 1)] if done else []
        # Through memory, since torch's own writer reports a full disk as an error of its archive.
        buffer = io.BytesIO()
        torch.save({**state, "sums": self.sums}, buffer)
        self.scratch.write("checkpoint.pt", buffer.getvalue())


def train(
    model: nn.Module,
    train_samples: Samples,
    test_samples: Samples,
    optimizer: Mapping[str, Any],
    batch_size: int,
    seed: int,
    snapshots: Sequence[int],
    scratch: Scratch,
) -> Trajectory:
    """Train `model` in place with mean cross-entropy at a constant learning rate, and keep the snapshots.

    A snapshot at step t holds theta_t, the gradient g_t of the plain loss at theta_t on the batch of step t (for SAM
    too), and the update u_t = theta_{t+1} - theta_t; so one step is taken beyond the last snapshot. Same seed, same
    machine, same number of threads: the same bits, also when the run was killed and went on from its scratch folder.
    """
    flat = FlatParameters(model)
    trainer = Trainer(flat, optimizer, train_samples, batch_size, seed)
    step = trainer.step
    record = _Record(scratch, len(snapshots), len(flat.vector))
    done, diverged_at = 0, None
    if (state := record.load()) is not None:
        done, diverged_at = state["done"], state["diverged_at"]
        flat.vector.data.copy_(state["parameters"])
        step.restore(state["optimizer"])
    first = snapshots[done - 1] + 1 if done else 0
    progress = Progress("training step", snapshots[-1] + 1, first)
    t = first
    while diverged_at is None and done < len(snapshots):
        if t != snapshots[done]:
            trainer.train_step(t)
        else:
            trainer.compute_gradient(t)
            before, gradient = flat.vector.detach().clone(), flat.gradient.clone()
            (train_loss, train_hits), (test_loss, test_hits) = (
                evaluate(model, train_samples),
                evaluate(model, test_samples),
            )
            trainer.finish()
            update = flat.vector.detach() - before
            finite = all(bool(torch.isfinite(x).all()) for x in (before, gradient, update)) and np.isfinite(train_loss)
            if not finite:
                diverged_at = t
                log.warning("diverged: not finite at step %d; the run ends here", t)
            else:
                for name, row in (("weights", before), ("gradients", gradient), ("updates", update)):
                    record.arrays[name][done] = row.cpu().numpy()
                record.history[done] = (train_loss, test_loss, train_hits, test_hits)
                done += 1
            record.save(
                {
                    "done": done,
                    "diverged_at": diverged_at,
                    "parameters": flat.vector.detach().cpu(),
                    "optimizer": step.state(),
                }
            )
            progress.update(t + 1)
        t += 1
    arrays = {name: array[:done] for name, array in record.arrays.items()}
    return Trajectory(
        np.array(snapshots[:done], dtype=np.int64), **arrays, history=record.history[:done], diverged_at=diverged_at
    )
