"""Train one network and keep theta, gradient and update at the snapshots."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from eigendrift.gradients import FlatParameters, batch_gradient
from eigendrift.model import stream_seed
from eigendrift.optimizers import Step
from eigendrift.progress import Progress, log
from eigendrift.scratch import Scratch, row_sum

HISTORY = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


class Samples:
    """Inputs (n, d) and targets (n,) on one device."""

    def __init__(self, inputs: np.ndarray, targets: np.ndarray, device: torch.device) -> None:
        self.inputs = torch.from_numpy(inputs).to(device)
        self.targets = torch.from_numpy(targets).to(device)

    def __len__(self) -> int:
        return len(self.targets)


class Batches:
    """Mini-batch t of a run: `size` samples from an endless stream of permutations of the n samples.

    Each sample comes once an epoch and every batch is full: one may span the end of an epoch. Batch t depends on the
    seed and t alone, so a run can go on anywhere. `size` = n gives the full training set every time.
    """

    def __init__(self, n: int, size: int, seed: int) -> None:
        self.n, self.size, self.seed = n, size, seed
        self._epochs: dict[int, torch.Tensor] = {}

    def _epoch(self, epoch: int) -> torch.Tensor:
        if epoch not in self._epochs:
            self._epochs = {e: order for e, order in self._epochs.items() if e == epoch - 1}
            generator = torch.Generator().manual_seed(stream_seed("batches", self.seed, epoch))
            self._epochs[epoch] = torch.randperm(self.n, generator=generator)
        return self._epochs[epoch]

    def __getitem__(self, t: int) -> torch.Tensor:
        """Indices (size,) of the samples of step t."""
        parts, start, left = [], t * self.size, self.size
        while left:
            epoch, offset = divmod(start, self.n)
            part = self._epoch(epoch)[offset : offset + left]
            parts.append(part)
            start, left = start + len(part), left - len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Feed:
    """The inputs and targets of batch t, in memory that is used again; the full batch is the samples themselves."""

    def __init__(self, samples: Samples, size: int, seed: int) -> None:
        self.samples, self.whole = samples, size == len(samples)
        self.batches = Batches(len(samples), size, seed)
        self.inputs = samples.inputs.new_empty(0 if self.whole else size, *samples.inputs.shape[1:])
        self.targets = samples.targets.new_empty(0 if self.whole else size)

    def __getitem__(self, t: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self.whole:
            return self.samples.inputs, self.samples.targets
        chosen = self.batches[t].to(self.samples.inputs.device)
        torch.index_select(self.samples.inputs, 0, chosen, out=self.inputs)
        torch.index_select(self.samples.targets, 0, chosen, out=self.targets)
        return self.inputs, self.targets


@dataclass(frozen=True)
class Trajectory:
    """What a run leaves, one row a snapshot: steps (S,), weights, gradients, updates (S, N) float32, history (S, 4).

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
    loss, hits = 0.0, 0
    for start in range(0, len(samples), rows):
        targets = samples.targets[start : start + rows]
        outputs = model(samples.inputs[start : start + rows])
        loss += float(nn.functional.cross_entropy(outputs, targets, reduction="sum").double())
        hits += int((outputs.argmax(dim=1) == targets).sum())
    return loss / len(samples), hits / len(samples)


class _Record:
    """The growing rows of a trajectory, in scratch, with a checkpoint after each: a kill costs what came after."""

    def __init__(self, scratch: Scratch, snapshots: int, n_parameters: int) -> None:
        self.arrays = {
            name: scratch.array(name, (snapshots, n_parameters)) for name in ("weights", "gradients", "updates")
        }
        self.history = scratch.array("history", (snapshots, len(HISTORY)), np.float64)
        self.scratch = scratch
        self.sums: list[int] = []

    def load(self) -> dict[str, Any] | None:
        # A checkpoint counts the rows of the arrays beside it; of arrays made anew it knows nothing.
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
        # By way of memory: torch's own writer tells a full disk as an error of its archive.
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
    step, take_gradient = Step.of(flat, optimizer), batch_gradient(flat)
    record = _Record(scratch, len(snapshots), len(flat.vector))
    feed = _Feed(train_samples, batch_size, seed)
    done, diverged_at = 0, None
    if (state := record.load()) is not None:
        done, diverged_at = state["done"], state["diverged_at"]
        flat.vector.data.copy_(state["parameters"])
        step.restore(state["optimizer"])
    first = snapshots[done - 1] + 1 if done else 0
    progress = Progress("training step", snapshots[-1] + 1, first)
    t = first
    while diverged_at is None and done < len(snapshots):
        gradient = partial(take_gradient, *feed[t])
        gradient()
        if t != snapshots[done]:
            step(gradient)
        else:
            before, slope = flat.vector.detach().clone(), flat.gradient.clone()
            (train_loss, train_hits), (test_loss, test_hits) = (
                evaluate(model, train_samples),
                evaluate(model, test_samples),
            )
            step(gradient)
            update = flat.vector.detach() - before
            finite = all(bool(torch.isfinite(x).all()) for x in (before, slope, update)) and np.isfinite(train_loss)
            if not finite:
                diverged_at = t
                log.warning("diverged: not finite at step %d; the run ends here", t)
            else:
                for name, row in (("weights", before), ("gradients", slope), ("updates", update)):
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
