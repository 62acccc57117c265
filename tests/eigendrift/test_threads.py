"""Work that is shared out over threads: its order, and torch's own number of threads afterwards."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import nn

from eigendrift import HessianOperator, top_eigenpairs
from eigendrift._threads import parallel_map, single_threaded_torch
from reproduction.training.model import initialize, mlp


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 17, 100])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_item_is_dealt_to_one_share(count: int, threads: int) -> None:
    torch.set_num_threads(threads)
    shares = parallel_map(list, range(count))
    expected = threads if count >= 2 * threads and threads > 1 else 1
    assert shares == [list(range(count))[first::expected] for first in range(expected)]
    assert torch.get_num_threads() == threads


def test_each_share_has_one_thread_of_torch() -> None:
    torch.set_num_threads(2)
    assert parallel_map(lambda share: torch.get_num_threads(), range(8)) == [1, 1]
    assert torch.get_num_threads() == 2


def test_workers_take_the_threads_of_torch() -> None:
    torch.set_num_threads(2)
    with single_threaded_torch():
        assert torch.get_num_threads() == 1
        assert parallel_map(lambda share: (len(share), torch.get_num_threads()), range(8)) == [(4, 1), (4, 1)]
        with single_threaded_torch():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_a_solve_gives_its_threads_to_the_workers_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = operator_and_vectors()[0]
    seen = []
    product = operator.product

    def watched(vectors: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return product(vectors)

    monkeypatch.setattr(operator, "product", watched)
    torch.set_num_threads(2)
    top_eigenpairs(operator, 2)
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2


def test_an_error_comes_through_and_leaves_the_threads_as_they_were() -> None:
    def fail(share: Sequence[int]) -> None:
        raise KeyError(share[0])

    torch.set_num_threads(2)
    with pytest.raises(KeyError):
        parallel_map(fail, range(8))
    assert torch.get_num_threads() == 2


def operator_and_vectors() -> tuple[HessianOperator, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(330, 7, generator=generator, dtype=torch.float64)
    y = torch.randint(4, (330,), generator=generator)
    model = mlp(7, (6, 5), 4).double()
    initialize(model, 1)
    operator = HessianOperator(model, nn.CrossEntropyLoss(), x, y, rows=20)
    return operator, torch.randn(3, operator.shape[0], generator=generator, dtype=torch.float64)


def test_a_product_on_several_threads_is_the_product_and_the_same_bits_every_time() -> None:
    operator, vectors = operator_and_vectors()
    torch.set_num_threads(1)
    alone = operator.product(vectors)
    torch.set_num_threads(3)
    shared = operator.product(vectors)
    torch.testing.assert_close(shared, alone, rtol=1e-12, atol=1e-15)
    for _ in range(5):
        assert torch.equal(operator.product(vectors), shared)
