"""One operator on several processes, the ranks of torch.distributed, each of which has a part of the data.

All ranks call the same things in the same order. What one rank raises is raised on all, in one line: every step that
may fail ends with an exchange of one small tensor, which says whether it has failed, which step it was and a checksum
of what has to be the same on all ranks. A rank that ends, or takes longer than the timeout of the process group, makes
the next exchange fail on the others.

A solver runs on rank 0 alone, and the other ranks wait for its requests and multiply. So all decisions and random
numbers are those of one process, and every rank gets the same bits as its result.
"""

import functools
import inspect
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from eigendrift.checksum import checksum
from eigendrift.operators import Operator, RefinableOperator, coarse_level, torch_type, uses_thread_pool

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class LostRankError(RuntimeError):
    """Another rank has ended, or was not reached within the timeout of the process group."""


class Ranks:
    """The processes of a group, seen from one of them.

    Attributes:
        rank: The number of this process in the group, from 0.
        size: The number of processes.
    """

    def __init__(self, group: Any, device: torch.device) -> None:
        """Enter a group.

        Args:
            group: True for the default group, or a process group.
            device: The device of the vectors.

        Raises:
            ValueError: torch.distributed does not run, this process is no member, or the back end does not reach the
                device.
        """
        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError("distributed is given, but torch.distributed does not run; call init_process_group first")
        if group is not True and not isinstance(group, dist.ProcessGroup):
            raise ValueError(f"distributed = {group!r} is not allowed; give True, or this process's group")
        self.group: Any = dist.group.WORLD if group is True else group
        self.device = device
        self.rank, self.size = dist.get_rank(self.group), dist.get_world_size(self.group)
        kinds = dist.get_backend_config(self.group)
        if f"{device.type}:" not in kinds:
            raise ValueError(
                f"the process group ({kinds}) does not reach {device}; initialize it with its back end too"
            )
        self._small = torch.device("cpu") if "cpu:" in kinds else device

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        on_device = torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
        try:
            # Numbers are exchanged as they are, whatever torch's default device is.
            with on_device, torch.device("cpu"):
                yield
        except RuntimeError as error:
            text = " ".join(str(error).split())
            raise LostRankError(
                f"rank {self.rank} of {self.size} has lost the others: one of them ended, or took longer than the "
                f"timeout of the process group ({text[:200]})"
            ) from error

    def sum(self, part: Tensor) -> Tensor:
        """The sum of a tensor over all ranks.

        Args:
            part: A tensor of the same shape and type on every rank; it is overwritten.

        Returns:
            The sum, with the same bits on every rank.
        """
        part = part.contiguous()
        with self._exchange():
            dist.all_reduce(part, group=self.group)
        return part

    def gather(self, value: Any, doing: str) -> list[Any]:
        """A small value of each rank.

        Args:
            value: What this rank gives; it is pickled.
            doing: The step, which has to be the same on every rank.

        Returns:
            The values of all ranks, in their order.
        """
        self.agree(doing)
        return self._all(value)

    def _all(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        with self._exchange():
            dist.all_gather_object(found, value, group=self.group)
        return found

    def from_first(self, value: Any) -> Any:
        """A small value of rank 0 on every rank.

        Args:
            value: What rank 0 gives; it is pickled. The other ranks give None.

        Returns:
            The value of rank 0.
        """
        held = [value]
        with self._exchange():
            source = dist.get_global_rank(self.group, 0)
            dist.broadcast_object_list(held, source, group=self.group, device=self._small)
        return held[0]

    def tensor_from_first(self, tensor: Tensor) -> Tensor:
        """A tensor of rank 0 on every rank.

        Args:
            tensor: What rank 0 gives; on the other ranks a tensor of the same shape and type, which is overwritten.

        Returns:
            The tensor of rank 0.
        """
        tensor = tensor.contiguous()
        with self._exchange():
            dist.broadcast(tensor, dist.get_global_rank(self.group, 0), group=self.group)
        return tensor

    def agree(self, doing: str, error: Exception | None = None, same: dict[str, Any] | None = None) -> None:
        """End a step on all ranks together.

        Args:
            doing: The step.
            error: What this rank raised in it.
            same: Tensors, numbers and strings by name that have to be the same on every rank.

        Raises:
            Exception: `error` itself.
            ValueError: The step failed on another rank, ranks are in different steps, or something differs.
            RuntimeError: The step failed on another rank for another reason than a bad value, or a rank is lost.
        """
        marks = {name: _mark(value) for name, value in (same or {}).items()} if error is None else {}
        step, every = _mark(doing), _mark(repr(sorted(marks.items())))
        status = torch.tensor([error is not None, step, -step, every, -every], dtype=torch.int64, device=self._small)
        with self._exchange():
            dist.all_reduce(status, dist.ReduceOp.MAX, group=self.group)
        failed, *found = status.tolist()
        if failed or found != [step, -step, every, -every]:
            raise _known(self._told(error, doing, marks))

    def _told(self, error: Exception | None, doing: str, marks: dict[str, int]) -> Exception:
        message = None if error is None else f"{type(error).__name__}: {' '.join(str(error).split())}"
        known = self._all((message, isinstance(error, ValueError | None), doing, marks))
        if error is not None:
            return error
        for rank, (theirs, is_value, _, _) in enumerate(known):
            if theirs is not None:
                return (ValueError if is_value else RuntimeError)(f"rank {rank} failed: {theirs}")
        for rank, (_, _, step, its) in enumerate(known):
            _, _, first, expected = known[0]
            if step != first:
                return ValueError(f"the ranks are not in the same step: {first} on rank 0, {step} on rank {rank}")
            for name in sorted(expected.keys() | its.keys()):
                if expected.get(name) != its.get(name):
                    return ValueError(
                        f"{name} differs between ranks 0 and {rank}, and has to be the same on all: broadcast it, or "
                        "use one seed"
                    )
        raise AssertionError("the ranks differ in nothing")


def _known(error: Exception) -> Exception:
    """Mark an error as one that all ranks raise."""
    error.on_every_rank = True  # type: ignore[attr-defined]
    return error


def _mark(value: Any) -> int:
    if isinstance(value, Mapping):
        value = sorted((name, _mark(each)) for name, each in value.items())
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, Tensor):
        return int(checksum(value.reshape(1, -1))) ^ _mark(f"{value.dtype}{tuple(value.shape)}")
    text = repr(value).encode()
    return zlib.crc32(text) << 31 | zlib.adler32(text) >> 1


@contextmanager
def together(ranks: Ranks | None, doing: str) -> Iterator[dict[str, Any]]:
    """A step that raises on every rank what it raises on one.

    Args:
        ranks: None for a single process, where it has no effect.
        doing: The name of the step.

    Yields:
        A dictionary for what has to be the same on every rank, by name.
    """
    same: dict[str, Any] = {}
    if ranks is None:
        yield same
        return
    found = None
    try:
        yield same
    except Exception as error:
        if isinstance(error, LostRankError) or getattr(error, "on_every_rank", False):
            raise
        found = error
    ranks.agree(doing, found, same)


def on_every_rank(
    method: Callable[Concatenate[Any, Arguments], Result],
) -> Callable[Concatenate[Any, Arguments], Result]:
    """Make a method of an operator with `ranks` a step of all of them, with the same arguments on each.

    Args:
        method: A method whose arguments are tensors, arrays, numbers and strings. It may compute a part only, and then
            sends nothing itself.

    Returns:
        The method.
    """

    signature = inspect.signature(method)

    @functools.wraps(method)
    def wrapped(self: Any, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if self.ranks is None:
            return method(self, *args, **kwargs)
        with together(self.ranks, method.__name__) as same:
            given = signature.bind(self, *args, **kwargs).arguments
            same.update({name: value for name, value in given.items() if value is not self})
            return method(self, *args, **kwargs)

    return wrapped


class SharedOperator:
    """The sum over all ranks of an operator's products, each times the share of its rank."""

    def __init__(self, ranks: Ranks, own: Operator, share: float, coarse: "SharedOperator | None" = None) -> None:
        """Join the operators of the ranks.

        Args:
            ranks: The processes.
            own: The operator of this rank's part.
            share: Its factor in the sum.
            coarse: The coarse level, if there is one.
        """
        self.ranks, self.own, self.share = ranks, own, share
        self.coarse: Operator | None = coarse
        self.shape, self.dtype, self.device = own.shape, torch_type(own), own.device

    @property
    def uses_thread_pool(self) -> bool:
        """As of this rank's operator."""
        return uses_thread_pool(self.own)

    @on_every_rank
    def _product(self, vectors: Tensor) -> Tensor:
        return self.own.product(vectors) * self.share

    def product(self, vectors: Tensor) -> Tensor:
        """G v for several vectors, the same on every rank.

        Args:
            vectors: Rows (b, N).

        Returns:
            The products, as rows (b, N).
        """
        return self.ranks.sum(self._product(vectors))


class _Led:
    """An operator on rank 0, whose products are asked of the other ranks too."""

    def __init__(self, ranks: Ranks, operators: list[Any], index: int) -> None:
        self.ranks_, self.operators, self.index = ranks, operators, index
        self.operator = operators[index]
        self.shape, self.dtype, self.device = self.operator.shape, torch_type(self.operator), self.operator.device

    @property
    def uses_thread_pool(self) -> bool:
        return uses_thread_pool(self.operator)

    @functools.cached_property
    def coarse(self) -> "_Led | None":
        return self._made("coarse")

    def product(self, vectors: Tensor) -> Tensor:
        self.ranks_.from_first((self.index, "product", (tuple(vectors.shape), vectors.dtype)))
        vectors = self.ranks_.tensor_from_first(vectors)
        with together(self.ranks_, "product"):
            product: Tensor = self.operator.product(vectors)
        return product

    def _made(self, name: str, *arguments: Any) -> "_Led | None":
        """Another operator that this one makes, on all ranks."""
        self.ranks_.from_first((self.index, name, arguments))
        with together(self.ranks_, name):
            found = _make(self.operators, self.index, name, arguments)
        if found is None or found is self.operator:
            return None if found is None else self
        return _led(self.ranks_, self.operators, len(self.operators) - 1)


class _LedRefinable(_Led):
    """The same for an operator that offers other forms of itself."""

    def with_float64_forward(self) -> "_Led | None":
        return self._made("with_float64_forward")

    def in_float64(self) -> "_Led | None":
        return self._made("in_float64")

    def surrogate(self, seed: int) -> "_Led | None":
        return self._made("surrogate", seed)


def _led(ranks: Ranks, operators: list[Any], index: int) -> _Led:
    kind = _LedRefinable if isinstance(operators[index], RefinableOperator) else _Led
    return kind(ranks, operators, index)


def _make(operators: list[Any], index: int, name: str, arguments: tuple[Any, ...]) -> Any:
    operator = operators[index]
    found = coarse_level(operator) if name == "coarse" else getattr(operator, name)(*arguments)
    # All ranks have the same list, whatever was made.
    operators.append(found)
    return found


def _serve(ranks: Ranks, operators: list[Any]) -> Exception | None:
    """Take part in what rank 0 asks for, until it ends; return what was raised here on the way."""
    raised: Exception | None = None
    while True:
        index, name, arguments = ranks.from_first(None)
        if name == "end":
            (message, is_value), own = arguments, raised
            if message is None:
                return None
            return own or (ValueError if is_value else RuntimeError)(message)
        vectors = None
        if name == "product":
            shape, dtype = arguments
            vectors = ranks.tensor_from_first(torch.empty(shape, dtype=dtype, device=operators[index].device))
        try:
            with together(ranks, name):
                if vectors is not None:
                    operators[index].product(vectors)
                else:
                    _make(operators, index, name, arguments)
        except LostRankError:
            raise
        except Exception as error:  # Rank 0 has it too, and ends.
            raised = error


def led_by_one_rank(solver: Callable[Concatenate[Any, Arguments], Result]) -> Callable[..., Result]:
    """Run a solver of an operator with `ranks` on rank 0, while the other ranks multiply; all return its result.

    Args:
        solver: A function of an operator and of options, which are the same on every rank. Its result is a dataclass of
            tensors and plain values. It multiplies the operator, and the one that is given as `surrogate`, by their
            `product` alone.

    Returns:
        The solver; for an operator without ranks it is called as it is.
    """

    signature = inspect.signature(solver)

    @functools.wraps(solver)
    def wrapped(operator: Any, /, *args: Any, **kwargs: Any) -> Result:
        ranks = getattr(operator, "ranks", None)
        if not isinstance(ranks, Ranks):
            return solver(operator, *args, **kwargs)
        operators = [operator]
        if getattr(kwargs.get("surrogate"), "ranks", None) is not None:
            operators.append(kwargs["surrogate"])
        plain = (int, float, str, type(None))
        # A tensor such as v0 is taken from rank 0.
        with together(ranks, solver.__name__) as same:
            given = signature.bind(operator, *args, **kwargs).arguments
            same.update({name: value for name, value in given.items() if isinstance(value, plain)})
        if ranks.rank > 0:
            error = _serve(ranks, operators)
            if error is not None:
                raise error
            theirs: Result = _shared(ranks, None)
            return theirs
        try:
            if len(operators) > 1:
                kwargs["surrogate"] = _led(ranks, operators, 1)
            result = solver(_led(ranks, operators, 0), *args, **kwargs)
        except LostRankError:
            raise
        except Exception as error:
            text = f"rank 0 failed: {type(error).__name__}: {' '.join(str(error).split())}"
            ranks.from_first((0, "end", (text, isinstance(error, ValueError))))
            raise
        ranks.from_first((0, "end", (None, False)))
        own: Result = _shared(ranks, result)
        return own

    return wrapped


def _shared(ranks: Ranks, result: Any) -> Any:
    """A dataclass of rank 0 on every rank."""
    sent: Any = None
    tensors: dict[str, Tensor] = {}
    if ranks.rank == 0:
        tensors = {f.name: value for f in fields(result) if isinstance(value := getattr(result, f.name), Tensor)}
        shapes = {name: (tuple(t.shape), t.dtype, t.device == ranks.device) for name, t in tensors.items()}
        sent = type(result), {f.name: getattr(result, f.name) for f in fields(result) if f.name not in tensors}, shapes
    kind, others, shapes = ranks.from_first(sent)
    for name, (shape, dtype, on_device) in shapes.items():
        there = ranks.device if on_device else torch.device("cpu")
        own = tensors.get(name, torch.empty(shape, dtype=dtype, device=there))
        # A group that reaches one device only passes the tensors of the host through it.
        through = own.to(ranks.device) if there.type == "cpu" and ranks._small.type != "cpu" else own
        tensors[name] = ranks.tensor_from_first(through).to(there)
    return kind(**others, **tensors)
