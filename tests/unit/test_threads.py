"""Work that is shared out over threads: its order, and torch's own number of threads afterwards."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import nn

from eigendrift import HessianOperator
from eigendrift.model import initialize, mlp
from eigendrift.threads import shared_out


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 17, 100])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_item_is_in_one_share_and_in_order(count: int, threads: int) -> None:
    torch.set_num_threads(threads)
    shares = shared_out(list, range(count), threads)
    assert [item for share in shares for item in share] == list(range(count))
    assert len(shares) == (threads if count >= 2 * threads and threads > 1 else 1)
    assert torch.get_num_threads() == threads


def test_each_share_has_one_thread_of_torch() -> None:
    torch.set_num_threads(2)
    assert shared_out(lambda share: torch.get_num_threads(), range(8), 2) == [1, 1]
    assert torch.get_num_threads() == 2


def test_an_error_comes_through_and_leaves_the_threads_as_they_were() -> None:
    def fail(share: Sequence[int]) -> None:
        raise KeyError(share[0])

    torch.set_num_threads(2)
    with pytest.raises(KeyError):
        shared_out(fail, range(8), 2)
    assert torch.get_num_threads() == 2


def test_a_product_on_several_threads_is_the_product_and_the_same_bits_every_time() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(330, 7, generator=generator, dtype=torch.float64)
    y = torch.randint(4, (330,), generator=generator)
    model = mlp(7, (6, 5), 4).double()
    initialize(model, 1)
    operator = HessianOperator(model, nn.CrossEntropyLoss(), x, y, rows=20)
    vectors = torch.randn(3, operator.shape[0], generator=generator, dtype=torch.float64)
    torch.set_num_threads(1)
    alone = operator.product(vectors)
    torch.set_num_threads(3)
    shared = operator.product(vectors)
    torch.testing.assert_close(shared, alone, rtol=1e-12, atol=1e-15)
    for _ in range(5):
        assert torch.equal(operator.product(vectors), shared)
