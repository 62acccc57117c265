"""The interface that the eigensolver needs of an operator, and adapters for matrices and SciPy's operators."""

import math
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

Which = Literal["LA", "SA", "LM"]


class Operator(Protocol):
    """A symmetric linear map of R^N, in one floating-point type on one device."""

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N)."""
        ...

    @property
    def dtype(self) -> Any:
        """Type in which products are computed; where it is NumPy's, the operator has torch's as `torch_dtype`."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of vectors and products."""
        ...

    def product(self, vectors: Tensor) -> Tensor:
        """H v for several vectors.

        Args:
            vectors: Rows (b, N).

        Returns:
            The products, as rows (b, N).
        """
        ...


@runtime_checkable
class MultilevelOperator(Protocol):
    """A surrogate with a cheaper surrogate of its own, the coarse level, which preconditions its solve."""

    coarse: Operator | None


@runtime_checkable
class ThreadedOperator(Protocol):
    """An operator whose products run on a pool of single-threaded workers while `uses_thread_pool` is true.

    The solver then keeps torch's own threads from occupying the cores between the products.
    """

    @property
    def uses_thread_pool(self) -> bool:
        """Whether products use the pool."""
        ...


@runtime_checkable
class RefinableOperator(Operator, Protocol):
    """An operator that offers more exact and cheaper forms of itself: `surrogate="auto"` chooses among them."""

    def with_float64_forward(self) -> Operator:
        """The same operator with a float64 forward pass if it has one, else in float64."""
        ...

    def in_float64(self) -> Operator:
        """The same operator in float64."""
        ...

    def surrogate(self, seed: int) -> Operator | None:
        """A cheaper operator near this one.

        Args:
            seed: Seed of its random choices.

        Returns:
            The surrogate, or None where it would save no time.
        """
        ...


def torch_type(operator: Any) -> Any:
    """The torch.dtype of an operator.

    Args:
        operator: Any object.

    Returns:
        Its torch_dtype, else its dtype, which may be NumPy's; None without either.
    """
    return getattr(operator, "torch_dtype", None) or getattr(operator, "dtype", None)


def as_operator(given: Any) -> Operator:
    """Adapt an object to the interface of the eigensolver.

    Args:
        given: A dense symmetric tensor or array, a SciPy LinearOperator, or any object with shape (N, N) and @.

    Returns:
        The operator; `given` itself if it has the interface.

    Raises:
        ValueError: It is not square, complex, or (for a dense matrix) not symmetric or not finite.
        TypeError: It has no shape of two axes, or no @.

    Example:
        >>> as_operator(np.eye(3)).shape
        (3, 3)
    """
    shape = getattr(given, "shape", None)
    if shape is None or len(shape) != 2:
        raise TypeError(
            f"operator is {type(given).__name__}{'' if shape is None else f' of shape {tuple(shape)}'}; give a "
            "HessianOperator, a symmetric matrix, a SciPy LinearOperator, or an object with shape (N, N) and @"
        )
    if shape[0] != shape[1] or shape[0] < 1:
        raise ValueError(f"operator has shape {tuple(shape)}; give one of shape (N, N) with N >= 1")
    if hasattr(given, "product") and isinstance(torch_type(given), torch.dtype):
        operator: Operator = given
        return operator
    if isinstance(given, np.ndarray):
        given = torch.from_numpy(np.ascontiguousarray(given))
    if isinstance(given, Tensor):
        return _dense(given)
    if not hasattr(given, "__matmul__"):
        raise TypeError(f"operator is {type(given).__name__}, which has no @; give one that multiplies")
    if isinstance(torch_type(given), torch.dtype):
        return _TorchColumns(given)
    return _NumPyColumns(given)


class Matrix:
    """A dense symmetric matrix as an operator."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.dtype, self.device = matrix, matrix.dtype, matrix.device
        self.shape = (len(matrix), len(matrix))

    def product(self, vectors: Tensor) -> Tensor:
        """A v for each row: (b, N) -> (b, N)."""
        return vectors @ self.matrix

    def double(self) -> "Matrix":
        """The same matrix in float64."""
        return self if self.dtype == torch.float64 else Matrix(self.matrix.double())


def _dense(matrix: Tensor) -> Operator:
    if matrix.is_complex():
        raise ValueError(f"operator has type {matrix.dtype}; give a real symmetric matrix")
    if not matrix.is_floating_point():
        matrix = matrix.double()
    matrix = matrix.detach()
    largest = float(matrix.abs().max())
    if not np.isfinite(largest):
        raise ValueError("operator has an entry that is not finite")
    asymmetry = float((matrix - matrix.T).abs().max())
    if asymmetry > 100 * torch.finfo(matrix.dtype).eps * largest:
        raise ValueError(f"operator is not symmetric: entries and their mirror images differ by up to {asymmetry:.3g}")
    return Matrix(matrix)


class _TorchColumns:
    """An object that multiplies (N, b) tensors."""

    def __init__(self, given: Any) -> None:
        self.given, self.dtype = given, torch_type(given)
        self.device = torch.device(getattr(given, "device", "cpu"))
        self.shape = (int(given.shape[0]), int(given.shape[1]))

    def product(self, vectors: Tensor) -> Tensor:
        result: Tensor = self.given @ vectors.T
        return result.T


class _NumPyColumns:
    """A SciPy LinearOperator or sparse matrix, or another object that multiplies (N, b) arrays."""

    device = torch.device("cpu")

    def __init__(self, given: Any) -> None:
        self.given = given
        self.shape = (int(given.shape[0]), int(given.shape[1]))
        kind = np.dtype(getattr(given, "dtype", None) or np.float64)
        if kind.kind == "c":
            raise ValueError(f"operator has type {kind}; give a real symmetric one")
        self.dtype = torch.float32 if kind == np.float32 else torch.float64

    def product(self, vectors: Tensor) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray((self.given @ vectors.numpy().T).T)).to(self.dtype)


def uses_thread_pool(operator: Operator) -> bool:
    """Whether the operator's products run on a pool of threads.

    Args:
        operator: The operator.

    Returns:
        False for an operator that says nothing of it.
    """
    return isinstance(operator, ThreadedOperator) and operator.uses_thread_pool


def coarse_level(operator: Operator) -> Operator | None:
    """The surrogate's own surrogate.

    Args:
        operator: The surrogate.

    Returns:
        The coarse level, or None without one.
    """
    return operator.coarse if isinstance(operator, MultilevelOperator) else None


def check_finite(products: Tensor) -> None:
    """Refuse an operator whose products have an entry that is not finite.

    Args:
        products: Products, or inner products with them.

    Raises:
        ValueError: An entry is not finite.
    """
    if not bool(torch.isfinite(products).all()):
        raise ValueError("a product with operator is not finite; check that its parameters and data are finite")


def check_symmetric(projected: Tensor, dtype: torch.dtype) -> None:
    """Refuse an operator that is not symmetric.

    Args:
        projected: Q H Q' (m, m) with orthonormal rows Q.
        dtype: Type of the products.

    Raises:
        ValueError: The entries and their mirror images differ by more than rounding.
    """
    asymmetry, largest = float((projected - projected.T).abs().max()), float(projected.abs().max())
    if asymmetry > math.sqrt(torch.finfo(dtype).eps) * largest:
        raise ValueError(
            f"operator is not symmetric: u'(Hv) and v'(Hu) differ by {asymmetry / largest:.2g} of the largest entry"
        )
