"""The networks whose curvature is measured: one run an optimizer, with its parameters at a spread of steps.

A finished run is kept in the cache. One thread each, as many side by side as there are
cores.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from benchmarks.problem import BATCH_SIZE, OPTIMIZERS, SEED, Scale, load, network
from benchmarks.results import arguments, passed_on, scale_of, write
from benchmarks.timing import stopwatch
from eigendrift import fully_connected, scaling
from reproduction.files.checkpoint import Scratch
from reproduction.training import batches, compiled, gradients, loop, mlp_gradient, model, numba_kernels, optimizers
from reproduction.training.batches import Samples
from reproduction.training.loop import HISTORY, Trajectory, train

# A run's results depend on these modules; the parts of the benchmark load different ones besides.
_TRAINING = (
    loop,
    batches,
    gradients,
    mlp_gradient,
    compiled,
    numba_kernels,
    optimizers,
    model,
    fully_connected,
    scaling,
)
_ARRAYS = ("steps", "weights", "gradients", "updates", "history")


def trajectory(scale: Scale, optimizer: str, cache: Path) -> Trajectory:
    """Parameters at the snapshots of one run, trained if the cache lacks them."""
    data, cpu = load(scale.dataset), torch.device("cpu")
    steps = sorted({*scale.snapshots, *scale.compared})
    spec = OPTIMIZERS[optimizer]
    sources = [hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest() for module in _TRAINING]
    depends_on = [spec, steps, scale.hidden, BATCH_SIZE, torch.__version__, sources]
    key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]
    kept = cache / "runs" / scale.dataset / f"{optimizer}-{key}.npz"
    if kept.exists():
        with np.load(kept, allow_pickle=False) as arrays:
            steps, weights, gradients_, updates, history = (arrays[name] for name in _ARRAYS)
            return Trajectory(steps, weights, gradients_, updates, history, diverged_at=None)
    with TemporaryDirectory() as folder:
        run = train(
            network(data, scale.hidden),
            data.train_samples(cpu),
            Samples(data.test_inputs, data.test_targets, cpu),
            spec,
            BATCH_SIZE,
            SEED,
            steps,
            Scratch(folder, "run", {}),
        )
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part.npz")
        # Copies, since the run's arrays are files of the folder.
        steps_, weights, gradients_, updates, history = (np.array(getattr(run, name)) for name in _ARRAYS)
        np.savez(part, steps=steps_, weights=weights, gradients=gradients_, updates=updates, history=history)
        part.replace(kept)
        return Trajectory(steps_, weights, gradients_, updates, history, run.diverged_at)


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, the longest run first, and leave the runs' histories."""
    given = arguments(__doc__, argv, only={"choices": list(OPTIMIZERS), "help": "train this one alone, on one thread"})
    scale = scale_of(given)
    if given.only:
        torch.set_num_threads(1)
        trajectory(scale, given.only, given.cache)
        return

    def one(optimizer: str) -> float:
        command = [sys.executable, "-m", "benchmarks.snapshots", *passed_on(given), "--only", optimizer]
        return stopwatch(lambda: subprocess.run(command, check=True))

    order = ["sam", "adam", "sgd"]
    if not given.quick:
        with ThreadPoolExecutor(max_workers=given.threads) as pool:
            seconds = dict(zip(order, pool.map(one, order), strict=True))
        print("seconds:", {name: round(value, 1) for name, value in seconds.items()}, flush=True)
    torch.set_num_threads(1)
    frames = []
    for optimizer in OPTIMIZERS:
        run = trajectory(scale, optimizer, given.cache)
        frame = pd.DataFrame(run.history, columns=list(HISTORY))
        frame.insert(0, "step", run.steps)
        frame.insert(0, "optimizer", optimizer)
        frames.append(frame)
    write(given.output, "snapshots", pd.concat(frames, ignore_index=True))


if __name__ == "__main__":
    main()
