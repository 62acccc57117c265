"""Small networks and data, their dense Hessian in float64 by torch alone, and the comparison of an operator with it."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from eigendrift import HessianOperator

D, CLASSES, N = 6, 3, 30


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(*shape: int, classes: int = CLASSES) -> Tensor:
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(2))


def widened(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def exact(model: nn.Module, value: Callable[[nn.Module], Tensor], names: list[str] | None = None) -> Tensor:
    """The dense Hessian of value(model), by a float64 copy of the model and torch's own jacobian of its gradient."""
    twin = copy.deepcopy(model).double()
    chosen = [p for n, p in twin.named_parameters() if (p.requires_grad if names is None else n in names)]
    torch._C._set_mkldnn_enabled(False)
    with sdpa_kernel(SDPBackend.MATH):
        for p in chosen:
            p.requires_grad_(True)
        gradient = torch.autograd.grad(value(twin), chosen, create_graph=True, materialize_grads=True)
        flat = torch.cat([g.reshape(-1) for g in gradient])
        rows = [
            torch.autograd.grad(g, chosen, retain_graph=True, materialize_grads=True) for g in flat if g.requires_grad
        ]
    torch._C._set_mkldnn_enabled(True)
    return torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])


def matrix(H: HessianOperator) -> Tensor:
    return H @ torch.eye(H.shape[0], dtype=H.torch_dtype)


def check(H: HessianOperator, expected: Tensor) -> None:
    """The whole matrix in blocks, one column alone, and the float64 twin."""
    scale = float(expected.abs().max())
    torch.testing.assert_close(matrix(H).double(), expected, rtol=2e-3, atol=2e-5 * scale)
    vector = drawn(H.shape[0], seed=7).double()
    torch.testing.assert_close((H @ vector).double(), expected @ vector, rtol=2e-3, atol=2e-4 * scale)
    torch.testing.assert_close(H.in_float64() @ vector, expected @ vector, rtol=1e-8, atol=1e-10 * scale)


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(D, 5), *layers, nn.Linear(5, CLASSES))
