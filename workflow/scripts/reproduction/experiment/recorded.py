"""Runs that a Tracker recorded in a loop of the user's own: they enter where the rule `train` would.

`trajectories` of the configuration maps a name to a folder of `eigendrift.Tracker` and a function that makes the
operator of the same model, loss and data (`problem`, as `eigendrift solve --problem` takes it). Each is a run in the
place of an optimizer, on one data set called `recorded`; nothing else is trained.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.errors import ConfigError, shown
from reproduction.experiment import importable
from reproduction.experiment.asking import UnusableError, answer
from reproduction.experiment.datasets import DatasetRecord
from reproduction.experiment.labels import MAIN, RECORDED, RECORDED_PROBLEM
from reproduction.experiment.own_model import PRODUCT, OwnNetwork
from reproduction.experiment.resources import FLOPS_PER_SECOND
from reproduction.experiment.runs import Experiment, Run

# The module that is asked about a problem, which imports torch.
ANSWERS = RECORDED_PROBLEM.partition(":")[0]
PARTS = ("gradients", "updates")
# Why figures do not apply, by what they need (`figure_catalogue.FigureEntry.needs`).
NO_TEST = "a recorded run has no test set"
NO_SWEEP = "recorded runs have no other batch size or learning rate beside them"
NO_STEPS = "the tracker did not record gradients and updates"


@dataclass(frozen=True)
class Recorded:
    """What a folder holds: N, the steps that are used, whether each has gradient and update, the first learning rate.

    Where gradients and updates were recorded, snapshots without one, such as that of the final weights, are not used.
    """

    folder: str
    problem: str
    n_parameters: int
    steps: tuple[int, ...]
    has_steps: bool
    learning_rate: float | None

    @property
    def files(self) -> list[str]:
        """The files of the folder that are read."""
        names = ("trajectory.json", "index.jsonl", "weights.bin", "gradients.bin", "updates.bin", "state.bin")
        return [str(path) for path in (Path(self.folder) / name for name in names) if path.is_file()]

    @property
    def every(self) -> int:
        """The interval of the grid of snapshots: the largest that all steps but the last are multiples of."""
        return math.gcd(*self.steps[:-1]) or 1


def read(name: str, entry: Mapping[str, str]) -> Recorded:
    """What the folder of an entry of `trajectories` holds; `ConfigError` for one that cannot be used."""
    # Imported here: most configurations do without.
    from eigendrift.tracking.folder import Rows

    where = f"config: trajectories.{name}.folder: {shown(entry['folder'])} is not allowed; "
    try:
        rows = Rows(Path(entry["folder"]).expanduser(), "trajectory.json")
    except (ValueError, OSError) as error:
        raise ConfigError(f"{where}{' '.join(str(error).split())}") from None
    made = rows.description
    if made.get("left_out"):
        raise ConfigError(f"{where}its tracker did not record {made['left_out'][0]}; record buffers too")
    recorded = [part for part in PARTS if part in made["record"]]
    has_steps = recorded == list(PARTS) and any(set(PARTS) <= set(line["has"]) for line in rows.index)
    used = [line for line in rows.index if not has_steps or set(PARTS) <= set(line["has"])]
    if len(used) < 2:
        raise ConfigError(f"{where}it has {len(used)} snapshots that can be used; record at least two")
    rates = used[0]["learning_rates"]
    n_parameters = sum(math.prod(shape) for _, shape in made["parameters"])
    steps = tuple(int(line["step"]) for line in used)
    return Recorded(entry["folder"], entry["problem"], n_parameters, steps, has_steps, rates[0] if rates else None)


class RecordedExperiment(Experiment):
    """All runs of a valid configuration with `trajectories`."""

    is_recorded = True

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.trajectories = {name: read(name, entry) for name, entry in config["trajectories"].items()}
        self._check(config)
        self.given = config
        seed = config["eigen"]["dense_seed"]
        last = max(each.steps[-1] for each in self.trajectories.values())
        super().__init__(
            {
                **config,
                "datasets": [RECORDED],
                "optimizers": {n: {"class": "recorded", "lr": t.learning_rate} for n, t in self.trajectories.items()},
                "training": {**config["training"], "steps": last, "seeds": [seed]},
                "sweeps": {**config["sweeps"], "dataset": RECORDED, "seeds": [], "batch_size": {}, "learning_rate": {}},
                "sensitivity": {**config["sensitivity"], "variants": {}, "steps": last},
            }
        )

    def _check(self, config: Mapping[str, Any]) -> None:
        entries, (first, *others) = config["trajectories"], config["trajectories"]
        for name in others:
            if entries[name]["problem"] != entries[first]["problem"]:
                raise ConfigError(
                    f"config: trajectories.{name}.problem: {shown(entries[name]['problem'])} is not allowed; give that "
                    f"of {first}, or another problem a configuration of its own"
                )
        self._problem = entries[first]["problem"]
        files = importable.sources(self._problem) if importable.is_path(self._problem) else []
        where = f"config: trajectories.{first}.problem: {shown(self._problem)} is not allowed; "
        if not files:
            raise ConfigError(f"{where}give an existing function, as file.py:name or package.module:name")
        folders = {name: entry["folder"] for name, entry in entries.items()}
        descriptions = [Path(folder).expanduser() / "trajectory.json" for folder in folders.values()]
        try:
            self._found = answer(ANSWERS, {"problem": self._problem, "folders": folders}, [*files, *descriptions])
        except UnusableError as error:
            raise ConfigError(f"{where}{error}") from None
        size = next(iter(self.trajectories.values())).n_parameters
        if config["eigen"]["dense_k"] >= size:
            raise ConfigError(
                f"config: eigen.dense_k: {config['eigen']['dense_k']} is not allowed; the network has {size} parameters"
            )

    def _records(self, config: Mapping[str, Any]) -> dict[str, DatasetRecord]:
        # Of the data only the problem knows.
        return {RECORDED: DatasetRecord(RECORDED, 1, (1,), 2, loader=ANSWERS)}

    def network(self, dataset: str, variant: str = MAIN) -> OwnNetwork:
        """The network of the problem, whose costs are those that were measured."""
        found = self._found
        flops = found["seconds"] * FLOPS_PER_SECOND["cpu"] / PRODUCT
        return OwnNetwork(found["n_parameters"], found["layers"], flops, int(found["megabytes"] * 1e6 / 12))

    def schedule(self, run: Run) -> dict[str, Any]:
        """Arguments of `two_time_pairs`, and the interval of the grid."""
        own = self.trajectories[run.optimizer]
        snapshots = self.config["snapshots"]
        return {
            "steps": own.steps[-1],
            "every": own.every,
            "waiting_times": snapshots["waiting_times"],
            "lags_per_decade": snapshots["lags_per_decade"],
            "recorded": list(own.steps),
        }

    def snapshots(self, run: Run) -> list[int]:
        """Steps of the snapshots that are used."""
        return list(self.trajectories[run.optimizer].steps)

    def identity(self, run: Run) -> dict[str, Any]:
        """The identity in the files of a run; what only its loop knows is missing."""
        own = self.trajectories[run.optimizer]
        return {
            "dataset": run.dataset,
            "optimizer": run.optimizer,
            "variant": run.variant,
            "seed": run.seed,
            "learning_rate": own.learning_rate,
            "steps": own.steps[-1],
            "n_parameters": own.n_parameters,
        }

    def train_parameters(self, run: Run) -> dict[str, Any]:
        """What the tables of a recorded run depend on, apart from its folder and the problem's code."""
        own = self.trajectories[run.optimizer]
        return {
            "identity": self.identity(run),
            # Only the loop knows its optimizer, and a schedule of learning rates.
            "optimizer": {"class": "recorded", "lr": math.nan},
            "problem": self._problem,
            "folder": own.folder,
            "steps": list(own.steps),
            "has_steps": own.has_steps,
        }

    def eigen_parameters(self, run: Run) -> dict[str, Any]:
        """What the eigenpairs of a run depend on, apart from its folder and the problem's code."""
        return {**super().eigen_parameters(run), "folder": self.trajectories[run.optimizer].folder}

    def _problem_parameters(self, variant: str) -> dict[str, Any]:
        return {"problem": self._problem}

    def model_sources(self) -> list[str]:
        """The files of the problem: an edit of them changes all that is computed with it."""
        return [str(path) for path in importable.sources(self._problem)]

    def own_modules(self) -> list[str]:
        """The modules of ours that jobs load by name, since this configuration asks for it."""
        return [ANSWERS]

    def optimizer_sources(self, run: Run) -> list[str]:
        """None: the loop has run."""
        return []

    def recorded_files(self, run: Run) -> list[str]:
        """The files of a run's folder."""
        return self.trajectories[run.optimizer].files

    def missing(self, needs: Sequence[str]) -> str | None:
        """Why a figure with these needs does not apply; None for one that does."""
        lacks = {"test": NO_TEST, "sweeps": NO_SWEEP}
        if not all(each.has_steps for each in self.trajectories.values()):
            lacks["steps"] = NO_STEPS
        return next((lacks[need] for need in needs if need in lacks), None)

    def recorded(self) -> dict[str, Any]:
        """The configuration as results record it."""
        return {**self.given, "training": {**self.given["training"], "device": "auto"}}

    def layout(self) -> dict[str, Any]:
        """Names and labels that figures and tables show."""
        return {**super().layout(), "optimizers": {name: name for name in self.trajectories}}


def experiment_of(config: Mapping[str, Any]) -> Experiment:
    """The experiment of a valid configuration."""
    return RecordedExperiment(config) if config.get("trajectories") else Experiment(config)
