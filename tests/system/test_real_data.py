"""Real MNIST: a few hundred steps of training, and eigenpairs on all 60 000 images against independent arithmetic."""

import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import IN_CI
from torch import Tensor, nn

from eigendrift import EigenPairs, HessianOperator, top_eigenpairs
from reproduction.data.sources import prepare
from reproduction.files.checkpoint import Scratch
from reproduction.measure.inputs import load_samples
from reproduction.training.batches import Samples
from reproduction.training.loop import Trajectory, train
from reproduction.training.model import flatten, initialize, mlp

WIDTHS = (784, 100, 100, 10, 10)
N_PARAMETERS = 89_720
STEPS, K, TOLERANCE = 600, 3, 1e-3
CPU = torch.device("cpu")


def data_folder(root: Path) -> Path | None:
    """EIGENDRIFT_DATA, or the folder shared/data beside the checkout, if it holds MNIST."""
    folder = Path(os.environ.get("EIGENDRIFT_DATA") or root.parent / "shared" / "data")
    return folder if (folder / "MNIST" / "raw").is_dir() else None


@pytest.fixture(scope="module", autouse=True)
def all_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def samples(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Samples, Samples]:
    folder = data_folder(root)
    if folder is None:
        assert not (IN_CI and os.environ.get("EIGENDRIFT_DATA")), "EIGENDRIFT_DATA holds no MNIST/raw"
        pytest.skip("no MNIST: set EIGENDRIFT_DATA to a folder that holds MNIST/raw")
    path = tmp_path_factory.mktemp("data") / "MNIST.safetensors"
    prepare("MNIST", folder, False, path)
    _, train_samples, test_samples = load_samples(str(path), "standard", CPU)
    return train_samples, test_samples


@pytest.fixture(scope="module")
def trajectory(samples: tuple[Samples, Samples], tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    model = mlp(784, WIDTHS[1:-1], 10)
    initialize(model, seed=1)
    scratch = Scratch(tmp_path_factory.mktemp("scratch"), "train", {})
    sgd = {"class": "SGD", "lr": 0.01}
    return train(model, *samples, sgd, 128, 0, [0, 100, STEPS], scratch)


@pytest.fixture(scope="module")
def pairs(samples: tuple[Samples, Samples], trajectory: Trajectory) -> dict[int, EigenPairs]:
    """The top pairs at steps 100 and 600."""
    train_samples, _ = samples
    model = mlp(784, WIDTHS[1:-1], 10)
    operator = HessianOperator(model, nn.CrossEntropyLoss(), train_samples.inputs, train_samples.targets)
    found = {}
    for row, step in enumerate(trajectory.steps):
        if step:
            operator.move_to(torch.from_numpy(trajectory.weights[row]))
            found[int(step)] = top_eigenpairs(operator, K, TOLERANCE)
    return found


def logits(theta: Tensor, x: Tensor) -> Tensor:
    """The network with parameters theta, written out."""
    start = 0
    for depth, (fan_in, fan_out) in enumerate(itertools.pairwise(WIDTHS)):
        weight = theta[start : start + fan_in * fan_out].view(fan_out, fan_in)
        start += fan_in * fan_out
        x = x @ weight.T + theta[start : start + fan_out]
        start += fan_out
        x = x.relu() if depth < len(WIDTHS) - 2 else x
    return x


def products(theta: Tensor, vectors: Tensor, samples: Samples, rows: int = 10_000) -> Tensor:
    """H v in float64 for each row of (b, N), by two backward passes over the summed loss of all samples, in chunks."""
    total = torch.zeros(vectors.shape, dtype=torch.float64)
    for start in range(0, len(samples), rows):
        x, y = samples.inputs[start : start + rows].double(), samples.targets[start : start + rows]
        point = theta.double().requires_grad_()
        loss = nn.functional.cross_entropy(logits(point, x), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, point, create_graph=True)
        for j, vector in enumerate(vectors.double()):
            (product,) = torch.autograd.grad(gradient @ vector, point, retain_graph=True)
            total[j] += product
    return total / len(samples)


def test_the_data_are_mnist(samples: tuple[Samples, Samples]) -> None:
    train_samples, test_samples = samples
    assert train_samples.inputs.shape == (60_000, 784)
    assert test_samples.inputs.shape == (10_000, 784)
    assert float(train_samples.inputs.double().mean()) == pytest.approx(0, abs=1e-5)
    assert float(train_samples.inputs.double().std(correction=0)) == pytest.approx(1, abs=1e-5)


def test_training_learns(trajectory: Trajectory) -> None:
    assert trajectory.weights.shape == (3, N_PARAMETERS)
    assert trajectory.diverged_at is None
    train_loss, test_accuracy = trajectory.history[:, 0], trajectory.history[:, 3]
    assert train_loss[0] > 2.2
    assert train_loss[-1] < 0.7
    assert test_accuracy[-1] > 0.8
    assert test_accuracy[-1] == pytest.approx(trajectory.history[-1, 2], abs=0.05)


@pytest.mark.parametrize("step", [100, STEPS])
def test_residuals_hold_in_independent_float64_products_on_all_images(
    samples: tuple[Samples, Samples], trajectory: Trajectory, pairs: dict[int, EigenPairs], step: int
) -> None:
    found = pairs[step]
    assert bool(found.converged.all())
    theta = torch.from_numpy(trajectory.weights[list(trajectory.steps).index(step)])
    vectors = found.vectors.T.double()
    vectors = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    hv = products(theta, vectors, samples[0])
    values = (hv * vectors).sum(dim=1)
    np.testing.assert_allclose(found.values, values, rtol=1e-4)
    residuals = torch.linalg.vector_norm(hv - values[:, None] * vectors, dim=1) / values
    assert float(residuals.max()) <= TOLERANCE * 1.01
    np.testing.assert_allclose(found.residuals, residuals, rtol=0.05, atol=1e-5)
    assert float((vectors @ vectors.T - torch.eye(K)).abs().max()) < 1e-5


def test_another_start_finds_the_same_vector(
    samples: tuple[Samples, Samples], trajectory: Trajectory, pairs: dict[int, EigenPairs]
) -> None:
    model = mlp(784, WIDTHS[1:-1], 10)
    nn.utils.vector_to_parameters(torch.from_numpy(trajectory.weights[-1]), model.parameters())
    np.testing.assert_array_equal(flatten(model), trajectory.weights[-1])
    operator = HessianOperator(model, nn.CrossEntropyLoss(), samples[0].inputs, samples[0].targets)
    again, first = top_eigenpairs(operator, 1, TOLERANCE, seed=99), pairs[STEPS]
    assert float(again.values[0]) == pytest.approx(float(first.values[0]), rel=1e-4)
    overlap = abs(float(again.vectors[:, 0] @ first.vectors[:, 0]))
    assert overlap > 0.999
    # Both vectors lie within their stated angles of the true one.
    assert math.sqrt(max(0.0, 1 - overlap**2)) <= float(again.angle_bounds[0] + first.angle_bounds[0]) + 1e-3


def test_the_leading_vector_turns_while_the_network_trains(pairs: dict[int, EigenPairs]) -> None:
    overlap = abs(float(pairs[100].vectors[:, 0] @ pairs[STEPS].vectors[:, 0]))
    assert 0.01 < overlap < 0.999
