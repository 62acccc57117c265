"""The skyline: the same inputs in another order, and fewer numbers where many samples show the same."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from eigendrift import HessianOperator
from eigendrift.hessian.mlp import MLPHessian
from eigendrift.hessian.sparse_inputs import SkylineInputs, skyline
from reproduction.data.sources import load_raw
from reproduction.training.model import initialize, mlp


def images(n: int = 300, d: int = 20, seed: int = 0) -> torch.Tensor:
    """Over a background of its own in each column, something of random extent."""
    rng = np.random.default_rng(seed)
    x = np.repeat(rng.normal(size=(1, d)), n, axis=0)
    for row in x:
        first, length = rng.integers(d), rng.integers(1, d // 2)
        row[first : first + length] = rng.normal(size=len(row[first : first + length]))
    return torch.from_numpy(x)


def check(made: SkylineInputs, x: torch.Tensor) -> None:
    """It is x, with a product of each kind."""
    n, d = x.shape
    assert len(made) == n
    torch.testing.assert_close(made.dense(), x[made.rows], rtol=1e-13, atol=1e-13)
    widths = [block.shape[1] for block in made.blocks]
    assert widths == sorted(widths)
    assert [len(block) for block in made.blocks] == [made.size] * (n // made.size) + [n % made.size] * (
        n % made.size > 0
    )
    generator = torch.Generator().manual_seed(0)
    weights, biases, errors = (
        torch.randn(*shape, dtype=x.dtype, generator=generator) for shape in ((3, d), (3,), (n, 3))
    )
    layer = made.layer(weights, biases)
    forward = torch.cat([made.forward(block, layer) for block in range(len(made.blocks))])
    torch.testing.assert_close(forward, x[made.rows] @ weights.T + biases)
    total = made.zeros(3)
    for block, part in enumerate(errors.split(made.size)):
        made.backward(block, part, total)
    torch.testing.assert_close(made.finished(total, errors.sum(dim=0)), errors.T @ x[made.rows])


@pytest.mark.parametrize("size", [1, 7, 64, 300, 1000])
def test_the_skyline_is_the_inputs(size: int) -> None:
    x = images()
    made = skyline(x, size)
    check(made, x)
    assert sorted(made.rows.tolist()) == list(range(300))
    if size <= 64:
        assert made.entries < 0.75 * x.numel()


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 4), st.integers(1, 12), st.integers(0, 2**16))
def test_any_inputs(n: int, d: int, values: int, size: int, seed: int) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).integers(0, values + 1, size=(n, d)).astype(float))
    made = skyline(x, size)
    check(made, x)
    chosen = torch.arange(n)[torch.from_numpy(np.random.default_rng(seed + 1).random(n) < 0.5)]
    if len(chosen):
        part = made.take(chosen)
        torch.testing.assert_close(part.dense(), x[part.rows], rtol=1e-13, atol=1e-13)
        assert torch.equal(part.rows, made.rows[chosen])


def test_inputs_without_a_background_are_taken_as_they_are() -> None:
    x = torch.randn(200, 9, dtype=torch.float64)
    made = skyline(x, 32)
    assert made.rows.tolist() == list(range(200))
    assert made.blocks[0].data_ptr() == x.data_ptr()
    check(made, x)


def test_rare_columns_come_last_and_their_samples_with_them() -> None:
    x = torch.zeros(8, 4, dtype=torch.float64)
    x[:, 1] = torch.arange(1.0, 9.0)
    x[2, 3] = x[5, 3] = 1.0
    x[5, 0] = 2.0
    made = skyline(x, 2)
    # Column 1 is in all but the sample that shows the background, column 2 in none.
    assert made.columns.tolist()[0] == 1
    assert [block.shape[1] for block in made.blocks[:3]] == [1, 1, 1]
    assert set(made.rows[-2:].tolist()) == {2, 5}
    check(made, x)


def test_the_real_digits_keep_few_numbers() -> None:
    x = torch.from_numpy(load_raw("digits", "unused", download=False).train_inputs).double()
    made = skyline(x, 128)
    check(made, x)
    assert made.entries < 0.9 * x.numel()
    assert made.to(torch.float32).blocks[0].dtype == torch.float32


def test_the_hessian_of_images_is_that_of_the_general_path() -> None:
    x, y = images(), torch.randint(4, (300,), generator=torch.Generator().manual_seed(0))
    model = mlp(20, (6, 5), 4).double()
    initialize(model, 1)
    # Another loss function to the operator, the same to the mathematics.
    losses = (nn.CrossEntropyLoss(), lambda outputs, targets: nn.functional.cross_entropy(outputs, targets))
    analytic, general = (HessianOperator(model, loss, x, y, rows=32) for loss in losses)
    assert isinstance(analytic.path, MLPHessian)
    assert not isinstance(general.path, MLPHessian)
    assert analytic.path.inputs.entries < 0.75 * x.numel()
    vectors = torch.randn(analytic.shape[0], 3, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(analytic @ vectors, general @ vectors, rtol=1e-11, atol=1e-14)
