"""Products in TF32 precondition a solve, and products in float32 alone certify it, whatever is set outside."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from eigendrift import HessianOperator, top_eigenpairs
from eigendrift.hessian.mixed_precision import multiplying_in
from eigendrift.hessian.mlp import MLPHessian
from eigendrift.hessian.surrogate import SurrogateHessian
from eigendrift.scaling import Scaling
from reproduction.data.sources import load_raw
from reproduction.training.model import initialize, mlp

aten = torch.ops.aten


pytestmark = pytest.mark.usefixtures("one_thread")


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def digits() -> tuple[Tensor, Tensor]:
    raw = load_raw("digits", "", download=False)
    inputs = Scaling.fit(raw.train_inputs, "standard")(raw.train_inputs)
    return torch.from_numpy(inputs), torch.from_numpy(raw.train_targets)


def network() -> nn.Sequential:
    model = mlp(64, (20, 20), 10, "tanh")
    initialize(model, 2)
    return model


def operator() -> HessianOperator:
    return HessianOperator(network(), nn.CrossEntropyLoss(), *digits(), rows=500)


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
    """A surrogate on the same samples, as a GPU's TF32 would be."""

    def __init__(self, plain: HessianOperator) -> None:
        assert isinstance(plain.path, MLPHessian)
        self.path = plain.path.in_precision("tf32")
        self.shape, self.dtype, self.device = plain.shape, plain.torch_dtype, plain.device

    def product(self, vectors: Tensor) -> Tensor:
        with TensorFloat32():
            return self.path.product(vectors)


def test_a_coarser_product_guides_and_has_no_part_in_the_residuals() -> None:
    plain = operator()
    surrogate, block = Coarse(plain), normal(1, plain.shape[0])
    assert 1e-4 < error(surrogate.product(block), plain.product(block).double()) < 2e-3
    preconditioned, alone = top_eigenpairs(plain, 3, 1e-3, surrogate=surrogate), top_eigenpairs(plain, 3, 1e-3)
    assert preconditioned.matvecs < alone.matvecs
    assert preconditioned.surrogate_matvecs < 2 * alone.matvecs
    assert float((preconditioned.vectors * alone.vectors).sum(0).abs().min()) > 1 - 1e-5
    true = (plain @ preconditioned.vectors - preconditioned.vectors * preconditioned.values.float()).norm(
        dim=0
    ) / preconditioned.values
    torch.testing.assert_close(preconditioned.residuals, true.double(), rtol=1e-2, atol=2e-6)
    assert bool(preconditioned.converged.all())


def test_a_product_in_another_precision_moves_along() -> None:
    plain = operator()
    assert isinstance(plain.path, MLPHessian)
    other, vector = plain.path.in_precision("tf32"), normal(1, plain.shape[0])
    point = plain.point
    for factor in (1.0, 1.5):
        plain.move_to(factor * point)
        torch.testing.assert_close(other.product(vector), plain.product(vector), rtol=1e-4, atol=1e-6)


def test_an_unknown_precision_is_refused() -> None:
    path = operator().path
    assert isinstance(path, MLPHessian)
    with pytest.raises(ValueError, match=r"'half'.*float32, tf32"):
        path.in_precision("half")


def test_settings_of_the_gpu_hold_within_and_are_given_back() -> None:
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = matmul.fp32_precision, convolution.fp32_precision
    with multiplying_in("tf32"):
        assert (matmul.fp32_precision, convolution.fp32_precision) == ("tf32", "tf32")
        with multiplying_in("float32"):
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
    (x, y), model = digits(), network()
    loss = nn.functional.cross_entropy if path == "analytic" else lambda o, t: nn.functional.cross_entropy(o, t)
    with multiplying_in("tf32"), Watch() as watch:
        plain = HessianOperator(model, loss, x, y)
        plain.move_to(1.1 * torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
        plain @ normal(plain.shape[0])
        assert watch.seen == {"ieee"}
        if isinstance(plain.path, MLPHessian):
            SurrogateHessian(plain.path.in_precision("tf32")).product(normal(1, plain.shape[0]))
            assert watch.seen == {"ieee", "tf32"}
