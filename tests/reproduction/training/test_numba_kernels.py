"""The compiled loops of training against NumPy and autograd, and where they are used."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest
import torch
from experiments import python
from torch import nn

from eigendrift.scaling import Scaling
from reproduction.training import batches, numba_kernels
from reproduction.training.batches import Samples
from reproduction.training.compiled import compiled
from reproduction.training.gradients import FlatParameters
from reproduction.training.loop import Trainer
from reproduction.training.model import initialize, mlp

REAL = [np.float32, np.float64]
Real = type[np.floating[Any]]


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    precision = np.finfo(actual.dtype).eps
    np.testing.assert_allclose(actual, expected, rtol=20 * precision, atol=20 * precision)


@pytest.mark.parametrize("chosen", [[7], [0, 19], [19] * 3, list(range(20)), [3, 1, 4, 1, 5, 9, 2, 6, 5]])
@pytest.mark.parametrize("width", [1, 63, 64, 130])
@pytest.mark.parametrize("real", REAL)
def test_fetched_rows_are_those_that_numpy_scales(chosen: list[int], width: int, real: Real) -> None:
    random = np.random.default_rng(0)
    pixels, classes = random.integers(0, 256, (20, width), dtype=np.uint8), random.integers(0, 10, 20)
    shift, factor = (random.standard_normal(width).astype(np.float32) for _ in range(2))
    inputs, targets = np.empty((len(chosen), width), real), np.empty(len(chosen), np.int64)
    numba_kernels.fetch(inputs, targets, pixels, classes, shift, factor, np.array(chosen))
    np.testing.assert_array_equal(inputs, (pixels[chosen].astype(real) - shift) * factor)
    np.testing.assert_array_equal(targets, classes[chosen])


ODD = [0.0, -0.0, 1e-42, -1e-42, np.inf, -np.inf, np.nan, 3.0]


@pytest.mark.parametrize("real", REAL)
def test_rectified_values_and_their_slopes_are_torch_s_also_where_they_are_not_finite(real: Real) -> None:
    random = np.random.default_rng(1)
    z, error = (random.standard_normal((6, 37)).astype(real) for _ in range(2))
    z[2, : len(ODD)], error[3, : len(ODD)], bias = ODD, ODD, random.standard_normal(6).astype(real)
    bias[2] = 0
    a, slope, sums = z.copy(), error.copy(), np.empty(6, real)
    numba_kernels.relu(a, bias)
    np.testing.assert_array_equal(a, torch.relu(torch.from_numpy(z + bias[:, None])).numpy())
    numba_kernels.relu_backward(slope, a, sums)
    expected = torch.ops.aten.threshold_backward(torch.from_numpy(error), torch.from_numpy(a), 0).numpy()
    np.testing.assert_array_equal(slope, expected)
    with np.errstate(invalid="ignore"):
        close(sums, expected.sum(axis=1))


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("size", [1.0, 1e3])
@pytest.mark.parametrize("real", REAL)
def test_the_slope_of_the_cross_entropy_is_that_of_autograd(classes: int, size: float, real: Real) -> None:
    random = np.random.default_rng(2)
    z, bias = size * random.standard_normal((classes, 29)).astype(real), random.standard_normal(classes).astype(real)
    targets, error, sums = random.integers(0, classes, 29), np.empty_like(z), np.empty(classes, real)
    outputs = torch.tensor(z.astype(np.float64) + bias[:, None].astype(real), requires_grad=True)
    nn.functional.cross_entropy(outputs.T, torch.from_numpy(targets)).backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    numba_kernels.cross_entropy_backward(z, bias, targets, error, sums)
    # Rounding of the logits moves probabilities by as much as the logits are large.
    tolerance = 4 * size * float(np.finfo(real).eps)
    np.testing.assert_allclose(error, outputs.grad.numpy(), rtol=0, atol=tolerance)
    np.testing.assert_allclose(sums, outputs.grad.numpy().sum(axis=1), rtol=0, atol=29 * tolerance)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_logit_that_is_not_finite_spoils_its_sample_and_no_other(odd: float) -> None:
    z, error, sums = np.zeros((3, 4), np.float32), np.empty((3, 4), np.float32), np.empty(3, np.float32)
    z[1, 2] = odd
    numba_kernels.cross_entropy_backward(z, np.zeros(3, np.float32), np.zeros(4, np.int64), error, sums)
    assert np.isnan(error[:, 2]).all()
    assert np.isfinite(np.delete(error, 2, axis=1)).all()
    assert np.isnan(sums).all()


# Where they are used


def test_they_are_for_one_thread_of_a_cpu_and_for_real_numbers(one_thread: None) -> None:
    like = torch.empty(2)
    assert compiled(like) is numba_kernels
    assert compiled(like.double()) is numba_kernels
    assert compiled(like.bfloat16()) is None
    assert compiled(torch.empty(2, device="meta")) is None
    torch.set_num_threads(2)
    assert compiled(like) is None


def network() -> nn.Sequential:
    model = mlp(12, [9, 8], 5)
    initialize(model, 3)
    return model


def samples() -> Samples:
    random = np.random.default_rng(5)
    levels, targets = random.integers(0, 256, (70, 12), dtype=np.uint8), random.integers(0, 5, 70)
    fitted = Scaling.fit(levels, "standard")
    return Samples(fitted(levels), targets, torch.device("cpu"), levels, fitted)


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"class": "SGD", "lr": 0.1},
    "adam": {"class": "Adam", "lr": 0.01, "weight_decay": 0.01},
    "sam": {"class": "SAM", "base": "SGD", "lr": 0.1, "rho": 0.05},
}


def trained(spec: dict[str, Any]) -> tuple[torch.Tensor, Trainer]:
    flat = FlatParameters(network())
    trainer = Trainer(flat, spec, samples(), 16, 5)
    for t in range(40):
        trainer.train_step(t)
    return flat.vector.detach(), trainer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_the_same_way_without_them(
    name: str, one_thread: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def counted(loop: str, made: Callable[..., None]) -> Callable[..., None]:
        return lambda *given: (ran.append(loop), made(*given))[1]

    names = ("fetch", "relu", "relu_backward", "cross_entropy_backward", "adam")
    for loop in names:
        monkeypatch.setattr(numba_kernels, loop, counted(loop, getattr(numba_kernels, loop)))
    by_loops, trainer = trained(OPTIMIZERS[name])
    gradients = 80 if name == "sam" else 40
    # Adam's first step makes its state.
    expected = {
        "fetch": 40,
        "relu": 2 * gradients,
        "relu_backward": 2 * gradients,
        "cross_entropy_backward": gradients,
    }
    assert {loop: ran.count(loop) for loop in names} == {**expected, "adam": 39 if name == "adam" else 0}
    assert isinstance(trainer.loader, batches._Compiled)
    ran.clear()
    request.getfixturevalue("no_loops")
    by_operators, _ = trained(OPTIMIZERS[name])
    assert not ran
    torch.testing.assert_close(by_loops, by_operators, rtol=1e-4, atol=1e-5)


ELSEWHERE = """
import sys
{how}
import torch
torch.set_num_threads(1)
from reproduction.training.compiled import compiled
from reproduction.measure.inputs import numerical_environment
print(compiled(torch.empty(2)) is not None, numerical_environment(torch.device("cpu"), 1)["numba"])
"""


def test_where_numba_cannot_be_imported_torch_s_operators_are_used() -> None:
    done = python(ELSEWHERE.format(how="sys.modules['numba'] = None"))
    assert done.stdout.split("\n")[-2] == "False not used"
    assert python(ELSEWHERE.format(how="")).stdout.split("\n")[-2] == f"True {numba.__version__}"


def test_without_a_folder_to_keep_them_they_are_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def njit(function: Callable[..., None], cache: bool = False, **settings: Any) -> Callable[..., None]:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        compiled_anew: Callable[..., None] = numba.njit(function, **settings)
        return compiled_anew

    monkeypatch.setattr(numba_kernels, "numba", SimpleNamespace(njit=njit))

    def halve(z: np.ndarray) -> None:
        for i in range(z.shape[0]):
            z[i] *= 0.5

    z = np.ones(3)
    numba_kernels._loop()(halve)(z)
    assert z.tolist() == [0.5] * 3
    assert asked == [True, False]


def test_what_is_kept_of_them_is_named_after_the_processor() -> None:
    other = "from llvmlite import binding; binding.get_host_cpu_name = lambda: 'another'"
    code = "{how}\nfrom reproduction.training.numba_kernels import adam; print(adam._cache._cache_file._index_name)"
    names = [python(code.format(how=how)).stdout.strip() for how in ("", "", other)]
    assert all(name.startswith("numba_kernels.adam-") and name.endswith(".nbi") for name in names)
    assert names[0] == names[1] != names[2]
