"""The edge of stability of each optimizer: the largest curvature at which its steps on a quadratic do not grow.

All edges are eigenvalues of the Hessian, in loss / parameter^2, for a full-batch gradient g of a loss with constant
Hessian, at a learning rate eta:

- Gradient descent: 2/eta. Heavy ball (momentum beta): 2 (1 + beta)/eta. Nesterov: (2 + 2 beta)/((1 + 2 beta) eta)
  (Cohen et al. 2021, arXiv:2103.00065). Dampening d turns the heavy ball's learning rate into (1 - d) eta. Weight decay
  adds to every eigenvalue, so it is subtracted from the edge.
- SAM over one of these, whose own edge is E: the gradient is taken at theta + rho g/|g|, which makes an eigenvalue
  lambda along g act as lambda (1 + rho lambda/|g|) (Long and Bartlett 2023, arXiv:2309.12488). It reaches E at
  lambda = |g|/(2 rho) (sqrt(1 + 4 rho E/|g|) - 1), for E = 2/eta at |g|/(2 rho) (sqrt(1 + 8 rho/(eta |g|)) - 1). This
  is below E, and the lower the smaller the gradient is.
- Adam divides each parameter's step by sqrt(v) + eps, so that its edge (2 + 2 beta_1)/((1 - beta_1) eta) is one of the
  largest eigenvalue of the PRECONDITIONED Hessian P^-1/2 H P^-1/2, P = diag(sqrt(v) + eps) with both moments corrected
  for their bias (Cohen et al. 2022, arXiv:2207.14484): `PreconditionedOperator` is this operator. lambda_1 of the
  Hessian itself, which is the eigenvalue that we follow, has no edge under Adam: nan.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from eigendrift.metrics import Floats

# torch's default betas of Adam, for configurations that do not name them.
BETAS = (0.9, 0.999)
_SGD = ("momentum", "nesterov", "dampening", "weight_decay")


def sgd_edge(
    learning_rate: float,
    momentum: float = 0.0,
    *,
    nesterov: bool = False,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
) -> float:
    """The eigenvalue at which gradient descent, in the form of `torch.optim.SGD`, becomes unstable.

    Args:
        learning_rate: eta, above 0.
        momentum: beta, from 0 to below 1.
        nesterov: Whether the momentum is Nesterov's.
        dampening: d, from 0 to below 1; without momentum it has no effect.
        weight_decay: Coefficient of the decay, at least 0, in loss / parameter^2.

    Returns:
        The edge in loss / parameter^2.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> sgd_edge(0.1), sgd_edge(0.1, momentum=0.5)
        (20.0, 30.0)
    """
    _positive("learning_rate", learning_rate)
    for name, value in (("momentum", momentum), ("dampening", dampening)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} must lie between 0 and 1, without 1, not {value}")
    if not (np.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(f"weight_decay must be finite and at least 0, not {weight_decay}")
    if nesterov:
        edge = (2 + 2 * momentum) / ((1 + 2 * momentum) * learning_rate)
    else:
        edge = 2 * (1 + momentum) / (learning_rate * (1 - (dampening if momentum else 0.0)))
    return edge - weight_decay


def sam_edge(base_edge: float, rho: float, gradient_norm: ArrayLike) -> Floats:
    """SAM's edge over a base optimizer, for norms of the full gradient, elementwise.

    Args:
        base_edge: The base optimizer's own edge, above 0, in loss / parameter^2.
        rho: Norm of the perturbation along the gradient, at least 0, in units of a parameter.
        gradient_norm: |g|, in loss / parameter. nan (unknown) gives nan, and 0 gives 0.

    Returns:
        The edge in loss / parameter^2, as float64 of the shape of `gradient_norm`; at most `base_edge`.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> sam_edge(20.0, rho=0.1, gradient_norm=[0.0, 1.0]).tolist()
        [0.0, 10.0]
    """
    norm = np.asarray(gradient_norm, dtype=np.float64)
    if not (np.isnan(norm) | ((norm >= 0) & np.isfinite(norm))).all():
        raise ValueError(f"gradient_norm must be at least 0 and finite, or nan; the smallest is {norm.min()}")
    if not (np.isfinite(rho) and rho >= 0):
        raise ValueError(f"rho must be finite and at least 0, not {rho}")
    _positive("base_edge", base_edge)
    if rho == 0:
        return np.where(np.isnan(norm), np.nan, base_edge)
    # This form avoids the difference of two nearly equal numbers in the formula for large |g|.
    ratio = np.divide(4 * rho * base_edge, norm, out=np.full(norm.shape, np.inf), where=~(norm == 0))
    result: Floats = 2 * base_edge / (1 + np.sqrt(1 + ratio))
    return result


def adam_edge(learning_rate: float, beta1: float = BETAS[0]) -> float:
    """Adam's edge (2 + 2 beta_1)/((1 - beta_1) eta), for the largest eigenvalue of the PRECONDITIONED Hessian.

    `PreconditionedOperator(H, optimizer)` is this Hessian: its largest eigenvalue times eta is to be compared with
    (2 + 2 beta_1)/(1 - beta_1), which is 38 for beta_1 = 0.9.

    Args:
        learning_rate: eta, above 0.
        beta1: beta_1, from 0 to below 1.

    Returns:
        The edge, in 1 / learning rate.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> round(adam_edge(0.001))
        38000
        >>> round(0.001 * adam_edge(0.001, beta1=0.9))
        38
    """
    _positive("learning_rate", learning_rate)
    if not 0 <= beta1 < 1:
        raise ValueError(f"beta1 must lie between 0 and 1, without 1, not {beta1}")
    return (2 + 2 * beta1) / ((1 - beta1) * learning_rate)


def edge_of(optimizer: Mapping[str, Any], gradient_norm: ArrayLike) -> Floats:
    """The edge of lambda_1 under a configured optimizer, for each norm of the full gradient.

    Args:
        optimizer: `class` (SGD, or SAM with its `base` and `rho`, or another of torch.optim), `lr`, and its arguments.
        gradient_norm: |g| (S,), on which SAM's edge depends, in loss / parameter.

    Returns:
        Edges (S,) in loss / parameter^2; nan for optimizers that scale the step of each parameter, which have no such
        edge, and for arguments outside the ranges of `sgd_edge`.

    Example:
        >>> edge_of({"class": "SGD", "lr": 0.1}, [1.0, 2.0]).tolist()
        [20.0, 20.0]
        >>> edge_of({"class": "Adam", "lr": 0.1}, [1.0]).tolist()
        [nan]
    """
    norms = np.asarray(gradient_norm, dtype=np.float64)
    none = np.full(norms.shape, np.nan)
    given = {name: optimizer[name] for name in _SGD if name in optimizer}
    # torch accepts arguments under which no step is stable.
    usual = all(0 <= given.get(name, 0.0) < 1 for name in ("momentum", "dampening")) and optimizer["lr"] > 0
    if optimizer.get("base", optimizer["class"]) != "SGD" or not usual:
        return none
    edge = sgd_edge(optimizer["lr"], **given)
    if optimizer["class"] != "SAM":
        return np.full(norms.shape, edge)
    return sam_edge(edge, optimizer["rho"], norms) if edge > 0 else none


def preconditioned_edge_of(optimizer: Mapping[str, Any]) -> float:
    """The edge of the preconditioned Hessian's largest eigenvalue under a configured Adam.

    Args:
        optimizer: `class`, `lr`, and its arguments, with the names of torch.optim.

    Returns:
        The edge in 1 / learning rate; nan with weight decay, and for optimizers other than Adam and AdamW.

    Example:
        >>> round(preconditioned_edge_of({"class": "Adam", "lr": 0.001}))
        38000
    """
    if optimizer["class"] not in ("Adam", "AdamW") or optimizer["lr"] <= 0:
        return float("nan")
    # AdamW has weight decay by default.
    decay = optimizer.get("weight_decay", 1e-2 if optimizer["class"] == "AdamW" else 0.0)
    return float("nan") if decay else adam_edge(optimizer["lr"], optimizer.get("betas", BETAS)[0])


def _positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be finite and above 0, not {value}")
