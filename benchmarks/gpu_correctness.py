"""Whether a device computes what the CPU computes: products, eigenpairs, training, and the tests that need a GPU."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpu_measures import Card, Row, attempted, run
from benchmarks.problem import OPTIMIZERS
from eigendrift import top_eigenpairs

# Relative errors that count as agreement. Products: of float32 and float64. Weights: two ways to sum on a CPU, compiled
# loops and torch's operators, are 8e-7 apart after these steps, and more steps would measure chaos.
PRODUCT_ERRORS = {torch.float32: 5e-6, torch.float64: 1e-12}
WEIGHTS_ERROR = 1e-4
TRAINING_STEPS = 200
TOLERANCE = 1e-3
TESTS = Path(__file__).parents[1] / "tests" / "eigendrift" / "test_on_gpu.py"


def correctness_rows(card: Card) -> Iterator[Row]:
    """One row a comparison: what was found, what is allowed, whether it is within."""
    host = Card(card.scale, card.data, torch.device("cpu"))
    trained = {}
    for optimizer in OPTIMIZERS:
        here, there = (torch.from_numpy(run(each, optimizer, [TRAINING_STEPS])[0][-1]) for each in (card, host))
        trained[optimizer] = there
        start = host.network().state_dict().values()
        moved = there - torch.cat([value.reshape(-1) for value in start])
        error = float((here - there).norm() / moved.norm())
        what = f"{TRAINING_STEPS} steps of {optimizer}: difference of the weights / distance from the start"
        yield judged(what, error, WEIGHTS_ERROR)
    for optimizer, weights in trained.items():
        card.move_to(weights)
        host.move_to(weights)
        yield from product_rows(card, host, optimizer)
        yield from pair_rows(card, host, optimizer)
    yield attempted({"what": "failed tests marked gpu, of those that ran"}, tests_row)


def judged(what: str, found: float, allowed: float) -> Row:
    """The row of one comparison."""
    return {"what": what, "found": found, "allowed": allowed, "within": str(found <= allowed)}


def product_rows(card: Card, host: Card, optimizer: str) -> Iterator[Row]:
    """A product on the device in both precisions against the CPU's in float64."""
    vector = torch.randn(host.operator.shape[0], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    exact = host.operator.in_float64() @ vector
    for dtype, operator in ((torch.float32, card.operator), (torch.float64, card.operator.in_float64())):
        found = (operator @ vector.to(card.device, dtype)).double().cpu()
        error = float((found - exact).norm() / exact.norm())
        yield judged(f"product after {optimizer}, {str(dtype)[6:]}: relative error", error, PRODUCT_ERRORS[dtype])


def pair_rows(card: Card, host: Card, optimizer: str) -> Iterator[Row]:
    """The plain call on the device against tight pairs on the CPU, by what the call itself promises."""
    tight = top_eigenpairs(host.operator.in_float64(), 3, 1e-8, seed=11)
    pairs = top_eigenpairs(card.operator, 3, TOLERANCE)
    values = float(((pairs.values.cpu() - tight.values).abs() / tight.values.abs()).max())
    yield judged(f"three eigenvalues after {optimizer}: largest relative error", values, TOLERANCE)
    stated = pairs.angle_bounds.cpu()
    outside = (sines(pairs.vectors.cpu().double(), tight.vectors.double()) - stated)[stated < 1]
    # Tight pairs have bounds of their own, far below these.
    yield judged(
        f"three eigenvectors after {optimizer}: largest sine of an angle less the bound that is stated",
        float(outside.max()) if len(outside) else 0.0,
        1e-6,
    )
    residuals = (host.operator.in_float64() @ pairs.vectors.cpu().double()) - pairs.vectors.cpu() * pairs.values.cpu()
    true = float((residuals.norm(dim=0) / pairs.values.cpu().abs()).max())
    yield judged(f"true residuals after {optimizer}, by the CPU in float64: largest", true, 1.01 * TOLERANCE)


def sines(a: Tensor, b: Tensor) -> Tensor:
    """Of the angles between columns."""
    found: Tensor = torch.linalg.vector_norm(a - b * (a * b).sum(0), dim=0)
    return found


def tests_row() -> Row:
    """The tests marked gpu, in a process of their own."""
    if importlib.util.find_spec("pytest") is None:
        return {"problem": "pytest is not installed"}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", str(TESTS)]
    done = subprocess.run(command, cwd=TESTS.parents[2], capture_output=True, text=True, timeout=300, check=False)
    last = (done.stdout.splitlines() or [""])[-1]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error|skipped)", last)}
    if not counts:
        return {"problem": last or done.stderr[-120:]}
    bad = counts.get("failed", 0) + counts.get("error", 0)
    ran = counts.get("passed", 0) + bad
    return {"found": bad, "allowed": 0, "within": str(bad == 0), "note": "" if ran else "none ran"}
