"""Data of the forms that people have: arrays, loaders, batches of any structure, against a dense Hessian in float64."""

import dataclasses
from collections import OrderedDict, UserDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from dense_hessian import CLASSES, D, N, chain, check, drawn, exact, labels, matrix
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from eigendrift import HessianOperator

pytestmark = pytest.mark.usefixtures("one_thread")
IGNORED = torch.where(torch.arange(N) < 9, -100, labels(N))


class Rows(Dataset[Any]):
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.x[row], self.y[row]


def pairs(x: Tensor, y: Tensor, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(size), y.split(size), strict=True))


DATA: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tensors": lambda x, y: TensorDataset(x, y),
    "rows": Rows,
    "loader": lambda x, y: DataLoader(Rows(x, y), batch_size=8),
    "shuffled": lambda x, y: DataLoader(Rows(x, y), batch_size=8, shuffle=True),
    "own generator": lambda x, y: DataLoader(Rows(x, y), 8, shuffle=True, generator=torch.Generator().manual_seed(0)),
    "list": pairs,
    "generator": lambda x, y: (b for b in pairs(x, y)),
    "lists of arrays": lambda x, y: [[a.numpy(), b.numpy()] for a, b in pairs(x, y)],
}


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), lambda m, b: functional.cross_entropy(m(b[0]), b[1])])
@pytest.mark.parametrize("name", DATA)
def test_data_in_batches(name: str, loss: Any) -> None:
    torch.manual_seed(0)
    model, x, y = chain(nn.Mish()), drawn(N, D), labels(N)
    state = torch.get_rng_state()
    H = HessianOperator(model, loss, data=DATA[name](x, y))
    assert torch.equal(state, torch.get_rng_state())
    check(H, exact(model, lambda m: functional.cross_entropy(m(x.double()), y)))


def test_batches_of_names_and_their_own_normalizer() -> None:
    torch.manual_seed(0)
    model, x, y = chain(nn.Mish()), drawn(N, D), IGNORED
    batches = [{"inputs": a, "labels": b} for a, b in pairs(x, y)]

    def loss(m: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return functional.cross_entropy(m(batch["inputs"]), batch["labels"])

    with pytest.raises(ValueError, match="size="):
        HessianOperator(model, loss, data=batches[1:])
    H = HessianOperator(model, loss, data=batches, size=lambda b: int((b["labels"] >= 0).sum()))
    check(H, exact(model, lambda m: functional.cross_entropy(m(x.double()), y)))


def test_data_that_differ_from_pass_to_pass_are_refused() -> None:
    class Augmented(Rows):
        def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
            return self.x[row] + 0.1 * torch.randn(D), self.y[row]

    loader = DataLoader(Augmented(drawn(N, D), labels(N)), batch_size=8)
    with pytest.raises(ValueError, match="not the same at each pass"):
        HessianOperator(chain(nn.Mish()), nn.CrossEntropyLoss(), data=loader)
    short = DataLoader(Rows(drawn(N, D), labels(N)), batch_size=8, shuffle=True, drop_last=True)
    with pytest.raises(ValueError, match="drop_last"):
        HessianOperator(chain(nn.Mish()), nn.CrossEntropyLoss(), data=short)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, ">f4"])
@pytest.mark.parametrize("labelled", [np.int64, np.int32, np.uint8])
def test_arrays_are_data(kind: Any, labelled: Any) -> None:
    torch.manual_seed(0)
    model, y = chain(nn.Tanh()), labels(N)
    x = drawn(N, 2 * D).half().numpy().astype(kind)[:, ::2]
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y.numpy().astype(labelled))
    inputs = torch.from_numpy(x.astype(np.float64))
    check(H, exact(model, lambda m: functional.cross_entropy(m(inputs), y)))
    before = matrix(H)
    x[:] = 0  # the operator has its own
    assert torch.equal(matrix(H), before)


# Batches of any structure


class Encoding(UserDict[str, Any]):
    """A mapping whose values are attributes too, as tokenizers return it."""

    def __getattr__(self, name: str) -> Any:
        if name == "data":
            raise AttributeError(name)
        return self.data[name]


class Output(OrderedDict[str, Any]):
    """A dictionary whose values are attributes too, as large models return it."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


@dataclasses.dataclass(frozen=True)
class Record:
    x: Tensor
    y: Tensor


class Named(NamedTuple):
    x: Tensor
    y: Tensor


@dataclasses.dataclass
class Nested:
    inputs: dict[str, Tensor]
    rest: list[Any]

    @property
    def x(self) -> Tensor:
        return self.inputs["x"]

    @property
    def y(self) -> Any:
        return self.rest[0][0]


STRUCTURES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "mapping": lambda x, y: Encoding(x=x, y=y),
    "dictionary": lambda x, y: Output(x=x, y=y),
    "dataclass": Record,
    "named tuple": Named,
    "nested": lambda x, y: Nested({"x": x}, [(y,), "a name", np.array(["another"] * len(y))]),
}


def of_attributes(model: nn.Module, batch: Any) -> Tensor:
    return functional.cross_entropy(model(batch.x), batch.y)


@pytest.mark.parametrize("name", STRUCTURES)
def test_batches_keep_their_structure_and_are_checked(name: str) -> None:
    torch.manual_seed(0)
    model, x = chain(nn.Mish()), drawn(N, D)
    given = [STRUCTURES[name](a, b) for a, b in pairs(x, labels(N))]
    check(
        HessianOperator(model, of_attributes, data=given),
        exact(model, lambda m: functional.cross_entropy(m(x.double()), labels(N))),
    )
    assert all(type(batch) is type(STRUCTURES[name](x, x)) for batch in given)
    # A mean over what is not ignored is no mean over the samples, whatever holds the tensors.
    with pytest.raises(ValueError, match="size="):
        HessianOperator(model, of_attributes, data=[STRUCTURES[name](a, b) for a, b in pairs(x, IGNORED)][1:])


def test_outputs_of_any_structure() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = chain(nn.Tanh())

        def forward(self, x: Tensor) -> Output:
            return Output(first=Output(logits=self.body(x)))

    torch.manual_seed(0)
    model, x, y = Wrapped(), drawn(N, D), labels(N)
    H = HessianOperator(model, lambda out, t: functional.cross_entropy(out.first.logits, t), x, y, rows=11)
    check(H, exact(model, lambda m: functional.cross_entropy(m(x.double()).first.logits, y)))


class Recurrent(nn.Module):
    """A recurrent network over (T, n, D), or over packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.RNN(D, 4), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor | PackedSequence) -> Tensor:
        return self.head(self.body(x)[1][0])


def test_the_size_of_a_batch_that_cannot_be_split_has_to_be_said() -> None:
    torch.manual_seed(0)
    model, x, y = Recurrent(), drawn(5, N, D), labels(N)
    columns = list(zip(x.split(8, dim=1), y.split(8), strict=True))
    with pytest.raises(ValueError, match="sizes of the batches are not known"):
        HessianOperator(model, nn.CrossEntropyLoss(), data=columns, size=None, reduction="mean")
    expected = exact(model, lambda m: functional.cross_entropy(m(x.double()), y))
    check(HessianOperator(model, of_tuples, data=columns, size=lambda batch: len(batch[1])), expected)
    check(HessianOperator(model, of_tuples, data=[(x, y)]), expected)
    lengths = torch.arange(N) % 5 + 1

    def packed(columns: slice) -> PackedSequence:
        return pack_padded_sequence(x[:, columns], lengths[columns], enforce_sorted=False)

    batches = [(packed(slice(i, i + 8)), y[i : i + 8]) for i in range(0, N, 8)]
    with pytest.raises(ValueError, match="sizes of the batches are not known"):
        HessianOperator(model, of_tuples, data=batches)
    expected = exact(model, lambda m: functional.cross_entropy(m(packed(slice(None)).to(torch.float64)), y))
    check(HessianOperator(model, of_tuples, data=batches, size=lambda batch: len(batch[1])), expected)


def of_tuples(model: nn.Module, batch: Any) -> Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1])


def test_batches_of_one_sequence_are_compared_with_two_at_once() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Tanh(), nn.Linear(4, 7))
    tokens = labels(6, 9, classes=7)
    padded = torch.where(torch.arange(9) < torch.arange(6)[:, None] + 2, tokens, -100)

    def loss(m: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return functional.cross_entropy(m(batch["tokens"]).flatten(0, 1), batch["next"].flatten())

    batches = [{"tokens": tokens[i : i + 1], "next": padded[i : i + 1]} for i in range(6)]
    with pytest.raises(ValueError, match="size="):
        HessianOperator(model, loss, data=batches)
    H = HessianOperator(model, loss, data=batches, size=lambda batch: int((batch["next"] >= 0).sum()))
    check(H, exact(model, lambda m: functional.cross_entropy(m(tokens).flatten(0, 1), padded.flatten())))
    whole = [{"tokens": t[None], "next": t[None]} for t in tokens]
    expected = exact(model, lambda m: functional.cross_entropy(m(tokens).flatten(0, 1), tokens.flatten()))
    check(HessianOperator(model, loss, data=whole), expected)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_inputs_come_in_batches(layout: torch.layout) -> None:
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(drawn(D, CLASSES))

        def forward(self, x: Tensor) -> Tensor:
            return torch.sparse.mm(x, self.weight) if x.layout != torch.strided else x @ self.weight

    model, x, y = Sparse(), drawn(N, D).relu(), labels(N)
    batches = [(a.to_sparse(layout=layout), b) for a, b in pairs(x, y)]
    H = HessianOperator(model, nn.CrossEntropyLoss(), data=batches)
    expected = exact(model, lambda m: functional.cross_entropy(m(x.double()), y))
    torch.testing.assert_close(matrix(H).double(), expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="sparse"):
        HessianOperator(model, nn.CrossEntropyLoss(), x.to_sparse(layout=layout), y)


@pytest.mark.parametrize("at", [0, 1, -1])
def test_a_batch_without_samples_counts_nothing(at: int) -> None:
    torch.manual_seed(0)
    model, x, y = chain(nn.Mish()), drawn(N, D), labels(N)
    batches = pairs(x, y)
    batches.insert(at, (x[:0], y[:0]))
    check(
        HessianOperator(model, of_tuples, data=batches),
        exact(model, lambda m: functional.cross_entropy(m(x.double()), y)),
    )


@pytest.mark.parametrize("row", [1, N - 1])
def test_a_sample_that_is_not_finite_is_refused(row: int) -> None:
    x = drawn(N, D)
    x[row, 0] = torch.nan
    with pytest.raises(ValueError, match="the loss is nan"):
        HessianOperator(chain(nn.Mish()), of_tuples, data=pairs(x, labels(N), 4))


# Loaders


class Passes:
    """An iterable that yields other batches at each pass."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make, self.passes = make, 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return iter(self.make(self.passes))


def in_another_order(x: Tensor, y: Tensor, passes: int) -> Any:
    order = torch.randperm(N, generator=torch.Generator().manual_seed(passes))
    return pairs(x[order], y[order], 7)


def test_samples_in_another_order_at_each_pass_are_the_same_data() -> None:
    torch.manual_seed(0)
    model, x, y = chain(nn.Mish()), drawn(N, D), labels(N)
    data = Passes(lambda passes: in_another_order(x, y, passes))
    check(
        HessianOperator(model, of_tuples, data=data), exact(model, lambda m: functional.cross_entropy(m(x.double()), y))
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda x, y, passes: pairs(x + 1e-3 * passes, y),
        lambda x, y, passes: in_another_order(x, y, passes)[:-1],
        lambda x, y, passes: pairs(x[: N - passes], y[: N - passes]),
    ],
)
def test_loaders_that_augment_or_drop_are_found(make: Callable[[Tensor, Tensor, int], Any]) -> None:
    x, y = drawn(N, D), labels(N)
    with pytest.raises(ValueError, match="not the same at each pass"):
        HessianOperator(chain(nn.Mish()), of_tuples, data=Passes(lambda passes: make(x, y, passes)))


def test_data_that_change_later_are_noticed_in_the_product() -> None:
    x, y = drawn(N, D), labels(N)
    data = Rows(x.clone(), y)
    H = HessianOperator(chain(nn.Mish()), of_tuples, data=DataLoader(data, batch_size=8))
    vector = drawn(H.shape[0])
    H.path.graph_bytes = 0
    H.refresh()
    before = H @ vector
    torch.testing.assert_close(H @ vector, before)
    data.x[3, 2] += 1
    with pytest.raises(ValueError, match="not the same at each pass"):
        H @ vector


def test_a_list_that_changes_in_place_is_noticed() -> None:
    batches = pairs(drawn(N, D).clone(), labels(N))
    H = HessianOperator(chain(nn.Mish()), of_tuples, data=batches)
    batches[1][0].mul_(2)
    with pytest.raises(ValueError, match="in place"):
        H @ drawn(H.shape[0])


@pytest.mark.parametrize("iterator", [False, True])
def test_a_loader_may_use_its_memory_again(iterator: bool) -> None:
    torch.manual_seed(0)
    model, x, y = chain(nn.Mish()), drawn(N, D), labels(N)

    def batches(_: int) -> Iterator[tuple[Tensor, Tensor]]:
        memory = torch.empty(10, D)
        for start in range(0, N, 10):
            yield memory.copy_(x[start : start + 10]), y[start : start + 10]

    data = batches(0) if iterator else Passes(batches)
    check(
        HessianOperator(model, of_tuples, data=data), exact(model, lambda m: functional.cross_entropy(m(x.double()), y))
    )


def test_iterables_that_are_no_data_are_named() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(list(zip(drawn(N, D), labels(N), strict=True)))

    torch.manual_seed(0)
    model = chain(nn.Mish())
    with pytest.raises(ValueError, match=r"IterableDataset.*batch_size=None"):
        HessianOperator(model, of_tuples, data=Stream())
    check(
        HessianOperator(model, of_tuples, data=DataLoader(Stream(), batch_size=7)),
        exact(model, lambda m: functional.cross_entropy(m(drawn(N, D).double()), labels(N))),
    )
    once = iter(pairs(drawn(N, D), labels(N)))
    with pytest.raises(ValueError, match="at each pass; give a list"):
        HessianOperator(model, of_tuples, data=Passes(lambda _: once))


def test_chunks_have_to_add_up_by_finite_differences_too() -> None:
    model, x = chain(nn.Mish()), drawn(N, D)
    settings: dict[str, Any] = {"method": "finite_difference"}
    with pytest.raises(ValueError, match="size="):
        HessianOperator(model, lambda o, t: functional.cross_entropy(o, t), x, IGNORED, rows=11, **settings)
    with pytest.raises(ValueError, match="size="):
        HessianOperator(model, of_tuples, data=pairs(x, IGNORED)[1:], **settings)
