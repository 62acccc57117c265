"""Products of 8-bit inputs with pieces of bfloat16 against float64, alone and within Hessian products and solves."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from eigendrift import HessianOperator, top_eigenpairs
from eigendrift.data import SCALINGS, Scaling, load_raw
from eigendrift.guide import SurrogateHessian
from eigendrift.mlp_hessian import MLPHessian
from eigendrift.model import initialize, mlp
from eigendrift.split_products import Pixels, multiplying_in, split

N, WIDTH = 1400, 30
aten = torch.ops.aten
ALL = slice(0, N)


pytestmark = pytest.mark.usefixtures("one_thread")


def pixels() -> np.ndarray:
    """Grey levels 0 to 255, all of them, with a dark edge as images have it."""
    found = np.random.default_rng(0).integers(0, 256, (N, 50)).astype(np.uint8)
    found[:, :7] = 0
    return found


def inputs(scaling: str) -> tuple[Tensor, Scaling]:
    fitted = Scaling.fit(pixels(), scaling)
    return torch.from_numpy(fitted(pixels())), fitted


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def test_pieces_hold_eight_bits_each() -> None:
    values = normal(20_000) * torch.logspace(-20, 20, 20_000)
    for pieces, bits in ((1, 8), (2, 16), (3, 24)):
        rest = values.double() - sum(part.double() for part in split(values, pieces))
        assert float((rest / values.double()).abs().max()) <= 2.0**-bits
    assert torch.equal(sum(part.double() for part in split(values, 3)), values.double())


def test_bfloat16_holds_every_pixel() -> None:
    levels = torch.arange(256.0)
    assert torch.equal(levels.bfloat16().float(), levels)
    assert not torch.equal((levels + 256).bfloat16().float(), levels + 256)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_raw_pixels_are_found_again(scaling: str) -> None:
    x, fitted = inputs(scaling)
    found = Pixels.of(x, fitted)
    known = torch.from_numpy(fitted.scale) > 0
    assert torch.equal(found.raw.float()[:, known], torch.from_numpy(pixels()).float()[:, known])


@pytest.mark.parametrize("scaling", SCALINGS)
def test_three_pieces_are_as_exact_as_float32(scaling: str) -> None:
    x, fitted = inputs(scaling)
    weights, biases, errors = normal(WIDTH, x.shape[1]), normal(WIDTH), normal(N, WIDTH) * normal(N, 1, seed=2).exp()
    # The inputs themselves as rounded to float32: both ways start from what was scaled.
    exact_forward = biases.double() + x.double() @ weights.double().T
    exact_backward = errors.double().T @ x.double()
    plain = error(torch.addmm(biases, x, weights.T), exact_forward), error(errors.T @ x, exact_backward)
    found = {
        pieces: (
            error(Pixels.of(x, fitted).forward(ALL, weights, biases, pieces), exact_forward),
            error(Pixels.of(x, fitted).backward(ALL, errors, pieces), exact_backward),
        )
        for pieces in (1, 2, 3)
    }
    for way in (0, 1):
        assert found[3][way] < max(3 * plain[way], 5e-7)
        # Each piece less loses its bits: the pieces are really taken.
        assert 1e-6 < found[2][way] < 2e-5
        assert 5e-4 < found[1][way] < 5e-3


def test_rows_are_a_part_of_the_samples() -> None:
    x, fitted = inputs("standard")
    found, rows, weights = Pixels.of(x, fitted), slice(100, 300), normal(WIDTH, x.shape[1])
    torch.testing.assert_close(found.forward(rows, weights, torch.zeros(WIDTH), 3), x[rows] @ weights.T)
    chosen = torch.tensor([3, 900, 5])
    torch.testing.assert_close(
        found.subset(chosen).forward(ALL, weights, torch.ones(WIDTH), 3), x[chosen] @ weights.T + 1
    )


@pytest.mark.parametrize("spoil", ["half a level", "above", "not float32"])
def test_other_inputs_are_refused(spoil: str) -> None:
    x, fitted = inputs("standard")
    if spoil == "half a level":
        x[7, 9] += float(fitted.scale[9]) / 2
    elif spoil == "above":
        x[7, 9] = (256 - float(fitted.shift[9])) * float(fitted.scale[9])
    else:
        x = x.double()
    with pytest.raises(ValueError, match="0 to 255" if spoil != "not float32" else "float64"):
        Pixels.of(x, fitted)


def digits() -> tuple[Tensor, Tensor, Scaling]:
    raw = load_raw("digits", "", download=False)
    fitted = Scaling.fit(raw.train_inputs, "standard")
    return torch.from_numpy(fitted(raw.train_inputs)), torch.from_numpy(raw.train_targets), fitted


def network() -> nn.Sequential:
    model = mlp(64, (20, 20), 10, "tanh")
    initialize(model, 2)
    return model


def operator(precision: str) -> HessianOperator:
    x, y, fitted = digits()
    return HessianOperator(network(), nn.CrossEntropyLoss(), x, y, rows=500, precision=precision, scaling=fitted)


def test_hessian_products_and_certificates_are_those_of_float32() -> None:
    x, y, _ = digits()
    exact = HessianOperator(network().double(), nn.CrossEntropyLoss(), x, y)
    plain, pieces = operator("float32"), operator("split3")
    block = normal(plain.shape[0], 3)
    expected = exact @ block.double()
    assert not torch.equal(pieces @ block, plain @ block)
    assert error(pieces @ block, expected) < max(3 * error(plain @ block, expected), 1e-6)
    assert isinstance(pieces.path, MLPHessian)
    two = pieces.path.in_precision("split2")
    assert 1e-6 < error(two.product(block.T.contiguous()).T, expected) < 1e-4
    pairs = top_eigenpairs(pieces, 3, 1e-5)
    assert bool(pairs.converged.all())
    vectors = pairs.vectors.double()
    true = (exact @ vectors - vectors * pairs.values).norm(dim=0) / pairs.values
    torch.testing.assert_close(pairs.residuals, true, rtol=0.05, atol=1e-6)


class TensorFloat32(TorchDispatchMode):
    """Matrix products as a GPU takes them in TF32: factors rounded to 10 bits of mantissa, sums in float32."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (aten.mm.default, aten.addmm.default, aten.addmm_.default):
            *kept, a, b = args
            args = (*kept, self.rounded(a), self.rounded(b))
        return func(*args, **(kwargs or {}))

    def rounded(self, values: Tensor) -> Tensor:
        bits = values.view(torch.int32)
        return ((bits + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)


class Coarse:
    """A guide on the same samples, in two pieces or as a GPU's TF32 would be."""

    def __init__(self, plain: HessianOperator, precision: str) -> None:
        assert isinstance(plain.path, MLPHessian)
        self.path, self.precision = plain.path.in_precision(precision), precision
        self.shape, self.dtype, self.device = plain.shape, plain.dtype, plain.device

    def product(self, vectors: Tensor) -> Tensor:
        with TensorFloat32() if self.precision == "tf32" else nullcontext():
            return self.path.product(vectors)


@pytest.mark.parametrize(("precision", "errors"), [("split2", (1e-6, 1e-4)), ("tf32", (1e-4, 2e-3))])
def test_a_coarser_product_guides_and_has_no_part_in_the_residuals(precision: str, errors: tuple[float, float]) -> None:
    plain = operator("float32")
    guide, block = Coarse(plain, precision), normal(1, plain.shape[0])
    assert errors[0] < error(guide.product(block), plain.product(block).double()) < errors[1]
    guided, alone = top_eigenpairs(plain, 3, 1e-3, surrogate=guide), top_eigenpairs(plain, 3, 1e-3)
    assert guided.matvecs < alone.matvecs
    assert guided.surrogate_matvecs < 2 * alone.matvecs
    assert float((guided.vectors * alone.vectors).sum(0).abs().min()) > 1 - 1e-5
    true = (plain @ guided.vectors - guided.vectors * guided.values.float()).norm(dim=0) / guided.values
    torch.testing.assert_close(guided.residuals, true.double(), rtol=1e-2, atol=2e-6)
    assert bool(guided.converged.all())


def test_a_product_in_another_precision_moves_along() -> None:
    plain = operator("float32")
    assert isinstance(plain.path, MLPHessian)
    other, vector = plain.path.in_precision("split3"), normal(1, plain.shape[0])
    point = torch.cat([p.detach().reshape(-1) for p in plain.model.parameters()])
    for factor in (1.0, 1.5):
        plain.move_to(factor * point)
        torch.testing.assert_close(other.product(vector), plain.product(vector), rtol=1e-4, atol=1e-6)


def test_the_float64_twin_of_products_in_pieces_is_not_in_pieces() -> None:
    vector = normal(operator("float32").shape[0]).double()
    plain, pieces = (operator(precision).in_float64() @ vector for precision in ("float32", "split3"))
    assert pieces.dtype == torch.float64
    assert error(pieces, plain) < 1e-13


def test_what_a_precision_needs() -> None:
    x, y, fitted = digits()
    with pytest.raises(ValueError, match=r"tf32.*is not allowed.*float32, split3"):
        HessianOperator(network(), nn.CrossEntropyLoss(), x, y, precision="tf32")
    with pytest.raises(ValueError, match="give their scaling"):
        HessianOperator(network(), nn.CrossEntropyLoss(), x, y, precision="split3")
    with pytest.raises(ValueError, match="fully connected"):
        HessianOperator(network(), nn.MSELoss(), x, y, precision="split3", scaling=fitted)
    path = operator("float32").path
    assert isinstance(path, MLPHessian)
    with pytest.raises(ValueError, match=r"'half'.*float32, split3, split2, tf32"):
        path.in_precision("half")


def test_settings_of_the_gpu_hold_within_and_are_given_back() -> None:
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = matmul.fp32_precision, convolution.fp32_precision
    with multiplying_in("tf32"):
        assert (matmul.fp32_precision, convolution.fp32_precision) == ("tf32", "tf32")
        with multiplying_in("split3"):
            assert (matmul.fp32_precision, convolution.fp32_precision) == ("ieee", "ieee")
        assert matmul.fp32_precision == "tf32"
    assert (matmul.fp32_precision, convolution.fp32_precision) == before


class Watch(TorchDispatchMode):
    """Notes in which precision a GPU would take each matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (aten.mm.default, aten.addmm.default, aten.addmm_.default):
            self.seen.add(torch.backends.cuda.matmul.fp32_precision)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("path", ["analytic", "general"])
def test_residuals_come_from_full_products_whatever_is_set_outside(path: str) -> None:
    x, y, _ = digits()
    model = network() if path == "analytic" else nn.Sequential(network(), nn.Identity())
    with multiplying_in("tf32"), Watch() as watch:
        plain = HessianOperator(model, nn.CrossEntropyLoss(), x, y)
        plain.move_to(1.1 * torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
        plain @ normal(plain.shape[0])
        assert watch.seen == {"ieee"}
        if isinstance(plain.path, MLPHessian):
            SurrogateHessian(plain.path.in_precision("tf32")).product(normal(1, plain.shape[0]))
            assert watch.seen == {"ieee", "tf32"}
