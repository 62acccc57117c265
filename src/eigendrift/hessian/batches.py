"""Batches of any form: tensors in tuples, lists, mappings and dataclasses, taken apart and put together again."""

import copy
import dataclasses
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

Batch = Any


def mapped(function: Callable[[Any], Any], value: Batch) -> Batch:
    """The batch with function(leaf) in place of each leaf, in containers of the same types."""
    if isinstance(value, PackedSequence):
        return function(value)
    if isinstance(value, Mapping):
        return _mapping_of(value, {key: mapped(function, each) for key, each in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(function, each) for each in value))
    if type(value) in (tuple, list):
        return type(value)(mapped(function, each) for each in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = copy.copy(value)
        for field in dataclasses.fields(value):
            # Frozen dataclasses too have the fields in their dictionary.
            object.__setattr__(found, field.name, mapped(function, getattr(value, field.name)))
        return found
    return function(value)


def _mapping_of(like: Mapping[Any, Any], items: dict[Any, Any]) -> Mapping[Any, Any]:
    """A mapping of the type of another, whose values users read as attributes too; a dict where that is not safe."""
    # The copy of any other mapping may share its items, so that writing to it would change the caller's.
    if type(like) is dict or not isinstance(like, dict | UserDict):
        return items
    try:
        found: Any = copy.copy(like)
        for key, value in items.items():
            found[key] = value
    except Exception:  # The constructor and the assignment are another library's.
        return items
    result: Mapping[Any, Any] = found
    return result


def leaves(value: Batch) -> list[Any]:
    """The values in the containers of a batch, in their order."""
    found: list[Any] = []

    def one(leaf: Any) -> Any:
        found.append(leaf)
        return leaf

    mapped(one, value)
    return found


def replaced(value: Batch, function: Callable[[Tensor], Any]) -> Batch:
    """A batch or an output with function(tensor) in place of each tensor."""
    return mapped(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, value)


def tensors_in(value: Batch) -> Iterator[Tensor]:
    """Every tensor of a batch or an output."""
    for leaf in leaves(value):
        if isinstance(leaf, Tensor):
            yield leaf
        elif isinstance(leaf, PackedSequence):
            yield from leaves(tuple(leaf))


def moved(value: Batch, device: torch.device, dtype: torch.dtype, clone: bool = False) -> Batch:
    """A batch on the device, with its floating-point numbers in `dtype`; with `clone` no tensor is the caller's."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiub":
            leaf = torch.from_numpy(np.ascontiguousarray(leaf))
        if isinstance(leaf, Tensor):
            if leaf.is_inference():
                leaf = leaf.clone()
            found = leaf.to(device, dtype if leaf.is_floating_point() else leaf.dtype)
            return found.clone() if clone and found is leaf else found
        if isinstance(leaf, PackedSequence):
            # Its lengths stay on the host.
            data, lengths, *orders = leaf
            return PackedSequence(one(data), lengths, *(t if t is None else t.to(device) for t in orders))
        return leaf.to(device) if hasattr(leaf, "to") else leaf

    return mapped(one, value)


def rows_in(batch: Batch) -> int | None:
    """The number of samples in a batch whose tensors all have one row a sample; None for any other."""
    if any(isinstance(leaf, PackedSequence) for leaf in leaves(batch)):
        return None
    lengths = {len(t) for t in tensors_in(batch) if t.ndim}
    return next(iter(lengths)) if len(lengths) == 1 else None


def few_of(batch: Batch, n: int) -> Batch:
    """The first samples of a batch whose tensors have one row a sample; any other batch itself."""
    rows = rows_in(batch)
    if rows is None or rows <= n or any(t.ndim == 0 for t in tensors_in(batch)):
        return batch
    return _cut(batch, slice(0, n))


def cut_in_two(batch: Batch) -> list[Batch]:
    """A batch in two unequal parts; a batch that cannot be split is returned whole."""
    rows = rows_in(batch)
    if rows is None or rows < 2:
        return [batch]
    first = max(1, rows // 3)
    return [_cut(batch, slice(0, first)), _cut(batch, slice(first, rows))]


def _cut(batch: Batch, rows: slice) -> Batch:
    def one(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.ndim == 0:
            return leaf
        if leaf.layout == torch.strided:
            return leaf[rows]
        indices = torch.arange(rows.start, rows.stop, device=leaf.device)
        return leaf.to_sparse_coo().index_select(0, indices).to_sparse(layout=leaf.layout)

    return mapped(one, batch)


def joined(parts: Sequence[Batch]) -> Batch | None:
    """Batches of one structure as one batch; None where they do not fit together."""

    def one(*column: Any) -> Any:
        first = column[0]
        if isinstance(first, Tensor) and first.ndim:
            if first.layout == torch.strided:
                return torch.cat(column)
            return torch.cat([t.to_sparse_coo() for t in column]).to_sparse(layout=first.layout)
        for other in column[1:]:
            same = torch.equal(first, other) if isinstance(first, Tensor) else first is other or first == other
            if not bool(same):
                raise ValueError
        return first

    try:
        columns = zip(*map(leaves, parts), strict=True)
        found = iter([one(*column) for column in columns])
    except (RuntimeError, ValueError, TypeError):
        return None
    return mapped(lambda _: next(found), parts[0])
