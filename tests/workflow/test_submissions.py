"""What the SLURM profile would submit of the paper's experiment, from a dry-run."""

import re
from collections import Counter
from pathlib import Path

import pytest
from experiments import FIGURE_NAMES, TABLE_RULES, overlaid
from experiments import read as read_yaml
from pages import marked, read, rows
from snakemake_process import run_snakemake

from reproduction.experiment.config import validate
from reproduction.experiment.runs import Experiment, Run
from reproduction.planning.cost_model import Assumed, Durations
from reproduction.planning.scale_out import MACHINES, Model, components

# Faster than any GPU in use: what a job takes is then little more than its start.
FAST = Assumed(flops=1e14, launches=1e-4, pair=2e-3)

# Name, and of each job its rule, its wildcards and its resources.
Submission = tuple[str, list[tuple[str, dict[str, str]]]]


@pytest.fixture(scope="module")
def submissions(clean_checkout: Path) -> list[Submission]:
    """What is submitted."""
    # A key on the command line changes nothing in what the profile says.
    arguments = ("-n", "--profile", "profiles/slurm", "--configfile", "config/paper.yaml", "--config", "name=paper")
    output = run_snakemake(clean_checkout, *arguments).output
    found: list[Submission] = []
    for line in output.splitlines():
        # A group's jobs are indented under its name.
        if group := re.match(r"\[.*\] Group job (\w+)", line):
            found.append((group[1], []))
        elif rule := re.match(r"rule (\w+):", line):
            found.append((rule[1], [(rule[1], {})]))
        elif rule := re.match(r" +rule (\w+):", line):
            found[-1][1].append((rule[1], {}))
        elif described := re.match(r" +(?:wildcards|resources): (.+)", line):
            found[-1][1][-1][1].update(pair.split("=", 1) for pair in described[1].split(", "))
    return [(name, jobs) for name, jobs in found if name not in ("all", "prepare_data")]


@pytest.fixture(scope="module")
def paper() -> Experiment:
    return Experiment(validate(overlaid(read_yaml("config/paper.yaml"))))


def test_the_paper_takes_fewer_than_four_hundred_submissions(submissions: list[Submission], paper: Experiment) -> None:
    assert len(submissions) < 400
    rules = Counter(rule for _, jobs in submissions for rule, _ in jobs)
    assert rules["train"] == rules["ipr"] == len(list(paper))
    assert rules["eigensnapshot"] == sum(map(paper.chunks, paper))
    assert rules["baseline"] == rules["interpolation"] == 2
    assert sum(count for rule, count in rules.items() if rule.startswith("fig")) == len(FIGURE_NAMES) + 1


def test_computing_jobs_fail_without_the_profiles_device(submissions: list[Submission]) -> None:
    devices = {rule: job.get("device") for _, jobs in submissions for rule, job in jobs}
    assert {rule for rule, device in devices.items() if device} == {
        "train",
        "eigensnapshot",
        "baseline",
        "interpolation",
    }
    assert set(devices.values()) == {"cuda", None}


def seconds(rule: str, wildcards: dict[str, str], durations: Durations) -> float:
    """What a job takes by the model."""
    if rule in TABLE_RULES:
        return FAST.table
    if rule.startswith("fig") or rule == "claims":
        return FAST.figure
    if rule in ("baseline", "interpolation"):
        return durations.baseline(wildcards["dataset"])
    run = Run(wildcards["dataset"], wildcards["optimizer"], wildcards["variant"], int(wildcards["seed"]))
    return durations.train(run) if rule == "train" else durations.chunks(run)[int(wildcards["chunk"])]


def test_no_submission_is_shorter_than_a_minute(submissions: list[Submission], paper: Experiment) -> None:
    durations = Durations(paper, FAST)
    for name, jobs in submissions:
        assert sum(seconds(*job, durations) for job in jobs) >= 60, (name, jobs)


def test_the_page_on_scale_says_what_is_submitted(submissions: list[Submission]) -> None:
    page = read("docs/scale.md")
    assert int(marked(page, "jobs")) == sum(len(jobs) for _, jobs in submissions)
    assert int(marked(page, "submissions")) == len(submissions)
    counts, sizes = Counter(name for name, _ in submissions), {name: len(jobs) for name, jobs in submissions}
    shown = rows(marked(page, "submitted"))
    named = dict(zip(("trainings", "chunks", "networks", "tables", "report"), shown, strict=True))
    assert {name: int(row[2]) for name, row in named.items()} == counts
    assert {name: int(row[1]) for name, row in named.items()} == sizes


def test_the_page_on_scale_shows_what_the_model_gives(paper: Experiment, root: Path) -> None:
    model = Model(paper, Assumed(), components(root / "profiles" / "slurm" / "config.yaml"))
    assert marked(read("docs/scale.md"), "model").splitlines() == list(model.lines((1, 4, 8, 16, 64)))
    assert marked(read("docs/scale.md"), "machine").splitlines() == model.machine_lines(MACHINES)
    assert f"takes {Assumed().forked_start:.0f} s before it computes" in read("docs/scale.md").replace("\n", " ")


def test_sharing_a_gpu_saves_what_jobs_wait_and_nothing_that_they_compute(paper: Experiment, root: Path) -> None:
    model = Model(paper, Assumed(), components(root / "profiles" / "slurm" / "config.yaml"))
    alone, shared, four = (model.on_one_machine(*machine) for machine in MACHINES)
    assert alone.busy == shared.busy == four.busy < shared.hours < alone.hours
    jobs = len(list(paper)) + sum(map(paper.chunks, paper))
    assert 3600 * (alone.hours - shared.hours) == pytest.approx(0.75 * jobs * Assumed().forked_start)
    assert shared.hours / 4 < four.hours < shared.hours / 3
