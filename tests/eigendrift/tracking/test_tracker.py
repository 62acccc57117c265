"""What a tracker records, and what it leaves as it is."""

import copy
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_loops import Noisy, data, plain, train

from eigendrift import Tracker
from eigendrift.tracking import tracker as tracker_module
from eigendrift.tracking.folder import FolderError
from eigendrift.tracking.trajectory import TrackerWarning, Trajectory

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2),
    "adamw foreach": lambda p: torch.optim.AdamW(p, lr=1e-2, foreach=True),
    "fused adam": lambda p: torch.optim.Adam(p, lr=1e-2, fused=True),
}


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    pass


# The run is the same


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_run_is_the_same_to_the_last_bit(kind: str, tmp_path: Path) -> None:
    def run(tracked: bool) -> dict[str, Any]:
        torch.manual_seed(3)
        model = Noisy().train()
        optimizer = OPTIMIZERS[kind](list(model.parameters()))
        tracker = Tracker(model, tmp_path / "run", every=3, quiet=True).attach(optimizer) if tracked else None
        losses = train(model, optimizer, 20)
        if tracker is not None:
            tracker.detach()
        return {
            "losses": losses,
            "state": {name: t.clone() for name, t in model.state_dict().items()},
            "grads": [p.grad.clone() for p in model.parameters() if p.grad is not None],
            "flags": [p.requires_grad for p in model.parameters()],
            "modes": [m.training for m in model.modules()],
            "random": torch.get_rng_state(),
            "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
            "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.is_grad_enabled()),
            "optimizer": optimizer.state_dict(),
        }

    alone, followed = run(tracked=False), run(tracked=True)
    assert len(Trajectory(tmp_path / "run")) == 8

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, Tensor):
            return torch.equal(a, b)
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        if isinstance(a, list | tuple):
            return len(a) == len(b) and all(map(same, a, b))
        return bool(a == b)

    assert [name for name in alone if not same(alone[name], followed[name])] == []


# What is recorded


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_weights_gradients_and_updates_are_those_of_the_step(kind: str, tmp_path: Path) -> None:
    model = plain()
    optimizer = OPTIMIZERS[kind](list(model.parameters()))
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    inputs, targets = data()
    with Tracker(model, tmp_path, at=[0, 3, 4], quiet=True).attach(optimizer) as tracker:
        for step in range(6):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            before = flat(model).clone()
            gradient = torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]).clone()
            optimizer.step()
            if step in (0, 3, 4):
                seen.append((before, gradient, flat(model) - before))
        assert tracker.step == 6
    found = Trajectory(tmp_path)
    assert found.steps.tolist() == [0, 3, 4, 6]
    for row, (weights, gradient, update) in enumerate(seen):
        np.testing.assert_array_equal(found.weights[row], weights.numpy())
        np.testing.assert_array_equal(found.gradients[row], gradient.numpy())
        np.testing.assert_array_equal(found.updates[row], update.numpy())
    np.testing.assert_array_equal(found.weights[3], flat(model).numpy())
    assert found.has("gradients").tolist() == found.has("updates").tolist() == [True, True, True, False]
    assert np.isnan(found.gradients[3]).all()
    assert found.learning_rates[0] == optimizer.defaults["lr"]


def test_a_closure_gives_the_gradient_at_the_point_of_the_step(tmp_path: Path) -> None:
    model = plain()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    inputs, targets = data()
    with Tracker(model, tmp_path, every=1, quiet=True).attach(optimizer):
        for call in range(3):

            def closure() -> Tensor:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(inputs), targets)
                loss.backward()
                return loss

            # As a keyword too, which is how Lightning gives it.
            optimizer.step(closure) if call else optimizer.step(closure=closure)
    found = Trajectory(tmp_path)
    assert found.has("gradients").tolist() == [True, True, True, False]
    for row in range(3):
        other = plain()
        torch.nn.utils.vector_to_parameters(torch.tensor(found.weights[row]), other.parameters())
        nn.functional.cross_entropy(other(inputs), targets).backward()
        expected = torch.cat([p.grad.reshape(-1) for p in other.parameters() if p.grad is not None])
        np.testing.assert_array_equal(found.gradients[row], expected.numpy())
        np.testing.assert_allclose(found.weights[row] + found.updates[row], found.weights[row + 1], atol=1e-6)


def test_groups_and_optimizers_are_gathered_in_the_models_order(tmp_path: Path) -> None:
    model = plain()
    first = torch.optim.SGD([{"params": [model[2].bias], "lr": 0.5}, {"params": [model[0].weight]}], lr=0.1)
    second = torch.optim.Adam([model[2].weight, model[0].bias], lr=1e-2)
    inputs, targets = data()
    points, gradients = [], []
    with Tracker(model, tmp_path, every=1, quiet=True).attach(first, second):
        for step in range(4):
            # The first steps twice as often, as in adversarial training.
            for optimizer in (first, first, second) if step % 2 else (first, second):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), targets).backward()
                if optimizer is first and len(points) == step:
                    points.append(flat(model).clone())
                    gradients.append(model[0].weight.grad.clone())
                optimizer.step()
    found = Trajectory(tmp_path)
    assert found.steps.tolist() == [0, 1, 2, 3, 4]
    for row in range(4):
        np.testing.assert_array_equal(found.weights[row], points[row].numpy())
        np.testing.assert_array_equal(found.gradients[row][:30], gradients[row].reshape(-1).numpy())
        np.testing.assert_allclose(found.weights[row + 1], found.weights[row] + found.updates[row], atol=1e-6)


def test_buffers_and_frozen_parameters_are_kept_and_stored_again_when_they_change(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Noisy().train()
    model.first.weight.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    states = []
    with Tracker(model, tmp_path, every=2, quiet=True).attach(optimizer) as tracker:
        train(
            model,
            optimizer,
            4,
            each=lambda step: states.append({name: b.clone() for name, b in model.named_buffers()}),
        )
        assert tracker.trajectory.n_parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)
    found = Trajectory(tmp_path)
    assert set(found.state(0)) == {"first.weight", *dict(model.named_buffers())}
    # Buffers are those after the forward pass of the step, and at the end those of the model that is left.
    for row, step in ((0, 0), (1, 2), (2, 3)):
        for name, expected in states[step].items():
            assert torch.equal(found.state(row)[name], expected), name
    torch.testing.assert_close(found.state(2)["first.weight"], model.first.weight, rtol=0, atol=0)
    # Damage to one buffer is found by its name.
    state_file = tmp_path / "state.bin"
    content = bytearray(state_file.read_bytes())
    content[-1] ^= 1
    state_file.write_bytes(content)
    with pytest.raises(FolderError, match=r"norm\.num_batches_tracked at row 2"):
        found.state(2)
    # The frozen weight is on disk once.
    stored = (tmp_path / "state.bin").stat().st_size
    moving = sum(b.numel() * b.itemsize for b in model.buffers())
    assert stored == 3 * moving + model.first.weight.numel() * 4


def test_accumulated_gradients_are_one_step(tmp_path: Path) -> None:
    model, (inputs, targets) = plain(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Tracker(model, tmp_path, every=1, quiet=True).attach(optimizer) as tracker:
        for _ in range(2):
            optimizer.zero_grad()
            for part in range(4):
                piece = slice(16 * part, 16 * part + 16)
                (nn.functional.cross_entropy(model(inputs[piece]), targets[piece]) / 4).backward()
            total = torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]).clone()
            optimizer.step()
        assert tracker.step == 2
    np.testing.assert_array_equal(Trajectory(tmp_path).gradients[1], total.numpy())


@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_a_scaler_skips_do_not_count(fused: bool, tmp_path: Path) -> None:
    model, (inputs, targets) = plain(), data()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plain_gradients = []
    with Tracker(model, tmp_path, every=1, quiet=True).attach(optimizer) as tracker:
        for step in range(4):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), targets)
            copied = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
            scaler.scale(loss * (torch.inf if step == 1 else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
            if step != 1:
                plain_gradients.append(torch.cat([g.reshape(-1) for g in copied]))
        assert tracker.step == 3
    found = Trajectory(tmp_path)
    assert found.steps.tolist() == [0, 1, 2, 3]
    for row, expected in enumerate(plain_gradients):
        np.testing.assert_allclose(found.gradients[row], expected.numpy(), rtol=1e-5, atol=1e-7)


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimization in its usual form: two steps around another optimizer."""

    def __init__(self, parameters: list[nn.Parameter], rho: float, lr: float) -> None:
        super().__init__(parameters, {"rho": rho, "lr": lr})
        self.base_optimizer = torch.optim.SGD(self.param_groups, lr=lr)

    @torch.no_grad()
    def first_step(self) -> None:
        """Climb."""
        norm = torch.stack([p.grad.norm() for p in self.param_groups[0]["params"]]).norm()
        for p in self.param_groups[0]["params"]:
            self.state[p]["old"] = p.clone()
            p.add_(p.grad, alpha=float(self.param_groups[0]["rho"] / norm))

    @torch.no_grad()
    def second_step(self) -> None:
        """Step from the point before with the gradient of this one."""
        for p in self.param_groups[0]["params"]:
            p.copy_(self.state[p]["old"])
        self.base_optimizer.step()


@pytest.mark.parametrize("kept", [True, False])
def test_the_gradient_of_a_perturbed_point_is_never_taken_for_that_of_the_step(kept: bool, tmp_path: Path) -> None:
    model, (inputs, targets) = plain(), data()
    optimizer = SAM(list(model.parameters()), rho=0.5, lr=0.1)
    points, gradients = [], []
    reported = nullcontext() if kept else pytest.warns(TrackerWarning, match="keep_gradient")
    with reported, Tracker(model, tmp_path, every=1, quiet=True).attach(optimizer) as tracker:
        for _ in range(3):
            for climbing in (True, False):
                model.zero_grad()
                nn.functional.cross_entropy(model(inputs), targets).backward()
                if climbing:
                    points.append(flat(model).clone())
                    gradients.append(torch.cat([p.grad.reshape(-1) for p in model.parameters()]).clone())  # type: ignore[union-attr]
                    if kept:
                        tracker.keep_gradient()
                    optimizer.first_step()
                else:
                    optimizer.second_step()
    found = Trajectory(tmp_path)
    assert found.has("gradients").tolist() == [kept] * 3 + [False]
    for row in range(3):
        np.testing.assert_array_equal(found.weights[row], points[row].numpy())
        if kept:
            np.testing.assert_array_equal(found.gradients[row], gradients[row].numpy())


def test_a_kept_gradient_is_that_before_clipping(tmp_path: Path) -> None:
    model, (inputs, targets) = plain(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Tracker(model, tmp_path, every=1, quiet=True).attach(optimizer) as tracker:
        for step in range(2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            if step:
                tracker.keep_gradient()
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            optimizer.step()
    norms = np.linalg.norm(Trajectory(tmp_path).gradients[:2], axis=1)
    assert norms[0] == pytest.approx(1e-3, rel=1e-3)
    assert norms[1] > 0.1


def test_record_by_hand_is_for_loops_without_an_optimizer(tmp_path: Path) -> None:
    model = plain()
    with Tracker(model, tmp_path, every=1, quiet=True) as tracker:
        for step in (0, 5, 9):
            update = torch.full((tracker.trajectory.n_parameters,), 0.1 * (step + 1))
            tracker.record(step, gradient=np.ones(len(update), np.float32), update=update)
        with pytest.raises(ValueError, match="step = 9"):
            tracker.record(9)
        with pytest.raises(ValueError, match=r"gradients has shape \(3,\)"):
            tracker.record(gradient=torch.ones(3))
        tracker.record(weights=torch.zeros(len(update)))
    found = Trajectory(tmp_path)
    assert found.steps.tolist() == [0, 5, 9, 10]
    assert (found.gradients[:3] == 1).all()
    assert not found.weights[3].any()
    with pytest.raises(ValueError, match="detached"):
        tracker.record()


def test_a_predicate_says_when(tmp_path: Path) -> None:
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Tracker(model, tmp_path, at=lambda step: step in (1, 2, 4), quiet=True).attach(optimizer):
        train(model, optimizer, 5)
    assert Trajectory(tmp_path).steps.tolist() == [1, 2, 4, 5]


def test_half_precision_and_float64_weights_are_kept_exactly(tmp_path: Path) -> None:
    for dtype in (torch.bfloat16, torch.float64):
        model = plain().to(dtype)
        with Tracker(model, tmp_path / str(dtype), every=1, quiet=True) as tracker:
            tracker.record()
        row = torch.tensor(np.array(Trajectory(tmp_path / str(dtype)).weights[0]))
        assert torch.equal(row.to(dtype), flat(model))


@pytest.mark.parametrize("wrapped", ["compiled", "data parallel", "both"])
def test_a_wrapped_model_is_the_one_within(wrapped: str, tmp_path: Path) -> None:
    model = plain()
    given: nn.Module = model if wrapped == "compiled" else nn.DataParallel(model)
    if wrapped != "data parallel":
        given = torch.compile(given, backend="eager")  # type: ignore[assignment]
    optimizer = torch.optim.SGD(given.parameters(), lr=0.1)
    with Tracker(given, tmp_path, every=1, quiet=True).attach(optimizer):
        train(given, optimizer, 2)
    assert list(Trajectory(tmp_path).shapes) == [name for name, _ in model.named_parameters()]
    assert Trajectory(tmp_path).steps.tolist() == [0, 1, 2]


def test_a_compiled_step_is_followed(tmp_path: Path) -> None:
    model, (inputs, targets) = plain(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    @torch.compile(backend="eager")
    def step() -> None:
        optimizer.step()

    with Tracker(model, tmp_path, every=1, quiet=True).attach(optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            step()
    assert Trajectory(tmp_path).steps.tolist() == [0, 1, 2, 3]


# Resuming, and being killed


def test_a_run_that_is_resumed_ends_with_the_same_file(tmp_path: Path) -> None:
    def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = Noisy().eval()
        return model, torch.optim.Adam(model.parameters(), lr=1e-2)

    model, optimizer = fresh()
    with Tracker(model, tmp_path / "whole", every=2, quiet=True).attach(optimizer):
        train(model, optimizer, 12)

    model, optimizer = fresh()
    tracker = Tracker(model, tmp_path / "parts", every=2, quiet=True).attach(optimizer)
    train(model, optimizer, 5)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), tracker.state_dict()))
    train(model, optimizer, 4, first=5)
    tracker._writer.close()  # type: ignore[union-attr]

    model, optimizer = fresh()
    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    with Tracker(model, tmp_path / "parts", every=2, quiet=True).attach(optimizer) as tracker:
        tracker.load_state_dict(saved[2])
        assert Trajectory(tmp_path / "parts").steps.tolist() == [0, 2, 4]
        train(model, optimizer, 7, first=5)
    whole, parts = Trajectory(tmp_path / "whole"), Trajectory(tmp_path / "parts")
    assert whole.steps.tolist() == parts.steps.tolist() == [0, 2, 4, 6, 8, 10, 12]
    np.testing.assert_array_equal(whole.weights, parts.weights)
    np.testing.assert_array_equal(whole.gradients, parts.gradients)
    for row in range(len(whole)):
        first, second = whole.state(row), parts.state(row)
        assert all(torch.equal(first[name], second[name]) for name in first)


KILLED = """
import os, signal, sys, torch
sys.path[:0] = {path!r}
from training_loops import plain, train
from eigendrift import Tracker
torch.set_num_threads(1)
model = plain()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
tracker = Tracker(model, {folder!r}, every=1, quiet=True).attach(optimizer)
print("ready", flush=True)
train(model, optimizer, 10**9)
"""


@pytest.mark.parametrize("delay", [0.05, 0.3])
def test_a_killed_process_loses_one_snapshot_at_most_and_nothing_is_pickled(delay: float, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED.format(path=sys.path, folder=str(folder))], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with suppress(subprocess.TimeoutExpired):
        process.wait(delay)
    # The file is read while training goes on.
    alive = Trajectory(folder)
    assert alive.steps.tolist() == list(range(len(alive)))
    process.kill()
    process.wait()
    process.stdout.close()
    found = Trajectory(folder)
    assert len(found) >= len(alive)
    assert {path.suffix for path in folder.iterdir()} <= {".bin", ".json", ".jsonl", ""}

    # What the killed process recorded is what an undisturbed one records.
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    points: list[Tensor] = []
    optimizer.register_step_pre_hook(lambda *_: points.append(flat(model).clone()))
    train(model, optimizer, len(found))
    np.testing.assert_array_equal(found.weights, torch.stack(points).numpy())
    with Tracker(plain(), folder, every=1, quiet=True) as tracker:
        tracker.step = 3
        assert tracker.trajectory.steps.tolist() == [0, 1, 2]


def test_memory_after_many_snapshots_is_that_after_two(tmp_path: Path) -> None:
    code = f"""
        import os, sys, torch
        sys.path[:0] = {sys.path!r}
        from torch import nn
        from eigendrift import Tracker
        model = nn.Linear(1000, 500)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        tracker = Tracker(model, sys.argv[1], every=1, quiet=True).attach(optimizer)
        x = torch.ones(1, 1000)
        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        for step in range(60):
            optimizer.zero_grad()
            model(x).sum().backward()
            optimizer.step()
            if step == 4:
                before = resident()
        print(resident() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True, check=True
    )
    # 55 snapshots of 6 MB.
    assert int(done.stdout) < 12e6


# Refusals


def test_a_full_disk_ends_the_recording_and_not_the_training(tmp_path: Path) -> None:
    code = f"""
        import resource, signal, sys, warnings, torch
        sys.path[:0] = {sys.path!r}
        from training_loops import plain, train
        from eigendrift import Tracker
        model = plain()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        tracker = Tracker(model, {str(tmp_path)!r}, every=1, quiet=True).attach(optimizer)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            print(len(train(model, optimizer, 20)), len(caught), caught[0].category.__name__)
        tracker.detach()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["20", "1", "TrackerWarning"]
    found = Trajectory(tmp_path)
    # 53 parameters of 4 bytes, of which 1000 bytes hold 4.
    assert found.steps.tolist() == [0, 1, 2, 3]
    assert np.isfinite(found.updates).all()


def test_what_cannot_be_followed_is_refused_in_one_line(tmp_path: Path) -> None:
    model, other = plain(), plain(1)
    refused: list[tuple[Any, str]] = [
        (torch.optim.SGD(other.parameters(), lr=0.1), "none of the tracked parameters"),
        ("sgd", "str"),
        (type("ZeroRedundancyOptimizer", (torch.optim.SGD,), {})(model.parameters(), lr=0.1), "record"),
        (type("Engine", (), {"__module__": "deepspeed.runtime"})(), "record"),
    ]
    with Tracker(model, tmp_path, every=1, quiet=True) as tracker:
        for optimizer, named in refused:
            with pytest.raises(ValueError, match=named) as caught:
                tracker.attach(optimizer)
            assert "\n" not in str(caught.value)
        good = torch.optim.SGD(model.parameters(), lr=0.1)
        tracker.attach(good)
        with pytest.raises(ValueError, match="already"):
            tracker.attach(good)
    sharded = type("FullyShardedDataParallel", (nn.Module,), {})()
    sharded.inner = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="record"):
        Tracker(sharded, tmp_path / "other", every=1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "every"),
        ({"every": 0}, "every = 0"),
        ({"every": 10, "at": [1]}, "not both"),
        ({"at": []}, "at is empty"),
        ({"at": [1.5]}, "1.5"),
        ({"every": 1, "record": ["weight"]}, "record"),
        ({"every": 1, "params": "nothing.*"}, "params"),
        ({"every": 1, "meta": {"loss": object()}}, "meta"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_made(arguments: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        Tracker(plain(), tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_a_folder_belongs_to_one_run(tmp_path: Path) -> None:
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Tracker(model, tmp_path, every=1, quiet=True).attach(optimizer):
        train(model, optimizer, 3)
        with pytest.raises(FolderError, match="another process or tracker"):
            Tracker(plain(), tmp_path, every=1)
    with pytest.raises(FolderError, match="parameters"):
        Tracker(nn.Linear(2, 2), tmp_path, every=1)
    # The same model from the start would mix two runs.
    again = plain()
    second = torch.optim.SGD(again.parameters(), lr=0.1)
    with (
        Tracker(again, tmp_path, every=1, quiet=True).attach(second),
        pytest.raises(ValueError, match="overwrite=True"),
    ):
        train(again, second, 1)
    assert len(Trajectory(tmp_path)) == 4
    with Tracker(again, tmp_path, every=1, quiet=True, overwrite=True).attach(second):
        train(again, second, 1)
    assert len(Trajectory(tmp_path)) == 2
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(ValueError, match="something else"):
        Tracker(again, tmp_path / "thesis", every=1, overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "precious"


def test_a_model_that_changes_its_shapes_keeps_what_was_recorded(tmp_path: Path) -> None:
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Tracker(model, tmp_path, every=1, quiet=True).attach(optimizer):
        train(model, optimizer, 2)
        model[2].bias.data = torch.zeros(4)
        with pytest.raises(ValueError, match=r"2\.bias"):
            optimizer.step()
        model[2].bias.data = torch.zeros(3)
    assert Trajectory(tmp_path).steps.tolist()[:2] == [0, 1]


def test_a_step_without_any_gradient_is_reported(tmp_path: Path) -> None:
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        Tracker(model, tmp_path, every=1, quiet=True).attach(optimizer),
        pytest.warns(TrackerWarning, match="gradient"),
    ):
        optimizer.step()
    assert not Trajectory(tmp_path).has("gradients").any()


def test_damage_is_found(tmp_path: Path) -> None:
    model = plain()
    with Tracker(model, tmp_path, every=1, quiet=True) as tracker:
        tracker.record()
        tracker.record()
    data_file = tmp_path / "weights.bin"
    content = bytearray(data_file.read_bytes())
    content[-1] ^= 1
    data_file.write_bytes(content)
    found = Trajectory(tmp_path)
    found.checked_weights(0)
    with pytest.raises(FolderError, match=r"row 1 of .*weights\.bin"):
        found.checked_weights(1)
    data_file.write_bytes(content[:-8])
    with pytest.raises(FolderError, match="shorter"):
        _ = Trajectory(tmp_path).weights
    (tmp_path / "trajectory.json").write_text("{")
    with pytest.raises(FolderError, match="damaged"):
        Trajectory(tmp_path)
    with pytest.raises(FolderError, match="has no"):
        Trajectory(tmp_path / "nowhere")


def test_the_disk_that_snapshots_take_is_said_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Tracker(model, tmp_path, every=1).attach(optimizer) as tracker:
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert tracker_module._bytes(tracker.bytes_per_snapshot) in said
        train(model, optimizer, 2)
    assert capsys.readouterr().err == ""
    rows = sum((tmp_path / f"{name}.bin").stat().st_size for name in ("weights", "gradients", "updates"))
    assert rows == 3 * tracker.bytes_per_snapshot


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Tracker(model, tmp_path / "run", every=1, quiet=True).attach(optimizer) as tracker:
        train(model, optimizer, 3)
        assert tracker.step == 3
    assert not (tmp_path / "run").exists()
