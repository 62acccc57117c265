"""Runs that a Tracker recorded: what is read of a folder, its points, and which figures do not apply."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from experiments import pinned
from refusals import refused
from torch import nn

from eigendrift import Tracker
from eigendrift.tracking.trajectory import Trajectory
from reproduction.errors import ConfigError, DataError
from reproduction.experiment import asking
from reproduction.experiment.config import validate
from reproduction.experiment.figure_catalogue import FIGURES, drawing, entry
from reproduction.experiment.labels import Layout
from reproduction.experiment.recorded import RecordedExperiment, experiment_of, read
from reproduction.experiment.resources import JobResources
from reproduction.experiment.runs import Experiment
from reproduction.experiment.schedule import two_time_pairs
from reproduction.figures.draw import draw
from reproduction.measure import recorded
from reproduction.measure.problem import problem_of

PROBLEM = """
import torch
from torch import nn
from eigendrift import HessianOperator

def network():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))

def data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(40, 3, generator=generator), torch.arange(40) % 2

def hessian():
    return HessianOperator(network().eval(), nn.CrossEntropyLoss(), *data())

def always_the_same():
    torch.manual_seed(4)
    return hessian()

def smaller():
    return HessianOperator(nn.Linear(3, 2), nn.CrossEntropyLoss(), *data())
"""


@pytest.fixture
def problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    # What a process of its own would answer, without its start.
    monkeypatch.setattr(asking, "ask", lambda _, asked: described(json.loads(asked)))
    (tmp_path / "problem.py").write_text(PROBLEM, encoding="utf-8")
    return "problem.py:hessian"


def described(asked: dict[str, Any]) -> dict[str, Any]:
    try:
        return recorded._describe(asked["problem"], asked["folders"])
    except (ConfigError, ValueError) as error:
        return {"refused": str(error)}


def train(folder: str, seed: int = 0, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with Tracker(model, folder, every=4, quiet=True, **options).attach(optimizer):
        for _ in range(13):
            inputs = torch.randn(16, 3)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), (inputs[:, 0] > 0).long()).backward()
            optimizer.step()
    return model


def experiment(problem: str, *names: str) -> Experiment:
    trajectories = {name: {"folder": name, "problem": problem} for name in names}
    return experiment_of(validate(pinned({"trajectories": trajectories, "eigen": {"k": 2, "dense_k": 3}})))


def test_runs_follow_from_the_folders(problem: str) -> None:
    train("sgd")
    train("other", seed=1)
    found = experiment(problem, "sgd", "other")
    assert isinstance(found, RecordedExperiment)
    assert [run.folder for run in found] == ["recorded/sgd/main/seed0", "recorded/other/main/seed0"]
    # Step 13, of the final weights, has neither gradient nor update.
    assert [found.snapshots(run) for run in found] == [[0, 4, 8, 12]] * 2
    run = found.select()[0]
    n = 3 * 4 + 4 + 4 + 4 + 4 * 2 + 2
    assert found.n_parameters("recorded") == found.identity(run)["n_parameters"] == n
    assert found.identity(run)["learning_rate"] == 0.5
    assert found.schedule(run)["every"] == 4
    assert found.roles() == {"sgd": "sgd"}
    assert found.layout()["optimizers"] == {"sgd": "sgd", "other": "other"}
    assert [Path(file).name for file in found.model_sources()] == ["problem.py"]
    assert {Path(file).name for file in found.recorded_files(run)} == {
        *("trajectory.json", "index.jsonl", "weights.bin", "gradients.bin", "updates.bin", "state.bin")
    }
    resources = JobResources(found)
    assert resources.train_minutes(run) >= 10
    assert resources.eigen_megabytes(run) > 1500
    assert found.recorded()["trajectories"]["sgd"] == {"folder": "sgd", "problem": problem}
    # What plans, keeps and publishes knows trained runs only.
    for config in (found.recorded(), found.config):
        with refused(ConfigError, "trajectories"):
            Experiment(config)


def test_points_are_weights_with_the_buffers_of_their_snapshot(problem: str) -> None:
    train("sgd")
    own = Trajectory("sgd")
    found = problem_of(SimpleNamespace(), {"problem": problem, "folder": "sgd"}, torch.device("cpu"))
    point = found.points([4, 12], own.weights)
    for row, step in enumerate((1, 3)):
        torch.testing.assert_close(point(row), torch.from_numpy(np.array(own.weights[step])), rtol=0, atol=0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).eval()
        nn.utils.vector_to_parameters(torch.from_numpy(np.array(own.weights[step])), model.parameters())
        model.load_state_dict(own.state(step), strict=False)
        generator = torch.Generator().manual_seed(1)
        expected = nn.functional.cross_entropy(model(torch.randn(40, 3, generator=generator)), torch.arange(40) % 2)
        assert found.operator.loss == pytest.approx(float(expected.detach()), rel=1e-6)
    # A folder that has been recorded anew since.
    with refused(DataError, 5, "sgd"):
        found.points([5], own.weights)


def test_initializations_are_those_of_the_problem_under_other_seeds(problem: str) -> None:
    fresh = recorded.initialization(problem)
    assert fresh is not None
    assert torch.equal(fresh(3), fresh(3))
    assert not torch.equal(fresh(3), fresh(4))
    assert recorded.initialization("problem.py:always_the_same") is None


def test_figures_that_do_not_apply_are_pages_with_the_reason(problem: str) -> None:
    train("sgd", record=("weights", "buffers"))
    found = experiment(problem, "sgd")
    # Without gradients and updates the final weights are a snapshot like any other.
    assert found.snapshots(found.select()[0]) == [0, 4, 8, 12, 13]
    reasons = {number: found.missing(entry(number).get("needs", ())) for number in FIGURES}
    applies = {number for number, reason in reasons.items() if reason is None}
    assert applies == {1, 3, 4, 6, 7, 9, 10, 11, 15, 16}
    page = drawing(2, found.settings, reasons[2])
    shown = draw(page, SimpleNamespace(), Layout(**found.layout()))
    assert shown.numbers["reason"].tolist() == [reasons[2]]
    (text,) = shown.figure.axes[0].texts
    assert reasons[2] in " ".join(text.get_text().split())
    shown.figure.draw_without_rendering()
    box = text.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= shown.figure.bbox.width
    assert 0 <= box.y0 < box.y1 <= shown.figure.bbox.height


def test_all_figures_apply_to_what_is_trained() -> None:
    trained = experiment_of(validate(pinned()))
    for number in FIGURES:
        assert trained.missing(entry(number).get("needs", ())) is None
        assert "reason" not in drawing(number, trained.settings)["options"]


def test_a_folder_without_its_buffers_or_its_end_is_refused(problem: str) -> None:
    train("sgd", record=("weights",))
    with refused(ConfigError, "trajectories.sgd.folder", "1.running_mean"):
        read("sgd", {"folder": "sgd", "problem": problem})
    train("short")
    index = Path("short") / "index.jsonl"
    index.write_text(index.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    with refused(ConfigError, "trajectories.short.folder", "1 snapshot"):
        read("short", {"folder": "short", "problem": problem})


def test_problems_of_another_model_and_several_problems_are_refused(problem: str) -> None:
    train("sgd")
    train("other")
    with refused(ConfigError, "trajectories.sgd.problem", "8 parameters", "34"):
        experiment("problem.py:smaller", "sgd")
    two = {
        name: {"folder": name, "problem": f"problem.py:{made}"}
        for name, made in (("sgd", "hessian"), ("other", "data"))
    }
    with refused(ConfigError, "trajectories.", "problem", "configuration of its own"):
        experiment_of(validate(pinned({"trajectories": two})))
    with refused(ConfigError, "eigen.dense_k", 40, 34):
        entry = {"sgd": {"folder": "sgd", "problem": problem}}
        experiment_of(validate(pinned({"trajectories": entry, "eigen": {"dense_k": 40}})))


def test_waiting_times_and_lags_are_those_of_the_recorded_steps() -> None:
    steps = [0, 10, 20, 40, 80, 85]
    pairs = two_time_pairs(85, [0, 15, 80, 85, 1000], 2, recorded=steps)
    # Lags 1, 3, 10, 32 and the longest, each at the first snapshot that is not earlier.
    assert pairs == [(0, 10), (0, 40), (0, 85), (20, 20), (20, 60), (20, 65), (80, 5)]
    assert all(start in steps and start + lag in steps for start, lag in pairs)
