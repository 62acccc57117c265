"""How large the curvature may be before an optimizer's steps on a quadratic grow: the edge of stability, by optimizer.

All edges are eigenvalues of the Hessian, in loss / parameter^2, for a full-batch gradient g of a loss with constant
Hessian, at a learning rate eta:

- gradient descent 2/eta, heavy ball (momentum beta) 2 (1 + beta)/eta, Nesterov (2 + 2 beta)/((1 + 2 beta) eta)
  (Cohen et al. 2021, arXiv:2103.00065). Dampening d makes the heavy ball's learning rate (1 - d) eta, and weight decay
  adds to every eigenvalue, so that it comes off the edge.
- SAM over one of these, whose own edge is E: the slope is taken at theta + rho g/|g|, which makes an eigenvalue lambda
  along g act as lambda (1 + rho lambda/|g|) (Long and Bartlett 2023, arXiv:2309.12488). It reaches E at
  lambda = |g|/(2 rho) (sqrt(1 + 4 rho E/|g|) - 1), for E = 2/eta |g|/(2 rho) (sqrt(1 + 8 rho/(eta |g|)) - 1): below E,
  and the lower the smaller the gradient is.
- Adam divides each parameter's step by sqrt(v) + eps, so that its edge (2 + 2 beta_1)/((1 - beta_1) eta) is one of the
  largest eigenvalue of the PRECONDITIONED Hessian P^-1/2 H P^-1/2, P = diag(sqrt(v) + eps) (Cohen et al. 2022,
  arXiv:2207.14484). lambda_1 of the Hessian itself, which is what we follow, has no edge under Adam: nan.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from eigendrift.metrics import Floats

# Adam's beta_1 where a configuration does not name it, as torch has it.
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
    """The eigenvalue at which gradient descent as `torch.optim.SGD` takes it turns unstable; loss / parameter^2."""
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
    """SAM's edge over an optimizer of edge `base_edge`, for the norms |g| of the full gradient, elementwise.

    Args:
        base_edge: The base optimizer's own edge; loss / parameter^2.
        rho: The length of the step uphill; parameter.
        gradient_norm: |g|; loss / parameter. nan (unknown) gives nan, and 0 gives 0.

    Returns:
        The edge in loss / parameter^2, as float64 of the shape of `gradient_norm`; at most `base_edge`.
    """
    norm = np.asarray(gradient_norm, dtype=np.float64)
    if not (np.isnan(norm) | ((norm >= 0) & np.isfinite(norm))).all():
        raise ValueError(f"gradient_norm must be at least 0 and finite, or nan; the smallest is {norm.min()}")
    if not (np.isfinite(rho) and rho >= 0):
        raise ValueError(f"rho must be finite and at least 0, not {rho}")
    _positive("base_edge", base_edge)
    if rho == 0:
        return np.where(np.isnan(norm), np.nan, base_edge)
    # Without the difference of two nearly equal numbers that the formula holds for large |g|.
    ratio = np.divide(4 * rho * base_edge, norm, out=np.full(norm.shape, np.inf), where=~(norm == 0))
    result: Floats = 2 * base_edge / (1 + np.sqrt(1 + ratio))
    return result


def adam_edge(learning_rate: float, beta1: float = BETAS[0]) -> float:
    """Adam's edge (2 + 2 beta_1)/((1 - beta_1) eta), of the PRECONDITIONED Hessian's largest eigenvalue."""
    _positive("learning_rate", learning_rate)
    if not 0 <= beta1 < 1:
        raise ValueError(f"beta1 must lie between 0 and 1, without 1, not {beta1}")
    return (2 + 2 * beta1) / ((1 - beta1) * learning_rate)


def edge_of(optimizer: Mapping[str, Any], gradient_norm: ArrayLike) -> Floats:
    """The edge of lambda_1 under a configured optimizer, for each norm of the full gradient; nan where it has none.

    Args:
        optimizer: `class` (SGD, or SAM with its `base` and `rho`, or another of torch.optim), `lr`, and its arguments.
        gradient_norm: |g| (S,), which SAM's edge depends on; loss / parameter.

    Returns:
        Edges (S,) in loss / parameter^2. Optimizers that scale each parameter's step have none.
    """
    norms = np.asarray(gradient_norm, dtype=np.float64)
    none = np.full(norms.shape, np.nan)
    given = {name: optimizer[name] for name in _SGD if name in optimizer}
    # torch takes arguments under which no step is stable.
    usual = all(0 <= given.get(name, 0.0) < 1 for name in ("momentum", "dampening")) and optimizer["lr"] > 0
    if optimizer.get("base", optimizer["class"]) != "SGD" or not usual:
        return none
    edge = sgd_edge(optimizer["lr"], **given)
    if optimizer["class"] != "SAM":
        return np.full(norms.shape, edge)
    return sam_edge(edge, optimizer["rho"], norms) if edge > 0 else none


def preconditioned_edge_of(optimizer: Mapping[str, Any]) -> float:
    """The edge of the preconditioned Hessian's largest eigenvalue under Adam; nan with weight decay, and for others."""
    if optimizer["class"] not in ("Adam", "AdamW") or optimizer["lr"] <= 0:
        return float("nan")
    # AdamW decays where nothing is said.
    decay = optimizer.get("weight_decay", 1e-2 if optimizer["class"] == "AdamW" else 0.0)
    return float("nan") if decay else adam_edge(optimizer["lr"], optimizer.get("betas", BETAS)[0])


def _positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be finite and above 0, not {value}")
