"""Samples that are fitted perfectly, and minima: rounding hides their derivatives, and no model is refused for that."""

import copy

import pytest
import torch
from dense_hessian import exact, matrix
from torch import Tensor, nn

from eigendrift import HessianOperator
from eigendrift.hessian.mlp import MLPHessian


class Scaled(nn.Module):
    """A network whose outputs are multiplied, so that it is sure of them."""

    def __init__(self, net: nn.Module, factor: float, broken: bool = False) -> None:
        super().__init__()
        self.net, self.factor, self.broken = net, factor, broken

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.factor * self.net(x)
        return found + (0.5 * found).detach() if self.broken else found


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Sequential, Tensor, Tensor]:
    """A network in float64 that puts every one of 60 samples into its class."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(60, 6, generator=generator, dtype=torch.float64)
    y = x[:, :3].argmax(1)
    torch.manual_seed(4)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    for _ in range(300):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
    assert float(nn.functional.cross_entropy(net(x), y).detach()) < 0.1
    return net, x, y


@pytest.fixture
def fitted(trained: tuple[nn.Sequential, Tensor, Tensor]) -> tuple[nn.Sequential, Tensor, Tensor]:
    """The same, to be changed."""
    return copy.deepcopy(trained[0]), *trained[1:]


@pytest.mark.parametrize("factor", [1.0, 4.0, 16.0, 64.0, 1000.0])
def test_a_network_that_is_sure_of_every_sample_has_its_hessian(
    fitted: tuple[nn.Sequential, Tensor, Tensor], factor: float
) -> None:
    net, x, y = fitted
    H = HessianOperator(Scaled(net, factor), nn.CrossEntropyLoss(), x, y, rows=20)
    known = exact(Scaled(net, factor), lambda model: nn.functional.cross_entropy(model(x), y))
    # Rounding in probabilities near 1 is absolute. From a factor of 16 on both are below it, and none is refused.
    assert float((matrix(H) - known).norm()) <= 1e-13
    assert float(known.norm()) > 1e-7 or factor >= 16


@pytest.mark.parametrize("factor", [1.0, 4.0, 16.0, 64.0])
def test_a_plain_network_keeps_its_fast_path(fitted: tuple[nn.Sequential, Tensor, Tensor], factor: float) -> None:
    net, x, y = fitted
    with torch.no_grad():
        net[-1].weight *= factor
        net[-1].bias *= factor
    H = HessianOperator(net, nn.CrossEntropyLoss(), x, y)
    assert isinstance(H.path, MLPHessian)


@pytest.mark.parametrize("factor", [1.0, 16.0, 1000.0])
def test_a_model_that_autograd_does_not_see_is_refused_all_the_same(
    fitted: tuple[nn.Sequential, Tensor, Tensor], factor: float
) -> None:
    net, x, y = fitted
    with pytest.raises(ValueError, match="autograd does not see"):
        HessianOperator(Scaled(net, factor, broken=True), nn.CrossEntropyLoss(), x, y)


@pytest.mark.parametrize("factor", [1.0, 16.0, 1000.0])
def test_a_loss_that_is_no_mean_is_refused_all_the_same(
    fitted: tuple[nn.Sequential, Tensor, Tensor], factor: float
) -> None:
    net, x, y = fitted

    def squared(outputs: Tensor, targets: Tensor) -> Tensor:
        return (1e-3 + nn.functional.cross_entropy(outputs, targets)) ** 2

    with pytest.raises(ValueError, match="not taken apart"):
        HessianOperator(Scaled(net, factor), squared, x, y, rows=20)


def test_an_exact_minimum_has_its_hessian() -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    with torch.no_grad():
        targets = net(x)
    H = HessianOperator(net, nn.MSELoss(), x, targets, rows=10)
    assert H.loss < 1e-30
    known = exact(net, lambda model: nn.functional.mse_loss(model(x), targets))
    assert float((matrix(H) - known).norm()) < 1e-10 * float(known.norm())
