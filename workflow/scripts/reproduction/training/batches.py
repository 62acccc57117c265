"""The samples of a training run, and the mini-batches that it takes of them."""

from functools import partial
from types import ModuleType

import numpy as np
import torch

from eigendrift.scaling import Scaling
from reproduction.seeds import stream_seed
from reproduction.training.compiled import compiled

# Batches whose indices reach a GPU in one transfer.
BATCHES_AHEAD = 1000
# Batches of grey levels that a CPU fetches in one call, which waits for memory less often; the cache holds them.
BATCHES_PER_FETCH = 8


class Samples:
    """Inputs (n, d) and targets (n,) on one device.

    `pixels` (n, d), uint8, and the `scaling` that made the inputs of them may be given too: a batch is then fetched
    from a quarter of the memory, with the same bits.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        device: torch.device,
        pixels: np.ndarray | None = None,
        scaling: Scaling | None = None,
    ) -> None:
        self.inputs = torch.from_numpy(inputs).to(device)
        self.targets = torch.from_numpy(targets).to(device)
        self.pixels, self.scaling = pixels, scaling

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
        return self.run(t, 1)

    def run(self, t: int, count: int) -> torch.Tensor:
        """Indices (count * size,) of the samples of steps t to t + count - 1."""
        parts, start, left = [], t * self.size, count * self.size
        while left:
            epoch, offset = divmod(start, self.n)
            part = self._epoch(epoch)[offset : offset + left]
            parts.append(part)
            start, left = start + len(part), left - len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class BatchLoader:
    """The inputs and targets of a batch, always in the same memory: `select` names the batch, `gather` fetches it.

    This one is the loader of the full batch, which is the samples themselves.
    """

    def __init__(self, samples: Samples) -> None:
        self.inputs, self.targets = samples.inputs, samples.targets

    def select(self, t: int) -> None:
        """The next `gather` is of batch t."""

    def gather(self) -> None:
        """Fetch the chosen samples."""


def batch_loader(samples: Samples, size: int, seed: int) -> BatchLoader:
    """The fastest loader of batches of `size` samples."""
    if size == len(samples):
        return BatchLoader(samples)
    if samples.inputs.device.type != "cpu":
        return _OnDevice(samples, size, seed)
    if samples.pixels is not None and samples.scaling is not None:
        if (loops := compiled(samples.inputs)) is not None:
            return _Compiled(samples, size, seed, samples.pixels, samples.scaling, loops)
        return _FromPixels(samples, size, seed, samples.pixels, samples.scaling)
    return _OneByOne(samples, size, seed)


class _OneByOne(BatchLoader):
    """Batches copied from the samples, one at a time."""

    def __init__(self, samples: Samples, size: int, seed: int) -> None:
        self.samples, self.batches = samples, Batches(len(samples), size, seed)
        self.inputs = samples.inputs.new_empty(size, *samples.inputs.shape[1:])
        self.targets = samples.targets.new_empty(size)
        self.chosen = torch.empty(size, dtype=torch.int64, device=self.inputs.device)

    def select(self, t: int) -> None:
        self.chosen = self.batches[t]

    def gather(self) -> None:
        torch.index_select(self.samples.inputs, 0, self.chosen, out=self.inputs)
        torch.index_select(self.samples.targets, 0, self.chosen, out=self.targets)


class _OnDevice(_OneByOne):
    """Batches copied on a GPU; the indices of `BATCHES_AHEAD` batches are sent in one transfer."""

    def __init__(self, samples: Samples, size: int, seed: int) -> None:
        super().__init__(samples, size, seed)
        self._ahead, self._start = self.chosen.new_empty(0, size), 0

    def select(self, t: int) -> None:
        if not 0 <= t - self._start < len(self._ahead):
            indices = self.batches.run(t, BATCHES_AHEAD).view(BATCHES_AHEAD, -1)
            self._ahead, self._start = indices.to(self.chosen.device), t
        # Into the same memory, from which the CUDA graph of a step reads.
        self.chosen.copy_(self._ahead[t - self._start])


class _Compiled(BatchLoader):
    """Batches of grey levels, fetched and scaled by one compiled loop."""

    def __init__(
        self, samples: Samples, size: int, seed: int, pixels: np.ndarray, scaling: Scaling, loops: ModuleType
    ) -> None:
        self.batches = Batches(len(samples), size, seed)
        self.inputs = samples.inputs.new_empty(size, *samples.inputs.shape[1:])
        self.targets = samples.targets.new_empty(size)
        into, source = (self.inputs.numpy(), self.targets.numpy()), (pixels, samples.targets.numpy())
        self._fetch = partial(loops.fetch, *into, *map(np.ascontiguousarray, source), scaling.shift, scaling.scale)
        self._rows: list[np.ndarray] = []
        self._start, self._chosen = 0, 0

    def select(self, t: int) -> None:
        if not 0 <= t - self._start < len(self._rows):
            # The indices of a whole epoch at once: drawn at every step, they would cost as much as fetching the rows.
            count = max(1, self.batches.n // self.batches.size)
            self._rows, self._start = list(self.batches.run(t, count).numpy().reshape(count, -1)), t
        self._chosen = t - self._start

    def gather(self) -> None:
        self._fetch(self._rows[self._chosen])


class _FromPixels(BatchLoader):
    """Batches of grey levels, fetched `BATCHES_PER_FETCH` at a time and scaled one by one."""

    def __init__(self, samples: Samples, size: int, seed: int, pixels: np.ndarray, scaling: Scaling) -> None:
        self.batches = Batches(len(samples), size, seed)
        self.inputs = samples.inputs.new_empty(size, *samples.inputs.shape[1:])
        self.targets = samples.targets.new_empty(size)
        self._pixels, self._classes = torch.from_numpy(pixels), samples.targets
        self._shift, self._scale = (torch.from_numpy(np.array(each)) for each in (scaling.shift, scaling.scale))
        self._near = (
            self._pixels.new_empty(BATCHES_PER_FETCH * size, *pixels.shape[1:]),
            self.targets.new_empty(BATCHES_PER_FETCH * size),
        )
        self._parts = list(zip(*(near.split(size) for near in self._near), strict=True))
        self._start, self._chosen = -BATCHES_PER_FETCH, 0

    def select(self, t: int) -> None:
        if not 0 <= t - self._start < BATCHES_PER_FETCH:
            chosen, self._start = self.batches.run(t, BATCHES_PER_FETCH), t
            for far, near in zip((self._pixels, self._classes), self._near, strict=True):
                torch.index_select(far, 0, chosen, out=near)
        self._chosen = t - self._start

    def gather(self) -> None:
        pixels, classes = self._parts[self._chosen]
        self.targets.copy_(classes)
        self.inputs.copy_(pixels)
        self.inputs.sub_(self._shift)
        self.inputs.mul_(self._scale)
