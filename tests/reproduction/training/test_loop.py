"""Training: what a snapshot holds, against a replay, and that a run which was killed goes on to the same bits."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiments import PACKAGES, SCRIPTS, SUPPORT, python
from torch import nn

from reproduction.files.checkpoint import Scratch
from reproduction.training import loop
from reproduction.training.batches import Batches, Samples
from reproduction.training.loop import HISTORY, Trajectory, evaluate, train
from reproduction.training.model import flatten, initialize, mlp
from reproduction.training.optimizers import OptimizerStep

INPUTS, CLASSES, N_TRAIN, BATCH = 6, 3, 41, 16
SNAPSHOTS = [0, 1, 2, 5, 9, 10, 17, 30]
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"class": "SGD", "lr": 0.1},
    "adam": {"class": "Adam", "lr": 0.01},
    "sam": {"class": "SAM", "base": "SGD", "lr": 0.1, "rho": 0.05},
    "momentum": {"class": "SGD", "lr": 0.05, "momentum": 0.9},
    "adamw": {"class": "AdamW", "lr": 0.01, "weight_decay": 0.1},
    "rmsprop": {"class": "RMSprop", "lr": 0.003},
    "sam_adam": {"class": "SAM", "base": "Adam", "lr": 0.01, "rho": 0.05},
}


pytestmark = pytest.mark.usefixtures("one_thread")


def samples(n: int, seed: int) -> Samples:
    random = np.random.default_rng(seed)
    inputs = random.standard_normal((n, INPUTS)).astype(np.float32)
    return Samples(inputs, (inputs[:, :CLASSES].argmax(axis=1)).astype(np.int64), torch.device("cpu"))


def network() -> nn.Sequential:
    model = mlp(INPUTS, [5], CLASSES)
    initialize(model, 1)
    return model


def run(
    folder: Path,
    optimizer: str | dict[str, Any] = "sgd",
    *,
    batch_size: int = BATCH,
    seed: int = 3,
    snapshots: list[int] = SNAPSHOTS,
    model: nn.Sequential | None = None,
    data: Samples | None = None,
) -> Trajectory:
    spec = OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer
    scratch = Scratch(folder, "job", {})
    data = data or samples(N_TRAIN, 0)
    return train(model or network(), data, samples(20, 1), spec, batch_size, seed, snapshots, scratch)


def assert_same(first: Trajectory, second: Trajectory) -> None:
    for name in ("steps", "weights", "gradients", "updates", "history"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
    assert first.diverged_at == second.diverged_at


# What a snapshot holds


def replay(spec: dict[str, Any], steps: int, batch_size: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
    """theta_t for t = 0..steps and the plain gradients at them on their batches, by functional calls in float64."""
    data, model, batches = samples(N_TRAIN, 0), network(), Batches(N_TRAIN, batch_size, 3)
    shapes = [p.shape for p in model.parameters()]
    theta = flatten(model).double()
    base = {key: value for key, value in spec.items() if key not in ("class", "base", "rho")}
    parameter = nn.Parameter(theta.clone())
    optimizer = getattr(torch.optim, spec.get("base", spec["class"]))([parameter], **base)

    def gradient(point: torch.Tensor, t: int) -> torch.Tensor:
        chosen = torch.arange(N_TRAIN) if batch_size == N_TRAIN else batches[t]
        point = point.detach().requires_grad_()
        weights = [
            part.view(shape) for part, shape in zip(point.split([s.numel() for s in shapes]), shapes, strict=True)
        ]
        hidden = torch.relu(data.inputs[chosen].double() @ weights[0].T + weights[1])
        scores = hidden @ weights[2].T + weights[3]
        log_p = scores - torch.logsumexp(scores, dim=1, keepdim=True)
        loss = -log_p[torch.arange(len(chosen)), data.targets[chosen]].mean()
        return torch.autograd.grad(loss, point)[0]

    thetas, gradients = [parameter.detach().clone()], []
    for t in range(steps):
        g = gradient(parameter, t)
        gradients.append(g)
        parameter.grad = gradient(parameter + spec["rho"] * g / g.norm(), t) if "rho" in spec else g
        optimizer.step()
        thetas.append(parameter.detach().clone())
    return torch.stack(thetas).numpy(), torch.stack(gradients).numpy()


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_snapshots_are_those_of_a_replay(tmp_path: Path, name: str) -> None:
    thetas, gradients = replay(OPTIMIZERS[name], SNAPSHOTS[-1] + 1)
    found = run(tmp_path, name)
    assert found.steps.tolist() == SNAPSHOTS
    assert found.diverged_at is None
    assert {found.weights.dtype, found.gradients.dtype, found.updates.dtype} == {np.dtype(np.float32)}
    # An adaptive step divides by small numbers: rounding of float32 grows over the steps.
    close = {"rtol": 1e-3, "atol": 2e-4} if name not in ("sgd", "sam", "momentum") else {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(found.weights, thetas[SNAPSHOTS], **close)
    np.testing.assert_allclose(found.gradients, gradients[SNAPSHOTS], **close)
    after = [step + 1 for step in SNAPSHOTS]
    np.testing.assert_allclose(found.updates, thetas[after] - thetas[SNAPSHOTS], **close)
    # So that the comparison means something: all of them moved.
    assert np.abs(found.updates).max(axis=1).min() > 1e-3


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_an_update_is_the_difference_of_two_snapshots(tmp_path: Path, name: str) -> None:
    found = run(tmp_path, name, snapshots=list(range(12)))
    np.testing.assert_array_equal(found.updates[:-1], np.diff(found.weights, axis=0))


def test_the_update_of_sgd_is_its_gradient_and_that_of_sam_is_not(tmp_path: Path) -> None:
    sgd, sam = run(tmp_path / "sgd", "sgd"), run(tmp_path / "sam", "sam")
    np.testing.assert_allclose(sgd.updates, -0.1 * sgd.gradients, rtol=1e-3, atol=1e-6)
    assert not np.allclose(sam.updates, -0.1 * sam.gradients, rtol=1e-2, atol=1e-5)
    # Both start from the same weights on the same batch, so their first plain gradient is the same.
    np.testing.assert_array_equal(sgd.gradients[0], sam.gradients[0])


def test_the_full_batch_is_the_training_set(tmp_path: Path) -> None:
    thetas, gradients = replay(OPTIMIZERS["sgd"], 11, batch_size=N_TRAIN)
    found = run(tmp_path, batch_size=N_TRAIN, snapshots=[0, 3, 10])
    np.testing.assert_allclose(found.weights, thetas[[0, 3, 10]], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.gradients, gradients[[0, 3, 10]], rtol=1e-4, atol=1e-5)


def test_snapshots_do_not_disturb_the_run(tmp_path: Path) -> None:
    few, many = (
        run(tmp_path / "few", "adam", snapshots=[0, 20]),
        run(tmp_path / "many", "adam", snapshots=list(range(21))),
    )
    np.testing.assert_array_equal(few.weights[-1], many.weights[-1])
    np.testing.assert_array_equal(few.updates[-1], many.updates[-1])


def test_the_model_ends_one_step_after_the_last_snapshot(tmp_path: Path) -> None:
    model = network()
    found = run(tmp_path, model=model)
    np.testing.assert_array_equal(flatten(model).numpy(), run(tmp_path / "on", snapshots=[0, 31]).weights[-1])
    np.testing.assert_allclose(flatten(model).numpy(), found.weights[-1] + found.updates[-1], atol=1e-6)


def numpy_loss(theta: np.ndarray, data: Samples) -> tuple[float, float]:
    theta = theta.astype(np.float64)
    w1, b1, w2, b2 = np.split(theta, np.cumsum([5 * INPUTS, 5, CLASSES * 5]))
    hidden = np.maximum(data.inputs.numpy() @ w1.reshape(5, INPUTS).T + b1, 0)
    scores = hidden @ w2.reshape(CLASSES, 5).T + b2
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    targets = data.targets.numpy()
    return -log_p[np.arange(len(targets)), targets].mean(), (scores.argmax(axis=1) == targets).mean()


def test_history_is_of_the_full_sets_at_the_snapshots_weights(tmp_path: Path) -> None:
    found = run(tmp_path)
    assert HISTORY == ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
    for weights, row in zip(found.weights, found.history, strict=True):
        train_loss, train_accuracy = numpy_loss(weights, samples(N_TRAIN, 0))
        test_loss, test_accuracy = numpy_loss(weights, samples(20, 1))
        np.testing.assert_allclose(row, [train_loss, test_loss, train_accuracy, test_accuracy], rtol=1e-5)
    assert found.history[-1, 0] < found.history[0, 0]


@pytest.mark.parametrize("rows", [1, 7, N_TRAIN, 4096])
def test_evaluation_in_parts_gives_the_mean_over_all(rows: int) -> None:
    data, model = samples(N_TRAIN, 0), network()
    expected = numpy_loss(flatten(model).numpy(), data)
    assert evaluate(model, data, rows) == pytest.approx(expected, rel=1e-6)


# The same bits

FINGERPRINT = """
import sys, pathlib
sys.path.insert(0, sys.argv[1])
import test_loop
print(test_loop.fingerprints(pathlib.Path(sys.argv[2])))
"""


def fingerprints(folder: Path) -> dict[str, str]:
    """sha256 of all that a run leaves, by optimizer."""
    torch.set_num_threads(1)
    found = {}
    for name in sorted(OPTIMIZERS):
        result = run(folder / name, name)
        parts = (result.weights, result.gradients, result.updates, result.history)
        found[name] = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()
    return found


def test_another_process_gets_the_same_bits(tmp_path: Path) -> None:
    here = fingerprints(tmp_path / "here")
    surroundings = {"PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    surroundings["PYTHONPATH"] = os.pathsep.join([PACKAGES, str(SUPPORT)])
    done = python(FINGERPRINT, Path(__file__).parent, tmp_path / "there", **surroundings)
    assert done.stdout.strip() == str(here), done.stderr
    assert len(set(here.values())) == len(OPTIMIZERS)
    assert SCRIPTS.is_dir()


def test_another_seed_gets_other_batches(tmp_path: Path) -> None:
    first, second = run(tmp_path / "a", seed=0), run(tmp_path / "b", seed=1)
    np.testing.assert_array_equal(first.weights[0], second.weights[0])
    assert not np.array_equal(first.gradients[0], second.gradients[0])


class KilledError(Exception):
    """Stands for whatever ends a job: it is raised where a kill may hit."""


def killing(function: Callable[..., Any], calls: int, monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> None:
    """Let `calls` calls of where.name through, and raise in the next one."""
    left = [calls]

    def counted(*arguments: Any, **options: Any) -> Any:
        if not left[0]:
            raise KilledError
        left[0] -= 1
        return function(*arguments, **options)

    monkeypatch.setattr(where, name, counted)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    expected = run(tmp_path / "whole", name)
    step = OptimizerStep.__call__
    for kills in np.random.default_rng(len(name)).integers(0, 15, (4, 2)).tolist():
        folder = tmp_path / str(kills)
        for calls in kills:
            killing(step, calls, monkeypatch, OptimizerStep, "__call__")
            with pytest.raises(KilledError):
                run(folder, name)
            monkeypatch.setattr(OptimizerStep, "__call__", step)
        assert_same(run(folder, name), expected)


@pytest.mark.parametrize("place", ["rows", "checkpoint", "rename"])
def test_a_kill_at_a_snapshot_costs_that_snapshot_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    expected = run(tmp_path / "whole", "adam")
    where: Any = {"rows": loop, "checkpoint": torch, "rename": os}[place]
    name = {"rows": "evaluate", "checkpoint": "save", "rename": "replace"}[place]
    function = getattr(where, name)
    calls = {"rows": 2 * 4, "checkpoint": 4, "rename": 4 + 4}[place]
    with monkeypatch.context() as patch:
        killing(function, calls, patch, where, name)
        with pytest.raises(KilledError):
            run(tmp_path / "killed", "adam")
    steps: list[int] = []
    call = OptimizerStep.__call__

    def counted(self: OptimizerStep, gradient: Callable[[], None]) -> None:
        steps.append(1)
        call(self, gradient)

    monkeypatch.setattr(OptimizerStep, "__call__", counted)
    assert_same(run(tmp_path / "killed", "adam"), expected)
    # Four snapshots were safe: steps 0, 1, 2, 5.
    assert len(steps) == SNAPSHOTS[-1] + 1 - (SNAPSHOTS[3] + 1)


def test_a_finished_run_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(tmp_path, "adam")
    killing(OptimizerStep.__call__, 0, monkeypatch, OptimizerStep, "__call__")
    assert_same(run(tmp_path, "adam"), expected)


@pytest.mark.parametrize("damage", ["missing", "short", "other shape"])
@pytest.mark.parametrize("array", ["weights", "gradients", "updates", "history"])
def test_a_checkpoint_without_its_arrays_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, array: str, damage: str
) -> None:
    expected = run(tmp_path / "whole", "adam")
    with monkeypatch.context() as patch:
        killing(OptimizerStep.__call__, 12, patch, OptimizerStep, "__call__")
        with pytest.raises(KilledError):
            run(tmp_path / "killed", "adam")
    (path,) = tmp_path.glob(f"killed/job/*/{array}.npy")
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        np.save(path, np.zeros(3))
    assert_same(run(tmp_path / "killed", "adam"), expected)


@pytest.mark.parametrize("damaged", ["weights", "gradients", "updates", "history", "checkpoint.pt"])
def test_progress_that_a_power_cut_spoilt_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    expected = run(tmp_path / "whole", "adam")
    with monkeypatch.context() as patch:
        killing(OptimizerStep.__call__, 12, patch, OptimizerStep, "__call__")
        with pytest.raises(KilledError):
            run(tmp_path / "killed", "adam")
    (path,) = tmp_path.glob(f"killed/job/*/{damaged}" if "." in damaged else f"killed/job/*/{damaged}.npy")
    if damaged == "checkpoint.pt":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        rows = np.lib.format.open_memmap(path, mode="r+")
        rows[2] = 0
        rows.flush()
    assert_same(run(tmp_path / "killed", "adam"), expected)


# Runs that go wrong


@pytest.mark.parametrize("snapshots", [SNAPSHOTS, list(range(20))])
@pytest.mark.parametrize("rate", [1e3, 1e30])
def test_a_run_that_diverges_ends_at_its_first_bad_snapshot(tmp_path: Path, rate: float, snapshots: list[int]) -> None:
    wild = {"class": "SGD", "lr": rate}
    found = run(tmp_path, wild, snapshots=snapshots)
    assert found.diverged_at in snapshots
    kept = snapshots.index(found.diverged_at)
    assert found.steps.tolist() == snapshots[:kept]
    parts = (found.weights, found.gradients, found.updates, found.history)
    assert {len(part) for part in parts} == {kept}
    assert all(np.isfinite(part).all() for part in parts)
    # Asked again, it says the same without training.
    assert_same(run(tmp_path, wild, snapshots=snapshots), found)


def test_a_snapshot_whose_update_overflows_is_not_kept(tmp_path: Path) -> None:
    data = samples(N_TRAIN, 0)
    data.inputs *= 1e3
    found = run(tmp_path, {"class": "SGD", "lr": 1e38}, data=data)
    # Weights, loss and gradient at step 0 are finite; the step is not.
    assert found.diverged_at == 0
    assert len(found.updates) == 0


@pytest.mark.parametrize("name", ["sgd", "sam", "adam"])
def test_a_run_that_is_never_finite_has_no_snapshot(tmp_path: Path, name: str) -> None:
    data = samples(N_TRAIN, 0)
    data.inputs[5, 2] = torch.nan
    found = run(tmp_path, name, data=data, batch_size=N_TRAIN)
    assert found.diverged_at == 0
    assert found.weights.shape == (0, 5 * INPUTS + 5 + CLASSES * 5 + CLASSES)
    assert found.history.shape == (0, 4)
    assert found.steps.dtype == np.int64


def test_a_finite_run_may_have_a_huge_loss(tmp_path: Path) -> None:
    found = run(tmp_path, {"class": "SGD", "lr": 8.0})
    assert found.diverged_at is None
    assert found.steps.tolist() == SNAPSHOTS
    assert found.history[:, 0].max() > 100


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_dead_network_trains_its_last_bias_alone(tmp_path: Path, name: str) -> None:
    model = network()
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    found = run(tmp_path, name, model=model)
    assert found.diverged_at is None
    hidden = slice(0, 5 * INPUTS + 5)
    assert not found.gradients[:, hidden].any()
    assert found.gradients[:, -CLASSES:].any(axis=1).all()
    if name != "adamw":
        assert not found.updates[:, hidden].any()
        assert found.updates[:, -CLASSES:].any(axis=1).all()


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_network_without_any_gradient_stays_where_it_is(tmp_path: Path, name: str) -> None:
    data = samples(N_TRAIN, 0)
    data.targets[:] = 1
    model = network()
    with torch.no_grad():
        model[2].bias.copy_(torch.tensor([-200.0, 200.0, -200.0]))
    found = run(tmp_path, name, model=model, data=data)
    assert found.diverged_at is None
    assert not found.gradients.any()
    if name != "adamw":
        assert not found.updates.any()
    np.testing.assert_array_equal(found.history[:, 0], 0)
