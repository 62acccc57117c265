"""What jobs ask a cluster for: never less than the arrays they hold, more for more work, and not absurdly more."""

import os
from typing import Any

import pytest
from experiments import overlaid, read

from reproduction.experiment.config import validate
from reproduction.experiment.datasets import DATASETS
from reproduction.experiment.resources import TORCH_MB, JobResources, gpus
from reproduction.experiment.runs import Experiment, Run

MAIN = Run("digits", "sgd", "main", 0)
PAPER_RUN = Run("MNIST", "sgd", "main", 0)


def resources(*overlays: dict[str, Any]) -> JobResources:
    return JobResources(Experiment(validate(overlaid(*overlays))))


def megabytes(rows: int, n_parameters: int) -> float:
    """Rows of float32 parameter vectors."""
    return 4 * rows * n_parameters / 1e6


@pytest.fixture(scope="module")
def paper() -> JobResources:
    return resources(read("config/paper.yaml"))


def test_training_holds_three_rows_a_snapshot_and_the_data(paper: JobResources) -> None:
    samples, inputs = DATASETS["MNIST"].samples, DATASETS["MNIST"].inputs
    arrays = megabytes(3 * 1584, 89_720) + 1.16 * 4 * samples * inputs / 1e6
    assert arrays + TORCH_MB < paper.train_megabytes(PAPER_RUN) < 3 * arrays + TORCH_MB


def test_eigenpairs_hold_the_weights_a_chunks_vectors_and_the_basis(paper: JobResources) -> None:
    # 200 snapshots a job, 15 pairs each for the dense seed; the solver's basis and its products, 2 (2 k + 40).
    dense = megabytes(1584 + 200 * 15 + 2 * (2 * 15 + 40), 89_720)
    assert dense + TORCH_MB < paper.eigen_megabytes(PAPER_RUN) < 3 * dense + TORCH_MB
    assert paper.eigen_megabytes(Run("MNIST", "sgd", "main", 1)) < paper.eigen_megabytes(PAPER_RUN)


@pytest.mark.parametrize("per_job", [10, 200, 400, 5000])
def test_metrics_hold_what_they_read(per_job: int) -> None:
    own = resources(read("config/paper.yaml"), {"eigen": {"snapshots_per_job": per_job}})
    chunk = min(per_job, 1584) * 15
    # displacement: three pairs of all snapshots, gathered and then joined, or gathered beside one whole chunk
    gathered = 1584 * 3
    assert own.metric_megabytes(PAPER_RUN) > megabytes(1584 + max(2 * gathered, gathered + chunk), 89_720)
    # alignment: gradients and updates, with one chunk still there while the next is read
    assert own.metric_megabytes(PAPER_RUN) > megabytes(2 * 1584 + 2 * chunk, 89_720)


def test_the_baseline_holds_every_initializations_vectors(paper: JobResources) -> None:
    vectors = megabytes(3 * 100, 89_720)
    assert vectors + TORCH_MB < paper.baseline_megabytes("MNIST") < 10 * vectors + TORCH_MB


@pytest.mark.parametrize(
    ("overlay", "amount"),
    [
        ({"training": {"steps": 200_000}}, "train_minutes"),
        ({"training": {"steps": 200_000}}, "train_megabytes"),
        ({"training": {"batch_size": 60_000}}, "train_minutes"),
        ({"model": {"hidden": [1000, 1000]}}, "train_minutes"),
        ({"model": {"hidden": [1000, 1000]}}, "train_megabytes"),
        ({"model": {"hidden": [1000, 1000]}}, "eigen_minutes"),
        ({"model": {"hidden": [1000, 1000]}}, "eigen_megabytes"),
        ({"eigen": {"dense_k": 30}}, "eigen_minutes"),
        ({"eigen": {"dense_k": 30}}, "eigen_megabytes"),
        ({"eigen": {"snapshots_per_job": 400}}, "eigen_minutes"),
        ({"eigen": {"snapshots_per_job": 400}}, "eigen_megabytes"),
        ({"eigen": {"snapshots_per_job": 400}, "snapshots": {"every": 10}}, "metric_megabytes"),
    ],
)
def test_more_work_asks_for_more(paper: JobResources, overlay: dict[str, Any], amount: str) -> None:
    larger = resources(read("config/paper.yaml"), overlay)
    before, after = getattr(paper, amount)(PAPER_RUN), getattr(larger, amount)(PAPER_RUN)
    assert isinstance(after, int)
    assert after > before


@pytest.mark.parametrize(
    ("overlay", "amount"),
    [
        ({"baseline": {"initializations": 1000}}, "baseline_minutes"),
        ({"baseline": {"initializations": 1000}}, "baseline_megabytes"),
        ({"eigen": {"k": 10}}, "baseline_minutes"),
        ({"interpolation": {"points": 5000}}, "interpolation_minutes"),
        ({"interpolation": {"epsilon": [1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2]}}, "interpolation_minutes"),
        ({"model": {"hidden": [1000, 1000]}}, "interpolation_minutes"),
    ],
)
def test_more_work_on_a_dataset_asks_for_more(paper: JobResources, overlay: dict[str, Any], amount: str) -> None:
    larger = resources(read("config/paper.yaml"), overlay)
    assert getattr(larger, amount)("MNIST") > getattr(paper, amount)("MNIST")


def test_minutes_are_enough_for_what_was_measured(paper: JobResources) -> None:
    """Two slow cores: 1.06 ms a step, 0.24 s a product, up to 21 products for three pairs at a snapshot (1e-3)."""
    assert paper.train_minutes(PAPER_RUN) > 1.06e-3 * 100_000 / 60
    assert paper.eigen_minutes(Run("MNIST", "sgd", "main", 1)) > 200 * 21 * 0.24 / 60
    assert paper.baseline_minutes("MNIST") > 100 * 21 * 0.24 / 60


def test_a_gpu_needs_less_time(paper: JobResources) -> None:
    on_gpu = resources(read("config/paper.yaml"), {"training": {"device": "cuda"}})
    dense = Run("MNIST", "adam", "main", 0)
    # Two such chunks in one job end within the day that many partitions allow.
    assert 2 * on_gpu.eigen_minutes(dense) < 24 * 60 < 2 * paper.eigen_minutes(dense)
    assert on_gpu.train_minutes(PAPER_RUN) < paper.train_minutes(PAPER_RUN)


def test_the_demos_jobs_fit_a_small_machine() -> None:
    demo = resources()
    jobs = list(demo.experiment)
    for amount in (demo.train_megabytes, demo.eigen_megabytes, demo.metric_megabytes):
        assert max(map(amount, jobs)) < 4000
    assert max(map(demo.train_minutes, jobs)) <= 15


@pytest.mark.parametrize(
    ("device", "present", "expected"),
    [("cuda", False, 1), ("cuda", True, 1), ("auto", True, 1), ("auto", False, 0), ("cpu", True, 0), ("cpu", False, 0)],
)
def test_gpus(monkeypatch: pytest.MonkeyPatch, device: str, present: bool, expected: int) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: present)
    assert gpus(device) == expected


def test_kept_graphs_have_room_where_there_is_no_analytic_path(paper: JobResources) -> None:
    from eigendrift.hessian.autograd import GRAPH_BYTES

    general = resources(read("config/paper.yaml"), {"model": {"activation": "gelu"}})
    assert general.eigen_megabytes(PAPER_RUN) - paper.eigen_megabytes(PAPER_RUN) > GRAPH_BYTES / 1e6
    assert general.baseline_megabytes("MNIST") - paper.baseline_megabytes("MNIST") > GRAPH_BYTES / 1e6


def test_activations_without_an_analytic_path_are_known() -> None:
    from eigendrift.fully_connected import ACTIVATIONS as ANALYTIC
    from reproduction.experiment.architecture import ACTIVATIONS
    from reproduction.experiment.importable import load

    assert {name for name, record in ACTIVATIONS.items() if load(record.module) in ANALYTIC} == {
        name for name, record in ACTIVATIONS.items() if record.by_hand
    }
