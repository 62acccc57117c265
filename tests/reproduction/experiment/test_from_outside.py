"""A data set, an activation, an optimizer and a figure of one's own take one record each, and nothing else."""

import ast
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from experiments import SCRIPTS, pinned
from refusals import refused
from torch import nn

from eigendrift import HessianOperator
from reproduction.data.sources import prepare
from reproduction.errors import ConfigError, DataError
from reproduction.experiment import figure_catalogue
from reproduction.experiment.architecture import ACTIVATIONS, ActivationRecord
from reproduction.experiment.config import SCHEMA, full_schema, validate
from reproduction.experiment.datasets import DATASETS, DatasetRecord, loader_modules
from reproduction.experiment.figure_catalogue import SUPPLEMENT, drawing, drawn_by
from reproduction.experiment.labels import Layout
from reproduction.experiment.resources import JobResources
from reproduction.experiment.result_paths import table_paths
from reproduction.experiment.runs import Experiment
from reproduction.experiment.table_catalogue import TABLES
from reproduction.figures.draw import draw, sources
from reproduction.files.tables import write_table
from reproduction.jobs.dependencies import library_files
from reproduction.measure.inputs import build_model, load_samples
from reproduction.planning.cost_model import Assumed, Durations
from reproduction.training.gradients import FlatParameters, batch_gradient
from reproduction.training.model import flatten
from reproduction.training.optimizers import OptimizerStep, check_optimizer_is_made

PACKAGE = {
    "shapes": """
import numpy as np
from reproduction.data.prepared import RawData

def load():
    random = np.random.RandomState(0)
    inputs, targets = random.randint(0, 256, (60, 6)).astype(np.uint8), np.arange(60) % 3
    return RawData("shapes", inputs[:48], targets[:48], inputs[48:], targets[48:], 3, (2, 3), {"source": "drawn"})
""",
    "networks": """
import torch

class Sine(torch.nn.Module):
    def forward(self, z):
        return torch.sin(z)
""",
    "steps": """
import torch

class SignDescent(torch.optim.Optimizer):
    def __init__(self, params, lr, decay=0.0):
        super().__init__(params, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - group["decay"]).sub_(group["lr"] * p.grad.sign())
""",
    "pictures": """
from matplotlib.figure import Figure
from reproduction.figures.panels import drawn

def overlaps(baseline, layout):
    figure = Figure()
    figure.subplots().bar(list(layout.datasets.values()), baseline["mean_overlap"])
    return drawn(figure, baseline[["dataset", "mean_overlap"]])
""",
}
RECORD = DatasetRecord("shapes", 48, (2, 3), classes=3, label="drawn shapes", loader="outside_for_tests.shapes:load")
OPTIMIZER = {"class": "outside_for_tests.steps:SignDescent", "lr": 0.01, "decay": 0.5}
OVERLAY = {
    "datasets": ["digits", "shapes"],
    "model": {"hidden": [5, 4], "activation": "sine"},
    "optimizers": {"mine": OPTIMIZER},
    "training": {"batch_size": 16},
    "eigen": {"k": 2, "dense_k": 5},
}


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One record each for the data set, the activation and the figure; the optimizer needs none."""
    package = tmp_path / "packages" / "outside_for_tests"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name, text in PACKAGE.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setitem(DATASETS, RECORD.name, RECORD)
    monkeypatch.setitem(ACTIVATIONS, "sine", ActivationRecord("outside_for_tests.networks:Sine"))
    figure: figure_catalogue.FigureEntry = {
        "title": "Overlaps",
        "draw": "outside_for_tests.pictures:overlaps",
        "inputs": {"baseline": [{"datasets": "last"}]},
    }
    monkeypatch.setattr(figure_catalogue, "SUPPLEMENT", {**SUPPLEMENT, "S9": figure})


@pytest.fixture
def experiment(outside: None) -> Experiment:
    return Experiment(validate(pinned(OVERLAY)))


def test_configuration_labels_sizes_and_costs_follow(experiment: Experiment) -> None:
    assert full_schema()["$defs"]["dataset"]["enum"][-1] == "shapes"
    layout = experiment.layout()
    assert layout["datasets"] == {"digits": "digits", "shapes": "drawn shapes"}
    assert layout["optimizers"]["mine"] == "SignDescent"
    run = next(run for run in experiment.of_dataset("shapes") if run.optimizer == "mine")
    identity = experiment.identity(run)
    assert (identity["n_train"], identity["n_parameters"]) == (48, 6 * 5 + 5 + 5 * 4 + 4 + 4 * 3 + 3)
    assert experiment.train_parameters(run)["optimizer"] == OPTIMIZER
    resources = JobResources(experiment)
    # Graphs are kept, since no derivative of the activation is known.
    assert resources.eigen_megabytes(run) > 3000
    assert resources.train_megabytes(run) < 2000
    assert resources.train_minutes(run) >= 10
    assert Durations(experiment, Assumed()).train(run) > 0
    with refused(ConfigError, "batch_size", 49, "shapes", 48):
        validate(pinned(OVERLAY, {"training": {"batch_size": 49}}))
    with refused(ConfigError, "optimizers.mine.decai", "'decay'"):
        validate(pinned(OVERLAY, {"optimizers": {"mine": {"decai": 0.1}}}))


def test_data_network_and_steps_follow(experiment: Experiment, tmp_path: Path) -> None:
    path = tmp_path / "shapes.safetensors"
    prepare("shapes", "not used", False, path)
    run = next(run for run in experiment.of_dataset("shapes") if run.optimizer == "mine")
    parameters = experiment.train_parameters(run)
    dataset, samples, _ = load_samples(str(path), parameters["scaling"], torch.device("cpu"))
    model = build_model(dataset, parameters["model"], 0, torch.device("cpu"))
    assert [type(layer).__name__ for layer in model] == ["Linear", "Sine", "Linear", "Sine", "Linear"]
    assert sum(p.numel() for p in model.parameters()) == parameters["identity"]["n_parameters"]
    check_optimizer_is_made("optimizers.mine", parameters["optimizer"])
    flat = FlatParameters(model)
    gradient, step, before = batch_gradient(flat), OptimizerStep.of(flat, parameters["optimizer"]), flatten(model)
    gradient(samples.inputs, samples.targets)
    expected = torch.autograd.grad(
        nn.functional.cross_entropy(model(samples.inputs), samples.targets), list(model.parameters())
    )
    step(lambda: None)
    signs = torch.cat([each.sign().reshape(-1) for each in expected])
    torch.testing.assert_close(flatten(model), before / 2 - 0.01 * signs, rtol=1e-6, atol=1e-7)
    operator = HessianOperator(model, nn.functional.cross_entropy, samples.inputs, samples.targets)
    assert operator.shape == (flat.vector.numel(),) * 2


def test_the_figure_is_drawn_from_its_tables(experiment: Experiment, tmp_path: Path) -> None:
    assert table_paths(experiment, "baseline", [{"datasets": "last"}]) == ["baseline/shapes.csv"]
    table = str(tmp_path / "shapes.csv")
    frame = pd.DataFrame({"mean_overlap": [0.25]})
    write_table(table, frame, kind="baseline", identity={"dataset": "shapes"}, units={"mean_overlap": "1"})
    figure, tables = drawing("S9", experiment.settings), SimpleNamespace(baseline=[table])
    found = draw(figure, tables, Layout(**experiment.layout()))
    assert found.numbers.to_dict("records") == [{"dataset": "shapes", "mean_overlap": 0.25}]
    assert sources(figure, tables)["drawn_by"] == "outside_for_tests.pictures.overlaps"


def test_an_edit_outside_starts_again_what_depends_on_it(experiment: Experiment) -> None:
    def files(script: str, *modules: str) -> list[str]:
        return [Path(path).name for path in library_files(SCRIPTS / f"{script}.py", *modules)]

    assert "shapes.py" in files("prepare_data", *loader_modules())
    assert "embedded.py" in files("prepare_data", *loader_modules())
    assert "pictures.py" in files("draw_figure", drawn_by("S9"))
    runs = {run.optimizer: run for run in experiment.of_dataset("shapes")}
    assert [Path(path).name for path in experiment.optimizer_sources(runs["mine"])] == ["steps.py"]
    assert experiment.optimizer_sources(runs["sam"]) == []


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("wrong", [{"samples": 47}, {"image_shape": (3, 2)}, {"image_shape": (7,)}, {"classes": 10}])
def test_a_record_that_is_wrong_of_its_data_is_refused(
    wrong: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "shapes", DatasetRecord(**{**vars(RECORD), **wrong}))  # type: ignore[arg-type]
    with refused(DataError, "shapes", "experiment/datasets.py"):
        prepare("shapes", "not used", False, tmp_path / "shapes.safetensors")


def test_a_record_has_one_source() -> None:
    for wrong in ({"loader": ""}, {"files": DATASETS["MNIST"].files}):
        with refused(ValueError, "shapes", "files", "loader"):
            DatasetRecord(**{**vars(RECORD), **wrong})


def naming(name: str) -> set[str]:
    """The sources, schema among them, in which a text is this name; without what the paper says of its data sets."""
    reproduction = SCRIPTS / "reproduction"
    others = (
        "figures/sensitivity",
        "experiment/paper_numbers",
        "publication/quoted_numbers",
        "publication/reproduction_page",
    )
    papers = {*(reproduction / "claims").glob("*.py"), *(reproduction / f"{name}.py" for name in others)}
    found = {path.name for path in set(SCRIPTS.rglob("*.py")) - papers if name in texts(path)}
    return found | ({SCHEMA.name} if f"'{name}'" in schema_text() else set())


@cache
def texts(path: Path) -> frozenset[str]:
    """The texts in a source."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


@cache
def schema_text() -> str:
    """The schema as Python shows it."""
    return str(yaml.safe_load(SCHEMA.read_text(encoding="utf-8")))


def test_names_stand_in_their_record_alone() -> None:
    for name in ("MNIST", "FashionMNIST"):
        assert naming(name) == {"datasets.py"}
    # The loader says whose its arrays are.
    assert naming("digits_noisy") == {"datasets.py", "embedded.py"}
    for name in set(ACTIVATIONS) - {"relu"}:
        assert naming(name) == {"architecture.py"}, name
    for table in TABLES.values():
        assert naming(table.path) == naming(table.content) == {"table_catalogue.py"}
    for entry in SUPPLEMENT.values():
        assert naming(entry["title"]) == {"figure_catalogue.py"}
