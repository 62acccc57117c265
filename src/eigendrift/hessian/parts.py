"""The parts of the data that the ranks of torch.distributed have, and their shares in the loss of all samples."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eigendrift.checksum import checksum
from eigendrift.hessian.batches import Batch, few_of, mapped, tensors_in
from eigendrift.hessian.loss_data import BatchChunks, Combination, TensorChunks
from eigendrift.ranks import Ranks, together

# Number of samples of each rank, and of ranks, with which it is checked that the parts add up.
FEW = 8
RANKS = 8


@dataclass(frozen=True)
class Parts:
    """The data of this rank, and a few samples of each rank that has any.

    `own`: whether this rank has samples that count. If it has not, `chunks` are samples of another rank, whose share is
    zero: so every rank has the same computation.
    """

    chunks: TensorChunks | BatchChunks
    own: bool
    samples: list[Batch]


def parts_of(ranks: Ranks | None, chunks: TensorChunks | BatchChunks, combined: Combination) -> Parts:
    """Exchange a few samples of each rank.

    Raises:
        ValueError: No rank has a sample that counts, or some have tensors and others batches.
    """
    if ranks is None:
        return Parts(chunks, True, [])
    with together(ranks, "samples of each rank"):
        few = _few(chunks, combined)
    sent = None if few is None else mapped(lambda leaf: leaf.cpu() if isinstance(leaf, Tensor) else leaf, few)
    found = ranks.gather((isinstance(chunks, TensorChunks), sent), "samples of each rank")
    given = [(whole, batch) for whole, batch in found if batch is not None]
    if not given:
        raise ValueError("no rank has a sample that counts, expected at least one on one rank")
    if len({whole for whole, _ in given}) > 1:
        raise ValueError("some ranks give inputs and targets, and others data=; give the same on all")
    step = -(-len(given) // RANKS)
    samples = [batch for _, batch in given[::step]]
    if few is not None:
        return Parts(chunks, True, samples)
    whole, batch = given[0]
    if not whole:
        return Parts(BatchChunks([batch], 1, ranks.device), False, samples)
    inputs, targets = (t.to(ranks.device) for t in batch)
    return Parts(TensorChunks(inputs, targets, chunks.rows if isinstance(chunks, TensorChunks) else 1), False, samples)


def _few(chunks: TensorChunks | BatchChunks, combined: Combination) -> Batch | None:
    """At most FEW samples, None where none counts."""
    if isinstance(chunks, TensorChunks):
        looks = [FEW, 8 * FEW, 64 * FEW, len(chunks.inputs)] if len(chunks.inputs) else []
        return next((few for few in map(chunks.some, looks) if combined.weight(few) > 0), None)
    for batch in chunks:
        if combined.weight(batch) > 0:
            few = few_of(batch, FEW)
            return few if combined.weight(few) > 0 else batch
    return None


def share_of(ranks: Ranks, parts: Parts, combined: Combination, weight: float, loss: float) -> float:
    """The factor of this rank's loss in that of all samples.

    Args:
        ranks: The processes.
        parts: The data.
        combined: How the losses of parts combine.
        weight: What the mean over this rank's samples divides by.
        loss: The loss of this rank's samples.

    Raises:
        ValueError: Two ranks have the same samples.
    """
    own = weight if parts.own else 0.0
    content = _content(parts.chunks) if parts.own else 0
    found: list[tuple[float, int, float]] = ranks.gather((own, content, loss), "shares of the ranks")
    first: dict[Any, int] = {}
    for rank, known in enumerate(found):
        if known[0] and known[1] and first.setdefault(known, rank) < rank:
            raise ValueError(
                f"ranks {first[known]} and {rank} have the same samples; give each rank a part of its own, or none"
            )
    if combined.reduction == "sum":
        return float(parts.own)
    return own / sum(each for each, _, _ in found)


def _content(chunks: TensorChunks | BatchChunks) -> int:
    """A checksum of all samples, 0 where none is known."""
    if isinstance(chunks, TensorChunks):
        held = [chunks.inputs, chunks.targets]
    elif isinstance(chunks.data, list):
        held = list(tensors_in(chunks.data))
    else:
        return chunks.last_content or 0
    return int(sum((checksum(t).cpu() for t in held), torch.zeros((), dtype=torch.int64)))
