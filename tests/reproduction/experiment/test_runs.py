"""The runs of a configuration: which there are, what each depends on, and what it does not depend on."""

import json
from typing import Any

import pytest
from experiments import pinned

from reproduction.experiment.config import validate
from reproduction.experiment.runs import Experiment, Run, optimizer_label
from reproduction.experiment.schedule import two_time_pairs
from reproduction.training.model import mlp


@pytest.fixture(scope="module")
def demo() -> Experiment:
    return Experiment(validate(pinned()))


def test_runs_by_hand() -> None:
    experiment = Experiment(
        validate(
            pinned(
                {
                    "training": {"seeds": [4, 2]},
                    "eigen": {"dense_seed": 2},
                    "optimizers": {"adam": None},
                    "sweeps": {"seeds": [4], "batch_size": {32: 10, "full": 20}, "learning_rate": {0.3: None}},
                }
            )
        )
    )
    mains = [Run(d, o, "main", s) for d in ("digits", "digits_noisy") for o in ("sgd", "sam") for s in (4, 2)]
    variants = ["batch_size-32", "batch_size-full", "learning_rate-3"]
    sweeps = [Run("digits", o, v, 4) for v in variants for o in ("sgd", "sam")]
    assert list(experiment) == mains + sweeps
    assert experiment.variants == ["main", *variants]
    assert experiment.scale() == {
        "steps": 2000,
        "n_seeds": 2,
        "snapshots": len(experiment.snapshots(mains[0])),
        "runs": 14,
    }


def test_runs_by_role(demo: Experiment) -> None:
    mains = demo.select()
    assert len(mains) == 2 * 3 * 3
    assert demo.select(datasets="first") == [run for run in mains if run.dataset == "digits"]
    assert demo.select(datasets="last") == demo.of_dataset("digits_noisy")
    assert demo.select(seeds="dense") == [run for run in mains if run.seed == 0]
    assert demo.select(datasets="first", seeds="dense") == [Run("digits", o, "main", 0) for o in ("sgd", "adam", "sam")]
    assert demo.select(variants="all") == list(demo)
    sizes = demo.select(variants="batch_size")
    assert {run.variant for run in sizes} == {"main", "batch_size-32", "batch_size-full"}
    assert {run.seed for run in sizes} == {0, 1}
    assert {run.dataset for run in sizes} == {"digits"}
    assert len(sizes) == 3 * 3 * 2
    assert {run.variant for run in demo.select(variants="learning_rate")} == {
        "main",
        "learning_rate-0.3",
        "learning_rate-3",
    }
    # Every run that a sweep shows is one of the experiment's.
    assert set(sizes) | set(demo.select(variants="learning_rate")) <= set(demo)
    assert demo.datasets("first") == demo.datasets("sweep") == ["digits"]
    assert demo.datasets("last") == ["digits_noisy"]


def test_no_run_comes_twice_and_none_shares_a_folder(demo: Experiment) -> None:
    runs = list(demo)
    assert len(set(runs)) == len({run.folder for run in runs}) == len(runs) == 18 + 3 * 4 * 2
    assert Run("digits", "sgd", "batch_size-full", 1).folder == "digits/sgd/batch_size-full/seed1"


@pytest.mark.parametrize("hidden", [[], [7], [100, 100]])
def test_n_parameters_is_that_of_the_network(hidden: list[int]) -> None:
    overlay = {"datasets": ["digits", "MNIST"], "model": {"hidden": hidden}, "eigen": {"dense_k": 3}}
    experiment = Experiment(validate(pinned(overlay)))
    for dataset, inputs in (("digits", 64), ("MNIST", 784)):
        network = mlp(inputs, hidden, 10)
        assert experiment.n_parameters(dataset) == sum(p.numel() for p in network.parameters())


def test_identities(demo: Experiment) -> None:
    assert demo.identity(Run("digits_noisy", "adam", "main", 2)) == {
        "dataset": "digits_noisy",
        "optimizer": "adam",
        "variant": "main",
        "seed": 2,
        "batch_size": 128,
        "learning_rate": 0.001,
        "steps": 2000,
        "n_parameters": 17_610,
        "n_train": 1438,
    }
    full = demo.identity(Run("digits", "sgd", "batch_size-full", 0))
    assert (full["batch_size"], full["steps"], full["learning_rate"]) == (1438, 600, 0.01)
    small = demo.identity(Run("digits", "sgd", "batch_size-32", 0))
    assert (small["batch_size"], small["steps"]) == (32, 1200)
    fast = demo.identity(Run("digits", "sam", "learning_rate-3", 0))
    assert fast["learning_rate"] == pytest.approx(0.03)
    assert (fast["batch_size"], fast["steps"]) == (128, 1200)


def test_training_gets_the_optimizer_with_the_runs_own_rate(demo: Experiment) -> None:
    slow = demo.train_parameters(Run("digits", "sam", "learning_rate-0.3", 0))
    assert slow["optimizer"] == {"class": "SAM", "base": "SGD", "lr": pytest.approx(0.003), "rho": 0.05}
    assert slow["optimizer"]["lr"] == slow["identity"]["learning_rate"]
    # The factor of one run does not leak into the next.
    assert demo.train_parameters(Run("digits", "sam", "main", 0))["optimizer"]["lr"] == 0.01


def test_schedules_of_main_and_sweep_runs(demo: Experiment) -> None:
    assert demo.schedule(Run("digits", "sgd", "main", 0)) == {
        "steps": 2000,
        "every": 100,
        "waiting_times": [0, 10, 100, 300, 1000],
        "lags_per_decade": 3,
    }
    assert demo.schedule(Run("digits", "sgd", "batch_size-full", 0)) == {
        "steps": 600,
        "every": 120,
        "waiting_times": [0, 10, 100],
        "lags_per_decade": 2,
    }
    for run in demo:
        steps = set(demo.snapshots(run))
        pairs = two_time_pairs(**demo.two_time(run))
        assert {tw for tw, _ in pairs} | {tw + lag for tw, lag in pairs} <= steps
        assert max(steps) == demo.identity(run)["steps"]


@pytest.mark.parametrize("per_job", [1, 7, 50, 51, 52, 10**6])
def test_chunks_cover_all_snapshots_and_none_is_empty(per_job: int) -> None:
    experiment = Experiment(validate(pinned({"eigen": {"snapshots_per_job": per_job}})))
    for run in list(experiment)[::7]:
        count = len(experiment.snapshots(run))
        chunks = experiment.chunks(run)
        sizes = [len(range(count)[chunk * per_job : (chunk + 1) * per_job]) for chunk in range(chunks)]
        assert sum(sizes) == count
        assert min(sizes) >= 1


def test_tolerances_and_dense_pairs() -> None:
    tolerances = {"digits": {"adam": 1e-5}}
    experiment = Experiment(validate(pinned({"eigen": {"tolerance_for": tolerances, "dense_seed": 1}})))
    assert experiment.eigen_parameters(Run("digits", "adam", "main", 0))["tolerance"] == 1e-5
    assert experiment.eigen_parameters(Run("digits", "adam", "learning_rate-3", 0))["tolerance"] == 1e-5
    assert experiment.eigen_parameters(Run("digits", "sgd", "main", 0))["tolerance"] == 1e-3
    assert experiment.eigen_parameters(Run("digits_noisy", "adam", "main", 0))["tolerance"] == 1e-3
    dense = {"k": 15, "tolerance": 1e-4, "every": 300}
    assert experiment.eigen_parameters(Run("digits", "sgd", "main", 1))["dense"] == dense
    assert "dense" not in experiment.eigen_parameters(Run("digits", "sgd", "main", 0))
    assert "dense" not in experiment.eigen_parameters(Run("digits", "sgd", "batch_size-32", 1))


def test_variants_stand_beside_the_main_runs() -> None:
    block = {"variants": {**VARIANTS, "wide": {"hidden": [7], "bias_init": "uniform"}}, "seeds": [1]}
    experiment = Experiment(validate(pinned({"sensitivity": {**block, "optimizers": ["adam", "sgd"], "steps": 2000}})))
    own = {"scaling": "standard", **experiment.config["model"]}
    assert experiment.settings == {
        "main": own,
        "scaling-unit": {**own, "scaling": "unit"},
        "init-xavier_normal": {**own, "init": "xavier_normal"},
        "wide": {**own, "hidden": [7], "bias_init": "uniform"},
    }
    # In an order of their own, so that the order of the keys in a file changes nothing.
    assert experiment.own_baselines == ["init-xavier_normal", "scaling-unit", "wide"]
    runs = experiment.select(variants="sensitivity")
    assert runs[:3] == [Run("digits", "adam", "main", 1), Run("digits", "sgd", "main", 1), runs[2]]
    assert len(runs) == 2 * 4 * 2
    assert not set(runs) - set(experiment.select()) & set(experiment)
    unit, normal = Run("digits", "sgd", "scaling-unit", 1), Run("digits", "sgd", "init-xavier_normal", 1)
    assert experiment.train_parameters(unit)["scaling"] == experiment.eigen_parameters(unit)["scaling"] == "unit"
    assert experiment.train_parameters(unit)["model"] == experiment.config["model"]
    assert experiment.eigen_parameters(normal)["model"]["init"] == "xavier_normal"
    assert experiment.eigen_parameters(normal)["scaling"] == "standard"
    assert experiment.schedule(unit)["waiting_times"] == experiment.config["sensitivity"]["snapshots"]["waiting_times"]
    wide = Run("digits", "sgd", "wide", 1)
    assert (
        experiment.identity(wide)["n_parameters"]
        == 64 * 7 + 7 + 7 * 10 + 10
        == experiment.n_parameters("digits", "wide")
    )
    assert experiment.identity(unit)["n_parameters"] == experiment.n_parameters("digits")
    assert experiment.baseline_parameters("wide")["model"] == experiment.train_parameters(wide)["model"]
    assert experiment.baseline_parameters("scaling-unit")["scaling"] == "unit"


def test_variants_of_another_length_have_runs_of_the_main_settings() -> None:
    block = {"variants": {"scaling-unit": {"scaling": "unit"}}, "steps": 1500}
    experiment = Experiment(validate(pinned({"sensitivity": block})))
    assert list(experiment.settings) == ["reference", "scaling-unit"]
    assert {run.variant for run in experiment.select(variants="sensitivity")} == set(experiment.settings)
    assert experiment.identity(Run("digits", "sgd", "reference", 0))["steps"] == 1500
    # Random initializations do not depend on the length.
    assert experiment.own_baselines == ["scaling-unit"]


def test_without_variants_there_are_the_main_runs(demo: Experiment) -> None:
    assert demo.select(variants="sensitivity") == demo.select()
    assert list(demo.settings) == ["main"]


def test_the_dense_seed_has_the_snapshots_of_the_others_and_more() -> None:
    overlay = {"snapshots": {"dense": {"every": 50, "lags_per_decade": 6}}, "eigen": {"dense_every": 4}}
    experiment = Experiment(validate(pinned(overlay)))
    dense, other = Run("digits", "sgd", "main", 0), Run("digits", "sgd", "main", 1)
    assert set(experiment.snapshots(dense)) > set(experiment.snapshots(other))
    pairs = [set(two_time_pairs(**experiment.two_time(run))) for run in (dense, other)]
    assert pairs[0] > pairs[1]
    assert experiment.schedule(dense)["every"] == 50
    assert experiment.schedule(other)["every"] == 100
    # dense_k pairs at every fourth snapshot of its own grid.
    assert experiment.eigen_parameters(dense)["dense"]["every"] == 200
    sweep = Run("digits", "sgd", "batch_size-32", 0)
    assert experiment.schedule(sweep)["lags_per_decade"] == 2


# What depends on what: the parts of a configuration that a change touches, for a run that is there before and after.

MAIN, SIZE, RATE, UNIT, NORMAL = (
    Run("digits", "sgd", "main", 0),
    Run("digits", "sgd", "batch_size-32", 0),
    Run("digits", "sgd", "learning_rate-3", 0),
    Run("digits", "sgd", "scaling-unit", 0),
    Run("digits", "sgd", "init-xavier_normal", 0),
)
VARIANTS: dict[str, Any] = {"scaling-unit": {"scaling": "unit"}, "init-xavier_normal": {"init": "xavier_normal"}}
READ = {"train unit", "train normal"}
TRAIN = {"train main", "train size", "train rate", *READ}
EIGEN = {"eigen main", "eigen size", "eigen rate", "eigen unit", "eigen normal"}
ALL = {*TRAIN, *EIGEN, "baseline", "permuted", "interpolation"}
CHANGES = [
    ({"name": "other"}, set()),
    ({"data": {"root": "elsewhere", "download": False}}, set()),
    ({"storage": {"keep_arrays": False}}, set()),
    ({"datasets": ["digits", "digits_noisy", "MNIST"]}, set()),
    ({"optimizers": {"adamw": {"class": "AdamW", "lr": 0.1}}}, set()),
    ({"optimizers": {"adam": {"lr": 0.5}}}, set()),
    ({"optimizers": {"sgd": {"lr": 0.5}}}, TRAIN),
    ({"training": {"seeds": [0, 1, 2, 3]}}, set()),
    ({"sweeps": {"seeds": [0, 1, 2]}}, set()),
    ({"sweeps": {"batch_size": {64: 5}}}, set()),
    ({"sweeps": {"learning_rate": {0.5: 5}}}, set()),
    ({"sweeps": {"batch_size": {32: 1300}}}, {"train size"}),
    ({"sweeps": {"snapshots": {"every": 200}}}, {"train size", "train rate"}),
    ({"snapshots": {"waiting_times": [0]}}, {"train main"}),
    # The dense pairs stand on the grid of the main runs.
    ({"snapshots": {"every": 50}}, {"train main", "eigen main"}),
    ({"snapshots": {"dense": {"lags_per_decade": 6}}}, {"train main"}),
    # Sweep runs keep their length, and their grid is scaled with it.
    ({"training": {"steps": 4000}}, TRAIN),
    ({"training": {"batch_size": 64}}, {"train main", "train rate", *READ}),
    ({"training": {"device": "cpu"}}, set()),
    # The runs of figure S1 have their own scaling, or their own initialization.
    ({"model": {"init": "kaiming_normal"}}, ALL - {"train normal", "eigen normal"}),
    ({"data": {"scaling": "symmetric"}}, ALL - {"train unit", "eigen unit"}),
    ({"eigen": {"k": 2}}, {*EIGEN, "baseline", "permuted"}),
    ({"eigen": {"tolerance": 1e-5}}, {*EIGEN, "baseline", "permuted"}),
    ({"eigen": {"dense_k": 5, "dense_tolerance": 1e-5, "dense_every": 1}}, {"eigen main"}),
    ({"eigen": {"dense_seed": 1}}, {"eigen main"}),
    ({"eigen": {"snapshots_per_job": 5}}, EIGEN),
    ({"eigen": {"tolerance_for": {"digits": {"adam": 1e-5}}}}, set()),
    ({"eigen": {"tolerance_for": {"digits": {"sgd": 1e-5}}}}, EIGEN),
    ({"baseline": {"initializations": 10}}, {"baseline"}),
    ({"baseline": {"permutations": 10}}, {"permuted"}),
    ({"sensitivity": {"variants": {"w": {"hidden": [5]}}, "seeds": [0, 1, 2], "optimizers": ["sgd"]}}, set()),
    ({"sensitivity": {"steps": 1000}}, READ),
    ({"sensitivity": {"snapshots": {"every": 200}}}, READ),
    ({"interpolation": {"points": 10}}, {"interpolation"}),
]  # fmt: skip


def parts(config: dict[str, Any]) -> dict[str, str]:
    experiment = Experiment(validate(config))
    runs = {"main": MAIN, "size": SIZE, "rate": RATE, "unit": UNIT, "normal": NORMAL}
    found: dict[str, Any] = {f"train {name}": experiment.train_parameters(run) for name, run in runs.items()}
    found |= {f"eigen {name}": experiment.eigen_parameters(run) for name, run in runs.items()}
    found |= {"baseline": experiment.baseline_parameters(), "interpolation": experiment.interpolation_parameters()}
    found["permuted"] = experiment.permuted_parameters()
    return {name: json.dumps(value, allow_nan=False) for name, value in found.items()}


@pytest.mark.parametrize(("overlay", "touched"), CHANGES, ids=[json.dumps(overlay)[:60] for overlay, _ in CHANGES])
def test_a_change_touches_only_what_uses_the_key(overlay: dict[str, Any], touched: set[str]) -> None:
    before, after = (parts(pinned({"sensitivity": {"variants": VARIANTS}}, change)) for change in ({}, overlay))
    assert {name for name in before if before[name] != after[name]} == touched


# Labels


@pytest.mark.parametrize(
    ("spec", "label"),
    [
        ({"class": "SGD", "lr": 0.1}, "SGD"),
        ({"class": "SGD", "lr": 0.1, "momentum": 0.9}, "SGD (momentum 0.9)"),
        ({"class": "SGD", "lr": 0.1, "momentum": 0}, "SGD"),
        ({"class": "SAM", "base": "SGD", "lr": 0.1, "rho": 0.05}, "SAM"),
        ({"class": "SAM", "base": "Adam", "lr": 0.1, "rho": 0.05}, "SAM (Adam)"),
        ({"class": "AdamW", "lr": 0.1}, "AdamW"),
    ],
)
def test_labels_of_optimizers(spec: dict[str, Any], label: str) -> None:
    assert optimizer_label(spec) == label


def test_optimizers_of_one_class_are_told_apart_by_their_names() -> None:
    twins = {"sgd_fast": {"class": "SGD", "lr": 0.5}, "heavy": {"class": "SGD", "lr": 0.01, "momentum": 0.9}}
    labels = Experiment(validate(pinned({"optimizers": twins}))).layout()["optimizers"]
    assert labels == {
        "sgd": "SGD (sgd)",
        "adam": "Adam",
        "sam": "SAM",
        "sgd_fast": "SGD (sgd_fast)",
        "heavy": "SGD (momentum 0.9)",
    }


def test_layout(demo: Experiment) -> None:
    assert demo.layout() == {
        "datasets": {"digits": "digits", "digits_noisy": "noisy digits"},
        "optimizers": {"sgd": "SGD", "adam": "Adam", "sam": "SAM"},
        "dense_seed": 0,
        "k": 3,
    }
