"""Values of --config, as Snakemake hands them over: what is nested is text."""

from typing import Any

import pytest
import yaml
from experiments import overlaid

from reproduction.errors import ConfigError
from reproduction.experiment.command_line import typed
from reproduction.experiment.config import validate


def as_snakemake_reads(*arguments: str) -> dict[str, Any]:
    """The command line's part of the configuration: scalars by their form, anything else by YAML's loader of text."""
    cli = pytest.importorskip("snakemake.cli")
    read: dict[str, Any] = cli.parse_config(list(arguments))
    return read


def configured(*arguments: str) -> dict[str, Any]:
    given = as_snakemake_reads(*arguments)
    return validate(typed(overlaid(given), given))


@pytest.mark.parametrize(
    ("argument", "path", "value"),
    [
        ("training={steps: 1500}", "training.steps", 1500),
        ("training={steps: 1500, seeds: [0, 2], device: cpu}", "training.seeds", [0, 2]),
        ("sweeps={batch_size: {full: 500, 32: null}}", "sweeps.batch_size.full", 500),
        ("training={batch_size: 64}", "training.batch_size", 64),
        ("data={root: 2024, download: false}", "data.download", False),
        ("data={root: 2024, download: false}", "data.root", "2024"),
        ("data={root: 'null_island'}", "data.root", "null_island"),
        ("eigen={tolerance: 1e-4}", "eigen.tolerance", 1e-4),
        ("eigen={tolerance: 1.0e-4, tolerance_for: {digits: {adam: 1e-6}}}", "eigen.tolerance_for.digits.adam", 1e-6),
        ("optimizers={adamw: {class: AdamW, lr: 0.001, weight_decay: 1e-2}}", "optimizers.adamw.weight_decay", 0.01),
        ("optimizers={adamw: {class: AdamW, lr: 0.001, amsgrad: true}}", "optimizers.adamw.amsgrad", True),
        ("sweeps={batch_size: {32: 900}}", "sweeps.batch_size.32", 900),
        ("model={hidden: [20, 10]}", "model.hidden", [20, 10]),
        ("name=mine", "name", "mine"),
        ("datasets=[digits]", "datasets", ["digits"]),
    ],
)
def test_a_value_has_the_type_of_its_key(argument: str, path: str, value: Any) -> None:
    found: Any = configured(argument)
    for part in path.split("."):
        found = found[part]
    assert found == value
    assert type(found) is type(value)


def test_null_removes_a_key() -> None:
    assert set(configured("optimizers={sam: null}")["optimizers"]) == {"sgd", "adam"}


@pytest.mark.parametrize(
    ("argument", "key", "hint"),
    [
        ("training={steps: many}", "training.steps", "'many'"),
        ("training={steps: 2.5}", "training.steps", "2.5"),
        ("training={steps: null}", "training.steps", "missing"),
        ("data={download: maybe}", "data.download", "'maybe'"),
        ("training={device: cdua}", "training.device", "'cuda'"),
        ("model={hidden: [20, x]}", "model.hidden.1", "'x'"),
        ("trainig={steps: 5}", "trainig", "'training'"),
        ("name=7", "name", "'7'"),
    ],
)
def test_a_wrong_value_is_refused_as_it_was_typed(argument: str, key: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(argument)
    assert str(caught.value).startswith(f"config: {key}: ")
    assert hint in str(caught.value)


def test_a_value_that_a_file_has_is_left_alone() -> None:
    """What YAML reads as text in a file stays refused there: only the command line is read again."""
    with pytest.raises(ConfigError, match=r"^config: eigen\.tolerance: "):
        validate(typed(overlaid(yaml.safe_load("eigen: {tolerance: 1e-3}")), {}))


def test_a_file_that_explodes_does_not_meet_the_command_line() -> None:
    bomb: Any = "x"
    for _ in range(40):
        bomb = [bomb, bomb]
    given = as_snakemake_reads("training={steps: 1500}")
    with pytest.raises(ConfigError):
        validate(typed(overlaid({"optimizers": bomb}, given), given))
