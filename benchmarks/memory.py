"""Memory of a solve against the data and the activations that it must keep, and its growth over many solves.

A process of its own loads the standardized data alone, resets the system's record of the largest resident set, makes
the operator, lets go of the inputs or not, and solves. What counts is the largest resident set less that of the process
before the data. "Kept" is what the
mathematics needs once the forward pass is not to be taken again: outputs of the hidden layers, errors of the layers
above the first, class probabilities, all float32.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from benchmarks.problem import SEED, Scale, load, network
from benchmarks.results import arguments, passed_on, scale_of, write
from eigendrift import HessianOperator, top_eigenpairs
from eigendrift._threads import parallel_map
from reproduction.training.model import flatten, initialize, mlp

# The operator alone, the operator beside the caller's inputs, many solves.
WORKERS = ("alone", "beside", "growth")


def resident(field: str) -> float:
    """VmRSS (now) or VmHWM (largest so far) of this process in bytes, from the system; the largest without /proc."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(field))
        return 1024.0 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def reset_largest() -> None:
    """Let the record of the largest resident set start from now, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return


def kept_bytes(samples: int, widths: list[int]) -> float:
    """Data, and what a product needs of the forward and backward pass."""
    hidden, classes = widths[1:-1], widths[-1]
    above_first = widths[2:]
    return 4.0 * samples * (widths[0] + sum(hidden) + sum(above_first) + classes) + 8.0 * samples


def peak(folder: Path, keep: bool) -> dict[str, float]:
    """Largest resident set of a first solve and of a second at another point; in the process that does nothing else."""
    widths = json.loads((folder / "widths.json").read_text(encoding="utf-8"))
    # The libraries' own threads and buffers are there before the data.
    warm = torch.randn(2000, widths[0])
    for _ in range(3):
        warm @ torch.randn(widths[0], 100)
        parallel_map(lambda share: [warm @ torch.randn(widths[0], 100) for _ in share], range(16))
    before = resident("VmRSS")
    inputs = torch.from_numpy(np.load(folder / "inputs.npy"))
    targets = torch.from_numpy(np.load(folder / "targets.npy"))
    model = mlp(widths[0], widths[1:-1], widths[-1])
    initialize(model, SEED)
    reset_largest()
    operator = HessianOperator(model, nn.CrossEntropyLoss(), inputs, targets)
    if not keep:
        del inputs
    point = flatten(model)
    for factor in (1.0, 1.1):
        operator.move_to(factor * point)
        top_eigenpairs(operator, 3, 1e-3, seed=0)
    needed = kept_bytes(len(targets), widths)
    used = resident("VmHWM") - before
    if keep:
        return {"used_beside_inputs_MB": used / 1e6, "ratio_beside_inputs": used / needed}
    return {"needed_MB": needed / 1e6, "used_MB": used / 1e6, "ratio": used / needed}


def growth(scale: Scale) -> dict[str, float]:
    """Resident set after half of the solves and after all, on few samples; and the products that were taken.

    The first half is for the allocator, which takes its memory from the system bit by bit.
    """
    data = load(scale.dataset)
    inputs, targets = (part[: scale.solve_samples].clone() for part in data.tensors())
    model = network(data, scale.hidden)
    operator = HessianOperator(model, nn.CrossEntropyLoss(), inputs, targets)
    point, generator = flatten(model), torch.Generator().manual_seed(0)
    products, early, half = 0, 0.0, scale.solves // 2
    for solve in range(scale.solves):
        if solve == half:
            early = resident("VmRSS")
        moved = point * (1 + 0.2 * torch.rand(len(point), generator=generator))
        operator.move_to(moved)
        products += top_eigenpairs(operator, 3, 1e-3, seed=solve).matvecs
    grown = resident("VmRSS") - early
    return {
        "solves": scale.solves,
        "products": products,
        "growth_MB": grown / 1e6,
        "growth_vectors_per_solve": grown / (scale.solves - half) / (4 * len(point)),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Each measurement in a process of its own."""
    given = arguments(__doc__, argv, worker={"choices": list(WORKERS), "help": "be the measured process"})
    scale = scale_of(given)
    folder = given.cache / f"arrays-{scale.dataset}"
    if given.worker:
        measured = growth(scale) if given.worker == "growth" else peak(folder, keep=given.worker == "beside")
        print(json.dumps(measured), flush=True)
        return
    data = load(scale.dataset)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "inputs.npy", data.train_inputs)
    np.save(folder / "targets.npy", data.train_targets)
    (folder / "widths.json").write_text(
        json.dumps([data.train_inputs.shape[1], *scale.hidden, data.classes]), encoding="utf-8"
    )
    values: dict[str, float] = {}
    for worker in WORKERS:
        command = [sys.executable, "-m", "benchmarks.memory", *passed_on(given), "--worker", worker]
        done = subprocess.run([*command, "--threads", str(given.threads)], check=True, capture_output=True, text=True)
        values |= json.loads(done.stdout.splitlines()[-1])
    write(given.output, "memory", pd.DataFrame([values]))


if __name__ == "__main__":
    main()
