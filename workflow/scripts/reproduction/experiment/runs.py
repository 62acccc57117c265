"""The runs that a configuration asks for: which there are, and what each of them depends on.

Every `parameters` method returns only the keys that its rule uses, so that a change of another key reruns nothing. The
device and the folder of raw files are not among them: scripts read these from Snakemake's configuration.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reproduction.errors import ConfigError
from reproduction.experiment import own_model
from reproduction.experiment.architecture import FullyConnected
from reproduction.experiment.datasets import DatasetRecord, names_of, records_of
from reproduction.experiment.labels import MAIN
from reproduction.experiment.optimizer_arguments import class_of, sources_of
from reproduction.experiment.own_model import OwnNetwork
from reproduction.experiment.schedule import scaled_every, snapshot_steps

SENSITIVITY = "sensitivity"
# The runs with the settings of the main runs and the length of the variants of figure S1.
REFERENCE = "reference"


@dataclass(frozen=True)
class Run:
    """One training run: (dataset, optimizer, variant, seed)."""

    dataset: str
    optimizer: str
    variant: str
    seed: int

    @property
    def folder(self) -> str:
        """Its folder below results/<name>/runs."""
        return f"{self.dataset}/{self.optimizer}/{self.variant}/seed{self.seed}"


class Experiment:
    """All runs of a valid configuration."""

    # Whether a Tracker has recorded them.
    is_recorded = False

    def __init__(self, config: Mapping[str, Any]) -> None:
        if config.get("trajectories") and type(self) is Experiment:
            raise ConfigError("config: trajectories: recorded runs are neither planned, kept nor published")
        self.config = config
        self.records = self._records(config)
        sweeps = config["sweeps"]
        # variant -> what differs from the main runs, and the number of steps
        self._variants: dict[str, dict[str, Any]] = {MAIN: {"steps": config["training"]["steps"]}}
        for size, steps in sweeps["batch_size"].items():
            self._variants[f"batch_size-{size}"] = {"batch_size": size, "steps": steps}
        for factor, steps in sweeps["learning_rate"].items():
            self._variants[f"learning_rate-{factor}"] = {"factor": float(factor), "steps": steps}
        self._settings = self._all_settings()
        for name, settings in self._settings.items():
            if name != MAIN:
                self._variants[name] = {**settings, "steps": config["sensitivity"]["steps"]}

    def _records(self, config: Mapping[str, Any]) -> dict[str, DatasetRecord]:
        return records_of(config)

    def _all_settings(self) -> dict[str, dict[str, Any]]:
        """Variant -> scaling and network of each run of figure S1, that of the main runs first."""
        block = self.config[SENSITIVITY]
        own = {"scaling": self.config["data"]["scaling"], **self.config["model"]}
        others = {name: {**own, **changes} for name, changes in block["variants"].items()}
        shorter = bool(others) and block["steps"] != self.config["training"]["steps"]
        return {REFERENCE if shorter else MAIN: own, **others}

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Variant -> {scaling, hidden, activation, init, bias_init} of the runs that figure S1 compares.

        The first is that of the main runs: `main` itself, or `reference` where the others are shorter or longer.
        """
        return self._settings

    @property
    def variants(self) -> list[str]:
        """`main`, the rows of the two sweeps, and the variants of figure S1."""
        return list(self._variants)

    @property
    def own_baselines(self) -> list[str]:
        """The variants with a baseline of their own; the others share that of the main runs."""
        return [name for name in self._settings if name not in (MAIN, REFERENCE)]

    def select(self, datasets: str = "all", variants: str = MAIN, seeds: str = "all") -> list[Run]:
        """Runs by role: datasets all, first, last; seeds all, dense; variants main, batch_size, learning_rate, all
        (of these three), sensitivity.

        A sweep includes the main runs of its dataset and seeds, which show the sweep's middle value, and the
        sensitivity runs the main runs of its seeds, if these are as long.
        """
        if variants == "all":
            return list(self)
        if variants == SENSITIVITY and len(self._settings) > 1:
            block = self.config["sensitivity"]
            return [
                Run(dataset, optimizer, name, seed)
                for dataset in self.datasets()
                for name in self._settings
                for optimizer in block["optimizers"]
                for seed in block["seeds"]
            ]
        if variants == SENSITIVITY:
            return self.select()
        if variants != MAIN:
            sweeps = self.config["sweeps"]
            names = [MAIN, *(name for name in self._variants if name.startswith(f"{variants}-"))]
            return [
                Run(sweeps["dataset"], optimizer, name, seed)
                for name in names
                for optimizer in self.config["optimizers"]
                for seed in sweeps["seeds"]
            ]
        chosen = self.datasets(datasets)
        wanted = [self.config["eigen"]["dense_seed"]] if seeds == "dense" else self.config["training"]["seeds"]
        return [Run(d, o, MAIN, s) for d in chosen for o in self.config["optimizers"] for s in wanted]

    def __iter__(self) -> Iterator[Run]:
        """The runs of the paper's figures: the main runs and both sweeps."""
        yield from self.select()
        for kind in ("batch_size", "learning_rate"):
            yield from (run for run in self.select(variants=kind) if run.variant != MAIN)

    def is_supplementary(self, run: Run) -> bool:
        """Whether a run is there for figure S1 alone."""
        return run.variant != MAIN and run.variant in self._settings

    def datasets(self, datasets: str = "all") -> list[str]:
        """Data sets by role: all | first | last | sweep."""
        every = names_of(self.config)
        return {"all": every, "first": every[:1], "last": every[-1:], "sweep": [self.config["sweeps"]["dataset"]]}[
            datasets
        ]

    def of_dataset(self, dataset: str, seeds: str = "all") -> list[Run]:
        """The main runs on one data set; seeds all or dense."""
        return [run for run in self.select(seeds=seeds) if run.dataset == dataset]

    def settings_of(self, variant: str) -> dict[str, Any]:
        """Scaling and network {scaling, ...} of a variant's runs: the keys of `model` as it is configured."""
        return {"scaling": self._scaling(variant), **self._model(variant)}

    def n_parameters(self, dataset: str, variant: str = MAIN) -> int:
        """N of a variant's network for a data set."""
        return self.network(dataset, variant).n_parameters

    def network(self, dataset: str, variant: str = MAIN) -> FullyConnected | OwnNetwork:
        """A variant's network for a data set."""
        return own_model.network(self._model(variant), self.records[dataset])

    def schedule(self, run: Run) -> dict[str, Any]:
        """Arguments of `snapshot_steps`, and of `two_time_pairs` without `every`."""
        steps = self._variants[run.variant]["steps"]
        if run.variant == MAIN:
            own = {key: value for key, value in self.config["snapshots"].items() if key != "dense"}
            dense = self.config["snapshots"]["dense"] if self._is_dense(run) else {}
            return {"steps": steps, **own, **dense}
        block = self.config[SENSITIVITY if self.is_supplementary(run) else "sweeps"]["snapshots"]
        every = scaled_every(block["every"], steps, self.config["training"]["steps"])
        return {"steps": steps, **block, "every": every}

    def _is_dense(self, run: Run) -> bool:
        return run.variant == MAIN and run.seed == self.config["eigen"]["dense_seed"]

    def two_time(self, run: Run) -> dict[str, Any]:
        """Arguments of `two_time_pairs`."""
        return {key: value for key, value in self.schedule(run).items() if key != "every"}

    def snapshots(self, run: Run) -> list[int]:
        """Steps of the run's snapshots."""
        return snapshot_steps(**self.schedule(run))

    def chunks(self, run: Run) -> int:
        """Number of eigensnapshot jobs of the run."""
        per_job: int = self.config["eigen"]["snapshots_per_job"]
        return -(-len(self.snapshots(run)) // per_job)

    def _optimizer(self, run: Run) -> dict[str, Any]:
        optimizer = dict(self.config["optimizers"][run.optimizer])
        optimizer["lr"] *= self._variants[run.variant].get("factor", 1.0)
        return optimizer

    def optimizer_sources(self, run: Run) -> list[str]:
        """The files of a run's optimizer, if it is not torch's and can be found: an edit of them changes the run."""
        return sources_of(self.config["optimizers"][run.optimizer])

    def model_sources(self) -> list[str]:
        """The files of a network of the user's own: an edit of them changes all that is computed with it."""
        return own_model.sources_of(self.config["model"])

    def own_modules(self) -> list[str]:
        """The modules of ours that jobs load by name, since this configuration asks for it."""
        return [own_model.ANSWERS] if "module" in self.config["model"] else []

    def data_file(self, dataset: str) -> list[str]:
        """The file of a data set of the user's own, if it is one."""
        return [self.records[dataset].file] if self.records[dataset].file else []

    def _scaling(self, variant: str) -> str:
        return str(self._variants[variant].get("scaling", self.config["data"]["scaling"]))

    def _model(self, variant: str) -> dict[str, Any]:
        settings = self._variants[variant]
        return {key: settings.get(key, value) for key, value in self.config["model"].items()}

    def identity(self, run: Run) -> dict[str, Any]:
        """The identity in the files of a run."""
        samples = self.records[run.dataset].samples
        size = self._variants[run.variant].get("batch_size", self.config["training"]["batch_size"])
        return {
            "dataset": run.dataset,
            "optimizer": run.optimizer,
            "variant": run.variant,
            "seed": run.seed,
            "batch_size": samples if size == "full" else int(size),
            "learning_rate": self._optimizer(run)["lr"],
            "steps": self._variants[run.variant]["steps"],
            "n_parameters": self.n_parameters(run.dataset, run.variant),
            "n_train": samples,
        }

    def train_parameters(self, run: Run) -> dict[str, Any]:
        """What a training run depends on, apart from the data file."""
        return {
            "identity": self.identity(run),
            "model": self._model(run.variant),
            "optimizer": self._optimizer(run),
            "schedule": self.schedule(run),
            "scaling": self._scaling(run.variant),
        }

    def _problem_parameters(self, variant: str) -> dict[str, Any]:
        """What a Hessian depends on, apart from point and data."""
        return {"model": self._model(variant), "scaling": self._scaling(variant)}

    def recorded_files(self, run: Run) -> list[str]:
        """The files of a run that was recorded elsewhere."""
        return []

    def missing(self, needs: Sequence[str]) -> str | None:
        """Why a figure with these needs does not apply; None for one that does."""
        return None

    def eigen_parameters(self, run: Run) -> dict[str, Any]:
        """What the eigenpairs of a run depend on, apart from its trajectory and the data."""
        eigen = self.config["eigen"]
        tolerance = eigen["tolerance_for"].get(run.dataset, {}).get(run.optimizer, eigen["tolerance"])
        parameters = {
            "k": eigen["k"],
            "tolerance": tolerance,
            "snapshots_per_job": eigen["snapshots_per_job"],
            **self._problem_parameters(run.variant),
        }
        if self._is_dense(run):
            parameters["dense"] = {
                "k": eigen["dense_k"],
                "tolerance": eigen["dense_tolerance"],
                "every": eigen["dense_every"] * self.schedule(run)["every"],
            }
        return parameters

    def most_pairs(self, run: Run) -> int:
        """The largest number of eigenpairs at one of the run's snapshots."""
        parameters = self.eigen_parameters(run)
        return int(max(parameters["k"], parameters.get("dense", parameters)["k"]))

    def baseline_parameters(self, variant: str = MAIN) -> dict[str, Any]:
        """What the baseline of the main runs, or of a variant of figure S1, depends on, apart from the data."""
        return {
            "initializations": self.config["baseline"]["initializations"],
            "k": self.config["eigen"]["k"],
            "tolerance": self.config["eigen"]["tolerance"],
            **self._problem_parameters(variant),
        }

    def permuted_parameters(self) -> dict[str, Any]:
        """What the permuted networks of figure S2 depend on, apart from the data and the trained weights."""
        kept = {key: value for key, value in self.baseline_parameters().items() if key != "initializations"}
        return {"permutations": self.config["baseline"]["permutations"], **kept}

    def interpolation_parameters(self) -> dict[str, Any]:
        """What the interpolation depends on, apart from the data and the solutions."""
        return {
            **self.config["interpolation"],
            "model": dict(self.config["model"]),
            "scaling": self.config["data"]["scaling"],
        }

    def rule_parameters(self, rule: str) -> dict[str, Any]:
        """What the tables of one of the rules baseline, permuted and interpolation depend on."""
        found: dict[str, Any] = getattr(self, f"{rule}_parameters")()
        return found

    def recorded(self) -> dict[str, Any]:
        """The configuration as results record it: the device, which each run's files name, and its sharing left out."""
        training = {key: value for key, value in self.config["training"].items() if key != "jobs_per_gpu"}
        return {**self.config, "training": {**training, "device": "auto"}}

    def scale(self) -> dict[str, int]:
        """The scale of the experiment, which the claims state."""
        return {
            "steps": self.config["training"]["steps"],
            "n_seeds": len(self.config["training"]["seeds"]),
            "snapshots": len(self.snapshots(self.select()[0])),
            "runs": len(list(self)),
        }

    def roles(self) -> dict[str, str]:
        """Role of an optimizer in the paper -> name of the configured optimizer that is assigned to it."""
        return {role: role for role in ("sgd", "adam", "sam") if role in self.config["optimizers"]}

    def layout(self) -> dict[str, Any]:
        """Names and labels that figures and tables show; optimizers of one class are distinguished by their names."""
        labels = {name: optimizer_label(spec) for name, spec in self.config["optimizers"].items()}
        shared = {label for label in labels.values() if list(labels.values()).count(label) > 1}
        return {
            "datasets": {name: record.title for name, record in self.records.items()},
            "optimizers": {n: f"{label} ({n})" if label in shared else label for n, label in labels.items()},
            "dense_seed": self.config["eigen"]["dense_seed"],
            "k": self.config["eigen"]["k"],
        }


def optimizer_label(spec: Mapping[str, Any]) -> str:
    """Label of an optimizer in figures: its class, with what distinguishes it from another of the same class."""
    # Of package.module:Class the class.
    name = class_of(spec).rpartition(":")[2]
    if spec["class"] == "SAM":
        return "SAM" if name == "SGD" else f"SAM ({name})"
    return f"{name} (momentum {spec['momentum']:g})" if spec.get("momentum") else name
