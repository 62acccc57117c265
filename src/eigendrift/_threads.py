"""Work on several cores, one thread of torch each: for many small operations that beats all threads on each of them."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TypeVar

import torch

Share = TypeVar("Share")
Result = TypeVar("Result")

# Torch's number of threads outside of `single_threaded_torch`; 0 outside of it.
_WORKERS: ContextVar[int] = ContextVar("number of workers", default=0)


def parallel_map(work: Callable[[Sequence[Share]], Result], items: Sequence[Share]) -> list[Result]:
    """`work` on as many shares of the items as torch has threads, one worker each; results in the order of the shares.

    The shares depend on the number of threads alone, and so do the bits of what is summed over them. `work` must not
    call torch from other threads of its own. Few items are one share.
    """
    threads = _WORKERS.get() or torch.get_num_threads()
    if threads == 1 or len(items) < 2 * threads:
        return [work(items)]
    with single_threaded_torch():
        # Neighbours are alike: dealt out in turn, they make shares of the same weight.
        shares = [items[start::threads] for start in range(threads)]
        return list(_pool(threads).map(work, shares))


@contextmanager
def single_threaded_torch() -> Iterator[None]:
    """Torch itself has one thread in here, and `parallel_map` as many workers as torch had threads.

    Between operations OpenMP's threads spin and would occupy the cores that the workers need.
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
