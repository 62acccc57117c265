"""Milliseconds a training step against the step's own matrix products and two common loops, and two runs at once.

Each run has one thread, as the workflow gives it. Stretches of a few steps are timed in turn, and of all stretches of
one way the lower quartile counts: what else the machine does takes time away, and gives none.
"""

import subprocess
import sys
from collections.abc import Sequence
from functools import partial

import pandas as pd
import torch

from benchmarks.loops import loops, step_parts, whole_run
from benchmarks.problem import OPTIMIZERS, Scale
from benchmarks.results import arguments, passed_on, scale_of, write
from benchmarks.timing import interleaved, stopwatch

# Steps timed at a time: few enough that other processes of the machine do not disturb every stretch.
STRETCH = 25


def _turns(scale: Scale) -> int:
    return max(3, scale.training_steps // 10)


def step_rows(scale: Scale) -> list[dict[str, object]]:
    """One row an optimizer and way of training."""
    rows: list[dict[str, object]] = []
    for optimizer in OPTIMIZERS:
        runs = loops(scale, optimizer)
        tasks = {name: partial(run, STRETCH) for name, run in runs.items()}
        times = interleaved(tasks, _turns(scale))
        cost = {name: timing.quartile / STRETCH for name, timing in times.items()}
        rows += [
            {
                "optimizer": optimizer,
                "loop": name,
                "ms_per_step": 1e3 * cost[name],
                "of_matrix_products": cost[name] / cost["matrix products alone"],
                "noise": times[name].noise,
            }
            for name in runs
        ]
    return rows


def part_rows(scale: Scale) -> list[dict[str, object]]:
    """Microseconds of the parts of our step, each repeated by itself from the same parameters."""
    rows: list[dict[str, object]] = []
    for optimizer, spec in OPTIMIZERS.items():
        parts, gradients = step_parts(scale, spec), 2 if spec["class"] == "SAM" else 1
        times = interleaved({name: partial(part, STRETCH) for name, part in parts.items()}, _turns(scale))
        cost = {name: 1e6 * timing.quartile / STRETCH for name, timing in times.items()}
        products = cost["matrix products"]
        shown = {
            "matrix products": products,
            "gradients, apart from products": gradients * cost["gradient"] - products,
            "order and gathering of the batch": cost["batch"],
            "optimizer, gradients apart": cost["step"] - (gradients - 1) * cost["gradient"],
        }
        for part, microseconds in shown.items():
            share = microseconds / products
            rows.append(
                {"optimizer": optimizer, "part": part, "microseconds": microseconds, "of_matrix_products": share}
            )
    return rows


def side_by_side(scale: Scale, options: list[str], repeats: int) -> list[dict[str, object]]:
    """Work done by two processes at once over the work that one does alone in the same time."""
    rows: list[dict[str, object]] = []
    for optimizer in scale.paired:
        command = [sys.executable, "-m", "benchmarks.training", *options, "--worker", optimizer]
        workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
        ]
        try:
            for worker in workers:
                _answer(worker)
            # Alone before and after the pair, in turn, as the others' times are interleaved.
            alone, together = [], []
            for turn in range(repeats):
                alone.append(_go(workers[turn % 2 : turn % 2 + 1])[0])
                together.append(max(_go(workers)))
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        single, pair = sorted(alone)[len(alone) // 2], sorted(together)[len(together) // 2]
        rows.append(
            {"optimizer": optimizer, "alone_seconds": single, "pair_seconds": pair, "scaling": 2 * single / pair}
        )
    return rows


def _go(workers: list["subprocess.Popen[str]"]) -> list[float]:
    """Let them start at the same moment; their seconds."""
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return [float(_answer(worker)) for worker in workers]


def _answer(worker: "subprocess.Popen[str]") -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError("a training process ended before it was asked to")
    return line


def work(scale: Scale, optimizer: str) -> None:
    """The process of one run: a number of seconds for every line on its standard input."""
    run = whole_run(scale, OPTIMIZERS[optimizer])
    run(scale.training_steps // 6)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(stopwatch(lambda: run(scale.training_steps)), flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """All tables."""
    given = arguments(__doc__, argv, worker={"choices": list(OPTIMIZERS), "help": "be one of two runs at once"})
    torch.set_num_threads(1)
    scale = scale_of(given)
    if given.worker:
        work(scale, given.worker)
        return
    repeats = min(scale.repeats, 3)
    write(given.output, "training", pd.DataFrame(step_rows(scale)))
    write(given.output, "training_parts", pd.DataFrame(part_rows(scale)))
    write(given.output, "side_by_side", pd.DataFrame(side_by_side(scale, passed_on(given), repeats)))


if __name__ == "__main__":
    main()
