"""Top 3 eigenpairs at snapshots of three runs: time, products, true residuals and overlaps of every library.

Our solver runs before, between and after the others, so that the machine's drift falls on both sides of a ratio.
"""

import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.methods import Method, Point, Solution, fastest_rows, methods
from benchmarks.problem import OPTIMIZERS, Scale, load, network
from benchmarks.reference import Reference, cached_pairs, tight_pairs, true_residuals
from benchmarks.results import arguments, scale_of, write
from benchmarks.snapshots import trajectory
from benchmarks.solver_tables import summary
from benchmarks.timing import Timing, stopwatch
from eigendrift import HessianOperator

K = 3
TOLERANCE = 1e-3
OURS = "eigendrift"
# Run at the first compared snapshot of each optimizer only: they are slow, and one snapshot shows what they return.
ONCE = ("PyHessian", "hessian-eigenthings")


@dataclass
class Outcome:
    """What one method did at one snapshot."""

    seconds: list[float] = field(default_factory=list)
    # Of all threads together.
    cpu_seconds: list[float] = field(default_factory=list)
    solution: Solution | None = None
    error: str = ""


class Bench:
    """The network, the data and the runs' parameters."""

    def __init__(self, scale: Scale, cache: Path) -> None:
        self.scale, self.cache = scale, cache
        self.inputs, self.targets = load(scale.dataset).tensors()
        self.model = network(load(scale.dataset), scale.hidden)
        self.operator = HessianOperator(self.model, nn.CrossEntropyLoss(), self.inputs, self.targets)
        self.weights: dict[tuple[str, int], Tensor] = {}
        for optimizer in OPTIMIZERS:
            run = trajectory(scale, optimizer, cache)
            for step, row in zip(run.steps, run.weights, strict=True):
                self.weights[optimizer, int(step)] = torch.from_numpy(row.copy())

    def point(self, optimizer: str, step: int) -> Point:
        """The network moved to a snapshot."""
        weights = self.weights[optimizer, step]
        self.operator.move_to(weights)
        nn.utils.vector_to_parameters(weights.clone(), self.model.parameters())
        return Point(self.model, self.inputs, self.targets, weights, self.operator)

    def reference(self, point: Point, k: int = K) -> Reference:
        """The tight solve at a point, with our product in float64, which product.py holds against double backward."""

        def compute() -> Reference:
            exact = HessianOperator(deepcopy(self.model).double(), nn.CrossEntropyLoss(), self.inputs, self.targets)
            return tight_pairs(lambda vector: exact @ vector, exact.shape[0], k, seed=987)

        return cached_pairs(self.cache, point.weights, k, compute, f"{self.scale.dataset}/cross-entropy")


def run_all(point: Point, chosen: dict[str, Method], seed: int) -> dict[str, Outcome]:
    """Every method once, and ours at the beginning, halfway and at the end."""
    outcomes = {name: Outcome() for name in chosen}

    def run(name: str) -> None:
        outcome, method = outcomes[name], chosen[name]
        if not method.installed:
            outcome.error = "not installed"
            return

        def solve() -> None:
            outcome.solution = method.solve(point, K, TOLERANCE, seed)

        started = time.process_time()
        try:
            outcome.seconds.append(stopwatch(solve))
            outcome.cpu_seconds.append(time.process_time() - started)
            print(f"  {name}: {outcome.seconds[-1]:.2f} s", flush=True)
        except Exception as problem:  # a library that fails is a row of the table
            outcome.error = f"{type(problem).__name__}: {str(problem).splitlines()[0][:80] if str(problem) else ''}"

    others = [name for name in chosen if name != OURS]
    shift, half = seed % max(len(others), 1), len(others) // 2
    ordered = others[shift:] + others[:shift]
    for name in [OURS, *ordered[:half], OURS, *ordered[half:], OURS] if others else [OURS]:
        run(name)
    return outcomes


def pair_rows(
    point: Point, reference: Reference | None, outcomes: dict[str, Outcome], where: dict[str, object]
) -> Iterator[dict[str, object]]:
    """One row a method and pair: its true residual, and its overlap with the tight solve where there is one."""
    for name, outcome in outcomes.items():
        solution = outcome.solution
        if solution is None:
            continue
        residuals = true_residuals(lambda v: point.operator @ v, solution.values, solution.vectors)
        for i in range(K):
            stated = float(solution.stated[i]) if solution.stated is not None else float("nan")
            row = {
                **where,
                "method": name,
                "i": i + 1,
                "eigenvalue": float(solution.values[i]),
                "true_residual": float(residuals[i]),
                "stated_residual": stated,
            }
            if reference is not None:
                row |= {
                    "overlap": reference.overlap(i, solution.vectors[:, i]),
                    "relative_gap": float(reference.relative_gaps(K)[i]),
                    "cluster": len(reference.cluster(i)),
                    "tight_eigenvalue": float(reference.values[i]),
                    "tight_residual": reference.residual,
                }
            yield row


def run_row(name: str, outcome: Outcome, ours: float, where: dict[str, object]) -> dict[str, object]:
    """One row a method and snapshot."""
    timing = Timing(tuple(outcome.seconds)) if outcome.seconds else None
    return {
        **where,
        "method": name,
        "seconds": timing.median if timing else float("nan"),
        "repeats": len(outcome.seconds),
        "noise": timing.noise if timing and len(outcome.seconds) > 1 else float("nan"),
        "products": outcome.solution.products if outcome.solution else float("nan"),
        "surrogate_products": outcome.solution.surrogate_products if outcome.solution else float("nan"),
        "ratio_to_ours": timing.median / ours if timing else float("nan"),
        "error": outcome.error,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Ours at every snapshot, then all methods at as many snapshots as the time allows."""
    given = arguments(
        __doc__,
        argv,
        seconds={"type": float, "default": 540.0, "help": "start no further snapshot that would end later"},
    )
    scale = scale_of(given)
    started = time.monotonic()
    bench = Bench(scale, given.cache)
    runs, pairs = own_snapshots(bench)
    candidates = (len(bench.inputs), 6000, 2000) if not given.quick else (len(bench.inputs),)
    rows = fastest_rows(bench.point("sgd", scale.compared[0]), candidates)
    print(f"rows at once: double backward {rows[0]}, curvlinops {rows[1]}", flush=True)
    available = methods(*rows)
    longest = 0.0
    for turn, step in enumerate(scale.compared):
        chosen = {name: each for name, each in available.items() if turn == 0 or name not in ONCE}
        for place, optimizer in enumerate(OPTIMIZERS):
            begun = time.monotonic()
            if turn and begun + longest - started > given.seconds:
                continue
            point = bench.point(optimizer, step)
            where: dict[str, object] = {"optimizer": optimizer, "step": step}
            outcomes = run_all(point, chosen, turn * len(OPTIMIZERS) + place)
            ours = Timing(tuple(outcomes[OURS].seconds)).median
            runs += [run_row(name, outcome, ours, where) for name, outcome in outcomes.items()]
            pairs += list(pair_rows(point, bench.reference(point), outcomes, where))
            # Later rounds leave out the slow libraries, so the first round's time would be too high an estimate.
            longest = time.monotonic() - begun if turn else 0.7 * (time.monotonic() - begun)
            print(f"{optimizer} {step}: {time.monotonic() - begun:.0f} s", flush=True)
    runs_frame, pairs_frame = pd.DataFrame(runs), pd.DataFrame(pairs)
    write(given.output, "solvers_runs", runs_frame)
    write(given.output, "solvers_pairs", pairs_frame)
    write(given.output, "solvers", summary(runs_frame, pairs_frame, scale.steps, TOLERANCE))


def own_snapshots(bench: Bench) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Ours alone at the kept snapshots that no other library sees."""
    runs: list[dict[str, object]] = []
    pairs: list[dict[str, object]] = []
    chosen = {OURS: methods(1, 1)[OURS]}
    for optimizer, step in bench.weights:
        if step in bench.scale.compared:
            continue
        point = bench.point(optimizer, step)
        where: dict[str, object] = {"optimizer": optimizer, "step": step}
        outcomes = run_all(point, chosen, seed=step)
        runs.append(run_row(OURS, outcomes[OURS], outcomes[OURS].seconds[0], where))
        pairs += list(pair_rows(point, None, outcomes, where))
    return runs, pairs


if __name__ == "__main__":
    main()
