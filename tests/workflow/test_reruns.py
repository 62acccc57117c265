"""What a change makes Snakemake do again after a full run, and what it leaves alone."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TinyRun
from experiments import FIGURE_NAMES, RUN_RULES
from snakemake_process import TINY, planned_jobs, planned_rules, run_snakemake

from reproduction.jobs.dependencies import PLUMBING

FIGURES = set(FIGURE_NAMES)
# Figures of one seed, and those of the sweeps, whose seeds have a key of their own.
NOT_OF_ALL_SEEDS = {"fig12", "fig14", "fig15", "fig17", "fig18", "fig19", "fig20", "fig21"}
DRAWN_FROM_BASELINE = {"fig01", "fig09", "fig20", "fig21"}


def plan(folder: Path, *overlays: str) -> dict[str, int]:
    return planned_rules(run_snakemake(folder, "-n", *TINY, *overlays))


def edit(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def test_after_a_full_run_nothing_is_left_to_do_also_when_the_folder_moves_and_files_are_touched(
    tiny_run: TinyRun, finished_checkout: Path
) -> None:
    assert plan(tiny_run.folder) == {}
    moved = finished_checkout.rename(finished_checkout.with_name("moved"))
    # As when Git goes to another branch and back: new times, old content.
    for folder in ("src", "workflow"):
        for path in (moved / folder).rglob("*.py"):
            os.utime(path)
    for name in ("config.yaml", "tests/tiny.yaml", "paper/claims.yaml", "workflow/report/fig01.rst"):
        os.utime(moved / name)
    assert plan(moved) == {}


def test_a_new_optimizer_trains_its_own_runs_only(finished_checkout: Path, overlay: Callable[[str], str]) -> None:
    path = overlay("optimizers: {adamw: {class: AdamW, lr: 0.001, weight_decay: 0.01}}")
    jobs = planned_jobs(run_snakemake(finished_checkout, "-n", *TINY, path))
    # Two datasets with two seeds, and one seed of each sweep's one value.
    assert {rule: sum(job.rule == rule for job in jobs) for rule in RUN_RULES} == dict.fromkeys(
        RUN_RULES, 2 * 2 + 1 + 1
    )
    assert {job.wildcards["optimizer"] for job in jobs if "optimizer" in job.wildcards} == {"adamw"}
    assert {job.rule for job in jobs} == {*RUN_RULES, "interpolation", *FIGURES, "claims", "figure_set"}


def test_a_new_seed_trains_its_own_runs_only(finished_checkout: Path, overlay: Callable[[str], str]) -> None:
    jobs = planned_jobs(run_snakemake(finished_checkout, "-n", *TINY, overlay("training: {seeds: [0, 1, 5]}")))
    assert {rule: sum(job.rule == rule for job in jobs) for rule in RUN_RULES} == dict.fromkeys(RUN_RULES, 2 * 3)
    assert {job.wildcards["seed"] for job in jobs if "seed" in job.wildcards} == {"5"}
    assert {job.rule for job in jobs} == {
        *RUN_RULES,
        "interpolation",
        *(FIGURES - NOT_OF_ALL_SEEDS),
        "claims",
        "figure_set",
    }


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ("interpolation: {points: 9}", {"interpolation", "fig08", "claims"}),
        ("baseline: {initializations: 6}", {"baseline", *DRAWN_FROM_BASELINE, "claims"}),
        ("sweeps: {learning_rate: {3: 30}}", {*RUN_RULES, "fig17", "fig19", "fig21", "claims"}),
        # Where the raw files lie is no matter of content, which is checked.
        ("data: {root: elsewhere, download: false}\nstorage: {keep_arrays: false}", set()),
    ],
    ids=["interpolation", "baseline", "sweep", "data.root and storage"],
)
def test_a_key_starts_only_what_uses_it(
    finished_checkout: Path, overlay: Callable[[str], str], change: str, rules: set[str]
) -> None:
    # The figure set's manifest holds the configuration.
    assert set(plan(finished_checkout, overlay(change))) == {*rules, "figure_set"}


def test_where_jobs_run_starts_nothing(finished_checkout: Path, overlay: Callable[[str], str]) -> None:
    assert plan(finished_checkout, overlay("training: {device: cpu}")) == {}


def test_keys_in_another_order_start_nothing(finished_checkout: Path, overlay: Callable[[str], str]) -> None:
    def reversed_keys(value: Any) -> Any:
        return {key: reversed_keys(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    tiny = yaml.safe_load((finished_checkout / "tests" / "tiny.yaml").read_text(encoding="utf-8"))
    path = finished_checkout / "config.yaml"
    whole = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(reversed_keys(whole), sort_keys=False), encoding="utf-8")
    reordered = overlay(yaml.safe_dump(reversed_keys(tiny), sort_keys=False))
    assert planned_rules(run_snakemake(finished_checkout, "-n", "--configfile", reordered)) == {}


def test_an_edit_of_what_cannot_change_a_number_starts_nothing(finished_checkout: Path) -> None:
    reproduction = finished_checkout / "workflow" / "scripts" / "reproduction"
    message = "has a value that cannot be used"
    text = (reproduction / "errors.py").read_text(encoding="utf-8")
    assert message in text
    (reproduction / "errors.py").write_text(text.replace(message, "is wrong"), encoding="utf-8")
    for name in set(PLUMBING) - {"errors.py"}:
        path = reproduction / name
        for file in path.glob("*.py") if path.is_dir() else [path]:
            edit(file, "\n# another line\n")
    assert plan(finished_checkout) == {}


def test_a_change_of_style_reruns_figures_alone(finished_checkout: Path) -> None:
    edit(finished_checkout / "workflow/scripts/reproduction/figures/style.py", "\n# another line\n")
    assert set(plan(finished_checkout)) == {*FIGURES, "figure_set"}


def test_a_change_of_code_reruns_what_runs_it(finished_checkout: Path) -> None:
    scripts = finished_checkout / "workflow" / "scripts"
    edit(scripts / "reproduction" / "figures" / "spectrum.py", "\n# another line\n")
    # Of one table the unit of one column.
    tables = scripts / "reproduction" / "experiment" / "table_catalogue.py"
    tables.write_text(
        tables.read_text(encoding="utf-8").replace('"gap_12": CURVATURE', '"gap_12": "1"'), encoding="utf-8"
    )
    again = {"fig06", "fig07", "stability", "figure_set"}
    assert set(plan(finished_checkout)) == again
    edit(scripts / "interpolation.py", "\n# another line\n")
    assert set(plan(finished_checkout)) == {*again, "interpolation", "fig08", "claims"}
    edit(finished_checkout / "src" / "eigendrift" / "eigensolver" / "lanczos.py", "\n# another line\n")
    rerun = plan(finished_checkout)
    assert {"eigensnapshot", "baseline", "ipr", "fig07", "figure_set"} <= set(rerun)
    assert not {"train", "prepare_data", "fig04", "fig05"} & set(rerun)


def test_one_figure_is_drawn_again_alone_and_the_same(finished_checkout: Path) -> None:
    figures = finished_checkout / "results" / "tiny" / "figures"
    files = [figures / f"fig07.{kind}" for kind in ("pdf", "png", "csv")]
    before = [path.read_bytes() for path in files]
    for path in files:
        path.unlink()
    drawn = run_snakemake(finished_checkout, "--cores", "1", "fig07", "--verbose", *TINY)
    # The scheduler sets no timers unless the user limits jobs.
    assert "No limit on jobs a second." in drawn.output
    # Snakemake lists the job as it runs in the words of a dry-run.
    assert [job.rule for job in planned_jobs(drawn)] == ["fig07"]
    assert [path.read_bytes() for path in files] == before
    assert plan(finished_checkout) == {}


def test_a_limit_on_jobs_of_the_users_own_is_kept(finished_checkout: Path) -> None:
    limited = ("--max-jobs-per-timespan", "50/1s", "--verbose")
    finished = run_snakemake(finished_checkout, "--cores", "1", "fig04", "--forcerun", "fig04", *limited, *TINY)
    assert "No limit on jobs a second." not in finished.output
