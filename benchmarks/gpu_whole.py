"""Whole runs on a device: jobs that share it, a run with all its eigenpairs, and the workflow itself for some time."""

import importlib.util
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.gpu_measures import Card, Row, attempted, run, samples_of
from benchmarks.problem import BATCH_SIZE, HOME, OPTIMIZERS, SEED, Scale, load
from eigendrift import top_eigenpairs
from reproduction.experiment.schedule import snapshot_steps
from reproduction.files.checkpoint import Scratch
from reproduction.files.eigenpairs import UNITS
from reproduction.measure.eigenpairs import requests, solve
from reproduction.measure.inputs import be_deterministic
from reproduction.training.gradients import FlatParameters
from reproduction.training.loop import Trainer

ROOT = HOME.parent
COLUMNS = list(UNITS)
# The snapshots of the main runs of config/paper.yaml, against which a test holds them.
SCHEDULE: dict[str, Any] = {
    "every": 100,
    "waiting_times": [0, 10, 20, 30, 100, 300, 1000, 3000, 10_000, 50_000],
    "lags_per_decade": 14,
}


def sharing_rows(
    scale: Scale, device: torch.device, ends: float, numbers: Sequence[int], steps: int, solves: int
) -> Iterator[Row]:
    """So many jobs at once on one device: what their start takes, and how much they do together in a second.

    Each is a process of its own that trains and solves; all begin when the last one is ready.
    """
    alone = float("nan")
    for number in numbers:
        if time.monotonic() > ends:
            yield {"jobs at once": number, "note": "no time was left"}
            continue
        row = attempted({"jobs at once": number}, partial(_shared, scale, device, number, steps, solves))
        if number == numbers[0] and "seconds" in row:
            alone = number / float(str(row["seconds"]))
        rate = number / float(str(row["seconds"])) / alone if "seconds" in row else float("nan")
        yield {**row, "work per second, relative to one": rate}


def _shared(scale: Scale, device: torch.device, number: int, steps: int, solves: int) -> Row:
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(number), context.SimpleQueue()
    begun = time.time()
    jobs = [
        context.Process(target=_share, args=(scale, str(device), ready, results, begun, steps, solves))
        for _ in range(number)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    if any(job.exitcode for job in jobs):
        raise RuntimeError(f"exit codes {[job.exitcode for job in jobs]}")
    found = [results.get() for _ in jobs]
    return {
        "start_seconds": max(each["start"] for each in found),
        "seconds": max(each["ended"] for each in found) - min(each["began"] for each in found),
        "GB of the device a job": max(each["bytes"] for each in found) / 1e9,
    }


def _share(scale: Scale, device: str, ready: Any, results: Any, begun: float, steps: int, solves: int) -> None:
    """One of the jobs, in a process of its own; the others do not wait for one that fails."""
    try:
        results.put(_work(scale, torch.device(device), ready, begun, steps, solves))
    except BaseException:
        ready.abort()
        raise


def _work(scale: Scale, here: torch.device, ready: Any, begun: float, steps: int, solves: int) -> dict[str, float]:
    # As a job of one core.
    torch.set_num_threads(1)
    if here.type == "cuda":
        be_deterministic()
    card = Card(scale, load(scale.dataset), here)
    trainer = Trainer(FlatParameters(card.network()), OPTIMIZERS["adam"], samples_of(card)[0], BATCH_SIZE, SEED)
    trainer.train_step(0)
    top_eigenpairs(card.operator, 3, 1e-3)
    card.wait()
    started = time.time() - begun
    ready.wait(300)
    began = time.time()
    for t in range(1, 1 + steps):
        trainer.train_step(t)
    for seed in range(solves):
        top_eigenpairs(card.operator, 3, 1e-3, seed=seed)
    card.wait()
    reserved = torch.cuda.max_memory_reserved(here) if here.type == "cuda" else 0
    return {"start": started, "began": began, "ended": time.time(), "bytes": reserved}


def whole_rows(card: Card, ends: float, steps: int) -> Iterator[Row]:
    """One main run of each optimizer with the paper's schedule and all its eigenpairs, as far as the time goes."""
    schedule = snapshot_steps(steps=steps, **SCHEDULE | {"every": min(SCHEDULE["every"], steps // 4)})
    for optimizer in OPTIMIZERS:
        if time.monotonic() > ends:
            yield {"optimizer": optimizer, "note": "no time was left"}
            continue
        weights, training = run(card, optimizer, schedule)
        begun = time.monotonic()
        done, worst, converged = 0, 0.0, True
        # In pieces, so that a run that does not end in time has its figures too.
        while done < len(schedule) and time.monotonic() < ends:
            piece = slice(done, done + 50)
            wanted = requests(schedule[piece], 3, 1e-3, None)
            with TemporaryDirectory() as folder:
                points = torch.from_numpy(weights[piece])
                found, _ = solve(
                    card.operator, wanted, points.__getitem__, Scratch(Path(folder), "piece", {}), "snapshot"
                )
                worst = max(worst, float(found[:, COLUMNS.index("residual")].max()))
                converged = converged and bool(found[:, COLUMNS.index("converged")].all())
            done += len(wanted)
        seconds = time.monotonic() - begun
        yield {"optimizer": optimizer, "steps": steps, "training_seconds": training, "snapshots": done,
               "of": len(schedule), "eigenpairs_seconds": seconds, "ms_per_snapshot": 1e3 * seconds / max(done, 1),
               "worst_residual": worst, "all_converged": str(converged)}  # fmt: skip


def workflow_rows(output: Path, data: str, seconds: float, quick: bool, device: torch.device) -> Iterator[Row]:
    """The workflow for some time, one seed after the other, and the tables that it finished, in one archive.

    It works in the checkout; what it has not finished stays there and is resumed by the same command. When its time is
    over it is killed, since Snakemake itself would wait for its jobs.
    """
    if importlib.util.find_spec("snakemake") is None:
        yield {"problem": "snakemake is not installed"}
        return
    overlay = "tests/tiny.yaml" if quick else "config/paper.yaml"
    name = "tiny" if quick else "paper"
    packages = os.pathsep.join([str(ROOT / "src"), str(ROOT / "workflow" / "scripts")])
    environment = {**os.environ, "PYTHONPATH": packages}
    given = [f"training={json.dumps({'device': device.type})}"]
    if data:
        given.append(f"data={json.dumps({'root': data})}")
    command = [sys.executable, "-m", "snakemake", "--cores", str(os.cpu_count()), "--configfile", overlay]
    seeds = (0,) if quick else (1, 2, 3, 4, 0)
    since, begun, ended = time.time(), time.monotonic(), ""
    for seed in seeds:
        left = seconds - (time.monotonic() - begun)
        if left <= 0:
            break
        datasets = ("digits",) if quick else ("MNIST", "FashionMNIST")
        optimizers = ("sgd",) if quick else tuple(OPTIMIZERS)
        runs = [f"results/{name}/runs/{d}/{o}/main/seed{seed}" for d in datasets for o in optimizers]
        wanted = [f"{folder}/{table}.csv" for folder in runs for table in ("ipr", "displacement", "alignment")]
        process = subprocess.Popen(
            [*command, "--config", *given, "--", *wanted], cwd=ROOT, env=environment, start_new_session=True
        )
        try:
            ended = f"seed {seed}: exit status {process.wait(left)}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            subprocess.run([*command, "--unlock"], cwd=ROOT, env=environment, check=False)
            ended = f"seed {seed}: stopped"
    taken = time.monotonic() - begun
    found = sorted((ROOT / "results" / name / "runs").rglob("*.csv"))
    tables = [path for path in found if path.stat().st_mtime >= since]
    with tarfile.open(output / "gpu_tables.tar.xz", "w:xz") as archive:
        for path in tables:
            archive.add(path, path.relative_to(ROOT / "results"))
    yield {"ended": ended, "seconds": taken, "tables": len(tables), "runs with tables": len({p.parent for p in tables})}
