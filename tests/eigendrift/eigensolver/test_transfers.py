"""How often the host waits for the device: counted on a stand-in for a GPU that lies in this process."""

import pytest
import torch
from accelerator import DEVICE, Accelerator, Far
from torch import Tensor

from eigendrift import EigenPairs, top_eigenpairs

N, K = 400, 3


pytestmark = pytest.mark.usefixtures("one_thread")


class Matrix:
    """A symmetric matrix as an operator, here or on the device."""

    def __init__(self, matrix: Tensor, coarse: "Matrix | None" = None) -> None:
        self.matrix, self.coarse = matrix, coarse
        self.shape, self.dtype, self.device = (N, N), matrix.dtype, matrix.device
        self.blocks: list[int] = []

    def product(self, vectors: Tensor) -> Tensor:
        self.blocks.append(len(vectors))
        return vectors @ self.matrix


def matrix(noise: float = 0.0, top: tuple[float, ...] = (20.0, 15.0, 11.0, 6.0)) -> Tensor:
    """float32, the eigenvalues of `top` above a bulk, as a Hessian late in training; `noise` turns them a little."""
    generator = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(N, N, dtype=torch.float64, generator=generator))
    values = torch.cat([torch.tensor(top), torch.linspace(4.0, -1.0, N - len(top))]).double()
    turn = torch.randn(N, N, dtype=torch.float64, generator=generator)
    return ((q * values) @ q.T + noise * (turn + turn.T)).float()


def there(near: Tensor) -> Tensor:
    return near.to(DEVICE)


def same(found: EigenPairs, expected: EigenPairs) -> None:
    vectors = found.vectors.near if isinstance(found.vectors, Far) else found.vectors
    assert torch.equal(vectors, expected.vectors)
    assert torch.equal(found.residuals, expected.residuals)
    assert found.matvecs == expected.matvecs


def test_the_stand_in_counts_what_a_gpu_would_wait_for() -> None:
    with Accelerator() as device:
        x = torch.arange(6.0).to(DEVICE)
        assert (x.device, device.up, device.down) == (DEVICE, 1, 0)
        rows = torch.zeros(2, 6, device=DEVICE)
        rows[0], rows[1] = x, 2 * x
        products = (rows @ rows.T).double()
        assert device.down == 0
        assert products.cpu().tolist() == [[55.0, 110.0], [110.0, 220.0]]
        assert (device.down, device.largest) == (1, 32)
        assert float(products[0, 0]) == 55.0
        assert bool(products[0, 0] > 54)
        torch.zeros(2, 2, dtype=torch.float64).copy_(products)
        assert (device.down, device.up) == (4, 1)
        with pytest.raises(RuntimeError, match="device and of the host"):
            x + torch.ones(6)
    with pytest.raises(RuntimeError, match="outside"):
        x + x


@pytest.mark.parametrize(("tol", "looks"), [(1e-3, 13), (1e-5, 15)])
def test_a_product_costs_one_small_packet(tol: float, looks: int) -> None:
    expected = top_eigenpairs(Matrix(matrix()), K, tol)
    with Accelerator() as device:
        operator = Matrix(there(matrix()))
        before = device.down, device.up
        found = top_eigenpairs(operator, K, tol)
        down, up = device.down - before[0], device.up - before[1]
    same(found, expected)
    assert bool(found.converged.all())
    # A packet an extension, the start vector and the end; near the end the residuals are looked at too, and in the
    # probe the norm of what leaves the basis.
    assert len(operator.blocks) == found.matvecs > 8
    assert down <= found.matvecs + looks
    assert up <= found.matvecs + 3
    assert device.largest <= 8 * found.matvecs**2


def test_a_guided_solve_waits_a_few_times() -> None:
    surrogates = [Matrix(matrix(3e-3), Matrix(matrix(3e-2))) for _ in range(2)]
    expected = top_eigenpairs(Matrix(matrix()), K, 1e-3, surrogate=surrogates[0])
    with Accelerator() as device:
        surrogate = Matrix(there(surrogates[1].matrix), Matrix(there(matrix(3e-2))))
        operator = Matrix(there(matrix()))
        before = device.down
        found = top_eigenpairs(operator, K, 1e-3, surrogate=surrogate)
        down = device.down - before
    same(found, expected)
    blocks = [*operator.blocks, *surrogate.blocks, *surrogate.coarse.blocks]
    # Besides the packets: whether each corrected residual adds something, and how long the residuals are.
    assert down <= 2 * len(blocks) + sum(operator.blocks) + sum(surrogate.blocks)
    assert device.largest <= 8 * 30**2
