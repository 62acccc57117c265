"""Generated and hostile overlays through Snakemake itself: dry-run or refused in one line, and never any harm."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from experiments import overlaid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from overlay_strategies import overlays
from snakemake_process import Finished, planned_jobs, run_snakemake

from reproduction.errors import ConfigError
from reproduction.experiment.config import validate

# The validator alone is tried with hundreds; a few show what Snakemake adds.
WANTED = {"valid": 3, "refused": 3}


def generated() -> Iterator[list[dict[Any, Any]]]:
    """The overlays of test_config_fuzz, as a file can hold them."""
    found: list[list[dict[Any, Any]]] = []

    @given(st.lists(overlays(), min_size=1, max_size=3))
    @settings(max_examples=150, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def collect(changes: list[dict[Any, Any]]) -> None:
        found.append(changes)

    collect()
    for changes in found:
        try:
            if all(yaml.safe_load(yaml.safe_dump(change)) == change for change in changes):
                yield changes
        except (yaml.YAMLError, RecursionError, ValueError, TypeError):
            continue


def judged(changes: list[dict[Any, Any]]) -> str | None:
    """The line with which the validator refuses these overlays; None for valid ones."""
    try:
        validate(overlaid(*changes))
    except ConfigError as error:
        return str(error)
    return None


def ended_in_one_line(finished: Finished, line: str) -> None:
    assert finished.status == 1
    assert finished.stderr.rstrip("\n").rpartition("\n")[2] == line, finished.output[-2000:]
    assert finished.stderr.count("config: ") == 1
    assert "Traceback" not in finished.output


def dry_runs(checkout: Path, folder: Path, cases: list[list[str]]) -> list[Finished]:
    """Snakemake's dry-run of each case, a list of overlays as YAML."""

    def run(number: int) -> Finished:
        paths = []
        for position, text in enumerate(cases[number]):
            paths.append(folder / f"{number}-{position}.yaml")
            paths[-1].write_text(text, encoding="utf-8")
        return run_snakemake(checkout, "-n", "--configfile", *map(str, paths), check=False, timeout=240)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, range(len(cases))))


def test_generated_overlays(clean_checkout: Path, tmp_path: Path) -> None:
    kinds: dict[str, list[list[dict[Any, Any]]]] = {kind: [] for kind in WANTED}
    for changes in generated():
        kind = "valid" if judged(changes) is None else "refused"
        if len(kinds[kind]) < WANTED[kind] and changes not in kinds[kind]:
            kinds[kind].append(changes)
    chosen = [*kinds["valid"], *kinds["refused"]]
    assert len(chosen) == sum(WANTED.values())
    texts = [[yaml.safe_dump(change, allow_unicode=True) for change in changes] for changes in chosen]
    for changes, finished in zip(chosen, dry_runs(clean_checkout, tmp_path, texts), strict=True):
        line = judged(changes)
        if line is not None:
            ended_in_one_line(finished, line)
        else:
            assert finished.status == 0, f"{changes}\n{finished.output[-2000:]}"
            assert {"train", "figure_set"} <= {job.rule for job in planned_jobs(finished)}
    assert not (clean_checkout / "results").exists()


# Every one is refused, by the key's path.
HOSTILE = {
    "a name that climbs": ("name: ../../escape", "name"),
    "an absolute name": ("name: /tmp/escape", "name"),
    "a name with a command": ("name: $(touch harm)", "name"),
    "a name with two lines": ('name: "a\\n touch harm"', "name"),
    "an optimizer with a command": ("optimizers: {'$(touch harm)': {class: SGD, lr: 0.1}}", "optimizers."),
    "an optimizer that climbs": ("optimizers: {../../x: {class: SGD, lr: 0.1}}", "optimizers."),
    "a number without end": (f"training: {{steps: {10**400}}}", "training.steps"),
    "an infinite number": ("training: {steps: .inf}", "training.steps"),
    "more snapshots than memory": ("training: {steps: 1000000000}\nsnapshots: {every: 1}", "snapshots"),
    "more widths than memory": ("model: {hidden: [1000000000, 1000000000]}", "model.hidden"),
    "anchors that explode": (
        "".join(
            ["x0: &x0 [1, 2, 3, 4, 5, 6, 7, 8, 9]\n"]
            + [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 25)]
        ),
        "x",
    ),
}


# What Snakemake, too, has to read or might run.
BY_SNAKEMAKE = ("a name with a command", "a number without end", "anchors that explode")


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_values_are_refused_in_one_line(case: str) -> None:
    text, key = HOSTILE[case]
    line = judged([yaml.safe_load(text)])
    assert line is not None
    assert line.startswith(f"config: {key}")
    assert line.isprintable()
    assert len(line) < 3000


def test_hostile_values_do_no_harm(clean_checkout: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in clean_checkout.iterdir())
    chosen = [HOSTILE[case] for case in BY_SNAKEMAKE]
    for (text, key), finished in zip(
        chosen, dry_runs(clean_checkout, tmp_path, [[text] for text, _ in chosen]), strict=True
    ):
        line = finished.stderr.rstrip("\n").rpartition("\n")[2]
        assert line.startswith(f"config: {key}"), f"{text[:200]}\n{finished.output[-2000:]}"
        assert len(line) < 3000
        assert finished.status == 1
        assert "Traceback" not in finished.output
    assert {*sorted(path.name for path in clean_checkout.iterdir())} <= {*before, ".snakemake"}


def test_a_path_with_a_command_is_a_path(checkout: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("name: hostile\ndata: {root: '$(touch harm); touch harm', download: false}", encoding="utf-8")
    target = "results/hostile/data/digits.safetensors"
    run_snakemake(checkout, "--cores", "1", "--configfile", str(overlay), "--", target)
    assert (checkout / target).is_file()
    assert not list(checkout.rglob("harm"))
