"""The examples of own problems from their few lines to figures, and what an edit of their files runs again."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments import FIGURE_NAMES, TABLE_RULES
from own_problems import SMALL
from snakemake_process import copy_checkout, environment, planned_jobs, planned_rules, run_snakemake
from torch import nn

from eigendrift.tracking.trajectory import Trajectory
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
    file, other = (convolutional / "examples" / name for name in ("conv.py", "transformer.py"))
    before, other_before = (each.read_text(encoding="utf-8") for each in (file, other))
    try:
        file.write_text(before + "\n# another line\n", encoding="utf-8")
        again = set(planned_rules(run_snakemake(convolutional, "-n", *CONV)))
        assert {"train", "eigensnapshot", "baseline", "interpolation", *TABLE_RULES, *FIGURE_NAMES} <= again
        assert "prepare_data" not in again
        # The other example does not have this file.
        other.write_text("broken", encoding="utf-8")
        assert set(planned_rules(run_snakemake(convolutional, "-n", *CONV))) == again
    finally:
        file.write_text(before, encoding="utf-8")
        other.write_text(other_before, encoding="utf-8")


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


LOOP = ("--configfile", "examples/loop.yaml", "small.yaml")
# Of a recorded run there is no test set, and nothing to sweep.
INAPPLICABLE = {"fig05", "fig08", "fig17", "fig18", "fig19", "fig20", "fig21"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which the loop of the example was recorded and followed to its figures."""
    folder = copy_checkout(tmp_path_factory.mktemp("recorded") / "checkout")
    (folder / "small.yaml").write_text(SMALL, encoding="utf-8")
    subprocess.run(
        [sys.executable, "examples/loop.py"], cwd=folder, env=environment(PYTHONPATH=str(folder / "src")), check=True
    )
    run_snakemake(folder, "--cores", "2", *LOOP)
    return folder


def test_a_recorded_loop_has_the_figures_that_apply_and_pages_that_say_why_others_do_not(recorded: Path) -> None:
    results = recorded / "results" / "loop"
    for name in FIGURE_NAMES:
        numbers = read_table(results / "figures" / f"{name}.csv", kind=name)
        assert len(numbers), name
        assert (list(numbers.columns) == ["reason"]) == (name in INAPPLICABLE), name
        assert (results / "figure_set" / f"{name}.pdf").stat().st_size > 0
    run = results / "runs" / "recorded" / "mine" / "main" / "seed0"
    own = Trajectory(recorded / "runs" / "mine")
    kept = ArrayFile(run / "trajectory.safetensors", kind="trajectory")
    # The last snapshot, of the final weights, has neither gradient nor update.
    assert own.steps.tolist() == [*kept["steps"].tolist(), 100]
    for name in ("weights", "gradients", "updates"):
        np.testing.assert_array_equal(kept[name], getattr(own, name)[:-1])
    baseline = read_table(results / "baseline" / "recorded.csv", kind="baseline")
    assert baseline["displacement"].between(0, 2 / own.n_parameters).all()


def test_eigenpairs_of_a_recorded_run_are_those_at_its_weights_and_buffers(recorded: Path) -> None:
    folder = recorded / "results" / "loop" / "runs" / "recorded" / "mine" / "main" / "seed0"
    pairs = read_table(folder / "ipr.csv", kind="ipr")
    history = read_table(folder / "history.csv", kind="history")
    own = Trajectory(recorded / "runs" / "mine")
    load = runpy.run_path(str(recorded / "examples" / "loop.py"))
    inputs, targets = load["data"]()
    for row in (1, 9):
        model = load["network"]().eval()
        state = {**own.state(row), **dict(zip(own.shapes, _split(own, row), strict=True))}
        model.load_state_dict(state)
        model.double()
        with torch.no_grad():
            loss = nn.functional.cross_entropy(model(inputs.double()), targets)
        assert history["train_loss"][row] == pytest.approx(float(loss), rel=1e-5)
        leading = pairs[(pairs["step"] == own.steps[row]) & (pairs["i"] == 1)].iloc[0]
        assert leading["eigenvalue"] == pytest.approx(_largest_eigenvalue(model, inputs.double(), targets), rel=1e-2)


def _split(own: Trajectory, row: int) -> list[torch.Tensor]:
    parts = torch.from_numpy(np.array(own.weights[row])).split([int(np.prod(shape)) for shape in own.shapes.values()])
    return [part.view(shape) for part, shape in zip(parts, own.shapes.values(), strict=True)]


def _largest_eigenvalue(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    """By the dense Hessian in float64, a row at a time."""
    parameters = list(model.parameters())
    loss = nn.functional.cross_entropy(model(inputs), targets)
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    gradient = torch.cat([g.reshape(-1) for g in gradients])
    rows = [
        torch.cat([r.reshape(-1) for r in torch.autograd.grad(entry, parameters, retain_graph=True)])
        for entry in gradient
    ]
    return float(torch.linalg.eigvalsh(torch.stack(rows))[-1])


def test_an_edit_of_the_problem_or_of_the_folder_runs_again_what_depends_on_it(recorded: Path) -> None:
    assert planned_rules(run_snakemake(recorded, "-n", *LOOP)) == {}
    file = recorded / "examples" / "loop.py"
    before = file.read_text(encoding="utf-8")
    try:
        file.write_text(before + "\n# another line\n", encoding="utf-8")
        assert {"train", "eigensnapshot", "baseline"} <= set(planned_rules(run_snakemake(recorded, "-n", *LOOP)))
    finally:
        file.write_text(before, encoding="utf-8")
    assert planned_rules(run_snakemake(recorded, "-n", *LOOP)) == {}
    weights = recorded / "runs" / "mine" / "weights.bin"
    content = weights.read_bytes()
    try:
        weights.write_bytes(content[:-4] + b"\x00\x00\x00\x01")
        assert {"train", "eigensnapshot"} <= set(planned_rules(run_snakemake(recorded, "-n", *LOOP)))
    finally:
        weights.write_bytes(content)


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ("{folder: nowhere, problem: 'examples/loop.py:hessian'}", "trajectory.json"),
        ("{folder: runs/mine, problem: 'examples/nothing.py:hessian'}", "file.py:name"),
        ("{folder: runs/mine, problem: 'examples/loop.py:network'}", "Sequential"),
        ("{folder: runs/mine, problem: 'examples/loop.py:absent'}", "absent"),
        ("{folder: runs/mine, problem: 'broken.py:hessian'}", "nothing_of_this_name"),
        ("{folder: runs/mine, problem: 'other.py:hessian'}", "650"),
    ],
)
def test_a_folder_or_problem_that_cannot_be_used_is_one_line_before_any_work(
    entry: str, named: str, recorded: Path, overlay: Callable[[str], str]
) -> None:
    (recorded / "broken.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    (recorded / "other.py").write_text(
        "import torch\nfrom torch import nn\nfrom eigendrift import HessianOperator\ndef hessian():\n"
        "    x, y = torch.randn(20, 64), torch.arange(20) % 10\n"
        "    return HessianOperator(nn.Linear(64, 10), nn.CrossEntropyLoss(), x, y)\n",
        encoding="utf-8",
    )
    path = overlay(f"name: refused\ntrajectories: {{mine: {entry}}}")
    done = run_snakemake(recorded, "-n", "--configfile", path, check=False)
    assert done.status != 0
    (line,) = [line for line in done.output.splitlines() if "config: trajectories.mine" in line]
    assert named in line
    assert "Traceback" not in done.output
