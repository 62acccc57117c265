"""What users get from a symmetric operator: products with @, SciPy's interface, sums, multiples and shifts."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import torch
from torch import Tensor, nn

from eigendrift.operators import (
    Matrix,
    Operator,
    RefinableOperator,
    as_operator,
    coarse_level,
    torch_type,
    uses_thread_pool,
)

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


class SymmetricOperator:
    """A symmetric operator with products by @, for tensors and NumPy arrays, and with sums, multiples and shifts.

    A subclass has `shape`, `torch_dtype`, `device`, and `product` for vectors as rows.
    """

    shape: tuple[int, int]
    torch_dtype: torch.dtype
    device: torch.device

    def product(self, vectors: Tensor) -> Tensor:
        """H v for several vectors as rows, the form that the eigensolver uses.

        Args:
            vectors: (b, N), in the operator's type and on its device.

        Returns:
            The products, (b, N).

        Raises:
            NotImplementedError: A subclass lacks its product.
        """
        raise NotImplementedError(f"{type(self).__name__} has no product")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy type in which products are computed, as SciPy expects it; `torch_dtype` is torch's."""
        return np.dtype(np.float64 if self.torch_dtype == torch.float64 else np.float32)

    @property
    def T(self) -> Self:  # noqa: N802
        """The transpose, which is the operator itself: it is symmetric."""
        return self

    def adjoint(self) -> Self:
        """Return the adjoint, which is the operator itself: it is real and symmetric.

        Returns:
            This operator.
        """
        return self

    @overload
    def __matmul__(self, vector: Tensor) -> Tensor: ...
    @overload
    def __matmul__(self, vector: np.ndarray) -> np.ndarray: ...
    def __matmul__(self, vector: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """H @ v.

        Args:
            vector: (N,) or (N, b), of any real type.

        Returns:
            The product with the shape of v. For a tensor it has the operator's type; for an array it is an array, in
            the type of v if that is float32 or float64.

        Raises:
            TypeError: v is neither a tensor nor an array.
            ValueError: v has another shape or is complex, or the model has changed.
        """
        rows, one = self._rows(vector, "v")
        product = self.product(rows)
        found = product[0] if one else product.T
        if not isinstance(vector, np.ndarray):
            return found
        kind = vector.dtype if vector.dtype in (np.float32, np.float64) else self.dtype
        wide = found if found.dtype.itemsize >= 4 else found.float()
        return wide.cpu().numpy().astype(kind, copy=False)

    def _rows(self, vector: Any, name: str) -> tuple[Tensor, bool]:
        """A vector (N,) or columns (N, b) as rows (b, N) of the operator's type, and whether it is one vector."""
        if not isinstance(vector, Tensor | np.ndarray):
            raise TypeError(
                f"{name} is {type(vector).__name__}, expected a tensor or NumPy array of shape ({self.shape[0]},) or "
                f"({self.shape[0]}, b)"
            )
        if vector.ndim not in (1, 2) or len(vector) != self.shape[0]:
            expected = f"({self.shape[0]},) or ({self.shape[0]}, b)"
            verb = "has" if name == "v" else "have"
            raise ValueError(f"{name} {verb} shape {tuple(vector.shape)}, expected {expected}")
        one = vector.ndim == 1
        if isinstance(vector, np.ndarray):
            if vector.dtype.kind not in "fiub":
                raise ValueError(f"{name} has dtype {vector.dtype}, expected real numbers")
            vector = torch.from_numpy(np.array(vector, dtype=self.dtype, order="C"))
        if vector.is_complex():
            raise ValueError(f"{name} has dtype {vector.dtype}, expected real numbers")
        vector = vector.detach()
        vector = (vector if vector.layout == torch.strided else vector.to_dense()).to(self.device, self.torch_dtype)
        return (vector[None] if one else vector.T).contiguous(), one

    # With None, NumPy delegates array @ H, number * H and array + H to the methods below.
    __array_ufunc__ = None

    def __rmatmul__(self, vector: np.ndarray) -> np.ndarray:
        """v @ H, which equals H @ v' by symmetry.

        Args:
            vector: (N,) or (b, N).

        Returns:
            The product with the shape of v.
        """
        return self @ vector if vector.ndim == 1 else (self @ vector.T).T

    def matvec(self, vector: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """H v for one vector.

        Args:
            vector: (N,) or (N, 1).

        Returns:
            The product, as `H @ vector` gives it.
        """
        return self @ vector

    rmatvec = matvec

    def matmat(self, vectors: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """H V for several vectors.

        Args:
            vectors: Columns (N, b).

        Returns:
            The products, as `H @ vectors` gives them.
        """
        return self @ vectors

    rmatmat = matmat

    def to_scipy(self) -> "LinearOperator":
        """This operator for SciPy, with a NumPy type.

        Returns:
            A LinearOperator (N, N).

        Example:
            >>> from eigendrift import HessianOperator
            >>> from scipy.sparse.linalg import eigsh
            >>> H = HessianOperator(nn.Linear(3, 2), nn.CrossEntropyLoss(), torch.randn(20, 3), torch.randint(2, (20,)))
            >>> values, vectors = eigsh(H.to_scipy(), k=2, which="LA")
            >>> vectors.shape
            (8, 2)
        """
        from scipy.sparse.linalg import LinearOperator

        def multiply(vectors: np.ndarray) -> np.ndarray:
            return self @ np.asarray(vectors)

        return LinearOperator(
            self.shape, multiply, rmatvec=multiply, matmat=multiply, rmatmat=multiply, dtype=self.dtype
        )

    def shifted(self, shift: float) -> "LinearCombination":
        """H + shift * I: every eigenvalue moves by the shift, and no eigenvector changes.

        Args:
            shift: Number, in units of H.

        Returns:
            The operator.

        Raises:
            TypeError: The shift is no real number.
            ValueError: It is not finite.
        """
        return linear_combination([(1.0, self)], _number(shift, "shift"))

    def __add__(self, other: Any) -> "LinearCombination":
        return _sum(self, 1.0, other)

    def __radd__(self, other: Any) -> "LinearCombination":
        # sum() starts from 0.
        return linear_combination([(1.0, self)]) if type(other) is int and other == 0 else _sum(self, 1.0, other)

    def __sub__(self, other: Any) -> "LinearCombination":
        return _sum(self, -1.0, other)

    def __rsub__(self, other: Any) -> "LinearCombination":
        return _sum(-self, 1.0, other)

    def __neg__(self) -> "LinearCombination":
        return linear_combination([(-1.0, self)])

    def __mul__(self, factor: Any) -> "LinearCombination":
        return linear_combination([(_number(factor, "factor"), self)])

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> "LinearCombination":
        number = _number(divisor, "divisor")
        if number == 0:
            raise ZeroDivisionError("divisor = 0 is not allowed; give another number")
        return linear_combination([(1 / number, self)])


def _sum(first: SymmetricOperator, factor: float, other: Any) -> "LinearCombination":
    if isinstance(other, int | float | np.number) or (isinstance(other, Tensor | np.ndarray) and other.ndim == 0):
        raise TypeError(
            f"the other term is {other!r}, expected an operator or a symmetric matrix; H.shifted(s) is H + s * I"
        )
    return linear_combination([(1.0, first), (factor, other)])


def _number(value: Any, name: str) -> float:
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} is {type(value).__name__}, expected a real number; products with vectors are H @ v")
    if not math.isfinite(value):
        raise ValueError(f"{name} = {value} is not allowed; give a finite number")
    return float(value)


class DerivedOperator(SymmetricOperator):
    """An operator that is made of others, its operands, and follows them when they move.

    A subclass has `operands` and `_of`, the same operator of other operands.
    """

    operands: Sequence[Operator]

    def _of(self, operands: Sequence[Operator]) -> "DerivedOperator":
        raise NotImplementedError

    @property
    def uses_thread_pool(self) -> bool:
        """Whether products run on a pool of threads, as those of an operand do."""
        return any(map(uses_thread_pool, self.operands))

    @property
    def ranks(self) -> Any:
        """The ranks of torch.distributed that an operand's data are spread over, None for a single process."""
        found = (getattr(operand, "ranks", None) for operand in self.operands)
        return next((ranks for ranks in found if ranks is not None), None)

    @property
    def coarse(self) -> Operator | None:
        """The coarse level: the same of the operands' coarse levels, if each has one."""
        levels = [level for level in map(coarse_level, self.operands) if level is not None]
        return self._of(levels) if len(levels) == len(self.operands) else None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the entries of a vector belong to, in their order, as the operands have them."""
        found: list[nn.Parameter] = self._from_an_operand("parameters")
        return found

    @property
    def parameter_slices(self) -> dict[str, slice]:
        """The entries of a vector (N,) that belong to each parameter, by its name, as the operands have them."""
        found: dict[str, slice] = self._from_an_operand("parameter_slices")
        return found

    def _from_an_operand(self, name: str) -> Any:
        for operand in self.operands:
            if hasattr(operand, "parameter_slices"):
                return getattr(operand, name)
        raise AttributeError(f"no operand of {type(self).__name__} has {name}")

    def move_to(self, parameters: Tensor | np.ndarray, state: Mapping[str, Tensor] | None = None) -> None:
        """Move every operand that has a point to another one; matrices stay.

        Args:
            parameters: The point, (N,).
            state: Values of buffers, and of parameters that were not chosen, as `HessianOperator.move_to` takes them.

        Raises:
            ValueError: The vector has another shape, the model has no such buffer, or no operand has a point.
        """
        self._each("move_to", *((parameters,) if state is None else (parameters, state)))

    def refresh(self) -> None:
        """Move every operand that has a point to its model's present point; matrices stay.

        Raises:
            ValueError: A model has other parameters than when the operand was made, or no operand has a point.
        """
        self._each("refresh")

    def _each(self, method: str, *args: Any) -> None:
        movable = {id(operand): operand for operand in self.operands if hasattr(operand, method)}
        if not movable:
            raise ValueError(f"{method}: no operand of {type(self).__name__} has a point")
        for operand in movable.values():
            getattr(operand, method)(*args)


class RefinableDerived(DerivedOperator):
    """A derived operator that offers the forms which its operands offer."""

    def with_float64_forward(self) -> Operator:
        """The same operator of operands with a float64 forward pass.

        Returns:
            The operator; in float64 where an operand has no such form.
        """
        forms = [o.with_float64_forward() if isinstance(o, RefinableOperator) else o for o in self.operands]
        if any(torch_type(form) != self.torch_dtype for form in forms if isinstance(form, RefinableOperator)):
            return self.in_float64()
        return self._of(forms)

    def in_float64(self) -> Operator:
        """The same operator of operands in float64.

        Returns:
            The operator; itself where it is in float64 already.
        """
        if self.torch_dtype == torch.float64:
            return self
        return self._of([o.in_float64() if isinstance(o, RefinableOperator) else o for o in self.operands])

    def surrogate(self, seed: int = 0) -> Operator | None:
        """The same operator of the operands' surrogates.

        Args:
            seed: Seed of the random choice of samples.

        Returns:
            The surrogate; None where an operand has none.
        """
        found: list[Operator] = []
        for operand in self.operands:
            cheaper = operand.surrogate(seed) if isinstance(operand, RefinableOperator) else operand
            if cheaper is None:
                return None
            found.append(cheaper)
        return self._of(found)


class LinearCombination(DerivedOperator):
    """c_1 A_1 + ... + c_m A_m + s I, of symmetric operators and matrices.

    `2 * H + G`, `-H`, `H - G`, `H / 2` and `H.shifted(s)` make one. It computes in the narrowest type of its operands
    and stands where they stand: `move_to` and `refresh` move all of them.

    Attributes:
        shape: (N, N).
        factors: c_1..c_m.
        operands: A_1..A_m.
        shift: s, in units of the operator.
    """

    def __init__(self, terms: Sequence[tuple[float, Operator]], shift: float) -> None:
        """`linear_combination` makes it."""
        flat: list[tuple[float, Operator]] = []
        for factor, operator in terms:
            if isinstance(operator, LinearCombination):
                flat += [(factor * f, o) for f, o in zip(operator.factors, operator.operands, strict=True)]
                shift += factor * operator.shift
            else:
                flat.append((factor, operator))
        self.factors: list[float] = [factor for factor, _ in flat]
        self.operands: Sequence[Operator] = [operator for _, operator in flat]
        self.shift: float = shift
        first = self.operands[0]
        self.shape, self.device = first.shape, first.device
        for operator in self.operands[1:]:
            if operator.shape != self.shape or operator.device.type != self.device.type:
                raise ValueError(
                    f"operands have shapes {self.shape} and {operator.shape}, on {self.device} and {operator.device}; "
                    "give operators of one shape on one device"
                )
        slices = [o.parameter_slices for o in self.operands if hasattr(o, "parameter_slices")]
        for other in slices[1:]:
            if other != slices[0]:
                odd = next(name for name in (*other, *slices[0]) if other.get(name) != slices[0].get(name))
                raise ValueError(f"operands are of other parameters ({odd}); give operators with the same params=")
        kinds = [torch_type(operator) for operator in self.operands]
        self.torch_dtype = min(kinds, key=lambda kind: kind.itemsize)

    def _of(self, operands: Sequence[Operator]) -> "LinearCombination":
        return linear_combination(list(zip(self.factors, operands, strict=True)), self.shift)

    def product(self, vectors: Tensor) -> Tensor:
        """The sum of the operands' products, for several vectors as rows.

        Args:
            vectors: (b, N), in the operator's type and on its device.

        Returns:
            The products, (b, N).
        """
        total = self.shift * vectors
        for factor, operator in zip(self.factors, self.operands, strict=True):
            found = operator.product(vectors.to(torch_type(operator)))
            total = torch.add(total, found.to(total.dtype), alpha=factor)
        return total

    def __repr__(self) -> str:
        terms = [
            f"{f:g} * {type(o).__name__.strip('_')}{o.shape}" for f, o in zip(self.factors, self.operands, strict=True)
        ]
        return " + ".join(terms + ([f"{self.shift:g} * I"] if self.shift else []))


class _RefinableCombination(RefinableDerived, LinearCombination):
    pass


def linear_combination(terms: Sequence[tuple[float, Any]], shift: float = 0.0) -> LinearCombination:
    """c_1 A_1 + ... + c_m A_m + s I, which offers finer forms of itself where the operands have such forms.

    Args:
        terms: Pairs (c_i, A_i), at least one; A_i is an operator or a symmetric matrix.
        shift: s.

    Returns:
        The operator.

    Raises:
        ValueError: The operands differ in shape, device or parameters, or a matrix is not symmetric.
        TypeError: An operand is neither an operator nor a matrix.

    Example:
        >>> linear_combination([(2.0, torch.eye(3))], shift=1.0) @ torch.ones(3)
        tensor([3., 3., 3.])
    """
    operators = [as_operator(given) for _, given in terms]
    if not all(isinstance(operator, Matrix) for operator in operators):
        # A matrix is exact data: beside an operator it shall not limit the precision.
        operators = [o.double() if isinstance(o, Matrix) else o for o in operators]
    kind = _RefinableCombination if are_refinable(operators) else LinearCombination
    return kind(list(zip((factor for factor, _ in terms), operators, strict=True)), shift)


def are_refinable(operands: Sequence[Operator]) -> bool:
    """Whether something made of these operands has finer forms: one has, and all others are exact in float64.

    Args:
        operands: The operators.

    Returns:
        False where a finer form of the whole would not be finer.
    """
    finer = [isinstance(operand, RefinableOperator) for operand in operands]
    return any(finer) and all(f or torch_type(o) == torch.float64 for f, o in zip(finer, operands, strict=True))
