"""What an experiment will take: counts and bytes exactly, time in proportion to the work."""

import dataclasses

import pytest
import torch
from experiments import REPOSITORY, overlaid, read

from reproduction.experiment.config import validate
from reproduction.experiment.runs import Experiment
from reproduction.planning.cost_model import Measured, products
from reproduction.planning.plan import make_plan, measure


def experiment(*names: str, **changes: object) -> Experiment:
    return Experiment(validate(overlaid(*(read(name) for name in names), changes)))


def costs(scale: float = 1.0) -> Measured:
    names = ("digits", "digits_noisy", "MNIST", "FashionMNIST")
    steps = {(name, optimizer): scale * 1e-3 for name in names for optimizer in ("sgd", "adam", "sam")}
    return Measured(dict.fromkeys(names, scale * 6e-06), steps)


def test_the_papers_plan_counts_its_runs_snapshots_and_bytes() -> None:
    paper = experiment("config/paper.yaml")
    plan = make_plan(paper, costs())
    assert plan.runs == 30 + 63
    assert plan.snapshots >= 30 * 1584
    # The dense seed has 15 pairs on the grid and 3 at the lags between.
    main = 4 * 89_720 * (30 * 1584 * 3 + 24 * 1584 * 3 + 6 * (1001 * 15 + 583 * 3))
    sweeps = sum(4 * 89_720 * 6 * len(paper.snapshots(run)) for run in paper if run.variant != "main")
    assert plan.disk == main + sweeps


def test_the_supplement_is_planned_apart() -> None:
    own = experiment("config/cpu.yaml")
    runs, seconds = make_plan(own, costs()).supplement
    # Six variants beside the main runs, on two data sets, under two optimizers, with two seeds.
    assert runs == 6 * 2 * 2 * 2
    assert seconds > runs * 100_000 * 1e-3
    assert make_plan(experiment(), costs()).supplement[0] == 0


def test_time_is_proportional_to_the_machines_costs() -> None:
    own = experiment("config/cpu.yaml")
    one, two = make_plan(own, costs()), make_plan(own, costs(2.0))
    assert two.seconds == pytest.approx({rule: 2 * seconds for rule, seconds in one.seconds.items()})
    assert one.seconds["train"] > 18 * 100_000 * 1e-3


def test_tighter_and_more_pairs_take_more_products() -> None:
    assert products(3, 1e-3, 60_000) < products(3, 1e-3, 1000) < products(15, 1e-3, 1000) < products(15, 1e-6, 1000)
    assert products(3, 1e-5, 60_000) == products(3, 1e-5, 1000)
    assert products(3, 1e-6, 1000) > 2 * products(3, 1e-5, 1000)


def test_jobs_share_the_work_and_lines_say_so() -> None:
    plan = make_plan(experiment(), costs())
    total = sum(plan.seconds.values())
    hours = dataclasses.replace(plan, seconds={rule: 6000 * seconds / total for rule, seconds in plan.seconds.items()})
    (one,), (four,) = ([line for line in hours.lines(jobs) if "in all" in line] for jobs in (1, 4))
    assert "1.7 h" in one
    assert "25 min" in four


def test_jobs_that_share_a_gpu_take_turns_and_need_their_memory_together() -> None:
    plan = make_plan(experiment("config/paper.yaml"), costs())
    assert 1000 < plan.gpu_megabytes < 5000
    alone, shared = (list(plan.lines_on_gpus(2, jobs)) for jobs in (1, 4))
    (one,), (two,) = ([line for line in lines if "in all" in line] for lines in (list(plan.lines(2)), shared))
    assert one == two
    assert alone[-1] == f"GPU        at most {plan.gpu_megabytes / 1e3:.1f} GB of its memory a job, " + (
        f"{plan.gpu_megabytes / 1e3:.1f} GB with 1 at once"
    )
    assert f"{4 * plan.gpu_megabytes / 1e3:.1f} GB with 4 at once" in shared[-1]
    file = (REPOSITORY / "config" / "paper.yaml").read_text(encoding="utf-8")
    assert f"Four need up to {4 * plan.gpu_megabytes / 1e3:.1f} GB" in file
    assert read("config/paper.yaml")["training"]["jobs_per_gpu"] == 4
    # More of them have their arrays on the disk at one time.
    assert [line for line in alone if line.startswith("disk")] != [line for line in shared if line.startswith("disk")]


def test_costs_are_measured_for_every_data_set_and_optimizer() -> None:
    own = experiment()
    measured = measure(own, torch.device("cpu"))
    assert set(measured.products) == {"digits", "digits_noisy"}
    assert set(measured.steps) == {(d, o) for d in measured.products for o in ("sgd", "adam", "sam")}
    assert all(0 < value < 1 for value in (*measured.products.values(), *measured.steps.values()))
