"""Made-up tables of every kind that figures read, of plausible size and shape; no training behind them.

They follow the file layout, columns and identities of the real ones, so that figures can be drawn without running
anything.
"""

import copy
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from reproduction.experiment.config import validate
from reproduction.experiment.datasets import DATASETS
from reproduction.experiment.figure_catalogue import drawing, entry
from reproduction.experiment.result_paths import table_paths
from reproduction.experiment.runs import Experiment, Run
from reproduction.experiment.schedule import two_time_pairs
from reproduction.experiment.table_catalogue import KEPT_TABLES, TABLES
from reproduction.files.final_eigenvectors import write_final_eigenvectors
from reproduction.files.tables import write_table
from reproduction.measure import identity_tables
from reproduction.measure.eigenbases import Eigenbases
from reproduction.measure.localization_tables import localization_table
from reproduction.measure.stability_tables import stability_table

CONFIG = Path(__file__).parents[2] / "config.yaml"
# What sets the optimizers apart: IPR exponent at the start and its change, overlap left at long lags, gradient and
# update alignment, loss reached. Optimizers that are not the paper's get a mixture.
_CHARACTER = {
    "sgd": (-3.0, -0.8, 0.55, 0.36, 0.36, 0.05),
    "adam": (-3.2, 2.0, 0.06, 0.26, 0.05, 1e-4),
    "sam": (-2.9, -0.6, 0.35, 0.32, 0.31, 0.08),
}
_OTHER = (-3.1, 0.7, 0.2, 0.28, 0.12, 1e-2)


def small_config(**changes: Any) -> dict[str, Any]:
    """The shipped configuration with few snapshots; `changes` replace top-level keys, mappings are merged into them."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    small: dict[str, Any] = {
        "model": {"hidden": [100, 100]},
        "training": {"steps": 2000, "seeds": [0, 1, 2]},
        "snapshots": {"every": 100, "waiting_times": [0, 10, 100, 1000], "lags_per_decade": 3},
        "eigen": {"dense_every": 2},
        "sweeps": {
            "seeds": [0, 1, 2],
            "batch_size": {"32": 4000, "full": 500},
            "learning_rate": {"0.3": 2000, "3": 1000},
            "snapshots": {"every": 200, "waiting_times": [0, 100, 400], "lags_per_decade": 2},
        },
    }
    for layer in (small, changes):
        for key, value in layer.items():
            if key in ("model", "training", "snapshots", "eigen"):
                config[key].update(value)
            else:
                config[key] = (
                    {"dataset": changes.get("datasets", config["datasets"])[0], **value} if key == "sweeps" else value
                )
    return config


@dataclass(frozen=True)
class Synthetic:
    """The tables of an experiment under `root`, written on demand.

    `unconverged` is the share of eigenpairs that did not converge, `reached` the share of its steps that a run got
    through (1 where nothing is said, 0: no rows at all), `zero_gradients` the share of snapshots whose gradient has no
    direction.
    """

    root: Path
    config: Mapping[str, Any]
    unconverged: float = 0.0
    zero_gradients: float = 0.0
    reached: Mapping[Run, float] = field(default_factory=dict)

    @cached_property
    def experiment(self) -> Experiment:
        return Experiment(validate(copy.deepcopy(dict(self.config))))

    def inputs(self, number: int | str) -> dict[str, list[str]]:
        """The named inputs of a figure, as its rule has them; missing ones are written."""
        return {kind: self.paths(kind, selections) for kind, selections in entry(number)["inputs"].items()}

    def params(self, number: int | str) -> dict[str, Any]:
        """The params of a figure's rule."""
        return {"layout": self.experiment.layout(), "figure": drawing(number, self.experiment.settings)}

    def paths(self, kind: str, selections: Sequence[Mapping[str, Any]]) -> list[str]:
        """The tables of one kind of the selected runs or data sets; missing ones are written."""
        if not TABLES[kind].of_run:
            return [self._dataset_path(path, kind) for path in table_paths(self.experiment, kind, selections)]
        runs = dict.fromkeys(run for selection in selections for run in self.experiment.select(**selection))
        return [self._run_path(run, kind) for run in runs]

    def _run_path(self, run: Run, kind: str) -> str:
        path = self.root / "runs" / run.folder / TABLES[kind].path
        if not path.exists():
            self._write_run(path, self.experiment, run, kind)
        return str(path)

    def _dataset_path(self, name: str, kind: str) -> str:
        path = self.root / name
        if not path.exists():
            dataset = path.name.partition(".")[0]
            variant = path.parent.name if path.parent.name in self.experiment.own_baselines else ""
            self._write_dataset(path, self.experiment, dataset, kind, variant)
        return str(path)

    def _write_run(self, path: Path, experiment: Experiment, run: Run, kind: str) -> None:
        identity = experiment.identity(run)
        share = self.reached.get(run, 1.0)
        last = share * identity["steps"] if share else -1
        steps = np.array([step for step in experiment.snapshots(run) if step <= last], dtype=int)
        random = np.random.default_rng(zlib.crc32(f"{run.folder}/{kind}".encode()))
        character = _CHARACTER.get(run.optimizer, _OTHER)
        if kind == "final_eigenvector":
            self._write_vector(path, experiment, run, character, random, size=len(steps))
            return
        if kind in KEPT_TABLES:
            table, units = _kept(experiment, run, steps, kind, random)
            write_table(path, table, kind=kind, identity=identity, units=units)
            return
        if kind == "displacement":
            table = _displacement(experiment, run, character, random, last)
        elif kind == "history":
            table = _history(steps, identity["steps"], character, random)
        else:
            table = (_ipr if kind == "ipr" else _alignment)(experiment, run, steps, character, random)
        if "converged" in table:
            table["converged"] = (random.random(len(table)) >= self.unconverged).astype(int)
        if kind == "alignment" and self.zero_gradients:
            zero = random.random(len(table)) < self.zero_gradients
            table.loc[zero, ["gradient_alignment", "update_alignment"]] = np.nan
        write_table(path, table, kind=kind, identity=identity, units=dict.fromkeys(table.columns, "1"))

    def _write_vector(
        self,
        path: Path,
        experiment: Experiment,
        run: Run,
        character: tuple[float, ...],
        random: np.random.Generator,
        size: int,
    ) -> None:
        widths = [DATASETS[run.dataset].inputs, *experiment.config["model"]["hidden"], 10]
        layers = []
        for layer, (inputs, outputs) in enumerate(pairwise(widths)):
            layers += [[f"{2 * layer}.weight", [outputs, inputs]], [f"{2 * layer}.bias", [outputs]]]
        n = experiment.n_parameters(run.dataset)
        # Heavy tails where the optimizer localizes.
        vector = random.standard_normal(n) * np.exp((2.0 if character[1] > 0 else 0.6) * random.standard_normal(n))
        vectors = np.stack([vector, vector]) / np.linalg.norm(vector) if size else np.zeros((0, n))
        complete = run not in self.reached
        identity = experiment.identity(run) | {"diverged_at": None if complete else 7}
        write_final_eigenvectors(path, vectors, [7, 6][: len(vectors)], [0.1, 0.2][: len(vectors)], layers, identity)

    def _write_dataset(self, path: Path, experiment: Experiment, dataset: str, kind: str, variant: str) -> None:
        random = np.random.default_rng(zlib.crc32(f"{dataset}/{kind}{variant}".encode()))
        n = experiment.n_parameters(dataset, variant or "main")
        make = {
            "baseline": _baseline,
            "interpolation": _interpolation,
            "solutions": _solutions,
            "baseline_overlaps": _overlaps,
            "permuted_overlaps": _permuted,
        }
        table = make[kind](experiment, n, random)
        identity = {"dataset": dataset, "n_parameters": n} | ({"variant": variant} if variant else {})
        write_table(path, table, kind=kind, identity=identity, units=dict.fromkeys(table.columns, "1"))


def _progress(steps: np.ndarray, total: int) -> np.ndarray:
    return np.asarray(np.log1p(steps) / math.log1p(total))


def _pairs(experiment: Experiment, run: Run, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(step, i) of every eigenpair: k at each snapshot, dense_k at some of the dense seed's."""
    parameters = experiment.eigen_parameters(run)
    dense = parameters.get("dense", {"k": parameters["k"], "every": 1})
    rows = [
        (step, i)
        for step in steps
        for i in range(1, (dense["k"] if step % dense["every"] == 0 or step == steps[-1] else parameters["k"]) + 1)
    ]
    return np.array([s for s, _ in rows], dtype=int), np.array([i for _, i in rows], dtype=int)


def _history(steps: np.ndarray, total: int, character: tuple[float, ...], random: np.random.Generator) -> pd.DataFrame:
    floor = character[5]
    loss = floor + 2.3 * np.exp(-7 * _progress(steps, total)) * np.exp(0.1 * random.standard_normal(len(steps)))
    accuracy = 0.98 - 0.85 * np.exp(-6 * _progress(steps, total)) + 0.002 * random.standard_normal(len(steps))
    return pd.DataFrame(
        {
            "step": steps,
            "train_loss": loss,
            "test_loss": loss + 0.05,
            "train_accuracy": accuracy + 0.01,
            "test_accuracy": accuracy,
        }
    )


def _ipr(
    experiment: Experiment, run: Run, steps: np.ndarray, character: tuple[float, ...], random: np.random.Generator
) -> pd.DataFrame:
    step, i = _pairs(experiment, run, steps)
    s = _progress(step, experiment.identity(run)["steps"])
    noise = (0.15 if character[1] > 0 else 0.03) * random.standard_normal(len(step))
    eigenvalue = (8 + 60 * s) / (1 + 0.3 * (i - 1)) * np.exp(2 * np.abs(noise))
    return pd.DataFrame(
        {
            "step": step,
            "i": i,
            "eigenvalue": eigenvalue,
            "residual": 5e-4,
            "gap": 0.2 * eigenvalue,
            "clustered": 0,
            "matvecs": 15,
            "converged": 1,
            "ipr": 10 ** (character[0] + character[1] * s + noise - 0.02 * i),
            "angle_bound": 2.5e-3,
            "span_bound": 2.5e-3,
            "gradient_norm": 0.3,
            "gradient_overlap": 0.1 / i,
        }
    )


def _alignment(
    experiment: Experiment, run: Run, steps: np.ndarray, character: tuple[float, ...], random: np.random.Generator
) -> pd.DataFrame:
    step, i = _pairs(experiment, run, steps)
    s = _progress(step, experiment.identity(run)["steps"])
    gradient = np.clip(character[3] * i**-0.7 * np.exp(0.3 * random.standard_normal(len(step))), 0, 1)
    update = gradient * character[4] / character[3]
    settled = np.clip(s**2 * (0.4 + character[2]) + 0.1 * random.random(len(step)), 0, 1)
    return pd.DataFrame(
        {
            "step": step,
            "i": i,
            "gradient_alignment": gradient,
            "update_alignment": update,
            "convergence": np.where(step == (steps[-1] if len(steps) else 0), 1.0, settled),
            "converged": 1,
            "gradient_share": np.minimum(pd.Series(gradient**2).groupby(step).cumsum().to_numpy(), 1.0),
            "update_share": np.minimum(pd.Series(update**2).groupby(step).cumsum().to_numpy(), 1.0),
        }
    )


def _displacement(
    experiment: Experiment, run: Run, character: tuple[float, ...], random: np.random.Generator, last: float
) -> pd.DataFrame:
    identity = experiment.identity(run)
    n = identity["n_parameters"]
    k = experiment.config["eigen"]["k"]
    two_times = [(tw, lag) for tw, lag in two_time_pairs(**experiment.two_time(run)) if tw + lag <= last]
    rows = []
    for tw, lag in two_times:
        relaxed = lag / (lag + 3 * tw + 30)
        for i in range(1, k + 1):
            overlap = np.clip(1 - relaxed * (1 - character[2]) + 0.03 * random.standard_normal(), 0, 1)
            moved = 1e-6 * lag**1.2 / (1 + tw / 300)
            aligned = abs(0.02 * random.standard_normal()) + character[4] / (1 + lag)
            d = 2 / n * (1 - overlap)
            rows.append((tw, lag, i, d, d / i, overlap, moved, aligned, 0.01, 1))
    columns = [
        "waiting_time",
        "lag",
        "i",
        "displacement",
        "subspace_displacement",
        "overlap",
        "weight_displacement",
        "update_alignment",
    ]
    return pd.DataFrame(rows, columns=[*columns, "angle_bound", "converged"])


def _kept(
    experiment: Experiment, run: Run, steps: np.ndarray, kind: str, random: np.random.Generator
) -> tuple[pd.DataFrame, Mapping[str, str]]:
    """A table of vectors that wander about, of a network far smaller than the run's."""
    step, i = _pairs(experiment, run, steps)
    shapes = [["0.weight", [20, 10]], ["0.bias", [20]], ["2.weight", [10, 20]], ["2.bias", [10]]]
    n = sum(math.prod(shape) for _, shape in shapes)
    pairs = pd.DataFrame({"step": step, "i": i, "eigenvalue": 50.0 / i, "converged": 1, "angle_bound": 0.01})
    pairs["gradient_norm"] = 0.3
    if kind == "stability":
        return stability_table(pairs, experiment.train_parameters(run)["optimizer"]), TABLES[kind].units
    most = experiment.most_pairs(run)
    basis, rows = np.eye(n)[:, :most], [np.zeros((0, n))]
    for count in np.unique(step, return_counts=True)[1]:
        basis = np.linalg.qr(basis + 0.03 * random.standard_normal((n, most)))[0]
        rows.append(basis[:, :count].T)
    bases = Eigenbases(pairs, np.concatenate(rows))
    if kind == "localization":
        return localization_table(bases, shapes), TABLES[kind].units
    two_times = two_time_pairs(**experiment.two_time(run))
    taken = identity_tables.run_overlaps(bases, two_times, experiment.schedule(run)["every"])
    if kind == "overlaps":
        return identity_tables.overlaps_table(taken, most), identity_tables.overlaps_units(most)
    made = {
        "subspaces": identity_tables.subspaces_table,
        "tracks": identity_tables.tracks_table,
        "identity": identity_tables.identity_table,
    }
    return made[kind](taken), TABLES[kind].units


def _baseline(experiment: Experiment, n: int, random: np.random.Generator) -> pd.DataFrame:
    overlap = 0.05 + 0.005 * random.random(experiment.config["eigen"]["k"])
    frame = pd.DataFrame(
        {"i": np.arange(1, len(overlap) + 1), "mean_overlap": overlap, "displacement": 2 / n * (1 - overlap)}
    )
    for name, end in (("low", -0.004), ("high", 0.004)):
        frame[f"displacement_{name}"] = 2 / n * (1 - overlap + end)
        frame[f"overlap_{name}"] = overlap + end
    return frame.assign(n_initializations=100)


def _overlaps(experiment: Experiment, n: int, random: np.random.Generator) -> pd.DataFrame:
    k, pairs = experiment.config["eigen"]["k"], list(combinations(range(12), 2))
    rows = [(a, b, i, min(1.0, 0.05 * abs(random.standard_normal()))) for i in range(1, k + 1) for a, b in pairs]
    return pd.DataFrame(rows, columns=["first", "second", "i", "overlap"])


def _permuted(experiment: Experiment, n: int, random: np.random.Generator) -> pd.DataFrame:
    frames = [
        _overlaps(experiment, n, random).assign(optimizer=optimizer, converged=1)
        for optimizer in experiment.config["optimizers"]
    ]
    return pd.concat(frames, ignore_index=True)[["optimizer", "first", "second", "i", "overlap", "converged"]]


def _interpolation(experiment: Experiment, n: int, random: np.random.Generator) -> pd.DataFrame:
    alpha = np.linspace(-1, 2, 61)
    frames = []
    for first, second in combinations(experiment.config["optimizers"], 2):
        barrier = 4 * np.exp(-((alpha - 0.5) ** 2) / 0.05) * random.random()
        loss = 0.05 + barrier + 3 * np.clip(np.abs(alpha - 0.5) - 0.5, 0, None) ** 2
        frames.append(
            pd.DataFrame(
                {"first": first, "second": second, "alpha": alpha, "train_loss": loss, "test_loss": loss, "loss": loss}
            )
        )
    columns = ["first", "second", "alpha", "train_loss", "test_loss", "loss"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def _solutions(experiment: Experiment, n: int, random: np.random.Generator) -> pd.DataFrame:
    rows = []
    for optimizer in experiment.config["optimizers"]:
        top = 20 + 60 * random.random()
        for epsilon in experiment.config["interpolation"]["epsilon"]:
            rows.append(
                (optimizer, 1, 0.97, 0.01, 0.1, top, float(epsilon), 4e4 * float(epsilon) * (0.5 + random.random()))
            )
    columns = ["optimizer", "seed", "test_accuracy", "train_loss", "test_loss", "lambda_1", "epsilon", "sharpness"]
    return pd.DataFrame(rows, columns=columns)
