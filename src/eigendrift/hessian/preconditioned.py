"""An operator in the metric of a preconditioner, P^-1/2 H P^-1/2, among them that of Adam.

Adam steps by eta P^-1 m, with P = (1 - beta_1^t) (sqrt(v / (1 - beta_2^t)) + eps) from its second moments v. What
limits its learning rate is the largest eigenvalue of P^-1 H, which is that of the symmetric P^-1/2 H P^-1/2 (Cohen et
al. 2022, arXiv:2207.14484).
"""

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eigendrift.algebra import DerivedOperator, RefinableDerived, are_refinable
from eigendrift.operators import Operator, as_operator, torch_type

OPTIMIZERS = (torch.optim.Adam, torch.optim.AdamW)


def adam_preconditioner(optimizer: torch.optim.Optimizer, operator: Any) -> Tensor:
    """The diagonal P by which Adam or AdamW divides its step: its update is eta m / P.

    P = (1 - beta_1^t) (sqrt(v / (1 - beta_2^t)) + eps) after step t, with the largest v so far under `amsgrad`.

    Args:
        optimizer: torch.optim.Adam or AdamW, after at least one step.
        operator: A HessianOperator, or an operator made of some, whose parameters the optimizer trains.

    Returns:
        P (N,), positive, float64, in units of a gradient.

    Raises:
        ValueError: The optimizer is another; it does not train a parameter of the operator, or has made no step for it;
            or its learning rates differ from group to group.
        TypeError: The operator has no parameters.

    Example:
        >>> from eigendrift import HessianOperator
        >>> model = torch.nn.Linear(3, 2)
        >>> inputs, targets = torch.randn(20, 3), torch.randint(2, (20,))
        >>> optimizer = torch.optim.Adam(model.parameters(), eps=1e-6)
        >>> torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        >>> optimizer.step()
        >>> H = HessianOperator(model, torch.nn.CrossEntropyLoss(), inputs, targets)
        >>> P = adam_preconditioner(optimizer, H)
        >>> gradient = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
        >>> bool(torch.allclose(P, 0.1 * (gradient.abs() + 1e-6).double(), rtol=1e-4))
        True
    """
    parameters = getattr(operator, "parameters", None)
    if not isinstance(parameters, list):
        raise TypeError(
            f"operator is {type(operator).__name__}, which has no parameters; give a HessianOperator or one made of it"
        )
    if type(optimizer) not in OPTIMIZERS:
        raise ValueError(
            f"optimizer is {type(optimizer).__name__}, expected torch's Adam or AdamW; give the diagonal of another "
            "preconditioner as a vector (N,)"
        )
    rates = {float(group["lr"]) for group in optimizer.param_groups}
    if len(rates) > 1:
        raise ValueError(
            f"the optimizer's learning rates differ, {min(rates):g} to {max(rates):g}; give the diagonal P / lr of "
            "each parameter as a vector (N,), whose edge is that of a learning rate of 1"
        )
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    parts = []
    for name, parameter in zip(operator.parameter_slices, parameters, strict=True):
        group, state = groups.get(id(parameter)), optimizer.state.get(parameter)
        if group is None or not state:
            lacks = "does not train" if group is None else "has made no step for"
            raise ValueError(f"the optimizer {lacks} the parameter {name}; choose others with params=")
        beta1, beta2 = map(float, group["betas"])
        t = float(state["step"])
        v = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"].detach().double()
        root = (v / (1 - beta2**t)).sqrt() + float(group["eps"])
        parts.append(((1 - beta1**t) * root).reshape(-1))
    return torch.cat(parts)


class PreconditionedOperator(DerivedOperator):
    """P^-1/2 H P^-1/2 with a positive diagonal P, for example Adam's.

    Its eigenvalues are those of P^-1 H, and w = P^-1/2 u is the eigenvector of P^-1 H that belongs to its eigenvector
    u (`to_parameters`). With Adam's P, eta lambda_1 is to be compared with 2 (1 + beta_1) / (1 - beta_1), which is 38
    for beta_1 = 0.9: `stability.adam_edge`.

    `refresh()` takes the model's and the optimizer's present state; `move_to(theta)` moves H alone.

    Attributes:
        shape: (N, N).
        diagonal: P (N,), float64.
        operands: H.

    Example:
        >>> from eigendrift import HessianOperator, stability, top_eigenpairs
        >>> model = torch.nn.Linear(3, 2)
        >>> inputs, targets = torch.randn(20, 3), torch.randint(2, (20,))
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        >>> for _ in range(10):
        ...     optimizer.zero_grad()
        ...     torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        ...     optimizer.step()
        >>> H = HessianOperator(model, torch.nn.CrossEntropyLoss(), inputs, targets)
        >>> A = PreconditionedOperator(H, optimizer)
        >>> pairs = top_eigenpairs(A, k=1)
        >>> bool(1e-3 * pairs.values[0] < 38), round(1e-3 * stability.adam_edge(1e-3, beta1=0.9))
        (True, 38)
        >>> w = A.to_parameters(pairs.vectors[:, 0])
        >>> bool(torch.allclose((H @ w).double() / A.diagonal, pairs.values[0] * w.double(), atol=1e-2))
        True
    """

    def __new__(cls, operator: Any = None, preconditioner: Any = None) -> "PreconditionedOperator":
        """Offer finer forms where the operator has some."""
        refinable = operator is not None and are_refinable([as_operator(operator)])
        return super().__new__(_RefinablePreconditioned if refinable else cls)

    def __init__(self, operator: Any, preconditioner: Tensor | np.ndarray | torch.optim.Optimizer) -> None:
        """Make the operator.

        Args:
            operator: H: a HessianOperator, another symmetric operator or a symmetric matrix.
            preconditioner: P as a vector (N,) of positive numbers; or torch's Adam or AdamW, whose P
                `adam_preconditioner` gives.

        Raises:
            ValueError: P has another shape, or an entry that is not finite and positive; see also
                `adam_preconditioner`.
            TypeError: The operator or P has another type.
        """
        self.operands: Sequence[Operator] = [as_operator(operator)]
        self.shape, self.device = self.operands[0].shape, self.operands[0].device
        self.torch_dtype = torch_type(self.operands[0])
        self.optimizer = preconditioner if isinstance(preconditioner, torch.optim.Optimizer) else None
        self._seen: list[tuple[weakref.ref[Tensor], int]] = []
        self._set(preconditioner)

    def _set(self, preconditioner: Any) -> None:
        if self.optimizer is not None:
            self._seen = [(weakref.ref(moment), moment._version) for moment in _moments(self.optimizer)]
            preconditioner = adam_preconditioner(self.optimizer, self.operands[0])
        if not isinstance(preconditioner, Tensor | np.ndarray):
            raise TypeError(
                f"preconditioner is {type(preconditioner).__name__}, expected a vector ({self.shape[0]},) or an "
                "optimizer"
            )
        P = torch.as_tensor(preconditioner).detach().to(self.device, torch.float64, copy=True)
        if P.shape != self.shape[:1]:
            raise ValueError(f"preconditioner has shape {tuple(P.shape)}, expected {self.shape[:1]}")
        wrong = torch.nonzero(~(torch.isfinite(P) & (P > 0)))
        if len(wrong):
            i = int(wrong[0])
            raise ValueError(f"preconditioner[{i}] is {float(P[i]):g}, expected a finite positive number")
        self.diagonal = P
        self._root = P.rsqrt().to(self.torch_dtype)

    def _of(self, operands: Sequence[Operator]) -> "PreconditionedOperator":
        return PreconditionedOperator(operands[0], self.diagonal)

    def product(self, vectors: Tensor) -> Tensor:
        """P^-1/2 H P^-1/2 v for several vectors as rows.

        Args:
            vectors: (b, N), in the operator's type and on its device.

        Returns:
            The products, (b, N).

        Raises:
            ValueError: The model has changed, or the optimizer has made a step.
        """
        if self.optimizer is not None and not self._is_current(_moments(self.optimizer)):
            raise ValueError(
                "the optimizer's state has changed since the preconditioner was taken; call refresh(), or give P itself"
            )
        return self.operands[0].product(vectors * self._root) * self._root

    def _is_current(self, moments: Sequence[Tensor]) -> bool:
        return len(moments) == len(self._seen) and all(
            reference() is moment and version == moment._version
            for moment, (reference, version) in zip(moments, self._seen, strict=True)
        )

    def refresh(self) -> None:
        """Move H to the model's present point, and take the optimizer's present preconditioner.

        Raises:
            ValueError: The model has other parameters than when H was made.
        """
        super().refresh()
        self._set(self.diagonal)

    def to_parameters(self, vectors: Tensor | np.ndarray) -> Tensor:
        """The eigenvectors of P^-1 H, which are directions of the parameters, from those of this operator.

        Args:
            vectors: u (N,), or columns (N, k).

        Returns:
            P^-1/2 u, each of norm 1, in the shape of `vectors` and the operator's type.

        Raises:
            ValueError: The vectors have another shape.
            TypeError: They are neither a tensor nor an array.
        """
        rows, one = self._rows(vectors, "vectors")
        found: Tensor = rows * self._root
        found = found / torch.linalg.vector_norm(found, dim=1, keepdim=True)
        return found[0] if one else found.T

    def __getstate__(self) -> dict[str, Any]:
        # A copy has the preconditioner, and no optimizer whose steps it could follow.
        return {**vars(self), "optimizer": None, "_seen": []}


class _RefinablePreconditioned(RefinableDerived, PreconditionedOperator):
    pass


def _moments(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The steps and second moments."""
    states = [state for state in optimizer.state.values() if "exp_avg_sq" in state]
    # The fused step counts as a change of the steps alone.
    return [state[name] for state in states for name in ("step", "exp_avg_sq")]
