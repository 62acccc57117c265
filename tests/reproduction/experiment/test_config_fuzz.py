"""Hostile configurations: each is either valid, and can then be enumerated, or refused in one line."""

import json
import re
from typing import Any

import hypothesis.strategies as st
from experiments import overlaid
from hypothesis import HealthCheck, given, settings
from overlay_strategies import overlays

from reproduction.errors import ConfigError
from reproduction.experiment.config import MAX_SNAPSHOTS, validate
from reproduction.experiment.resources import JobResources
from reproduction.experiment.runs import Experiment
from reproduction.experiment.schedule import two_time_pairs


@given(st.lists(overlays(), min_size=1, max_size=4))
@settings(max_examples=500, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def hostile(kinds: dict[str, int], changes: list[dict[Any, Any]]) -> None:
    config = overlaid(*changes)
    try:
        valid = validate(config)
    except ConfigError as error:
        message = str(error)
        assert message.startswith("config: ")
        assert len(message.splitlines()) == 1
        assert message.isprintable()
        assert len(message) < 3000
        kinds["refused"] += 1
        return
    kinds["valid"] += 1
    assert validate(valid) == valid
    enumerate_all(valid)


def enumerate_all(config: dict[str, Any]) -> None:
    """All that the rules ask of a configuration when the DAG is built."""
    experiment = Experiment(config)
    resources = JobResources(experiment)
    runs = list(experiment)
    assert len({run.folder for run in runs}) == len(runs) > 0
    for run in runs:
        assert re.fullmatch(r"[A-Za-z0-9_]+/[A-Za-z0-9_]+/[A-Za-z0-9_.-]+/seed\d+", run.folder)
    # One of each (dataset, variant), the dense one among them: the others differ in seed or optimizer alone.
    for run in {(run.dataset, run.variant, run.seed == config["eigen"]["dense_seed"]): run for run in runs}.values():
        steps = experiment.snapshots(run)
        assert steps[0] == 0
        assert len(steps) <= MAX_SNAPSHOTS
        assert {tw + lag for tw, lag in two_time_pairs(**experiment.two_time(run))} <= set(steps)
        assert experiment.chunks(run) >= 1
        json.dumps([experiment.train_parameters(run), experiment.eigen_parameters(run)], allow_nan=False)
        amounts = (
            resources.train_megabytes,
            resources.train_minutes,
            resources.eigen_megabytes,
            resources.eigen_minutes,
        )
        assert all(amount(run) > 0 for amount in (*amounts, resources.metric_megabytes))
    for dataset in experiment.datasets():
        amounts_of = (resources.baseline_megabytes, resources.baseline_minutes, resources.interpolation_minutes)
        assert all(amount(dataset) > 0 for amount in amounts_of)
        assert experiment.of_dataset(dataset)
    json.dumps([experiment.baseline_parameters(), experiment.interpolation_parameters()], allow_nan=False)
    assert experiment.scale()["runs"] == len(runs)
    assert experiment.layout()["k"] == config["eigen"]["k"]


def test_hostile_configurations_are_valid_or_refused_in_one_line() -> None:
    kinds = {"valid": 0, "refused": 0}
    hostile(kinds)
    assert sum(kinds.values()) >= 300
    # Neither branch is empty.
    assert min(kinds.values()) > 50
