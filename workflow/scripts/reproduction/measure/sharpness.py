"""How the loss changes away from a solution: on the line to another one, and in the box around it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import Bounds, minimize

Floats: TypeAlias = NDArray[np.float64]
LossAndGradient: TypeAlias = Callable[[Floats], tuple[float, NDArray[Any]]]

START = 0.1  # the start's distance from the centre, as a part of the box
STEEPNESS = 10.0  # mean |gradient entry| of the scaled loss at the start, per half-width of the box


@dataclass(frozen=True)
class Sharpness:
    """Result of epsilon_sharpness.

    - sharpness: 100 (maximum - loss)/(1 + loss), in percent, at least 0
    - loss, maximum: the loss at the solution, and the largest one met in the box
    - evaluations: calls of the loss and its gradient
    - iterations, converged, message: those of L-BFGS-B, whether it stopped before they ran out, and why it stopped
    """

    sharpness: float
    loss: float
    maximum: float
    evaluations: int
    iterations: int
    converged: bool
    message: str


def interpolate(theta_a: ArrayLike, theta_b: ArrayLike, alpha: float) -> Floats:
    """alpha theta_a + (1 - alpha) theta_b in float64, of their shape: theta_a at alpha = 1 (the paper's eq. 5)."""
    a, b = np.asarray(theta_a, dtype=np.float64), np.asarray(theta_b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"theta_a and theta_b must have the same shape, not {a.shape} and {b.shape}")
    if not np.isfinite(alpha):
        raise ValueError(f"alpha must be finite, not {alpha}")
    result: Floats = alpha * a + (1.0 - alpha) * b
    return result


def epsilon_sharpness(
    loss_and_gradient: LossAndGradient, x: ArrayLike, epsilon: float, max_iterations: int = 10
) -> Sharpness:
    """epsilon-sharpness: the largest relative increase of the loss in the box |z_j| <= epsilon (|x_j| + 1), in percent.

    Metric 2.1 of Keskar et al. (2017), over the full space (A = I): 100 (max f(x + z) - f(x))/(1 + f(x)), maximised
    inexactly by 10 iterations of L-BFGS-B as there. `loss_and_gradient` maps float64 parameters (N,) to the loss and
    its gradient (N,). The largest loss met counts, so the result is a lower bound of the true maximum and never
    negative.

    Two choices that the reference leaves open. The start is x moved by a tenth of the box along the sign of the
    gradient, and along fixed pseudo-random signs where the gradient is exactly 0: x itself can be stationary. And the
    problem is scaled, z in half-widths of the box and the loss by its mean gradient at the start: L-BFGS-B's first
    steps have the length of the gradient, so that on a well-fitted solution, where gradients are tiny, 10 unscaled
    iterations hardly leave the start. Scaled, the search depends on neither the unit of the loss nor the width of the
    box.

    Raises ValueError for a wrong shape, a value that is not finite, and epsilon, max_iterations or 1 + f(x) that is not
    positive.
    """
    centre = np.asarray(x, dtype=np.float64)
    if centre.ndim != 1 or not centre.size or not np.isfinite(centre).all():
        raise ValueError(f"x must be a finite vector (N,), not empty; its shape is {centre.shape}")
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"epsilon must be finite and above 0, not {epsilon}")
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, not {max_iterations}")
    search = _Search(loss_and_gradient, centre, epsilon * (np.abs(centre) + 1.0))
    loss, gradient = search.evaluate(np.zeros_like(centre))
    if 1.0 + loss <= 0:
        raise ValueError(f"the loss must be above -1, not {loss}")
    outcome = minimize(
        search.descend,
        START * _signs(gradient),
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(np.full(centre.shape, -1.0), np.full(centre.shape, 1.0)),
        options={"maxiter": max_iterations, "ftol": 0.0, "gtol": 0.0},
    )
    return Sharpness(
        sharpness=100.0 * (search.maximum - loss) / (1.0 + loss),
        loss=loss,
        maximum=search.maximum,
        evaluations=search.evaluations,
        iterations=int(outcome.nit),
        converged=bool(outcome.success),
        message=str(outcome.message),
    )


class _Search:
    """The loss at x + u * half_widths as a function of u in [-1, 1]^N, which remembers the largest value met."""

    def __init__(self, loss_and_gradient: LossAndGradient, centre: Floats, half_widths: Floats) -> None:
        self.loss_and_gradient, self.centre, self.half_widths = loss_and_gradient, centre, half_widths
        self.evaluations, self.maximum, self.scale = 0, -np.inf, 0.0

    def evaluate(self, u: Floats) -> tuple[float, Floats]:
        """Loss, and its gradient with respect to u."""
        value, found = self.loss_and_gradient(self.centre + np.clip(u, -1.0, 1.0) * self.half_widths)
        loss, gradient = float(value), np.asarray(found, dtype=np.float64)
        if gradient.shape != self.centre.shape:
            raise ValueError(f"the gradient must have the shape {self.centre.shape} of x, not {gradient.shape}")
        if not (np.isfinite(loss) and np.isfinite(gradient).all()):
            raise ValueError(f"the loss and its gradient must be finite within the box; the loss is {loss}")
        self.evaluations += 1
        self.maximum = max(self.maximum, loss)
        return loss, gradient * self.half_widths

    def descend(self, u: Floats) -> tuple[float, Floats]:
        """The function that L-BFGS-B minimises: minus the loss, scaled by its gradient at the first call."""
        loss, gradient = self.evaluate(u)
        if not self.scale:
            steepness = float(np.abs(gradient).mean())
            self.scale = STEEPNESS / steepness if steepness else 1.0
        return -self.scale * loss, -self.scale * gradient


def _signs(gradient: Floats) -> Floats:
    random = np.random.default_rng(0).integers(0, 2, gradient.size) * 2.0 - 1.0
    return np.where(gradient == 0, random, np.sign(gradient))
