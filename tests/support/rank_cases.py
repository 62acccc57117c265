"""What the processes of the tests of several ranks do: every case is run by all of them, one after another.

A case is a function of the rank and the number of ranks. Its result, or the error that it raises, is saved for the
test, which runs in another process.
"""

import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing
from dense_hessian import CLASSES, D, N, chain, drawn, labels
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, DistributedSampler, Subset, TensorDataset

from eigendrift import (
    EmpiricalFisherOperator,
    GGNOperator,
    HessianOperator,
    PreconditionedOperator,
    spectral_density,
    squared_frobenius_norm,
    top_eigenpairs,
    trace,
)

Case = Callable[[int, int], Any]
CASES: dict[str, Case] = {}
# How many of the N samples each of three ranks has.
SHARES = (11, 0, 19)
IGNORED = torch.where(torch.arange(N) < 9, -100, labels(N))
WEIGHT = torch.tensor([1.0, 4.0, 0.2], dtype=torch.float64)
CROSS_ENTROPY = nn.CrossEntropyLoss()


def x() -> Tensor:
    return drawn(N, D).double()


def model(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return chain(*(layers or (nn.Mish(),))).double()


def vectors(n: int) -> Tensor:
    return drawn(n, 2, seed=7).double()


def own(rank: int, shares: tuple[int, ...] = SHARES) -> slice:
    start = sum(shares[:rank])
    return slice(start, start + shares[rank])


def of_batch(module: nn.Module, batch: Any) -> Tensor:
    return functional.cross_entropy(module(batch[0]), batch[1])


def batches(rank: int, y: Tensor, size: int = 4) -> list[tuple[Tensor, Tensor]]:
    part = own(rank)
    return [pair for pair in zip(x()[part].split(size), y[part].split(size), strict=True) if len(pair[0])]


def described(H: HessianOperator, **options: Any) -> dict[str, Any]:
    pairs = top_eigenpairs(H, 2, 1e-8, **options)
    return {
        "matrix": H @ torch.eye(H.shape[0], dtype=H.torch_dtype),
        "loss": H.loss,
        "gradient": H.gradient,
        "path": type(H.path).__name__,
        "pairs": {name: getattr(pairs, name) for name in ("values", "vectors", "residuals", "matvecs", "bound_source")},
    }


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


def tensors(rank: int, y: Tensor | None = None, shares: tuple[int, ...] = SHARES) -> tuple[Tensor, Tensor]:
    return x()[own(rank, shares)], (labels(N) if y is None else y)[own(rank, shares)]


# Data, losses and forms


@case
def analytic(rank: int, size: int) -> Any:
    return described(HessianOperator(model(nn.Tanh()), CROSS_ENTROPY, *tensors(rank), distributed=True))


@case
def general(rank: int, size: int) -> Any:
    return described(HessianOperator(model(), CROSS_ENTROPY, *tensors(rank), rows=4, distributed=True))


@case
def class_weights(rank: int, size: int) -> Any:
    loss = nn.CrossEntropyLoss(weight=WEIGHT)
    return described(HessianOperator(model(), loss, *tensors(rank, labels(N).sort().values), distributed=True))


@case
def ignored(rank: int, size: int) -> Any:
    # All targets of the first rank are ignored.
    return described(HessianOperator(model(), CROSS_ENTROPY, *tensors(rank, IGNORED, (9, 1, 20)), distributed=True))


@case
def summed(rank: int, size: int) -> Any:
    return described(HessianOperator(model(), nn.CrossEntropyLoss(reduction="sum"), *tensors(rank), distributed=True))


@case
def own_normalizer(rank: int, size: int) -> Any:
    def counted(batch: Any) -> int:
        return int((batch[1] >= 0).sum())

    given = batches(rank, IGNORED)
    return described(HessianOperator(model(), of_batch, data=given, size=counted, distributed=True))


@case
def loaders(rank: int, size: int) -> Any:
    data = Subset(TensorDataset(x(), labels(N)), range(rank, N, size))
    loader = DataLoader(data, batch_size=4, shuffle=True)
    return described(HessianOperator(model(), of_batch, data=loader, distributed=True))


@case
def one_batch_a_rank(rank: int, size: int) -> Any:
    data = [pair for pair in [tensors(rank, shares=(11, 4, 15))] if len(pair[0])]
    return described(HessianOperator(model(), of_batch, data=data, distributed=True))


@case
def some_parameters(rank: int, size: int) -> Any:
    return described(HessianOperator(model(nn.Tanh()), CROSS_ENTROPY, *tensors(rank), params="2.*", distributed=True))


@case
def differences(rank: int, size: int) -> Any:
    H = HessianOperator(model(), CROSS_ENTROPY, *tensors(rank), method="finite_difference", distributed=True)
    return {"matrix": H @ torch.eye(H.shape[0], dtype=torch.float64), "error": H.product_error}


@case
def one_member(rank: int, size: int) -> Any:
    alone = [dist.new_group([each]) for each in range(size)][rank]
    return described(HessianOperator(model(), CROSS_ENTROPY, x(), labels(N), distributed=alone))


@case
def two_members(rank: int, size: int) -> Any:
    group = dist.new_group([0, 2])
    if rank == 1:
        return None
    return described(HessianOperator(model(), CROSS_ENTROPY, *tensors(rank), distributed=group))


# Uses of the operator


@case
def elsewhere(rank: int, size: int) -> Any:
    network = model(nn.Tanh())
    H = HessianOperator(network, CROSS_ENTROPY, *tensors(rank), distributed=True)
    twin = H.in_float64()
    H.move_to(2 * H.point)
    moved = (H @ torch.eye(H.shape[0], dtype=torch.float64), H.loss, twin.loss)
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(3)
    H.refresh()
    return moved, (H @ torch.eye(H.shape[0], dtype=torch.float64), H.loss, H.gradient)


@case
def single_precision(rank: int, size: int) -> Any:
    H = HessianOperator(model(nn.Tanh()).float(), CROSS_ENTROPY, *tensors(rank), distributed=True)
    found = [top_eigenpairs(H, 2, tol) for tol in (1e-3, 1e-5, 1e-6)]
    return [(p.values, p.vectors, p.residuals) for p in found], H.shape, [p.vectors.dtype for p in found]


@case
def both_ends(rank: int, size: int) -> Any:
    H = HessianOperator(model(), CROSS_ENTROPY, *tensors(rank), distributed=True)
    start = torch.randn(H.shape[0], 2, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)
    found = [top_eigenpairs(H, 2, 1e-8, which=which, v0=start, max_basis=20, max_matvecs=40) for which in ("SA", "LM")]
    return [(p.values, p.vectors) for p in found]


@case
def by_scipy(rank: int, size: int) -> Any:
    from scipy.sparse.linalg import eigsh

    H = HessianOperator(model(), CROSS_ENTROPY, *tensors(rank), distributed=True)
    return eigsh(H.to_scipy(), k=2, which="LA", v0=np.ones(H.shape[0]))[0]


def _with_surrogates(rank: int, shares: tuple[int, ...], *between: nn.Module) -> Any:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(sum(shares), 4, generator=generator)
    targets = (inputs[:, :3] + 0.3 * torch.randn(len(inputs), 3, generator=generator)).argmax(1)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 12), *between, nn.Tanh(), nn.Linear(12, 3))
    part = own(rank, shares)
    H = HessianOperator(network, CROSS_ENTROPY, inputs[part], targets[part], distributed=True)
    found = top_eigenpairs(H, 2, 1e-4)
    one = HessianOperator(network, CROSS_ENTROPY, inputs, targets)
    exact = top_eigenpairs(one.in_float64(), 2, 1e-8)
    return found.values, found.vectors, found.surrogate_matvecs, found.matvecs, exact.values


@case
def with_surrogates(rank: int, size: int) -> Any:
    """Two ranks have samples enough for a surrogate of their own, and one has few."""
    return _with_surrogates(rank, (12_000, 300, 11_000))


@case
def with_surrogates_of_any_module(rank: int, size: int) -> Any:
    """The same without the analytic path."""
    return _with_surrogates(rank, (3000, 300, 2500), nn.LayerNorm(12))


@case
def other_operators(rank: int, size: int) -> Any:
    network = model()
    optimizer = torch.optim.Adam(network.parameters(), eps=1e-3)
    functional.cross_entropy(network(x()), labels(N)).backward()
    optimizer.step()
    given: tuple[Any, ...] = (network, CROSS_ENTROPY, *tensors(rank))
    H, G = (kind(*given, rows=4, distributed=True) for kind in (HessianOperator, GGNOperator))
    F = EmpiricalFisherOperator(*given, rows=4, distributed=True)
    P = PreconditionedOperator(H, optimizer)
    unit = torch.eye(H.shape[0], dtype=torch.float64)
    difference = 2 * H - G
    return {
        "matrices": [operator @ unit for operator in (G, F, difference, P)],
        "values": [top_eigenpairs(operator, 2, 1e-8).values for operator in (G, F, difference, P)],
        "diagonal": P.diagonal,
        "theta": H.point,
        "trace": trace(H, products=24).value,
        "exact": [trace(difference).value, squared_frobenius_norm(G).value],
        "density": spectral_density(H, probes=3, steps=10, seed=1).trace.value,
    }


@case
def an_optimizer_that_went_on(rank: int, size: int) -> Any:
    network = model()
    optimizer = torch.optim.Adam(network.parameters())
    functional.cross_entropy(network(x()), labels(N)).backward()
    optimizer.step()
    H = HessianOperator(network, CROSS_ENTROPY, *tensors(rank), distributed=True)
    P = PreconditionedOperator(H, optimizer)
    H.move_to(H.point)
    if rank == 1:
        optimizer.step()
    return top_eigenpairs(P, 1)


# Refusals


@case
def other_vectors(rank: int, size: int) -> Any:
    H = HessianOperator(model(), CROSS_ENTROPY, *tensors(rank), distributed=True)
    return H @ torch.eye(H.shape[0], dtype=torch.float64)[rank]


@case
def other_columns(rank: int, size: int) -> Any:
    H = HessianOperator(model(), CROSS_ENTROPY, *tensors(rank), distributed=True)
    columns = vectors(H.shape[0])
    return H @ (columns if rank == 0 else columns.flip(1))


@case
def other_parameters(rank: int, size: int) -> Any:
    network = model()
    with torch.no_grad():
        network[2].bias[1] += rank == 2
    return HessianOperator(network, CROSS_ENTROPY, *tensors(rank), distributed=True)


@case
def other_statistics(rank: int, size: int) -> Any:
    network = model(nn.BatchNorm1d(5), nn.Tanh())
    network(x()[own(rank, (10, 10, 10))])
    return HessianOperator(network.eval(), CROSS_ENTROPY, *tensors(rank), distributed=True)


@case
def other_class_weights(rank: int, size: int) -> Any:
    loss = nn.CrossEntropyLoss(weight=WEIGHT + rank)
    return HessianOperator(model(), loss, *tensors(rank), distributed=True)


@case
def other_choice(rank: int, size: int) -> Any:
    return HessianOperator(model(), CROSS_ENTROPY, *tensors(rank), params=f"{2 * (rank > 0)}.*", distributed=True)


@case
def other_number_of_pairs(rank: int, size: int) -> Any:
    H = HessianOperator(model(), CROSS_ENTROPY, *tensors(rank), distributed=True)
    return top_eigenpairs(H, 1 + rank)


@case
def other_steps(rank: int, size: int) -> Any:
    H = HessianOperator(model(), CROSS_ENTROPY, *tensors(rank), distributed=True)
    return H.gradient if rank == 0 else H @ torch.ones(H.shape[0])


@case
def changed_on_one(rank: int, size: int) -> Any:
    network = model()
    H = HessianOperator(network, CROSS_ENTROPY, *tensors(rank), distributed=True)
    if rank == 2:
        with torch.no_grad():
            network[0].weight.mul_(2)
    return top_eigenpairs(H, 1)


@case
def bad_input_on_one(rank: int, size: int) -> Any:
    inputs, targets = tensors(rank)
    if rank == 2:
        inputs[3, 1] = torch.nan
    return HessianOperator(model(), CROSS_ENTROPY, inputs, targets, distributed=True)


@case
def no_model_on_one(rank: int, size: int) -> Any:
    network: Any = "a name" if rank == 1 else model()
    return HessianOperator(network, CROSS_ENTROPY, *tensors(rank), distributed=True)


@case
def no_mean(rank: int, size: int) -> Any:
    return HessianOperator(
        model(), lambda o, t: functional.cross_entropy(o, t), *tensors(rank, IGNORED, (11, 0, 19)), distributed=True
    )


@case
def no_mean_that_one_rank_sees(rank: int, size: int) -> Any:
    # On each rank alone all weights are the same, and chunks add up.
    def weighted(output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output, target, weight=WEIGHT.to(output.dtype))

    y = labels(N).sort().values
    counts = [int((y == k).sum()) for k in range(CLASSES)]
    return HessianOperator(model(), weighted, *tensors(rank, y, (*counts,)), distributed=True)


@case
def same_samples(rank: int, size: int) -> Any:
    return HessianOperator(model(), CROSS_ENTROPY, *tensors(0), distributed=True)


@case
def no_samples(rank: int, size: int) -> Any:
    return HessianOperator(model(), CROSS_ENTROPY, *tensors(1), distributed=True)


@case
def tensors_and_batches(rank: int, size: int) -> Any:
    if rank:
        return HessianOperator(model(), CROSS_ENTROPY, data=batches(rank, labels(N)), distributed=True)
    return HessianOperator(model(), CROSS_ENTROPY, *tensors(rank), distributed=True)


@case
def repeated_samples(rank: int, size: int) -> Any:
    data = TensorDataset(x()[:29], labels(N)[:29])
    loader = DataLoader(data, batch_size=4, sampler=DistributedSampler(data, size, rank))
    return HessianOperator(model(), of_batch, data=loader, distributed=True)


@case
def a_sampler_alone(rank: int, size: int) -> Any:
    data = TensorDataset(x(), labels(N))
    loader = DataLoader(data, batch_size=4, sampler=DistributedSampler(data, size, rank))
    return HessianOperator(model(), of_batch, data=loader)


@case
def a_pickled_operator(rank: int, size: int) -> Any:
    import copy

    return copy.deepcopy(HessianOperator(model(), CROSS_ENTROPY, *tensors(rank), distributed=True))


class Failing:
    """Batches that cannot be read any more when so many passes are left as are none."""

    def __init__(self, given: list[Any]) -> None:
        self.given, self.left = given, 1000

    def __iter__(self) -> Iterator[Any]:
        self.left -= 1
        if self.left < 0:
            raise OSError("the disk is gone")
        return iter(self.given)


@case
def a_rank_that_fails_in_a_solve(rank: int, size: int) -> Any:
    data = Failing(batches(rank, labels(N)))
    H = HessianOperator(model(), of_batch, data=data, distributed=True)
    H.path.graph_bytes = 0
    H.refresh()
    if rank == 2:
        data.left = 5
    return top_eigenpairs(H, 2, 1e-8, max_matvecs=40)


@case
def bad_options_of_a_solve(rank: int, size: int) -> Any:
    return top_eigenpairs(HessianOperator(model(), CROSS_ENTROPY, *tensors(rank), distributed=True), 2, tol=-1.0)


# Ranks that are lost: each in processes of its own


def a_rank_that_dies(rank: int, size: int) -> Any:
    H = HessianOperator(model(), CROSS_ENTROPY, *tensors(rank), distributed=True)
    if rank == 1:
        os._exit(3)
    return top_eigenpairs(H, 2)


def a_rank_that_is_late(rank: int, size: int) -> Any:
    group = dist.new_group(timeout=timedelta(seconds=2))
    H = HessianOperator(model(), CROSS_ENTROPY, *tensors(rank), distributed=group)
    if rank < 2:
        return H @ torch.ones(H.shape[0])
    # It lives on until the others have ended, which only the timeout of the group can make them do.
    end = time.monotonic() + 100
    while len(list(Path(os.environ["FOLDER"]).glob("[01].pt"))) < 2:
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.1)
    return None


def _work(rank: int, size: int, folder: str, names: list[str]) -> None:
    torch.set_num_threads(1)
    where = Path(folder)
    os.environ["FOLDER"] = folder
    dist.init_process_group(
        "gloo", init_method=f"file://{where / 'meeting'}", rank=rank, world_size=size, timeout=timedelta(seconds=600)
    )
    found: dict[str, Any] = {}
    for name in names:
        try:
            value = (CASES.get(name) or globals()[name])(rank, size)
            found[name] = {"value": None if isinstance(value, HessianOperator) else value}
        except Exception as error:  # What it is, is what the test looks at.
            found[name] = {"error": type(error).__name__, "message": str(error)}
        torch.save(found, where / f"{rank}.pt")
    if names != ["a_rank_that_dies"]:
        dist.destroy_process_group()


def run(size: int, folder: Path, names: list[str] | None = None) -> list[dict[str, Any]]:
    """Run cases on several ranks; what each rank found, by case, nothing for one that died before."""
    names = list(CASES) if names is None else names
    context = torch.multiprocessing.get_context("spawn")
    processes = [context.Process(target=_work, args=(rank, size, str(folder), names)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        if process.is_alive():
            process.kill()
            process.join()
    paths = [folder / f"{rank}.pt" for rank in range(size)]
    return [torch.load(path, weights_only=False) if path.exists() else {} for path in paths]
