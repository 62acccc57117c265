"""Work on several cores, one thread of torch each: for many small operations faster than all threads on each one."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TypeVar

import torch

Share = TypeVar("Share")
Result = TypeVar("Result")

# Inside `single_threaded_torch` the number of threads that torch has outside of it; 0 outside.
_WORKERS: ContextVar[int] = ContextVar("number of workers", default=0)


def parallel_map(work: Callable[[Sequence[Share]], Result], items: Sequence[Share]) -> list[Result]:
    """Apply `work` to as many shares of the items as torch has threads, one worker a share.

    The shares depend on the number of threads alone, and so do the bits of sums over them. `work` must not call torch
    from other threads of its own. A few items make one share.

    Args:
        work: A function of a share of the items.
        items: The items, neighbours of which take similar time.

    Returns:
        The results, in the order of the shares.
    """
    if not is_shared(len(items)):
        return [work(items)]
    threads = _WORKERS.get() or torch.get_num_threads()
    with single_threaded_torch():
        # Neighbouring items take similar time: dealt out in turn, they make shares of equal work.
        shares = [items[start::threads] for start in range(threads)]
        return list(_pool(threads).map(work, shares))


def is_shared(items: int) -> bool:
    """Whether `parallel_map` makes several shares of so many items."""
    threads = _WORKERS.get() or torch.get_num_threads()
    return threads > 1 and items >= 2 * threads


@contextmanager
def single_threaded_torch() -> Iterator[None]:
    """Give torch itself one thread inside, and `parallel_map` as many workers as torch had threads.

    OpenMP workers spin between operations and would occupy the cores that the pool needs.
    """
    threads = torch.get_num_threads()
    if _WORKERS.get() or threads == 1:
        yield
        return
    workers = _WORKERS.set(threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _WORKERS.reset(workers)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
