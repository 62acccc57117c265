"""What the configurations plan, counted apart from the workflow's own code."""

import importlib
import math
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from experiments import FIGURE_NAMES, TABLE_RULES
from pages import commands, pages, read
from snakemake_process import Finished, planned_jobs, planned_rules, run_snakemake


def snapshots(steps: int, every: int, waiting_times: list[int], lags_per_decade: int) -> int:
    """Number of snapshots, from the words of config.yaml."""
    taken = {steps}
    taken |= {step for step in range(steps) if step % every == 0}
    for waiting_time in waiting_times:
        if waiting_time < steps:
            taken.add(waiting_time)
            lag, j = 1, 0
            while waiting_time + lag < steps:
                taken.add(waiting_time + lag)
                j += 1
                lag = round(10 ** (j / lags_per_decade))
    return len(taken)


def expected(config: dict[str, Any]) -> dict[str, int]:
    """Rule -> number of jobs, from the words of config.yaml."""
    sweeps, main_steps = config["sweeps"], config["training"]["steps"]
    datasets, seeds = len(config["datasets"]), len(config["training"]["seeds"])
    # Steps, runs an optimizer, schedule: the dense seed, the other seeds, the sweeps.
    kinds = [
        (main_steps, datasets, {**main_schedule(config), **config["snapshots"]["dense"]}),
        (main_steps, datasets * (seeds - 1), main_schedule(config)),
    ]
    for steps in (*sweeps["batch_size"].values(), *sweeps["learning_rate"].values()):
        every = max(1, round(sweeps["snapshots"]["every"] * steps / main_steps))
        kinds.append((steps, len(sweeps["seeds"]), {**sweeps["snapshots"], "every": every}))
    optimizers, at_once = len(config["optimizers"]), config["eigen"]["snapshots_per_job"]
    runs = optimizers * sum(count for _, count, _ in kinds)
    chunks = sum(optimizers * count * math.ceil(snapshots(steps, **block) / at_once) for steps, count, block in kinds)
    a_dataset = dict.fromkeys(("prepare_data", "baseline", "interpolation"), len(config["datasets"]))
    a_run = dict.fromkeys(("train", *TABLE_RULES), runs)
    return {
        **a_dataset,
        **a_run,
        "eigensnapshot": chunks,
        **dict.fromkeys(FIGURE_NAMES, 1),
        "claims": 1,
        "figure_set": 1,
    }


def main_schedule(config: dict[str, Any]) -> dict[str, Any]:
    """When the seeds but the dense one have snapshots."""
    return {key: value for key, value in config["snapshots"].items() if key != "dense"}


def merged(root: Path, *overlays: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((root / "config.yaml").read_text(encoding="utf-8"))
    for name in overlays:
        for key, value in yaml.safe_load((root / name).read_text(encoding="utf-8")).items():
            config[key] = merge(config[key], value)
    return config


def merge(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    keys = {**below, **above}
    return {key: merge(below.get(key), above[key]) if key in above else below[key] for key in keys}


@pytest.fixture(scope="module")
def paper_plan(clean_checkout: Path) -> Finished:
    return run_snakemake(clean_checkout, "-n", "--configfile", "config/paper.yaml")


def test_the_demos_plan(clean_checkout: Path, root: Path) -> None:
    finished = run_snakemake(clean_checkout, "-n")
    assert planned_rules(finished) == expected(merged(root))
    assert not (clean_checkout / "results").exists()


def test_the_papers_plan(paper_plan: Finished, root: Path) -> None:
    config = merged(root, "config/paper.yaml")
    counts = planned_rules(paper_plan)
    assert counts == expected(config)
    main = [job for job in planned_jobs(paper_plan) if job.rule == "train" and job.wildcards["variant"] == "main"]
    assert len(main) == 2 * 3 * 5
    assert counts["train"] == 30 + 3 * 3 * len({**config["sweeps"]["batch_size"], **config["sweeps"]["learning_rate"]})
    assert snapshots(config["training"]["steps"], **main_schedule(config)) == 1584


def test_the_plan_for_two_cores_keeps_what_the_figures_need(clean_checkout: Path, root: Path) -> None:
    config, paper = merged(root, "config/cpu.yaml"), merged(root, "config/paper.yaml")
    finished = run_snakemake(clean_checkout, "-n", "--configfile", "config/cpu.yaml")
    assert planned_rules(finished) == expected(config)
    # As its comments say.
    steps, dense = config["training"]["steps"], {**main_schedule(config), **config["snapshots"]["dense"]}
    assert snapshots(steps, **main_schedule(config)) == 413
    assert snapshots(steps, **dense) == 1584
    assert len(range(0, steps + 1, dense["every"] * config["eigen"]["dense_every"])) == 201
    assert config["snapshots"]["waiting_times"] == paper["snapshots"]["waiting_times"]
    # Sweeps are compared with the main runs at the same waiting times and lags.
    for shared in ("waiting_times", "lags_per_decade"):
        assert config["sweeps"]["snapshots"][shared] == config["snapshots"][shared]
    for same in ("datasets", "model", "optimizers"):
        assert config[same] == paper[same]
    assert config["baseline"]["initializations"] == paper["baseline"]["initializations"]
    assert config["training"]["steps"] == paper["training"]["steps"]
    assert config["training"]["seeds"] == paper["training"]["seeds"]
    assert "full" in config["sweeps"]["batch_size"]


def test_the_plan_is_reported_before_anything_starts(clean_checkout: Path) -> None:
    assert "runs" in run_snakemake(clean_checkout, "--cores", "1", "plan").output
    # Asked again, it reports again.
    finished = run_snakemake(clean_checkout, "--cores", "1", "plan")
    reported = re.findall(r"^(runs|snapshots|jobs|disk|tables|time) +(.*)$", finished.output, re.MULTILINE)
    assert [name for name, _ in reported] == ["runs", "snapshots", "jobs", "disk", "tables", *["time"] * 4]
    counts = planned_rules(run_snakemake(clean_checkout, "-n"))
    # The plan does not count the rule that only collects.
    assert dict(reported[:3])["runs"] == str(counts["train"])
    assert dict(reported[:3])["jobs"] == str(sum(counts.values()) - counts.get("all", 0))
    assert not any((clean_checkout / "results" / "demo").glob("runs/*"))


def test_the_papers_plan_takes_less_than_ten_seconds(paper_plan: Finished) -> None:
    # CPU seconds, which other work on the machine does not lengthen as it does wall seconds.
    assert paper_plan.cpu_seconds < 10


def test_a_figure_plans_only_what_it_needs(clean_checkout: Path) -> None:
    assert planned_rules(run_snakemake(clean_checkout, "-n", "fig07")) == {
        "prepare_data": 2,
        "train": 18,
        "eigensnapshot": 18,
        "alignment": 18,
        "displacement": 18,
        "fig07": 1,
    }
    jobs = planned_jobs(run_snakemake(clean_checkout, "-n", "fig16"))
    assert {job.rule for job in jobs} == {"prepare_data", "train", "eigensnapshot", "ipr", "fig16"}
    runs = [job.wildcards for job in jobs if job.rule == "train"]
    # The seed with the median IPR is known only when all are there.
    assert {run["seed"] for run in runs} == {"0", "1", "2"}
    assert {run["dataset"] for run in runs} == {"digits"}
    assert {run["variant"] for run in runs} == {"main"}


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_gpus_are_asked_for_where_they_are_used(
    clean_checkout: Path, overlay: Callable[[str], str], device: str
) -> None:
    finished = run_snakemake(
        clean_checkout, "-n", "fig01", "fig08", "--configfile", overlay(f"training: {{device: {device}}}")
    )
    jobs = planned_jobs(finished)
    wanted = "1" if device == "cuda" or (device == "auto" and os.path.exists("/dev/nvidiactl")) else "0"
    for rule in ("train", "eigensnapshot", "baseline", "interpolation"):
        assert {job.resources["gpu"] for job in jobs if job.rule == rule} == {wanted}, rule
    for rule in ("prepare_data", "displacement", "ipr", "fig01", "fig08"):
        assert all("gpu" not in job.resources for job in jobs if job.rule == rule), rule


def test_every_job_asks_for_memory_and_time(paper_plan: Finished) -> None:
    for job in planned_jobs(paper_plan):
        assert 500 <= int(job.resources["mem_mb"]) <= 64_000, job
        assert 10 <= int(job.resources["runtime"]) <= 7 * 24 * 60, job


def test_one_dataset_plays_both_parts(clean_checkout: Path, overlay: Callable[[str], str]) -> None:
    path = overlay("datasets: [digits_noisy]\nsweeps: {dataset: digits_noisy}")
    jobs = planned_jobs(run_snakemake(clean_checkout, "-n", "--configfile", path))
    assert {job.rule for job in jobs} >= set(FIGURE_NAMES)
    assert {job.wildcards.get("dataset", "digits_noisy") for job in jobs} == {"digits_noisy"}


def test_an_experiment_without_sweeps_or_with_other_optimizers_plans_all_figures(
    clean_checkout: Path, overlay: Callable[[str], str]
) -> None:
    no_sweeps = "sweeps: {batch_size: {32: null, full: null}, learning_rate: {0.3: null, 3: null}}"
    others = "optimizers: {sgd: null, adam: null, sam: null, rmsprop: {class: RMSprop, lr: 0.001}}"
    path = overlay(f"{no_sweeps}\n{others}")
    jobs = planned_jobs(run_snakemake(clean_checkout, "-n", "--configfile", path))
    assert {job.rule for job in jobs} >= set(FIGURE_NAMES)
    assert {job.wildcards["optimizer"] for job in jobs if job.rule == "train"} == {"rmsprop"}
    assert {job.wildcards["variant"] for job in jobs if job.rule == "train"} == {"main"}


def test_every_command_of_the_pages_is_one_that_snakemake_takes(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line for page in pages() for line in commands(read(page), "snakemake")]
    shown = {tuple(shlex.split(line, comments=True)[1:]) for line in lines}
    assert len(shown) >= 8
    cli = importlib.import_module("snakemake.cli")
    monkeypatch.chdir(checkout)
    # The user's own overlay, and the place of the checkout as seen from another folder.
    (checkout / "mine.yaml").write_text("name: mine\n", encoding="utf-8")
    shown = {tuple(word.replace("/path/to/eigendrift", str(checkout)) for word in words) for words in shown}
    # Those of one configuration in one dry-run, with the options and the targets of all.
    together: dict[tuple[str, ...], tuple[set[str], set[str]]] = {}
    for command in sorted(shown):
        _, taken = cli.parse_args(list(command))
        if taken.report or taken.list_rules:
            continue  # of finished runs, and of none
        of_configuration = tuple(map(str, (*taken.configfile, taken.profile)))
        options, targets = together.setdefault(of_configuration, (set(), set()))
        given = shlex.join(word for word in command if word not in taken.targets)
        options.add(re.sub(r"--cores \d+|(?<= )--(?= |$)", "", given).strip())
        targets.update(map(str, taken.targets or ["all"]))
    for options, targets in together.values():
        words = shlex.split(" ".join(sorted(options)))
        run_snakemake(checkout, "-n", *sorted(targets), *words)
