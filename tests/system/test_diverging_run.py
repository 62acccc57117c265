"""A run that diverges at learning rate 100, through the whole workflow: it ends early, and everything says so."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import TinyRun
from snakemake_process import TINY, planned_rules, run_snakemake

from reproduction.experiment.table_catalogue import KEPT_TABLES
from reproduction.files.arrays import ArrayFile
from reproduction.files.tables import read_header, read_table

# Weights are multiplied by 1 - 100 at every step, so this run diverges whatever the network is.
OVERLAY = """
datasets: [digits]
optimizers: {sgd: {class: SGD, lr: 100, weight_decay: 1}}
training: {seeds: [0]}
sweeps: {batch_size: {full: null}, learning_rate: {0.3: null}}
"""
RUN = "runs/digits/sgd/main/seed0"


@pytest.fixture(scope="module")
def results(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished tiny run, with the sgd of seed 0 made anew at learning rate 100."""
    folder = tmp_path_factory.mktemp("diverging")
    checkout = shutil.copytree(tiny_run.folder, folder / "checkout", symlinks=True)
    overlay = folder / "overlay.yaml"
    overlay.write_text(OVERLAY, encoding="utf-8")
    targets = ["all", *(["paper"] if tiny_run.has_paper else [])]
    finished = run_snakemake(checkout, "--cores", "2", *TINY, str(overlay), "--", *targets)
    assert "Traceback" not in finished.output
    again = run_snakemake(checkout, "-n", *TINY, str(overlay), "--", *targets)
    assert planned_rules(again) == {}
    return checkout / "results" / "tiny"


def test_the_run_ends_early_and_its_files_say_at_which_step(results: Path) -> None:
    header = read_header(results / RUN / "history.csv", kind="history")
    diverged_at = header["identity"]["diverged_at"]
    # float32 holds 3e38, which 99^20 exceeds, and the loss of three such layers long before.
    assert 0 < diverged_at <= 20
    assert f"diverged: not finite at step {diverged_at}" in (
        results / "logs" / "train" / "digits.sgd.main.0.log"
    ).read_text(encoding="utf-8")
    history = read_table(results / RUN / "history.csv", kind="history")
    trajectory = ArrayFile(results / RUN / "trajectory.safetensors", kind="trajectory")
    assert history["step"].max() < diverged_at
    assert trajectory["steps"].tolist() == history["step"].tolist()
    for name in ("weights", "gradients", "updates"):
        assert np.isfinite(trajectory[name]).all(), name
    for kind in ("ipr", "alignment", "displacement", *KEPT_TABLES):
        assert read_header(results / RUN / f"{kind}.csv", kind=kind)["identity"]["diverged_at"] == diverged_at
    ipr = read_table(results / RUN / "ipr.csv", kind="ipr")
    assert set(ipr["step"]) == set(history["step"])
    assert np.isfinite(ipr[["eigenvalue", "residual", "ipr"]].to_numpy()).all()


def test_the_other_runs_are_as_they_were(results: Path, tiny_run: TinyRun) -> None:
    for optimizer in ("adam", "sam"):
        for name in ("history", "ipr", "alignment", "displacement"):
            table = f"runs/digits/{optimizer}/main/seed0/{name}.csv"
            assert (results / table).read_bytes() == (tiny_run.results / table).read_bytes()


def test_interpolation_goes_on_without_it(results: Path) -> None:
    lines = read_table(results / "interpolation" / "digits.csv", kind="interpolation")
    assert {*lines["first"], *lines["second"]} == {"adam", "sam"}
    solutions = read_table(results / "interpolation" / "digits.solutions.csv", kind="solutions")
    assert set(solutions["optimizer"]) == {"adam", "sam"}


def test_claims_leave_it_out_and_say_so(results: Path) -> None:
    claims = read_table(results / "claims" / "claims.csv", kind="claims")
    notes = claims["note"].fillna("")
    assert notes.str.contains("diverged run").any()
    text = (results / "claims" / "claims.md").read_text(encoding="utf-8")
    assert "diverged run(s)" in text
    numbers = (results / "figure_set" / "numbers.tex").read_text(encoding="utf-8")
    assert r"\eigendriftset{scale.diverged}{\ensuremath{1}}" in numbers


@pytest.mark.parametrize("number", [1, 2, 3, 4, 6, 7, 9, 10, 11, 16])
def test_figures_are_drawn_without_it_and_say_so(results: Path, number: int) -> None:
    figures = results / "figures"
    assert (figures / f"fig{number:02d}.png").stat().st_size > 1000
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext here")
    said = subprocess.run(
        ["pdftotext", str(figures / f"fig{number:02d}.pdf"), "-"], capture_output=True, text=True, check=True
    ).stdout
    words = " ".join(said.split())
    assert re.search(r"Incomplete runs: .*SGD|SGD.*(to step \d+ only|no data|diverged)", words), words[-500:]


def test_the_paper_is_compiled_and_says_so(results: Path, tiny_run: TinyRun) -> None:
    if not tiny_run.has_paper or shutil.which("pdftotext") is None:
        pytest.skip("no TeX here")
    said = subprocess.run(
        ["pdftotext", "-layout", str(results / "paper.pdf"), "-"], capture_output=True, text=True, check=True
    ).stdout
    assert "diverged" in said
    assert "??" not in said
