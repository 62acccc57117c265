"""Bad input: one line on the terminal that names the key, exit status 1 within seconds, nothing written."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from experiments import overlaid
from snakemake_process import Finished, run_snakemake

from reproduction.errors import ConfigError
from reproduction.experiment.config import validate

# Overlay, and what the line must hold: the key first, then what is wrong with it or what would be right.
BAD = {
    "misspelled section": ("trainig: {steps: 100}", "trainig", "'training'"),
    "misspelled key": ("training: {stepz: 100}", "training.stepz", "'steps'"),
    "key in the wrong place": ("steps: 100", "steps", "unknown key"),
    "section is no mapping": ("training: 5", "training", "mapping"),
    "wrong type": ("training: {steps: many}", "training.steps", "whole number"),
    "fraction": ("eigen: {k: 2.5}", "eigen.k", "whole number"),
    "truth value for a number": ("training: {steps: true}", "training.steps", "whole number"),
    "number as text": ("eigen: {tolerance: 1e-3}", "eigen.tolerance", "1.0e-3"),
    "not a number": ("eigen: {tolerance: .nan}", "eigen.tolerance", "finite"),
    "too small": ("baseline: {initializations: 1}", "baseline.initializations", "not below 3"),
    "negative rate": ("optimizers: {sgd: {lr: -0.1}}", "optimizers.sgd.lr", "above 0"),
    "repeated seed": ("training: {seeds: [0, 1, 1]}", "training.seeds", "once"),
    "no seed": ("training: {seeds: []}", "training.seeds", "at least 1"),
    "removed key": ("training: {steps: null}", "training.steps", "missing"),
    "unknown dataset": ("datasets: [digits, Fashion-MNIST]", "datasets.1", "'FashionMNIST'"),
    "unknown activation": ("model: {activation: rellu}", "model.activation", "'relu'"),
    "unknown optimizer": ("optimizers: {adam: {class: Adamw}}", "optimizers.adam.class", "'AdamW'"),
    "optimizer that cannot be used": ("optimizers: {x: {class: LBFGS, lr: 1.0}}", "optimizers.x.class", "many times"),
    "optimizer's argument": ("optimizers: {sgd: {momentun: 0.9}}", "optimizers.sgd.momentun", "'momentum'"),
    "SAM's base": ("optimizers: {sam: {base: SDG}}", "optimizers.sam.base", "'SGD'"),
    "sweep's key": ("sweeps: {batch_size: {lots: 100}}", "sweeps.batch_size.lots", "full"),
    "sweep of the main value": ("sweeps: {batch_size: {128: 100}}", "sweeps.batch_size.128", "training.batch_size"),
    "sweep's seed": ("sweeps: {seeds: [7]}", "sweeps.seeds", "training.seeds"),
    "times out of order": ("snapshots: {waiting_times: [10, 0]}", "snapshots.waiting_times", "ascending"),
    "name with a path": ("name: ../elsewhere", "name", "letters"),
}


def refused(finished: Finished, key: str, hint: str) -> None:
    """Assert that Snakemake ended with the one line that names the key."""
    line = finished.stderr.rstrip("\n").rpartition("\n")[2]
    assert line.startswith(f"config: {key}: "), finished.output[-2000:]
    assert hint in line
    assert finished.status == 1
    assert "Traceback" not in finished.output
    assert finished.stderr.count("config: ") == 1
    # Generous: the machine may be busy.
    assert finished.seconds < 30


@pytest.mark.parametrize("case", BAD)
def test_a_bad_overlay_is_refused_by_name(case: str) -> None:
    text, key, hint = BAD[case]
    with pytest.raises(ConfigError) as caught:
        validate(overlaid(yaml.safe_load(text)))
    assert str(caught.value).startswith(f"config: {key}: ")
    assert hint in str(caught.value)


def test_a_refused_run_is_one_line_and_leaves_no_results(clean_checkout: Path, overlay: Callable[[str], str]) -> None:
    text, key, hint = BAD["misspelled section"]
    finished = run_snakemake(clean_checkout, "--cores", "1", "--configfile", overlay(text), check=False, timeout=120)
    refused(finished, key, hint)
    assert not (clean_checkout / "results").exists()


def test_overlays_are_validated_after_merging_and_the_last_one_counts(
    clean_checkout: Path, overlay: Callable[[str], str]
) -> None:
    bad, good = overlay("training: {batch_size: 0}"), overlay("training: {batch_size: 64}")
    finished = run_snakemake(clean_checkout, "-n", "fig16", "--configfile", good, bad, check=False)
    refused(finished, "training.batch_size", "full")
    run_snakemake(clean_checkout, "-n", "fig16", "--configfile", bad, good)


def test_the_command_lines_values_are_validated_too(clean_checkout: Path, overlay: Callable[[str], str]) -> None:
    good = overlay("model: {activation: tanh}")
    command_line = ("--config", "model={activation: tahn}")
    finished = run_snakemake(clean_checkout, "-n", "fig16", "--configfile", good, *command_line, check=False)
    refused(finished, "model.activation", "'tanh'")
