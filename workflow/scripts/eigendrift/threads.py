"""Work on several cores, one thread of torch each: for many small operations that beats all threads on each of them."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Share = TypeVar("Share")
Result = TypeVar("Result")


def shared_out(work: Callable[[Sequence[Share]], Result], items: Sequence[Share], threads: int) -> list[Result]:
    """`work` on `threads` shares of the items, one in each thread; the results in the order of the shares.

    The shares depend on the number of threads alone, and so do the bits of what is summed over them. `work` must not
    call torch from other threads of its own. Few items are one share.
    """
    if threads == 1 or len(items) < 2 * threads:
        return [work(items)]
    torch.set_num_threads(1)
    try:
        # Sums run along memory: neighbours go to one thread.
        size = -(-len(items) // threads)
        shares = [items[start : start + size] for start in range(0, len(items), size)]
        return list(_pool(threads).map(work, shares))
    finally:
        torch.set_num_threads(threads)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
