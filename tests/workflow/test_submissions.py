"""What the SLURM profile would submit of the paper's experiment, from a dry-run."""

import re
from collections import Counter
from pathlib import Path

import pytest
from experiments import overlaid, read
from snakemake_process import run_snakemake

from reproduction.experiment.config import validate
from reproduction.experiment.runs import Experiment, Run
from reproduction.planning.scale_out import Durations, Model, Speed, components

# Faster than any GPU in use: what a job takes is then little more than its start.
FAST = Speed(flops=1e14, step=1e-4, pair=2e-3)

TABLES = ("displacement", "ipr", "alignment", "identity", "localization", "stability")
Submission = tuple[str, list[tuple[str, dict[str, str]]]]


@pytest.fixture(scope="module")
def submissions(clean_checkout: Path) -> list[Submission]:
    """Name, and rule and wildcards of each job, of what is submitted."""
    arguments = ("-n", "--profile", "profiles/slurm", "--configfile", "config/paper.yaml")
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
        elif wildcards := re.match(r" +wildcards: (.+)", line):
            found[-1][1][-1][1].update(pair.split("=", 1) for pair in wildcards[1].split(", "))
    return [(name, jobs) for name, jobs in found if name not in ("all", "prepare_data")]


@pytest.fixture(scope="module")
def paper() -> Experiment:
    return Experiment(validate(overlaid(read("config/paper.yaml"))))


def test_the_paper_takes_fewer_than_four_hundred_submissions(submissions: list[Submission], paper: Experiment) -> None:
    assert len(submissions) < 400
    rules = Counter(rule for _, jobs in submissions for rule, _ in jobs)
    assert rules["train"] == rules["ipr"] == len(list(paper))
    assert rules["eigensnapshot"] == sum(map(paper.chunks, paper))
    assert rules["baseline"] == rules["interpolation"] == 2
    assert sum(count for rule, count in rules.items() if rule.startswith("fig")) == 22


def seconds(rule: str, wildcards: dict[str, str], durations: Durations) -> float:
    """What a job takes by the model."""
    if rule in TABLES:
        return durations.speed.table
    if rule.startswith("fig") or rule == "claims":
        return durations.speed.figure
    if rule in ("baseline", "interpolation"):
        return durations.baseline(wildcards["dataset"])
    run = Run(wildcards["dataset"], wildcards["optimizer"], wildcards["variant"], int(wildcards["seed"]))
    return durations.train(run) if rule == "train" else durations.chunks(run)[int(wildcards["chunk"])]


def test_no_submission_is_shorter_than_a_minute(submissions: list[Submission], paper: Experiment) -> None:
    durations = Durations(paper, FAST)
    for name, jobs in submissions:
        assert sum(seconds(*job, durations) for job in jobs) >= 60, (name, jobs)


def test_the_page_on_scale_says_what_is_submitted(submissions: list[Submission], root: Path) -> None:
    page = (root / "docs" / "scale.md").read_text(encoding="utf-8")
    jobs = sum(len(jobs) for _, jobs in submissions)
    assert f"plans {jobs} jobs" in page
    assert f"in {len(submissions)} submissions" in page
    counts, sizes = Counter(name for name, _ in submissions), {name: len(jobs) for name, jobs in submissions}
    named = dict(zip(("trainings", "chunks", "networks", "tables", "report"), table(page, 0), strict=True))
    assert {name: int(row[2]) for name, row in named.items()} == counts
    assert {name: int(row[1]) for name, row in named.items()} == sizes


def test_page_and_readme_show_what_the_model_gives(
    submissions: list[Submission], paper: Experiment, root: Path
) -> None:
    page = (root / "docs" / "scale.md").read_text(encoding="utf-8")
    model = Model(Durations(paper, Speed()), components(root / "profiles" / "slurm" / "config.yaml"))
    assert "\n".join(model.lines((1, 4, 8, 16, 64))) in page
    one, eight, many = (f"{model.on(gpus).hours:.1f}" for gpus in (1, 8, 64))
    readme = " ".join((root / "README.md").read_text(encoding="utf-8").split())
    assert f"the paper's {sum(len(jobs) for _, jobs in submissions)} jobs are {len(submissions)} submissions" in readme
    assert f"models {one} hours on one GPU like an A100, {eight} on eight and {many} on 64" in readme


def table(page: str, number: int) -> list[list[str]]:
    """The rows of a table of a page, without its head."""
    found = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)[number]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines()[2:]]
