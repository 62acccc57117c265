"""The whole workflow, run once at its smallest: what it leaves, and whether its numbers are right."""

import hashlib
import itertools
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import IN_CI, TinyRun
from experiments import CLAIM_NUMBERS, FIGURE_NAMES, TABLE_RULES, overlaid, read

from reproduction.experiment.config import validate
from reproduction.experiment.figure_catalogue import FIGURES
from reproduction.experiment.runs import Experiment, Run
from reproduction.experiment.table_catalogue import DATASET_TABLES, RUN_TABLES, TABLES
from reproduction.files.arrays import ArrayFile
from reproduction.files.final_eigenvectors import read_final_eigenvectors
from reproduction.files.tables import read_header, read_table, read_tables
from reproduction.planning.cost_model import Assumed, Durations
from reproduction.planning.plan import table_bytes, table_rows

DATASETS, OPTIMIZERS = ("digits", "digits_noisy"), ("sgd", "adam", "sam")
# tests/tiny.yaml in words: two seeds of the main runs, one seed of each of two sweep variants.
RUNS = [(d, o, "main", s) for d in DATASETS for o in OPTIMIZERS for s in (0, 1)] + [
    ("digits", o, variant, 0) for o in OPTIMIZERS for variant in ("batch_size-full", "learning_rate-0.3")
]
STEPS = {"main": 60, "batch_size-full": 20, "learning_rate-0.3": 30}
N_PARAMETERS = 64 * 12 + 12 + 12 * 10 + 10 + 10 * 10 + 10
K, DENSE_K, TOLERANCE, DENSE_TOLERANCE = 3, 15, 1e-3, 1e-4
RUN_FILES = {*RUN_TABLES.values(), "final_weights.safetensors", "trajectory.safetensors", "eigenpairs-0.safetensors"}


def folder(results: Path, run: tuple[str, str, str, int]) -> Path:
    dataset, optimizer, variant, seed = run
    return results / "runs" / dataset / optimizer / variant / f"seed{seed}"


@pytest.fixture(scope="module")
def results(tiny_run: TinyRun) -> Path:
    return tiny_run.results


def table(results: Path, kind: str) -> pd.DataFrame:
    return read_tables([folder(results, run) / f"{kind}.csv" for run in RUNS], kind=kind)


# Files


def test_the_files_are_those_that_the_rules_declare(results: Path, tiny_run: TinyRun) -> None:
    jobs = [f"train/{d}.{o}.{v}.{s}" for d, o, v, s in RUNS]
    jobs += [f"eigensnapshot/{d}.{o}.{v}.{s}.0" for d, o, v, s in RUNS]
    jobs += [f"{rule}/{d}.{o}.{v}.{s}" for rule in TABLE_RULES for d, o, v, s in RUNS]
    jobs += [f"{rule}/{d}" for rule in ("prepare_data", "baseline", "interpolation") for d in DATASETS]
    # The paper shows figure S4 too.
    drawn = [*FIGURE_NAMES, *(["figS4"] if tiny_run.has_paper else [])]
    jobs += [*drawn, "claims", "figure_set"]
    expected = {f"figures/{name}.{kind}" for name in drawn for kind in ("pdf", "png", "csv")}
    expected |= {f"figure_set/{name}.pdf" for name in FIGURE_NAMES}
    texts = ("figures.tex", "numbers.tex", "claims.tex", "grades.tex", "manifest.json")
    expected |= {f"figure_set/{name}" for name in texts}
    expected |= {f"claims/claims.{kind}" for kind in ("csv", "md", "html", "tex")}
    expected |= {f"claims/grades.{kind}" for kind in ("csv", "tex")}
    expected |= {f"data/{d}.safetensors" for d in DATASETS}
    # The permuted networks are of the supplement.
    of_data_sets = [path for kind, path in DATASET_TABLES.items() if TABLES[kind].rule != "permuted"]
    expected |= {path.format(dataset=d) for path in of_data_sets for d in DATASETS}
    expected |= {str((folder(results, run) / name).relative_to(results)) for run in RUNS for name in RUN_FILES}
    if tiny_run.has_paper:
        jobs.append("paper")
        expected.add("paper.pdf")
    expected |= {f"logs/{job}.log" for job in jobs} | {f"benchmarks/{job}.tsv" for job in jobs}
    # The scratch folder, hidden, would be among them.
    found = {str(path.relative_to(results)) for path in results.rglob("*") if not path.is_dir()}
    assert found == expected
    assert not [path for path in results.rglob("*") if path.is_dir() and not any(path.iterdir())]


def test_the_plan_counts_the_rows_of_every_table(results: Path) -> None:
    durations = Durations(Experiment(validate(overlaid(read("tests/tiny.yaml")))), Assumed())
    estimated = written = 0
    for run in (Run(*run) for run in RUNS):
        expected = table_rows(durations, run)
        for kind in set(RUN_TABLES) - {"final_eigenvector"}:
            path = results / "runs" / run.folder / RUN_TABLES[kind]
            assert read_header(path, kind=kind)["rows"] == expected[kind], path
            written += path.stat().st_size
        estimated += table_bytes(durations, run)
    assert written / 2 < estimated < 2 * written


def test_the_terminal_shows_how_far_the_run_is_and_where_its_results_are(tiny_run: TinyRun) -> None:
    lines = tiny_run.finished.output.splitlines()
    assert len(lines) < 150
    assert max(map(len, lines)) < 300
    seen = [match for line in lines if (match := re.match(r"(\d+) of (\d+) jobs, .* gone.*; at work: (.*)", line))]
    counts = [int(match[1]) for match in seen]
    assert counts == sorted(counts)
    assert any(re.search(r"train digits\w*/\w+/[\w.-]+/seed\d", match[3]) for match in seen)
    last = lines[-1]
    for path in ("figures", "claims/claims.html", "figure_set"):
        assert f"results/tiny/{path}" in last
    # What is not shown is in Snakemake's log.
    (log, *_) = sorted((tiny_run.folder / ".snakemake" / "log").glob("*.log"))
    assert len(re.findall(r"^ +jobid: ", log.read_text(encoding="utf-8"), re.MULTILINE)) == int(seen[0][2])


def test_logs_tell_progress_and_no_trouble(results: Path) -> None:
    for log in (results / "logs").rglob("*.log"):
        text = log.read_text(encoding="utf-8")
        assert not re.search(r"traceback|warning|error", text, re.IGNORECASE) or log.name == "paper.log", log
        # A library's chatter would bury a message that matters.
        assert len(text.splitlines()) <= 20 or log.name == "paper.log", log
        if log.parent.name in ("train", "eigensnapshot", "baseline"):
            last = text.splitlines()[-1]
            done, total = map(int, re.search(r": (\d+) of (\d+),", last).groups())  # type: ignore[union-attr]
            assert done == total > 0, log


def test_benchmarks_hold_one_measurement_each(results: Path) -> None:
    for path in (results / "benchmarks").rglob("*.tsv"):
        measured = pd.read_csv(path, sep="\t")
        assert len(measured) == 1, path
        assert float(measured["s"].iloc[0]) > 0, path


def test_figures_are_pdf_png_and_the_plotted_numbers(results: Path) -> None:
    for number, name in enumerate(FIGURE_NAMES, start=1):
        assert (results / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF-"), name
        assert (results / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n"), name
        # Its own script drew it: the kind and the number are in the table.
        identity = read_header(results / "figures" / f"{name}.csv", kind=name)["identity"]
        assert identity["figure"] == number
        assert identity["drawn_by"].startswith("reproduction.figures.")
        assert len(read_table(results / "figures" / f"{name}.csv", kind=name)) > 0, name


def test_a_figure_names_the_tables_that_it_was_drawn_from(results: Path) -> None:
    """From a point of figure 3 to its files: by kind, run and checksum."""
    named = read_header(results / "figures" / "fig03.csv", kind="fig03")["identity"]["tables"]
    assert len(named) == 2 * 3 * 2
    for table in named:
        run = results / "runs" / table["dataset"] / table["optimizer"] / table["variant"] / f"seed{table['seed']}"
        assert table["sha256"] == read_header(run / f"{table['kind']}.csv", kind=table["kind"])["sha256"]


def test_every_claim_is_stated_and_none_is_decided_at_this_scale(results: Path) -> None:
    claims = read_table(results / "claims" / "claims.csv", kind="claims")
    assert sorted(set(claims["number"])) == CLAIM_NUMBERS
    assert set(claims["verdict"].dropna()) == {"not assessed at this scale"}
    for kind in ("md", "tex"):
        text = (results / "claims" / f"claims.{kind}").read_text(encoding="utf-8")
        assert "not assessed" in text
        assert "nan" not in text.lower().split(), kind


def test_the_manifest_describes_the_figure_set(results: Path) -> None:
    figure_set = results / "figure_set"
    manifest = json.loads((figure_set / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest["files"]) == {path.name for path in figure_set.iterdir()} - {"manifest.json"}
    for name, described in manifest["files"].items():
        content = (figure_set / name).read_bytes()
        assert described == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}, name
    for name in FIGURE_NAMES:
        assert (figure_set / f"{name}.pdf").read_bytes() == (results / "figures" / f"{name}.pdf").read_bytes(), name
    provenance = manifest["provenance"]
    assert provenance["config"]["name"] == "tiny"
    assert provenance["versions"]["torch"] == torch.__version__
    assert {"device", "threads", "commit"} <= set(provenance)
    text = (figure_set / "manifest.json").read_text(encoding="utf-8")
    assert str(results.parents[1]) not in text


def test_the_compiled_paper_holds_all_figures(results: Path, tiny_run: TinyRun) -> None:
    if not tiny_run.has_paper:
        pytest.skip("no TeX here")
    pdf = results / "paper.pdf"
    if shutil.which("pdftotext") is None:
        assert not IN_CI, "pdftotext (poppler-utils) is missing"
        pytest.skip("no pdftotext here")
    text = subprocess.run(["pdftotext", "-layout", str(pdf), "-"], capture_output=True, text=True, check=True).stdout
    captions = re.findall(r"\bFig(?:ure|\.) (\d+)[:.]", text, re.IGNORECASE)
    assert sorted(set(map(int, captions))) == list(FIGURES)
    assert "??" not in text
    images = subprocess.run(["pdffonts", str(pdf)], capture_output=True, text=True, check=True).stdout
    assert "Type 3" not in images


# Tables


def schedule(root: Path, variant: str) -> tuple[list[int], int]:
    """Steps of a run's snapshots and the interval of their grid, from the words of config.yaml."""
    config = yaml.safe_load((root / "tests" / "tiny.yaml").read_text(encoding="utf-8"))
    block = config["snapshots"] if variant == "main" else config["sweeps"]["snapshots"]
    steps = STEPS[variant]
    every = block["every"] if variant == "main" else max(1, round(block["every"] * steps / STEPS["main"]))
    taken = set(range(0, steps, every)) | {steps}
    for waiting_time in block["waiting_times"]:
        lags = {round(10 ** (j / block["lags_per_decade"])) for j in range(20)}
        taken |= {waiting_time} | {waiting_time + lag for lag in lags if waiting_time + lag < steps}
    return sorted(taken), every


def test_every_table_has_a_row_for_every_snapshot(results: Path, root: Path) -> None:
    for run in RUNS:
        steps, every = schedule(root, run[2])
        history = read_table(folder(results, run) / "history.csv", kind="history")
        assert list(history["step"]) == steps, run
        dense = run[2:] == ("main", 0)
        # dense_every: 2 is every 40 steps, and the last snapshot.
        pairs = [(t, i) for t in steps for i in range(1, (DENSE_K if dense and t in (0, 40, 60) else K) + 1)]
        ipr = read_table(folder(results, run) / "ipr.csv", kind="ipr")
        assert list(zip(ipr["step"], ipr["i"], strict=True)) == pairs, run
        alignment = read_table(folder(results, run) / "alignment.csv", kind="alignment")
        # On the grid alone, for means over training, and at the end.
        on_grid = [(t, i) for t, i in pairs if t % every == 0 or t == steps[-1]]
        assert list(zip(alignment["step"], alignment["i"], strict=True)) == on_grid, run
        localization = read_table(folder(results, run) / "localization.csv", kind="localization")
        layers = [(t, i, layer) for t, i in pairs for layer in range(4)]
        assert list(zip(*(localization[name] for name in ("step", "i", "layer")), strict=True)) == layers, run
        tracks = read_table(folder(results, run) / "tracks.csv", kind="tracks")
        followed = tracks[tracks["chain"] == "consecutive"]
        assert list(zip(followed["step"], followed["i"], strict=True)) == pairs, run
        stability = read_table(folder(results, run) / "stability.csv", kind="stability")
        assert list(stability["step"]) == steps, run
        overlaps = read_table(folder(results, run) / "overlaps.csv", kind="overlaps")
        counts = {t: sum(step == t for step, _ in pairs) for t in steps}
        times = overlaps.groupby(["first", "second"]).size()
        assert {(first, steps[-1]) for first in steps[:-1]} | set(itertools.pairwise(steps)) <= set(times.index), run
        assert all(count == counts[first] for (first, _), count in times.items()), run
        moved = read_table(folder(results, run) / "displacement.csv", kind="displacement")
        two_time = overlaps[(overlaps["two_time"] == 1) & (overlaps["i"] == 1)]
        lags = {(t, later - t) for t, later in zip(two_time["first"], two_time["second"], strict=True)}
        assert lags == set(zip(moved["waiting_time"], moved["lag"], strict=True)), run


def test_history_is_finite_and_training_learns(results: Path) -> None:
    history = table(results, "history")
    values = history[["train_loss", "test_loss", "train_accuracy", "test_accuracy"]]
    assert np.isfinite(values.to_numpy()).all()
    assert values[["train_accuracy", "test_accuracy"]].stack().between(0, 1).all()
    for run, rows in history.groupby(["dataset", "optimizer", "variant", "seed"]):
        assert rows["train_loss"].iloc[-1] < rows["train_loss"].iloc[0], run


def test_residuals_are_within_tolerance_or_the_pair_is_flagged(results: Path) -> None:
    ipr = table(results, "ipr")
    dense = (ipr["variant"] == "main") & (ipr["seed"] == 0) & ipr["step"].isin((0, 40, 60))
    tolerance = np.where(dense, DENSE_TOLERANCE, TOLERANCE)
    assert ((ipr["residual"] <= tolerance) == (ipr["converged"] == 1)).all()
    assert ipr["converged"].mean() > 0.99
    assert (ipr["matvecs"] > 0).all()
    for run, rows in ipr.groupby(["dataset", "optimizer", "variant", "seed", "step"]):
        assert (np.diff(rows["eigenvalue"]) <= 0).all(), run


def test_statistics_are_within_their_bounds(results: Path) -> None:
    ipr = table(results, "ipr")
    assert ipr["ipr"].between(1 / N_PARAMETERS * (1 - 1e-5), 1).all()
    alignment = table(results, "alignment")
    for column in ("gradient_alignment", "update_alignment", "convergence"):
        # Only pairs beyond the third may lack a final vector, and here the last snapshot is a dense one.
        assert alignment[column].between(0, 1 + 1e-6).all(), column
    last = alignment[alignment["step"] == alignment["variant"].map(STEPS)]
    assert len(last) >= len(DATASETS) * len(OPTIMIZERS) * (DENSE_K + K)
    np.testing.assert_allclose(last["convergence"], 1, atol=1e-6)
    moved = table(results, "displacement")
    assert moved["displacement"].between(0, 2 / N_PARAMETERS).all()
    np.testing.assert_allclose(moved["displacement"], 2 / N_PARAMETERS * (1 - moved["overlap"]), atol=1e-9)
    assert (moved["weight_displacement"] > 0).all()
    assert moved["angle_bound"].between(0, 1).all()
    assert 1 in set(moved["lag"])


def test_sgd_moves_along_the_gradient_and_the_others_do_not(results: Path) -> None:
    alignment = table(results, "alignment")
    apart = (alignment["update_alignment"] - alignment["gradient_alignment"]).abs()
    assert apart[alignment["optimizer"] == "sgd"].max() < 1e-4
    for optimizer in ("adam", "sam"):
        assert apart[alignment["optimizer"] == optimizer].max() > 1e-2


def test_the_baseline_is_the_mean_over_pairs(results: Path) -> None:
    for dataset in DATASETS:
        baseline = read_table(results / "baseline" / f"{dataset}.csv", kind="baseline")
        overlaps = read_table(results / "baseline" / f"{dataset}.overlaps.csv", kind="baseline_overlaps")
        assert list(baseline["i"]) == [1, 2, 3]
        assert set(baseline["n_initializations"]) == {5}
        for i, rows in overlaps.groupby("i"):
            assert list(zip(rows["first"], rows["second"], strict=True)) == list(itertools.combinations(range(5), 2))
            stated = baseline[baseline["i"] == i].iloc[0]
            assert stated["mean_overlap"] == pytest.approx(rows["overlap"].mean())
            assert stated["displacement"] == pytest.approx(2 / N_PARAMETERS * (1 - rows["overlap"].mean()))
            assert stated["displacement_low"] <= stated["displacement"] <= stated["displacement_high"]


def test_interpolation_ends_at_the_best_seeds_solutions(results: Path) -> None:
    history = table(results, "history")
    for dataset in DATASETS:
        lines = read_table(results / "interpolation" / f"{dataset}.csv", kind="interpolation")
        solutions = read_table(results / "interpolation" / f"{dataset}.solutions.csv", kind="solutions")
        last = history[(history["dataset"] == dataset) & (history["variant"] == "main") & (history["step"] == 60)]
        best = {}
        for optimizer in OPTIMIZERS:
            runs = last[last["optimizer"] == optimizer]
            best[optimizer] = runs[runs["test_accuracy"] == runs["test_accuracy"].max()].iloc[0]
            stated = solutions[solutions["optimizer"] == optimizer].iloc[0]
            assert stated["test_accuracy"] == pytest.approx(best[optimizer]["test_accuracy"])
            assert stated["train_loss"] == pytest.approx(best[optimizer]["train_loss"], rel=1e-5)
        assert len(lines.groupby(["first", "second"])) == 3
        for (first, second), line in lines.groupby(["first", "second"]):
            for alpha, optimizer in ((1.0, first), (0.0, second)):
                at = line[np.isclose(line["alpha"], alpha)].iloc[0]
                assert at["train_loss"] == pytest.approx(best[optimizer]["train_loss"], rel=1e-5)
                assert at["test_loss"] == pytest.approx(best[optimizer]["test_loss"], rel=1e-5)
        assert (solutions["sharpness"] > 0).all()


# Arrays against independent arithmetic


def data_of(results: Path, dataset: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Training inputs, standardized over all pixels, and classes, in float64."""
    file = ArrayFile(results / "data" / f"{dataset}.safetensors", kind="data")
    pixels = file["train_inputs"].astype(np.float64)
    return torch.from_numpy((pixels - pixels.mean()) / pixels.std()), torch.from_numpy(file["train_targets"])


def loss(theta: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the 64-12-10-10 ReLU network with parameters theta, written out."""
    start, widths = 0, (64, 12, 10, 10)
    for depth, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        weight = theta[start : start + fan_in * fan_out].view(fan_out, fan_in)
        bias = theta[start + fan_in * fan_out : start + fan_in * fan_out + fan_out]
        start += (fan_in + 1) * fan_out
        x = x @ weight.T + bias
        x = x.clamp(min=0) if depth < 2 else x
    return (x.logsumexp(1) - x[torch.arange(len(y)), y]).mean()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_pairs_at_the_end_are_those_of_the_dense_hessian(results: Path, optimizer: str) -> None:
    run = ("digits_noisy", optimizer, "main", 0)
    x, y = data_of(results, "digits_noisy")
    trajectory = ArrayFile(folder(results, run) / "trajectory.safetensors", kind="trajectory")
    theta = torch.from_numpy(trajectory["weights"][-1]).double()
    history = read_table(folder(results, run) / "history.csv", kind="history")
    assert history["train_loss"].iloc[-1] == pytest.approx(float(loss(theta, x, y)), rel=1e-5)
    hessian = torch.func.jacrev(torch.func.grad(loss), chunk_size=256)(theta, x, y).numpy()
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    pairs = ArrayFile(folder(results, run) / "eigenpairs-0.safetensors", kind="eigenpairs")
    at_end = np.flatnonzero(pairs["step"] == 60)
    assert len(at_end) == DENSE_K
    np.testing.assert_allclose(pairs["eigenvalue"][at_end], values[:DENSE_K], rtol=1e-4)
    found = pairs["vectors"][at_end].astype(np.float64)
    residuals = np.linalg.norm(found @ hessian - pairs["eigenvalue"][at_end, None] * found, axis=1)
    stated = pairs["residual"][at_end]
    np.testing.assert_allclose(residuals / pairs["eigenvalue"][at_end], stated, rtol=0.2, atol=2e-5)
    # The angle to the true vector is within the stated bound.
    overlaps = np.abs(np.einsum("in,ni->i", found, vectors[:, :DENSE_K]))
    sines = np.sqrt(np.clip(1 - overlaps**2, 0, None))
    assert (sines <= pairs["angle_bound"][at_end] + 2e-3).all()
    ipr = read_table(folder(results, run) / "ipr.csv", kind="ipr")
    stated_ipr = ipr[ipr["step"] == 60]["ipr"].to_numpy()
    clear = pairs["angle_bound"][at_end] < 1e-2
    assert clear.sum() >= 3
    np.testing.assert_allclose(stated_ipr[clear], (vectors[:, :DENSE_K] ** 4).sum(axis=0)[clear], rtol=0.1)


def test_statistics_are_recomputed_from_the_arrays(results: Path) -> None:
    run = ("digits", "adam", "main", 1)
    pairs = ArrayFile(folder(results, run) / "eigenpairs-0.safetensors", kind="eigenpairs")
    trajectory = ArrayFile(folder(results, run) / "trajectory.safetensors", kind="trajectory")
    vectors = {
        (int(t), int(i)): v / np.linalg.norm(v)
        for t, i, v in zip(pairs["step"], pairs["i"], pairs["vectors"].astype(np.float64), strict=True)
    }
    at = {int(t): row for row, t in enumerate(trajectory["steps"])}
    weights, gradients, updates = (trajectory[name].astype(np.float64) for name in ("weights", "gradients", "updates"))

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return abs(float(a @ b)) / math.sqrt(float(a @ a) * float(b @ b))

    alignment = read_table(folder(results, run) / "alignment.csv", kind="alignment")
    for row in alignment.itertuples():
        vector = vectors[row.step, row.i]
        assert row.gradient_alignment == pytest.approx(cosine(vector, gradients[at[row.step]]), abs=1e-5)
        assert row.update_alignment == pytest.approx(cosine(vector, updates[at[row.step]]), abs=1e-5)
        assert row.convergence == pytest.approx(cosine(vector, vectors[60, row.i]), abs=1e-5)
    moved = read_table(folder(results, run) / "displacement.csv", kind="displacement")
    for row in moved.itertuples():
        then, now = row.waiting_time, row.waiting_time + row.lag
        a, b = vectors[then, row.i], vectors[now, row.i]
        squared = min(((a - b) ** 2).sum(), ((a + b) ** 2).sum()) / N_PARAMETERS
        assert row.displacement == pytest.approx(squared, abs=1e-9)
        way = weights[at[now]] - weights[at[then]]
        assert row.weight_displacement == pytest.approx((way**2).sum() / N_PARAMETERS, rel=1e-4)
        assert row.update_alignment == pytest.approx(cosine(a, way), abs=1e-4)
    final = read_final_eigenvectors(folder(results, run) / "final_eigenvector.safetensors")
    assert final.steps[0] == 60
    for step, value, vector in zip(final.steps, final.iprs, final.vectors, strict=True):
        assert cosine(vector, vectors[step, 1]) > 1 - 1e-6
        assert value == pytest.approx((vectors[step, 1] ** 4).sum(), rel=1e-5)
    shapes = [shape for _, shape in final.layers]
    assert shapes == [(12, 64), (12,), (10, 12), (10,), (10, 10), (10,)]
    overlaps = read_table(folder(results, run) / "overlaps.csv", kind="overlaps")
    for row in overlaps.itertuples():
        for j in range(1, K + 1):
            expected = cosine(vectors[row.first, row.i], vectors[row.second, j])
            assert getattr(row, f"overlap_{j}") == pytest.approx(expected, abs=1e-5)
    identity = read_table(folder(results, run) / "identity.csv", kind="identity")
    both = identity.merge(moved, on=["waiting_time", "lag", "i"], suffixes=("", "_there"))
    assert len(both) == len(identity) == len(moved)
    np.testing.assert_allclose(both["displacement"], both["displacement_there"], rtol=1e-4, atol=1e-9)
    squares = np.square(both["partner_overlap"])
    assert ((squares > 0.5) == (both["accepted"] == 1))[np.abs(squares - 0.5) > 1e-4].all()
    exchanged = (both["displacement"] - both["partner_displacement"]) / both["displacement"]
    np.testing.assert_allclose(both["exchange_share"], np.where(both["accepted"] == 1, exchanged, 0), atol=1e-4)


def test_every_optimizer_starts_alike_and_an_update_is_the_difference_of_weights(results: Path) -> None:
    for dataset, seed in itertools.product(DATASETS, (0, 1)):
        files = [
            ArrayFile(folder(results, (dataset, optimizer, "main", seed)) / "trajectory.safetensors", kind="trajectory")
            for optimizer in OPTIMIZERS
        ]
        starts = {file["weights"][0].tobytes() for file in files}
        assert len(starts) == 1
        # The gradient is the plain loss's on the same first batch, for SAM too.
        assert len({file["gradients"][0].tobytes() for file in files}) == 1
        for file in files:
            assert list(file["steps"][:2]) == [0, 1]
            weights = file["weights"]
            assert (weights[1] - weights[0] == file["updates"][0]).all()
    seeds = {
        ArrayFile(folder(results, ("digits", "sgd", "main", seed)) / "trajectory.safetensors", kind="trajectory")[
            "weights"
        ][0].tobytes()
        for seed in (0, 1)
    }
    assert len(seeds) == 2


def test_files_say_what_run_they_belong_to(results: Path) -> None:
    rates = {"sgd": 0.01, "adam": 0.001, "sam": 0.01}
    for run in RUNS:
        dataset, optimizer, variant, seed = run
        samples = len(ArrayFile(results / "data" / f"{dataset}.safetensors", kind="data")["train_targets"])
        identity: dict[str, Any] = {
            "dataset": dataset,
            "optimizer": optimizer,
            "variant": variant,
            "seed": seed,
            "batch_size": samples if variant == "batch_size-full" else 128,
            "learning_rate": rates[optimizer] * (0.3 if variant == "learning_rate-0.3" else 1),
            "steps": STEPS[variant],
            "n_parameters": N_PARAMETERS,
            "n_train": samples,
        }
        for kind in ("history", "ipr", "alignment", "displacement"):
            found = read_header(folder(results, run) / f"{kind}.csv", kind=kind)["identity"]
            assert {key: found[key] for key in identity} == pytest.approx(identity), f"{run} {kind}"


def test_a_full_batch_is_the_full_training_set(results: Path) -> None:
    run = ("digits", "sgd", "batch_size-full", 0)
    trajectory = ArrayFile(folder(results, run) / "trajectory.safetensors", kind="trajectory")
    x, y = data_of(results, "digits")
    for row in (0, -1):
        theta = torch.from_numpy(trajectory["weights"][row]).double()
        exact = torch.func.grad(loss)(theta, x, y).numpy()
        np.testing.assert_allclose(trajectory["gradients"][row], exact, atol=2e-6)
