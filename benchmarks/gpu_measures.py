"""What gpu.py measures: products, training steps, solves, launches and transfers, memory, on one device."""

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.double_backward import DoubleBackward
from benchmarks.methods import Point, Solution, arpack, curvlinops_product
from benchmarks.problem import BATCH_SIZE, OPTIMIZERS, SEED, Data, Scale, network, product_flops
from eigendrift import EigenPairs, HessianOperator, top_eigenpairs
from eigendrift.hessian.mixed_precision import PRECISIONS, multiplying_in
from eigendrift.hessian.mlp import MLPHessian
from eigendrift.hessian.surrogate import (
    SURROGATE_TOLERANCE,
    SurrogateHessian,
    for_tolerance,
    sampled_surrogate,
    surrogate_of,
)
from reproduction.files.checkpoint import Scratch
from reproduction.training.batches import Samples
from reproduction.training.gradients import FlatParameters
from reproduction.training.loop import Trainer, evaluate, train

Row = dict[str, object]


class Card:
    """The problem on a device: the operator, and a clock that waits for the device."""

    def __init__(self, scale: Scale, data: Data, device: torch.device) -> None:
        self.scale, self.data, self.device = scale, data, device
        self.inputs, self.targets = (each.to(device) for each in data.tensors())
        self.model = self.network()
        self.operator = HessianOperator(self.model, nn.CrossEntropyLoss(), self.inputs, self.targets)
        self.flops = product_flops(data, scale.hidden)

    @property
    def path(self) -> MLPHessian:
        """The analytic path of the operator."""
        path = self.operator.path
        assert isinstance(path, MLPHessian)
        return path

    def network(self) -> nn.Sequential:
        """A network of its own at the initialization."""
        return network(self.data, self.scale.hidden).to(self.device)

    def wait(self) -> None:
        """Until all that was launched is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], object]) -> float:
        """Of one call that waits for what it launched."""
        self.wait()
        begun = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - begun

    def median(self, call: Callable[[], object], repeats: int, inner: int = 1) -> float:
        """Median seconds of a call, `inner` of them in a row, after a warm-up."""

        def calls() -> None:
            for _ in range(inner):
                call()

        calls()
        return sorted(self.seconds(calls) for _ in range(repeats))[repeats // 2] / inner

    def move_to(self, weights: Tensor) -> None:
        """The operator and the model to a point."""
        self.operator.move_to(weights.to(self.device))
        nn.utils.vector_to_parameters(weights.to(self.device, copy=True), self.model.parameters())


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def attempted(where: Row, measure: Callable[[], Row]) -> Row:
    """The row of a measurement, or what went wrong in it: the others are worth having all the same."""
    try:
        return where | measure()
    except Exception as problem:
        return where | {"problem": f"{type(problem).__name__}: {str(problem).partition(chr(10))[0][:120]}"}


def matrix_rows(card: Card) -> list[Row]:
    """The two large products alone, by precision: seconds, rate and error against float64; and a copy's bandwidth."""
    width, generator = card.scale.hidden[0], torch.Generator().manual_seed(0)
    x = card.inputs
    weights = torch.randn(width, x.shape[1], generator=generator).to(card.device)
    errors = torch.randn(len(x), width, generator=generator).to(card.device)
    exact = x.double() @ weights.double().T, errors.double().T @ x.double()
    rows: list[Row] = []
    for precision in PRECISIONS:
        forms: list[Callable[[], Tensor]] = [partial(torch.mm, x, weights.T), partial(torch.mm, errors.T, x)]
        for name, form, truth in zip(("X W'", "D'X"), forms, exact, strict=True):

            def measure(form: Callable[[], Tensor] = form, truth: Tensor = truth, precision: str = precision) -> Row:
                with multiplying_in(precision):
                    seconds, error = card.median(form, 9, 10), _error(form(), truth)
                rate = 2 * x.numel() * width / seconds / 1e12
                return {"ms": 1e3 * seconds, "TFLOP_per_second": rate, "error": error}

            rows.append(attempted({"task": name, "precision": precision}, measure))
    target = torch.empty_like(x)
    copying = card.median(lambda: target.copy_(x), 9, 10)
    rows.append({"task": "copy, GB/s read and written", "precision": "", "ms": 1e3 * copying,
                 "TFLOP_per_second": float("nan"), "error": float("nan"),
                 "GB_per_second": 2 * x.nbytes / copying / 1e9})  # fmt: skip
    return rows


def product_rows(card: Card, blocks: Sequence[int]) -> list[Row]:
    """H V by precision, block size and samples at once, against products in float64."""
    path = card.path
    exact_operator = card.operator.in_float64()
    generator = torch.Generator().manual_seed(1)
    rows: list[Row] = []
    for b in blocks:
        vectors = torch.randn(b, path.n_parameters, generator=generator).to(card.device)
        exact = exact_operator.product(vectors.double())
        for precision in PRECISIONS:
            for samples in sorted({path.rows, min(path.rows, 8192)} if b == 1 else {path.rows}):
                part = path.in_precision(precision)
                part.rows = samples

                def measure(part: MLPHessian = part, vectors: Tensor = vectors, exact: Tensor = exact) -> Row:
                    with multiplying_in(part.precision):
                        seconds = card.median(partial(part.product, vectors), 7, 3)
                        error = _error(part.product(vectors), exact)
                    rate = len(vectors) * card.flops / seconds / 1e12
                    return {"ms": 1e3 * seconds, "TFLOP_per_second": rate, "error": error}

                where: Row = {"precision": precision, "b": b, "rows": min(samples, len(card.inputs))}
                rows.append(attempted(where, measure))
    return rows


def samples_of(card: Card) -> tuple[Samples, Samples]:
    """Training and test samples on the device."""
    data = card.data
    return (
        data.train_samples(card.device),
        Samples(data.test_inputs, data.test_targets, card.device),
    )


def step_rows(card: Card, steps: int) -> list[Row]:
    """Training steps recorded as a graph and launched one by one, and what one snapshot costs."""
    train_samples, test_samples = samples_of(card)
    rows: list[Row] = []
    for name, spec in OPTIMIZERS.items():
        seconds = {}
        for recorded in (True, False):
            flat = FlatParameters(card.network())
            trainer = Trainer(flat, spec, train_samples, BATCH_SIZE, SEED, graph=recorded)
            _steps(trainer, 0, 20)
            seconds[recorded] = card.seconds(partial(_steps, trainer, 20, 20 + steps)) / steps
        rows.append(
            {
                "optimizer": name,
                "ms_per_step": 1e3 * seconds[True],
                "ms_per_step_uncaptured": 1e3 * seconds[False],
                "gain": seconds[False] / seconds[True],
            }
        )
    evaluation = card.median(lambda: (evaluate(card.model, train_samples), evaluate(card.model, test_samples)), 3)
    for row in rows:
        row["ms_per_evaluation"] = 1e3 * evaluation
    return rows


def _steps(trainer: Trainer, first: int, last: int) -> None:
    for t in range(first, last):
        trainer.train_step(t)


def run(card: Card, optimizer: str, snapshots: Sequence[int]) -> tuple[np.ndarray, float]:
    """The parameters at some snapshots (S, N), and the seconds that the run took, all of its own overhead in it."""
    found: list[Any] = []

    def whole() -> None:
        model = card.network()
        with TemporaryDirectory() as folder:
            scratch = Scratch(Path(folder), "run", {})
            taken = train(model, *samples_of(card), OPTIMIZERS[optimizer], BATCH_SIZE, SEED, snapshots, scratch)
            found.append(np.array(taken.weights))

    seconds = card.seconds(whole)
    return found[0], seconds


# A way to solve: (card, k, tol, seed) -> pairs.
Way = Callable[[Card, int, float, int], EigenPairs]


def _way(surrogate: Callable[[MLPHessian, int], SurrogateHessian | None] | None) -> Way:
    def solve(card: Card, k: int, tol: float, seed: int) -> EigenPairs:
        operator = card.operator
        assert isinstance(operator.path, MLPHessian)
        if tol < SURROGATE_TOLERANCE:
            return top_eigenpairs(for_tolerance(operator, tol, seed)[0], k, tol, seed, surrogate=None)
        chosen = None if surrogate is None else surrogate(operator.path, seed)
        return top_eigenpairs(
            operator, k, tol, seed, surrogate=chosen, probe="operator" if chosen is None else "surrogate"
        )

    return solve


def _rounded(path: MLPHessian, seed: int) -> SurrogateHessian:
    return SurrogateHessian(path.in_precision("tf32"))


# What the workflow does comes first.
WAYS: Mapping[str, Way] = {
    "as shipped": _way(surrogate_of),
    "float32, no surrogate": _way(None),
    "float32, surrogate in TF32": _way(_rounded),
    "float32, surrogate of samples": _way(sampled_surrogate),
}
OPPONENT, CURVLINOPS = "eigsh, double backward, graph kept", "curvlinops, eigsh"


def opponents() -> list[str]:
    """The other libraries that are installed here."""
    return [OPPONENT, *([CURVLINOPS] if importlib.util.find_spec("curvlinops") else [])]


def eigsh_on_card(card: Card, name: str, k: int, tol: float, seed: int) -> Solution:
    """scipy's ARPACK on another library's products, all samples at once; double backward keeps the gradient's graph."""
    weights = card.operator.point
    if name == OPPONENT:
        product: Callable[[Tensor], Tensor] = DoubleBackward(card.model, card.inputs, card.targets, keep_graph=True)
    else:
        point = Point(card.model, card.inputs, card.targets, weights, card.operator)
        product = curvlinops_product(point, len(card.inputs))

    def on_card(vector: Tensor) -> Tensor:
        return product(vector.to(card.device)).cpu()

    with multiplying_in("float32"):
        return arpack(on_card, len(weights), torch.float32, k, tol, seed)


def solve_rows(
    card: Card, weights: Tensor, where: Row, k: int, tol: float, compared: bool, ways: Sequence[str]
) -> list[Row]:
    """Every way, and with `compared` the other libraries, at one point.

    Seconds with all that a snapshot costs, true residuals, overlaps with tight pairs.
    """
    card.move_to(weights)
    exact = card.operator.in_float64()
    tight = top_eigenpairs(exact, k, 1e-7, seed=987)

    def judged(seconds: float, values: Tensor, vectors: Tensor, products: int, surrogate_products: int) -> Row:
        values, columns = values.to(card.device), vectors.to(card.device).double()
        residuals = (exact @ columns - columns * values).norm(dim=0) / values.abs()
        overlaps = (columns * tight.vectors).sum(0).abs() / columns.norm(dim=0)
        return {
            "ms": 1e3 * seconds,
            "products": products,
            "surrogate_products": surrogate_products,
            "worst_true_residual": float(residuals.max()),
            "worst_overlap": float(overlaps.min()),
        }

    def ours(name: str) -> Row:
        pairs: list[EigenPairs] = []

        def solve() -> None:
            card.operator.move_to(weights.to(card.device))
            pairs.append(WAYS[name](card, k, tol, 0))
            pairs[-1].vectors.cpu()

        seconds, found = card.median(solve, 3), pairs[-1]
        return judged(seconds, found.values, found.vectors, found.matvecs, found.surrogate_matvecs)

    def theirs(name: str) -> Row:
        found: list[Solution] = []
        seconds = card.seconds(lambda: found.append(eigsh_on_card(card, name, k, tol, 0)))
        return judged(seconds, found[0].values, found[0].vectors, found[0].products, 0)

    asked: Row = {**where, "k": k, "tolerance": tol}
    measures = [(name, ours) for name in ways] + [(name, theirs) for name in (opponents() if compared else ())]
    return [attempted({**asked, "method": name}, partial(measure, name)) for name, measure in measures]


def launch_rows(card: Card) -> list[Row]:
    """Launches and transfers of one product and of one solve, by torch's profiler."""
    operator = card.operator
    vector = torch.ones(1, operator.shape[0], device=card.device) / operator.shape[0] ** 0.5
    flat = FlatParameters(card.network())
    trainer = Trainer(flat, OPTIMIZERS["adam"], samples_of(card)[0], BATCH_SIZE, SEED)
    _steps(trainer, 0, 20)
    solved: list[EigenPairs] = []
    tasks: dict[str, Callable[[], object]] = {
        "one product": lambda: operator.product(vector),
        "a solve without a surrogate": lambda: solved.append(WAYS["float32, no surrogate"](card, 3, 1e-3, 0)),
        "100 training steps, Adam": partial(_steps, trainer, 20, 120),
    }
    return [{"task": name, **_counts(card, task)} for name, task in tasks.items()] + [
        {"task": "products of that solve", "launches": solved[-1].matvecs}
    ]


def _counts(card: Card, task: Callable[[], object]) -> Row:
    activities = [torch.profiler.ProfilerActivity.CPU]
    if card.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    task()
    with torch.profiler.profile(activities=activities) as profile:
        task()
        card.wait()
    names = [event.name for event in profile.events()]

    def count(*starts: str) -> int:
        return sum(name.startswith(starts) for name in names)

    return {
        "launches": count("cudaLaunchKernel", "cuLaunchKernel"),
        "graphs": count("cudaGraphLaunch"),
        "downloads": count("Memcpy DtoH"),
        "uploads": count("Memcpy HtoD"),
        "waits": count("cudaStreamSynchronize", "cudaEventSynchronize"),
        "operations": count("aten::"),
        "numbers_read": count("aten::_local_scalar_dense"),
    }
