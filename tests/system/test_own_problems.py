"""The examples of own problems from their few lines to figures, and what an edit of their files runs again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from experiments import FIGURE_NAMES, TABLE_RULES
from own_problems import SMALL
from snakemake_process import copy_checkout, planned_jobs, planned_rules, run_snakemake

from reproduction.files.arrays import ArrayFile
from reproduction.files.tables import read_table

CONV = ("--configfile", "examples/conv.yaml", "small.yaml")
TRANSFORMER = ("--configfile", "examples/transformer.yaml", "small.yaml")


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which the example of a convolutional network has run, every figure of it."""
    folder = copy_checkout(tmp_path_factory.mktemp("convolutional") / "checkout")
    (folder / "small.yaml").write_text(SMALL, encoding="utf-8")
    run_snakemake(folder, "--cores", "2", *CONV)
    return folder


def test_a_convolutional_network_has_every_figure(convolutional: Path) -> None:
    results = convolutional / "results" / "conv"
    for name in FIGURE_NAMES:
        for kind in ("pdf", "png", "csv"):
            assert (results / "figures" / f"{name}.{kind}").stat().st_size > 0, f"{name}.{kind}"
    run = results / "runs" / "digits" / "adam" / "main" / "seed0"
    trained = ArrayFile(run / "final_weights.safetensors", kind="final_weights")
    # The names and shapes are those of the user's own module.
    assert trained.identity["layers"] == [
        ["0.weight", [4, 1, 3, 3]],
        ["0.bias", [4]],
        ["3.weight", [8, 4, 3, 3]],
        ["3.bias", [8]],
        ["7.weight", [10, 32]],
        ["7.bias", [10]],
    ]
    assert trained["weights"].shape == (1, trained.identity["n_parameters"]) == (1, 40 + 296 + 330)
    history = read_table(run / "history.csv", kind="history")
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    shares = read_table(run / "localization.csv", kind="localization")
    assert sorted(shares["layer"].unique()) == [0, 1, 2, 3]
    whole = shares[shares["layer"] > 0].groupby(["step", "i"])[["weight_share", "bias_share"]].sum().sum(axis=1)
    np.testing.assert_allclose(whole, 1, atol=1e-3)
    assert read_table(run / "ipr.csv", kind="ipr")["converged"].all()


def test_an_edit_of_the_network_runs_again_what_is_computed_with_it(convolutional: Path) -> None:
    assert planned_rules(run_snakemake(convolutional, "-n", *CONV)) == {}
    file = convolutional / "examples" / "conv.py"
    before = file.read_text(encoding="utf-8")
    try:
        file.write_text(before + "\n# another line\n", encoding="utf-8")
        again = set(planned_rules(run_snakemake(convolutional, "-n", *CONV)))
        assert {"train", "eigensnapshot", "baseline", "interpolation", *TABLE_RULES, *FIGURE_NAMES} <= again
        assert "prepare_data" not in again
        # The other example does not have this file.
        (convolutional / "examples" / "transformer.py").write_text("broken", encoding="utf-8")
        assert set(planned_rules(run_snakemake(convolutional, "-n", *CONV))) == again
    finally:
        file.write_text(before, encoding="utf-8")


def test_a_network_that_cannot_be_used_is_one_line_before_any_work(
    convolutional: Path, overlay: Callable[[str], str]
) -> None:
    path = overlay("name: refused\nmodel: {args: {chanels: 3}}")
    done = run_snakemake(convolutional, "-n", *CONV, path, check=False)
    assert done.status != 0
    (line,) = [line for line in done.output.splitlines() if "model.module" in line]
    assert "chanels" in line
    assert "Traceback" not in done.output
    assert not (convolutional / "results" / "refused").exists()


def test_a_transformer_and_data_in_a_file(convolutional: Path, overlay: Callable[[str], str]) -> None:
    random = np.random.RandomState(0)
    arrays = {}
    for part, count in (("train", 120), ("test", 40)):
        arrays[f"y_{part}"] = np.arange(count) % 3
        arrays[f"x_{part}"] = (random.randint(0, 100, (count, 6, 5)) + 70 * arrays[f"y_{part}"][:, None, None]).astype(
            np.uint8
        )
    file = convolutional / "mine.npz"
    np.savez_compressed(file, **arrays)
    path = overlay("datasets: [{name: mine, file: mine.npz}]\nsweeps: {dataset: mine}")
    args = (*TRANSFORMER, path)
    results = convolutional / "results" / "transformer"
    run = results / "runs" / "mine" / "sgd" / "main" / "seed0"
    names = (
        "figures/fig16.pdf",
        "figures/fig03.pdf",
        "figures/figS2.pdf",
        "baseline/mine.csv",
        "interpolation/mine.csv",
    )
    targets = ["--", *(str((results / name).relative_to(convolutional)) for name in names)]
    run_snakemake(convolutional, "--cores", "2", *args, *targets)
    layers = ArrayFile(run / "final_weights.safetensors", kind="final_weights").identity["layers"]
    assert [name for name, _ in layers][:2] == ["place", "embed.weight"]
    shown = read_table(results / "figures" / "fig16.csv", kind="fig16")
    # Of nine layers, one for each weight or lone parameter, the eight with the largest share.
    assert shown.groupby("optimizer")["layer"].nunique().eq(8).all()
    assert planned_rules(run_snakemake(convolutional, "-n", *args, *targets)) == {}
    arrays["x_test"][0] ^= 1
    np.savez_compressed(file, **arrays)
    again = planned_jobs(run_snakemake(convolutional, "-n", *args, *targets))
    assert {"prepare_data", "train", "baseline"} <= {job.rule for job in again}
