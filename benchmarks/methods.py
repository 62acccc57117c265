"""The eigensolvers that are compared, each as one function of a point in parameter space."""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from benchmarks.double_backward import DoubleBackward
from benchmarks.timing import stopwatch
from eigendrift import HessianOperator, top_eigenpairs

# ARPACK's own number of basis vectors for k = 3 in scipy; hessian-eigenthings asks for a fixed number.
EIGENTHINGS_ITERATIONS = 20


@dataclass(frozen=True)
class Point:
    """A network at the parameters in question, with the full data; our operator is made once for a whole run."""

    model: nn.Module
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    operator: HessianOperator


@dataclass(frozen=True)
class Solution:
    """What a solver returned: values (k,) descending, vectors (N, k) with unit columns, products with the full data."""

    values: Tensor
    vectors: Tensor
    products: int
    # The relative residuals that the solver itself states, if it does.
    stated: Tensor | None = None
    # Products of a cheaper operator, on few samples.
    surrogate_products: int = 0


# (point, k, tol, seed) -> solution.
Solver = Callable[[Point, int, float, int], Solution]


@dataclass(frozen=True)
class Method:
    """A solver, and the package that it needs."""

    solve: Solver
    package: str | None = None

    @property
    def installed(self) -> bool:
        """Whether the package can be found."""
        return self.package is None or importlib.util.find_spec(self.package) is not None


def methods(rows: int, curvlinops_rows: int) -> dict[str, Method]:
    """All methods; `rows` are the samples that double backward and curvlinops differentiate at once."""
    return {
        "eigendrift": Method(ours),
        "eigsh, double backward": Method(eigsh_on_double_backward(rows=rows)),
        "eigsh, double backward, graph kept": Method(eigsh_on_double_backward(keep_graph=True)),
        "curvlinops, eigsh": Method(curvlinops(curvlinops_rows), "curvlinops"),
        "PyHessian": Method(pyhessian, "pyhessian"),
        "hessian-eigenthings": Method(hessian_eigenthings, "hessian_eigenthings"),
    }


def ours(point: Point, k: int, tol: float, seed: int) -> Solution:
    """What the workflow does at a snapshot: move the operator, make a surrogate, solve: all is the cost."""
    point.operator.move_to(point.weights)
    pairs = top_eigenpairs(point.operator, k, tol, seed=seed)
    found = sorted_solution(pairs.values, pairs.vectors, pairs.matvecs)
    return replace(found, stated=pairs.residuals, surrogate_products=pairs.surrogate_matvecs)


def eigsh_on_double_backward(rows: int | None = None, keep_graph: bool = False) -> Solver:
    """scipy's ARPACK on double-backward products."""

    def solve(point: Point, k: int, tol: float, seed: int) -> Solution:
        product = DoubleBackward(point.model, point.inputs, point.targets, rows, keep_graph)
        return arpack(product, point.weights.numel(), point.weights.dtype, k, tol, seed)

    return solve


def curvlinops(rows: int) -> Solver:
    """scipy's ARPACK on curvlinops' Hessian (forward over reverse)."""

    def solve(point: Point, k: int, tol: float, seed: int) -> Solution:
        product = curvlinops_product(point, rows)
        return arpack(product, point.weights.numel(), point.weights.dtype, k, tol, seed)

    return solve


def curvlinops_product(point: Point, rows: int) -> Callable[[Tensor], Tensor]:
    """H v by curvlinops, the data given in chunks of `rows`."""
    library = importlib.import_module("curvlinops")
    chunks = list(zip(point.inputs.split(rows), point.targets.split(rows), strict=True))
    operator = library.HessianLinearOperator(
        point.model,
        nn.CrossEntropyLoss(),
        list(point.model.parameters()),
        chunks,
        check_deterministic=False,
        num_data=len(point.inputs),
    )

    def product(vector: Tensor) -> Tensor:
        result: Tensor = operator @ vector
        return result.detach()

    return product


def arpack(product: Callable[[Tensor], Tensor], n: int, dtype: torch.dtype, k: int, tol: float, seed: int) -> Solution:
    """eigsh in the products' own type; the start vector is drawn from `seed`."""
    count = 0
    kind = np.float64 if dtype == torch.float64 else np.float32

    def multiply(vector: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        return product(torch.from_numpy(vector.reshape(-1))).numpy()

    start = np.random.default_rng(seed).standard_normal(n).astype(kind)
    operator = LinearOperator((n, n), matvec=multiply, dtype=kind)
    values, vectors = eigsh(operator, k=k, which="LA", tol=tol, v0=start)
    return sorted_solution(torch.from_numpy(values), torch.from_numpy(vectors), count)


def pyhessian(point: Point, k: int, tol: float, seed: int) -> Solution:
    """PyHessian's power iteration with deflation, on the whole data as one batch, so that it keeps the graph."""
    module: Any = importlib.import_module("pyhessian.hessian")
    count, product = 0, module.hessian_vector_product

    def counted(*arguments: object) -> object:
        nonlocal count
        count += 1
        return product(*arguments)

    torch.manual_seed(seed)
    module.hessian_vector_product = counted
    try:
        found = module.hessian(point.model, nn.CrossEntropyLoss(), data=(point.inputs, point.targets), cuda=False)
        values, vectors = found.eigenvalues(maxIter=100, tol=tol, top_n=k)
    finally:
        module.hessian_vector_product = product
        # Its backward pass leaves gradients that hold their own graph.
        point.model.zero_grad(set_to_none=True)
    columns = [torch.cat([part.detach().reshape(-1) for part in vector]) for vector in vectors]
    return sorted_solution(torch.tensor(values), torch.stack(columns, dim=1), count)


def hessian_eigenthings(point: Point, k: int, tol: float, seed: int, rows: int | None = None) -> Solution:
    """hessian-eigenthings' Lanczos, whose number of products is given beforehand.

    `rows` is the number of samples of a batch, by default all: it averages the batches, so that it has to divide them.
    """
    library = importlib.import_module("hessian_eigenthings")
    loss = library.supervised_loss(nn.functional.cross_entropy)
    rows = rows or len(point.inputs)
    if len(point.inputs) % rows:
        raise ValueError(f"rows = {rows} does not divide {len(point.inputs)} samples")
    batches = list(zip(point.inputs.split(rows), point.targets.split(rows), strict=True))
    operator = library.HessianOperator(point.model, batches, loss)
    found = library.lanczos(operator, k=k, max_iter=EIGENTHINGS_ITERATIONS, tol=tol, which="LA", seed=seed)
    return sorted_solution(found.eigenvalues, found.eigenvectors.T, int(found.iterations))


def sorted_solution(values: Tensor, vectors: Tensor, products: int) -> Solution:
    """In descending order, in float64, the vectors scaled to length one."""
    order = values.argsort(descending=True)
    columns = vectors[:, order].double()
    return Solution(values[order].double(), columns / columns.norm(dim=0), products)


def fastest_rows(point: Point, candidates: tuple[int, ...]) -> tuple[int, int]:
    """The chunk of samples with which one product is fastest, for double backward and for curvlinops."""
    vector = torch.ones_like(point.weights) / point.weights.numel() ** 0.5

    def best(product: Callable[[int], Callable[[Tensor], Tensor]]) -> int:
        seconds = {}
        for rows in candidates:
            multiply = product(rows)
            multiply(vector)
            seconds[rows] = min(stopwatch(partial(multiply, vector)) for _ in range(2))
        return min(candidates, key=lambda rows: seconds[rows])

    double = best(lambda rows: DoubleBackward(point.model, point.inputs, point.targets, rows))
    if importlib.util.find_spec("curvlinops") is None:
        return double, candidates[0]
    return double, best(lambda rows: curvlinops_product(point, rows))
