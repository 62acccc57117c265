"""The data of a loss in chunks, and how the losses of chunks combine into the loss of all samples."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, SequentialSampler, TensorDataset

from eigendrift.checksum import checksum
from eigendrift.hessian.batches import Batch, mapped, tensors_in
from eigendrift.hessian.evaluation import BatchLoss, random_states_kept

# Default number of samples that are differentiated at once.
ROWS = 512
REDUCTIONS = ("mean", "sum")
_TAKEN = "expected tensors or NumPy arrays of n samples each; batches of another kind are given as data="


@dataclass(frozen=True)
class Combination:
    """The loss of all samples from those of chunks: sum_c size(chunk) loss(chunk) / sum_c size(chunk), or their sum.

    `known`: whether torch documents it of this loss, or the caller states it; else it is the default, to be checked.
    """

    reduction: str
    size: Callable[[Batch], float]
    known: bool

    def weight(self, batch: Batch) -> float:
        """The factor of this chunk's loss."""
        if self.reduction == "sum":
            return 1.0
        weight = float(self.size(batch))
        if not 0 <= weight < float("inf"):
            raise ValueError(f"size(batch) is {weight}, expected what the mean over the batch divides by")
        return weight

    def weights(self, batch: Batch, n: int, samples: Iterable[Batch]) -> Tensor:
        """The factor of each sample's own loss, (n,) float64; `samples` are the batch cut into batches of one."""
        if self.reduction == "sum" or self.size is samples_in:
            return torch.ones(n, dtype=torch.float64)
        if isinstance(self.size, functools.partial) and self.size.func is _class_size:
            return _class_sizes(batch[1], **self.size.keywords)
        return torch.tensor([self.weight(sample) for sample in samples], dtype=torch.float64)

    def total(self, weights: float) -> float:
        """The divisor of the sum over chunks."""
        if self.reduction == "sum":
            return 1.0
        if weights == 0:
            raise ValueError("the loss is a mean over nothing: every target is ignored, or size(batch) is always 0")
        return weights


def combination(loss: Any, reduction: str | None, size: Callable[[Batch], float] | None) -> Combination:
    """How this loss combines over chunks; `reduction` and `size` are the caller's statements on it, or None.

    Raises:
        ValueError: The reduction gives one loss a sample, or is unknown; or `size` is given for a sum.
    """
    name, settings = _settings(loss)
    own = settings.get("reduction", "mean")
    if reduction is not None and reduction not in REDUCTIONS:
        raise ValueError(f"reduction = {reduction!r} is not allowed; give one of {', '.join(REDUCTIONS)}")
    if own == "none":
        raise ValueError("the loss has reduction='none', which is no number; give one with 'mean' or 'sum'")
    taken = reduction or ("sum" if own == "sum" else "mean")
    if size is not None:
        if taken == "sum":
            raise ValueError("size is what a mean divides by, and the loss is a sum; give one of the two")
        return Combination(taken, size, True)
    if name in ("cross_entropy", "nll_loss"):
        weight, ignored = settings.get("weight"), settings.get("ignore_index", -100)
        return Combination(taken, functools.partial(_class_size, weight=weight, ignored=ignored), True)
    return Combination(taken, samples_in, name is not None)


def _settings(loss: Any) -> tuple[str | None, dict[str, Any]]:
    """The name and the settings of one of torch's losses; None for any other."""
    given: dict[str, Any] = {}
    while isinstance(loss, functools.partial) and not loss.args:
        given = {**loss.keywords, **given}
        loss = loss.func
    for function, name in ((functional.cross_entropy, "cross_entropy"), (functional.nll_loss, "nll_loss")):
        if loss is function:
            return name, given
    if isinstance(loss, nn.modules.loss._Loss) and type(loss).__module__ == nn.modules.loss.__name__ and not given:
        name = {nn.CrossEntropyLoss: "cross_entropy", nn.NLLLoss: "nll_loss"}.get(type(loss), type(loss).__name__)
        return name, {k: getattr(loss, k, None) for k in ("reduction", "weight", "ignore_index") if hasattr(loss, k)}
    known = getattr(loss, "__name__", "")
    if getattr(functional, known, None) is loss:
        return known, given
    # Most losses that users write have an attribute of this name too.
    own = getattr(loss, "reduction", None)
    return None, {"reduction": own} if own in ("none", *REDUCTIONS) else {}


def is_plain_cross_entropy(loss: Any) -> bool:
    """Whether the loss is the mean cross-entropy without weights and smoothing; an ignored index is allowed."""
    if isinstance(loss, nn.CrossEntropyLoss):
        hooks = any(v for k, v in vars(loss).items() if k.endswith("_hooks")) or "forward" in vars(loss)
        plain = type(loss) is nn.CrossEntropyLoss and loss.reduction == "mean" and not hooks
        return plain and loss.weight is None and loss.label_smoothing == 0
    return loss is functional.cross_entropy


def cross_entropy_settings(loss: Any) -> dict[str, Any] | None:
    """The settings of torch's cross-entropy, `weight` and `ignore_index` among them; None for any other loss."""
    name, settings = _settings(loss)
    return settings if name == "cross_entropy" else None


def ignored_index(loss: Any) -> int | None:
    """The target that a cross-entropy leaves out; None for other losses."""
    name, settings = _settings(loss)
    return int(settings.get("ignore_index", -100)) if name in ("cross_entropy", "nll_loss") else None


def _class_size(batch: Batch, weight: Tensor | None, ignored: int) -> float:
    return float(_class_sizes(batch[1], weight, ignored).sum())


def _class_sizes(targets: Tensor, weight: Tensor | None, ignored: int) -> Tensor:
    """The divisor of a class mean from each sample alone, (n,) float64."""
    if targets.is_floating_point():  # probabilities of the classes: a mean over the samples
        return targets.new_ones(len(targets), dtype=torch.float64)
    counted = targets != ignored
    if weight is None:
        sizes = counted.double()
    else:
        weights = weight.detach().double().to(targets.device)
        sizes = torch.where(counted, weights[torch.where(counted, targets, 0).long()], 0.0)
    return sizes.flatten(1).sum(dim=1) if sizes.ndim > 1 else sizes.reshape(-1)


def samples_in(batch: Batch) -> float:
    """The number of samples in a batch: the size of the first axis of its first tensor."""
    for tensor in tensors_in(batch):
        if tensor.ndim:
            return float(len(tensor))
    raise ValueError(f"a batch is {type(batch).__name__} without a tensor; say its number of samples with size=")


class TensorChunks:
    """Inputs and targets (n, ...) in chunks of `rows` samples."""

    same_order = True

    def __init__(self, inputs: Tensor, targets: Tensor, rows: int) -> None:
        self.inputs, self.targets, self.rows = inputs, targets, rows

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.inputs), self.rows):
            yield self.inputs[start : start + self.rows], self.targets[start : start + self.rows]

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.rows)

    def some(self, n: int) -> Batch:
        """At most n samples, spread evenly over all."""
        rows = (
            torch.linspace(0, len(self.inputs) - 1, min(n, len(self.inputs)), dtype=torch.float64, device="cpu")
            .round()
            .long()
        )
        return self.inputs[rows.to(self.inputs.device)], self.targets[rows.to(self.targets.device)]


class BatchChunks:
    """Batches of an iterable, whose random choices are the same at each pass: the generators start in the same states.

    `same_order`: whether the batches come in the same order whatever these states are.
    """

    def __init__(self, data: Any, rows: int, device: torch.device, of_ranks: bool = False) -> None:
        """`of_ranks`: whether the batches are the part that one of several ranks has, which may be nothing."""
        _check_sampler(data, of_ranks)
        self.of_ranks = of_ranks
        if isinstance(data, IterableDataset):
            raise ValueError(
                "data is an IterableDataset; give DataLoader(data, batch_size=n) if it yields samples, or "
                "batch_size=None if it yields batches"
            )
        if isinstance(data, Dataset):
            data = DataLoader(data, batch_size=rows)
        elif isinstance(data, Iterator):
            data = [_own(batch) for batch in data]
        if isinstance(data, list):
            data = [_as_tensors(batch) for batch in data]
        if not hasattr(data, "__iter__") or isinstance(data, Tensor | np.ndarray | str | bytes | Mapping):
            raise ValueError(f"data is {type(data).__name__}, expected a Dataset, a DataLoader or a list of batches")
        self.data, self.device, self.seed = data, device, 0
        self.same_order = isinstance(data, Sequence) or isinstance(getattr(data, "sampler", None), SequentialSampler)
        self.content: int | None = None  # checksum of all batches, which every pass has to have; None: not known
        self.last_content: int | None = None  # the same of the last pass that came to its end

    def __iter__(self) -> Iterator[Batch]:
        iterator, count, content = None, 0, torch.zeros((), dtype=torch.int64, device=self.device)
        # The iterator's generator continues from batch to batch, whatever is drawn between them.
        with random_states_kept(self.device, self.seed):
            iterator = iter(self.data)
            states = torch.get_rng_state()
        while True:
            with random_states_kept(self.device, self.seed + count):
                torch.set_rng_state(states)
                try:
                    batch = next(iterator)
                except StopIteration:
                    break
                states = torch.get_rng_state()
            count += 1
            # A loader may use the memory of a batch again, and graphs that are kept refer to it.
            batch = batch if isinstance(self.data, list) else _own(batch)
            for tensor in tensors_in(batch):
                content = content + checksum(tensor).to(self.device)
            yield batch
        if count == 0 and (self.last_content is not None or not self.of_ranks):
            raise ValueError(
                "data gave no batch, expected at least one"
                + (" at each pass; give a list of the batches" if self.last_content is not None else "")
            )
        self.last_content = int(content)
        if self.content is not None and self.last_content != self.content:
            raise ValueError(f"data is not the same at each pass: its numbers have changed; {FIXED_DATA}")


def _check_sampler(data: Any, of_ranks: bool) -> None:
    """Refuse a sampler of torch.distributed that repeats or drops samples, or whose parts are taken for the whole."""
    sampler = getattr(data, "sampler", None)
    if not isinstance(sampler, DistributedSampler):
        sampler = getattr(getattr(data, "batch_sampler", None), "sampler", None)
    if not isinstance(sampler, DistributedSampler) or sampler.num_replicas == 1:
        return
    n, taken = len(sampler.dataset), sampler.total_size  # type: ignore[arg-type]
    if not of_ranks:
        raise ValueError("data has a DistributedSampler, with which it is a part; give distributed=True for the whole")
    if taken != n:
        raise ValueError(
            f"data has a DistributedSampler, which takes {taken} samples of {n} so that every rank has as many; give "
            "each rank a loader of Subset(dataset, range(rank, n, ranks))"
        )


FIXED_DATA = "turn off random augmentation and drop_last with shuffle=True, or give a list of batches"


def _as_tensors(batch: Batch) -> Batch:
    """A batch with tensors in place of arrays; those that hold no numbers stay."""

    def one(leaf: Any) -> Any:
        numbers = isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiub"
        return as_tensor(leaf, "an array of a batch") if numbers and leaf.ndim else leaf

    return mapped(one, batch)


def _own(batch: Batch) -> Batch:
    """A batch of tensors whose memory nobody else writes to."""
    return mapped(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, _as_tensors(batch))


def as_tensor(value: Any, name: str) -> Tensor:
    """Inputs or targets as a tensor; an array is copied, so that the caller may change it.

    Raises:
        ValueError: The value is no array of real numbers.
    """
    if isinstance(value, list | tuple):
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{name} is a {type(value).__name__} of unequal parts; {_TAKEN}") from error
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub":
            raise ValueError(f"{name} has dtype {value.dtype}; {_TAKEN}")
        native = value.astype(value.dtype.newbyteorder("="), order="C", copy=True)
        if native.dtype == np.longdouble and native.dtype.itemsize > 8:
            native = native.astype(np.float64)
        value = torch.from_numpy(native)
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} is {type(value).__name__}; {_TAKEN}")
    if value.is_complex() or value.layout != torch.strided or value.ndim == 0:
        raise ValueError(f"{name} is {value.dtype}, {value.layout}, of shape {tuple(value.shape)}; {_TAKEN}")
    return value.detach()


def whole_tensors(data: Any) -> tuple[Tensor, Tensor] | None:
    """Inputs and targets of a TensorDataset of two, None for other data."""
    if type(data) is TensorDataset and len(data.tensors) == 2:
        return data.tensors[0], data.tensors[1]
    return None


def takes_outputs(loss: Any) -> bool:
    """Whether a loss is one of (outputs, targets) also where batches are given: a module, or a function of torch."""
    inner = loss
    while isinstance(inner, functools.partial):
        inner = inner.func
    return isinstance(inner, nn.Module) or (getattr(inner, "__module__", None) or "").startswith("torch.nn")


class PairLoss:
    """loss(outputs, targets) as a loss of (module, batch) with batch = (inputs, targets)."""

    def __init__(self, loss: Any) -> None:
        self.loss = loss

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        value: Tensor = self.loss(module(batch[0]), batch[1])
        return value


class WeightedPairs:
    """The sum of the losses of samples, each times a weight; `combination` says how the loss combines samples.

    A batch is (inputs, targets, sizes, weights): the samples come in groups of these sizes, and those of a group have
    the same weight. So the loss is evaluated once a group, whatever it is, and the module once.
    """

    def __init__(self, loss: Any, combination: Combination) -> None:
        self.loss, self.combination = loss, combination

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        inputs, targets, sizes, weights = batch
        outputs = module(inputs)
        total: Tensor = outputs.new_zeros(())
        for x, z, y, weight in zip(
            inputs.split(sizes), outputs.split(sizes), targets.split(sizes), weights, strict=True
        ):
            size = self.combination.weight((x, y))
            # A mean over nothing, for example where every target is ignored, would not be a number.
            if size:
                total = total + weight * size * self.loss(z, y).reshape(())
        return total


def batch_loss_itself(loss: Any) -> BatchLoss:
    """A function loss(module, batch), unchanged."""
    batch_loss: BatchLoss = loss
    return batch_loss
