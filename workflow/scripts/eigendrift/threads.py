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

_LENT: ContextVar[int] = ContextVar("threads that torch lent", default=0)


def shared_out(work: Callable[[Sequence[Share]], Result], items: Sequence[Share]) -> list[Result]:
    """`work` on as many shares of the items as torch has threads, one in each; the results in the order of the shares.

    The shares depend on the number of threads alone, and so do the bits of what is summed over them. `work` must not
    call torch from other threads of its own. Few items are one share.
    """
    threads = _LENT.get() or torch.get_num_threads()
    if threads == 1 or len(items) < 2 * threads:
        return [work(items)]
    with lent_threads():
        # Neighbours are alike: dealt out in turn, they make shares of the same weight.
        shares = [items[start::threads] for start in range(threads)]
        return list(_pool(threads).map(work, shares))


@contextmanager
def lent_threads() -> Iterator[None]:
    """Torch itself has one thread in here, and `shared_out` those that it had.

    Between operations torch's threads wait for the next one without leaving their cores, in the way of the shares.
    """
    threads = torch.get_num_threads()
    if _LENT.get() or threads == 1:
        yield
        return
    lent = _LENT.set(threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _LENT.reset(lent)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
