"""Eigenpairs along a recorded run, against dense Hessians, and what is said of them."""

import json
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_loops import Noisy, data, plain, train

from eigendrift import HessianOperator, Track, Tracker, cli, metrics
from eigendrift.tracking import solve as solving
from eigendrift.tracking.folder import FolderError
from eigendrift.tracking.report import page
from eigendrift.tracking.solve import solve
from eigendrift.tracking.trajectory import TrackerWarning, Trajectory

LOSS = nn.CrossEntropyLoss()


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    pass


def hessian_at(model: nn.Module, weights: Any, state: dict[str, Tensor]) -> Tensor:
    """The dense Hessian (N, N) in float64, by autograd alone."""
    inputs, targets = data()
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    shapes = [dict(model.named_parameters())[name].shape for name in names]
    fixed = {name: t.double() if t.is_floating_point() else t for name, t in state.items()}

    def loss(vector: Tensor) -> Tensor:
        parts = vector.split([shape.numel() for shape in shapes])
        named = {name: part.reshape(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        outputs = torch.func.functional_call(model, {**named, **fixed}, (inputs.double(),))
        return LOSS(outputs, targets)

    found: Tensor = torch.autograd.functional.hessian(loss, torch.tensor(np.array(weights)).double())
    return found


def recorded(folder: Path, steps: int = 12, every: int = 4, **options: Any) -> tuple[nn.Module, Tracker]:
    """A finished run of a plain network."""
    model = plain()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    tracker = Tracker(model, folder, every=every, quiet=True, **options).attach(optimizer)
    train(model, optimizer, steps)
    tracker.detach()
    return model, tracker


def operator(model: nn.Module) -> HessianOperator:
    return HessianOperator(model, LOSS, *data())


def test_pairs_and_statistics_are_those_of_dense_hessians(tmp_path: Path) -> None:
    model, tracker = recorded(tmp_path)
    weights = {name: t.clone() for name, t in model.state_dict().items()}
    track = tracker.solve(operator(model), k=3, tol=1e-5)
    assert all(torch.equal(t, weights[name]) for name, t in model.state_dict().items())
    assert track.steps.tolist() == [0, 4, 8, 12]
    assert track.converged.all()

    exact = []
    for row in range(4):
        values, columns = torch.linalg.eigh(hessian_at(plain(), track.trajectory.weights[row], {}))
        np.testing.assert_allclose(track.values[row], values.flip(0)[:3], rtol=1e-4)
        exact.append(columns.flip(1)[:, :3].T.numpy())
        overlap = np.abs(np.vecdot(exact[-1], track.vectors[row].astype(np.float64)))
        assert (np.sqrt(np.maximum(1 - overlap**2, 0)) <= track.angle_bounds[row] + 2e-4).all()
    last, n = exact[3], track.trajectory.n_parameters
    well = track.angle_bounds.max(axis=0) < 1e-2
    assert well.any()
    np.testing.assert_allclose(track.displacement()[3][well], metrics.displacement(exact[0], last)[well], rtol=1e-2)
    np.testing.assert_allclose(track.displacement_between(0)[0, 3], track.displacement()[3, 0], rtol=1e-12)
    np.testing.assert_allclose(track.step_displacement()[3], track.displacement(since=2)[3], rtol=1e-12)
    np.testing.assert_allclose(track.ipr()[3][well], (last**4).sum(axis=1)[well], rtol=1e-2)
    np.testing.assert_allclose(track.overlaps()[3][well], np.abs(exact[0] @ last.T)[well], atol=2e-2)
    np.testing.assert_allclose(track.subspace_overlap()[0], 1, atol=1e-6)
    assert track.layers == ["0.weight", "2.weight"]
    np.testing.assert_allclose(track.layer_shares().sum(axis=2), 1, rtol=1e-6)
    within = (track.layer_shares() ** 2 * track.layer_ipr()).sum(axis=2)
    np.testing.assert_allclose(within, track.ipr(), rtol=1e-6)
    for part in ("gradients", "updates"):
        direction = np.asarray(getattr(track.trajectory, part)[1], np.float64)
        expected = np.abs(track.vectors[1].astype(np.float64) @ direction) / np.linalg.norm(direction)
        np.testing.assert_allclose(track.alignment(part)[1], expected, rtol=1e-6)
        assert np.isnan(track.alignment(part)[3]).all()
    np.testing.assert_allclose(
        track.weight_displacement()[3],
        np.mean((track.trajectory.weights[3] - track.trajectory.weights[0]).astype(np.float64) ** 2),
    )
    table = track.to_pandas()
    assert len(table) == 4 * 3
    assert table.loc[(table.step == 12) & (table.i == 2), "eigenvalue"].item() == track.values[3, 1]
    assert table.loc[(table.step == 4) & (table.i == 1), "displacement_from_first"].item() == track.displacement()[1, 0]
    assert 2 / n >= table.displacement_from_first.max()


def test_each_snapshot_has_its_own_buffers_and_frozen_parameters(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Noisy().train()
    model.last.bias.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.2)
    with Tracker(model, tmp_path, every=5, quiet=True).attach(optimizer) as tracker:
        train(model, optimizer, 10)
    model.eval()
    track = tracker.solve(operator(model), k=2)
    for row in range(3):
        found = torch.linalg.eigvalsh(
            hessian_at(model.double(), track.trajectory.weights[row], track.trajectory.state(row))
        )
        np.testing.assert_allclose(track.values[row], found.flip(0)[:2], rtol=2e-3)
        model.float()


def test_directions_are_followed_through_crossings(tmp_path: Path) -> None:
    # A quadratic loss 1/2 sum a_j(t) x_j^2, whose eigenvalues cross.
    class Quadratic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.ones(6))
            self.register_buffer("a", torch.zeros(6))

    model = Quadratic()
    with Tracker(model, tmp_path, every=1, quiet=True) as tracker:
        for leading in ([5, 4, 3], [4, 5, 3], [4, 3, 5], [0, 3, 5]):
            model.a.copy_(torch.tensor([*leading, 1.0, 0.5, 0.2]))
            tracker.record()

    def loss(model: nn.Module, batch: Any) -> Tensor:
        found: Tensor = 0.5 * (model.a * model.x**2).sum()
        return found

    track = tracker.solve(HessianOperator(model, loss, data=[torch.zeros(1)]), k=3, tol=1e-6)
    assert track.identity.tolist() == [[1, 2, 3], [2, 1, 3], [3, 1, 2], [3, 2, 4]]
    np.testing.assert_allclose(track.displacement()[1], [2 / 6, 2 / 6, 0], atol=1e-6)
    np.testing.assert_allclose(track.ipr(), 1, atol=1e-6)


def test_solving_while_training_gives_the_same_pairs_and_logs_them(tmp_path: Path) -> None:
    logged: list[tuple[dict[str, float], int]] = []
    model = plain()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    options: dict[str, Any] = {
        "hessian": lambda: operator(model),
        "log": lambda numbers, step: logged.append((numbers, step)),
    }
    with Tracker(model, tmp_path / "inline", every=4, quiet=True, **options).attach(optimizer):
        losses = train(model, optimizer, 12)
    other, tracker = recorded(tmp_path / "later")
    later = tracker.solve(operator(other))
    inline = Track.open(tmp_path / "inline")
    # The last weights are recorded at the end, and not solved for.
    assert inline.steps.tolist() == [0, 4, 8]
    np.testing.assert_array_equal(inline.trajectory.weights, later.trajectory.weights)
    np.testing.assert_allclose(inline.values, later.values[:3], rtol=1e-5)
    assert [step for _, step in logged] == [0, 4, 8]
    assert logged[1][0]["eigendrift/eigenvalue_1"] == inline.values[1, 0]
    assert logged[1][0]["eigendrift/ipr_2"] == pytest.approx(inline.ipr()[1, 1])
    assert logged[2][0]["eigendrift/displacement_1"] == pytest.approx(inline.step_displacement()[2, 0], rel=1e-6)
    assert "eigendrift/displacement_1" not in logged[0][0]
    # The rest of the run is as without.
    again = plain()
    assert losses == train(again, torch.optim.Adam(again.parameters(), lr=3e-2), 12)
    # What is left is solved for afterwards.
    assert solve(tmp_path / "inline", operator(model)).steps.tolist() == [0, 4, 8, 12]


def test_a_solve_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tracker = recorded(tmp_path, steps=8, every=1)
    whole = operator(model)
    original, calls = solving.top_eigenpairs, []

    def failing(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(solving, "top_eigenpairs", failing)
    with pytest.raises(KeyboardInterrupt):
        tracker.solve(whole, k=2)
    assert len(Track.open(tmp_path)) == 3
    track = tracker.solve(whole, k=2)
    assert len(track) == 9
    assert len(calls) == 4 + 6
    tracker.solve(whole, k=2)
    assert len(calls) == 10

    # Snapshots out of their order are sorted.
    tracker.solve(whole, k=1, steps=[6, 2])
    later = tracker.solve(whole, k=1)
    assert later.steps.tolist() == list(range(9))
    np.testing.assert_allclose(np.abs(np.vecdot(later.vectors[:, 0], track.vectors[:, 0])), 1, atol=1e-3)


def test_snapshots_that_were_recorded_anew_are_solved_anew(tmp_path: Path) -> None:
    model, tracker = recorded(tmp_path, steps=6, every=2)
    before = tracker.solve(operator(model), k=1)
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with Tracker(model, tmp_path, every=2, quiet=True).attach(optimizer) as tracker:
        tracker.step = 2
        train(model, optimizer, 4)
    # All weights but the first are others, and their old solutions do not count.
    assert before.steps.tolist() == [0, 2, 4, 6]
    stale = Track.open(tmp_path)
    assert stale.steps.tolist() == [0]
    assert stale.trajectory.steps.tolist() == [0, 2, 4, 6]
    after = tracker.solve(operator(model), k=1)
    assert after.steps.tolist() == [0, 2, 4, 6]
    assert after.values[0] == before.values[0]
    for row in (1, 2, 3):
        exact = torch.linalg.eigvalsh(hessian_at(plain(), after.trajectory.weights[row], {}))[-1]
        np.testing.assert_allclose(after.values[row, 0], exact, rtol=2e-3)


def test_an_operator_of_before_the_training_is_moved_to_the_snapshots(tmp_path: Path) -> None:
    model = plain()
    before = operator(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Tracker(model, tmp_path, every=4, quiet=True).attach(optimizer) as tracker:
        train(model, optimizer, 8)
    track = tracker.solve(before, k=2)
    np.testing.assert_array_equal(track.values, Tracker.solve(tracker, operator(model), k=2).values)
    dense = hessian_at(model, track.trajectory.weights[0], {})
    np.testing.assert_allclose(track.values[0], torch.linalg.eigvalsh(dense).flip(0)[:2], rtol=1e-5)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), 20.0),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5), 30.0),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5, nesterov=True), 15.0),
        (lambda p: torch.optim.SGD([{"params": p[:1]}, {"params": p[1:], "lr": 0.2}], lr=0.1), np.nan),
        (lambda p: torch.optim.SGD(p, lr=0.0), np.nan),
        (lambda p: torch.optim.Adam(p, lr=0.1), np.nan),
    ],
    ids=["plain", "heavy ball", "Nesterov", "two groups", "at rest", "Adam"],
)
def test_the_edge_of_stability_is_that_of_the_optimizer(tmp_path: Path, made: Any, expected: float) -> None:
    model = plain()
    optimizer = made(list(model.parameters()))
    with Tracker(model, tmp_path, every=1, quiet=True).attach(optimizer) as tracker:
        train(model, optimizer, 2)
    trajectory = Trajectory(tracker.folder)
    np.testing.assert_allclose(trajectory.edges, [expected] * 3)
    assert trajectory.optimizers == [type(optimizer).__name__]


def test_the_edge_is_drawn_where_eigenvalues_come_near_it(tmp_path: Path) -> None:
    model = plain()
    for lr, shown in ((10.0, True), (1e-4, False)):
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.5)
        with Tracker(model, tmp_path / str(lr), every=1, quiet=True).attach(optimizer) as tracker:
            train(model, optimizer, 1)
        (axes, *_) = tracker.solve(operator(model), k=1).plot().axes
        drawn = [line for line in axes.lines if line.get_label() == "edge of stability"]
        assert [list(line.get_ydata()) for line in drawn] == ([pytest.approx([0.3, 0.3])] if shown else [])


def test_another_problem_is_refused(tmp_path: Path) -> None:
    model, tracker = recorded(tmp_path)
    tracker.solve(operator(model), k=1, steps=[0])
    inputs, targets = data()
    refused: list[tuple[Any, str]] = [
        (HessianOperator(model, LOSS, inputs * 2, targets), "the loss at step 0"),
        (HessianOperator(model, LOSS, inputs, targets, params="0.*"), "35"),
        (HessianOperator(nn.Linear(6, 3), LOSS, inputs, targets), "21"),
        (torch.eye(3), "Tensor"),
        (model, "Sequential without move_to"),
        (HessianOperator, "the class HessianOperator"),
    ]
    for hessian, named in refused:
        with pytest.raises(ValueError, match=named) as caught:
            tracker.solve(hessian, k=1)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="steps holds 7"):
        tracker.solve(operator(model), steps=[7])
    for wrong, named in (({"k": 0}, "k = 0"), ({"tol": -1.0}, "tol = -1"), ({"which": "XX"}, "which = 'XX'")):
        with pytest.raises(ValueError, match=named):
            tracker.solve(operator(model), **wrong)
    with pytest.raises(FolderError, match="k = 5"):
        Track.open(tmp_path, k=5)
    tracker.solve(operator(model), k=2, steps=[0])
    with pytest.raises(FolderError, match="several"):
        Track.open(tmp_path)
    with pytest.raises(FolderError, match="call solve"):
        Track.open(recorded(tmp_path / "unsolved")[1].folder)


def test_buffers_that_were_left_out_are_reported(tmp_path: Path) -> None:
    model = Noisy().eval()
    with Tracker(model, tmp_path, every=1, quiet=True, record=["weights"]) as tracker:
        tracker.record()
    assert not (tmp_path / "gradients.bin").exists()
    with pytest.warns(TrackerWarning, match="norm.running_mean"):
        track = tracker.solve(operator(model), k=1)
    with pytest.raises(ValueError, match="has no gradients"):
        track.alignment()
    assert "gradient_alignment" not in track.to_pandas()


# The command line and the report

PROBLEM = """
import torch
from torch import nn
from training_loops import data, plain
from eigendrift import HessianOperator

def hessian():
    return HessianOperator(plain(), nn.CrossEntropyLoss(), *data())

broken = 3
"""


def test_the_command_line_solves_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded(tmp_path / "run", meta={"seed": 7})
    problem = tmp_path / "problem.py"
    problem.write_text(PROBLEM)
    folder = str(tmp_path / "run")
    assert cli.main(["solve", folder, "--problem", f"{problem}:hessian", "-k", "2"]) == 0
    assert cli.main(["info", folder]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("N = 53", "0.weight: 5 x 6", "meta seed: 7", "2 pairs (LA) at 4 snapshots"))
    assert cli.main(["report", folder, "--output", str(tmp_path / "page.html")]) == 0
    assert "<img" in (tmp_path / "page.html").read_text(encoding="utf-8")

    capsys.readouterr()
    for words, named in (
        (["info", str(tmp_path)], "trajectory.json"),
        (["solve", folder, "--problem", "nowhere.py:hessian"], "nowhere.py"),
        (["solve", folder, "--problem", f"{problem}:missing"], "missing"),
        (["solve", folder, "--problem", f"{problem}:broken"], "broken"),
        (["report", folder, "-k", "9"], "k = 9"),
    ):
        assert cli.main(words) == 1
        line = capsys.readouterr().err
        assert named in line
        assert line.count("\n") == 1
    # A file that is called like a module of Python does not take its place.
    alike = tmp_path / "random.py"
    alike.write_text(PROBLEM)
    before = sys.modules.get("random")
    assert cli.main(["solve", folder, "--problem", f"{alike}:hessian", "-k", "2"]) == 0
    assert sys.modules.get("random") is before
    problem.write_text("import nothing_of_this_name")
    assert cli.main(["solve", folder, "--problem", f"{problem}:hessian"]) == 1
    assert "nothing_of_this_name" in capsys.readouterr().err


def test_the_command_is_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eigendrift", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert all(command in done.stdout for command in ("info", "solve", "report"))


def test_the_page_stands_alone_and_says_what_is_not_certain(tmp_path: Path) -> None:
    model, tracker = recorded(tmp_path / "<run>", meta={"note": "<b>"})
    track = tracker.solve(operator(model), k=3, steps=[0, 4, 12])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = page(track)
    assert "http" not in text.replace("data:image", "")
    assert "<run>" not in text
    assert "<b>" not in text
    assert f"{track.values[-1, 0]:.5g}" in text
    assert "1 of 4 recorded snapshots are not solved" in text
    assert "are listed" not in text
    assert all(shown in text for shown in ("trained by", "Adam", f"PyTorch {version('torch')}"))
    # A pair that did not converge is reported.
    index = track.folder / "pairs-LA-k3-tol0.001" / "index.jsonl"
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    lines[1]["converged"][2] = False
    index.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "1 of 9 pairs did not converge" in page(Track.open(track.folder))
    empty = Tracker(plain(), tmp_path / "empty", every=1, quiet=True)
    empty.detach()
    with (
        pytest.warns(TrackerWarning, match="has no snapshot; attach the tracker"),
        pytest.raises(ValueError, match="no solved snapshot"),
    ):
        solve(empty.folder, operator(plain())).report(tmp_path / "none.html")
    assert len(Trajectory(empty.folder)) == 0
