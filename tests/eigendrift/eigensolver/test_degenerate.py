"""Networks, data and spectra at the edge of what is defined: each has a defined result, or a clear error."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eigendrift import HessianOperator, top_eigenpairs
from reproduction.files.checkpoint import Scratch
from reproduction.measure.eigenpairs import Request, solve
from reproduction.training.batches import Samples
from reproduction.training.loop import train
from reproduction.training.model import flatten, initialize, mlp

INPUTS, CLASSES = 5, 3


def data(n: int = 40, label: int | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, INPUTS, generator=generator)
    targets = inputs[:, :CLASSES].argmax(dim=1)
    return inputs, targets if label is None else torch.full_like(targets, label)


def network(activation: str = "relu") -> nn.Sequential:
    model = mlp(INPUTS, [6], CLASSES, activation)
    initialize(model, 1)
    return model


def operator(model: nn.Module, inputs: Tensor, targets: Tensor) -> HessianOperator:
    return HessianOperator(model, nn.functional.cross_entropy, inputs, targets)


def dense(H: HessianOperator) -> Tensor:
    return (H @ torch.eye(H.shape[0], dtype=H.torch_dtype)).double()


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("label", [None, 1])
def test_one_sample_and_equal_labels_have_pairs_of_the_dense_hessian(n: int, label: int | None) -> None:
    H = operator(network("tanh"), *data(n, label))
    pairs = top_eigenpairs(H, 3, 1e-4)
    exact = torch.linalg.eigvalsh(dense(H)).flip(0)[:3]
    assert bool(pairs.converged.all())
    torch.testing.assert_close(pairs.values, exact, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("batch", [1, "all"])
def test_training_on_one_sample_and_on_equal_labels(tmp_path: Path, batch: int | str) -> None:
    inputs, targets = data(1 if batch == 1 else 40, 2)
    samples = Samples(inputs.numpy(), targets.numpy(), torch.device("cpu"))
    size = len(inputs)
    found = train(
        network(), samples, samples, {"class": "SGD", "lr": 0.5}, size, 0, [0, 5, 50], Scratch(tmp_path, "j", {})
    )
    assert found.diverged_at is None
    assert found.history[-1, 0] < found.history[0, 0] / 5
    assert found.history[-1, 2] == 1


def dead() -> nn.Sequential:
    """No hidden unit is ever on, and the outputs are certain: the loss is flat, to the last bit."""
    model = network()
    with torch.no_grad():
        model[0].bias.fill_(-1000.0)
        model[2].bias.copy_(torch.tensor([-2000.0, 2000.0, -2000.0]))
    return model


def test_the_zero_hessian_of_a_dead_network(tmp_path: Path) -> None:
    H = operator(dead(), *data(label=1))
    assert not dense(H).any()
    for surrogate in (None, "auto", H.surrogate(0)):
        pairs = top_eigenpairs(H, 3, 1e-3, surrogate=surrogate)
        assert pairs.values.tolist() == [0.0] * 3
        assert pairs.residuals.tolist() == [0.0] * 3
        assert pairs.orthogonality < 1e-6
        # Every direction is an eigenvector, and it is said that these mean nothing.
        assert pairs.gaps.tolist() == [0.0] * 3
        assert pairs.angle_bounds.tolist() == [1.0] * 3
    at = flatten(dead())
    numbers, vectors = solve(
        H, [Request(0, 3, 1e-3), Request(5, 3, 1e-5)], lambda j: at, Scratch(tmp_path, "j", {}), "x"
    )
    # A gradient of norm 0 has no direction; everything else is a number.
    assert np.isfinite(numbers[:, :-1]).all()
    assert np.isnan(numbers[:, -1]).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_more_pairs_than_parameters_are_refused() -> None:
    H = operator(network(), *data())
    n = H.shape[0]
    with pytest.raises(ValueError, match=f"k = {n + 1} is not allowed; the operator has {n} eigenpairs"):
        top_eigenpairs(H, n + 1)
    assert top_eigenpairs(H, n, 1e-3, max_matvecs=3 * n).values.shape == (n,)


def saddle() -> tuple[HessianOperator, Tensor]:
    """A network whose Hessian is indefinite, its negative end the larger in magnitude; and the dense Hessian."""

    def falling(outputs: Tensor, targets: Tensor) -> Tensor:
        return -nn.functional.cross_entropy(outputs, targets)

    H = HessianOperator(network("tanh"), falling, *data())
    return H, dense(H)


def test_negative_curvature_is_not_taken_for_the_top() -> None:
    H, matrix = saddle()
    values = torch.linalg.eigvalsh(matrix)
    assert values[0] < -values[-1] < 0
    pairs = top_eigenpairs(H, 3, 1e-3)
    assert bool(pairs.converged.all())
    # The largest algebraic ones, each with its sign, though Lanczos finds the negative end first.
    torch.testing.assert_close(pairs.values, values.flip(0)[:3], rtol=1e-3, atol=1e-6)


def test_curvature_that_is_negative_everywhere_keeps_its_sign() -> None:
    model = nn.Linear(3, 1, bias=False)
    inputs = torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])

    def hill(outputs: Tensor, targets: Tensor) -> Tensor:
        return -((outputs - targets) ** 2).mean()

    pairs = top_eigenpairs(HessianOperator(model, hill, inputs, torch.zeros(3, 1)), 2, 1e-5)
    torch.testing.assert_close(pairs.values, torch.tensor([-2 / 3, -8 / 3], dtype=torch.float64), rtol=1e-4, atol=0)
    assert pairs.vectors.abs().argmax(dim=0).tolist() == [2, 1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_inputs_and_parameters_that_are_not_finite_are_refused(bad: float) -> None:
    inputs, targets = data()
    inputs[3, 2] = bad
    with pytest.raises(ValueError, match="not finite"):
        operator(network(), inputs, targets)
    H = operator(network(), *data())
    H.move_to(torch.full((H.shape[0],), bad))
    with pytest.raises(ValueError, match="not finite"):
        top_eigenpairs(H, 2)


def test_a_loss_that_is_linear_in_the_parameters_has_no_curvature() -> None:
    H = HessianOperator(nn.Linear(INPUTS, 1), lambda outputs, targets: outputs.mean(), *data())
    assert H.shape == (INPUTS + 1, INPUTS + 1)
    assert bool((H @ torch.ones(INPUTS + 1, 2) == 0).all())
    pairs = top_eigenpairs(H, 2)
    assert pairs.values.tolist() == [0.0, 0.0]
    assert bool(pairs.clustered.all())
