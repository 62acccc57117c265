"""eigendrift: which way the curvature of a neural network's loss points while it trains.

The public names are loaded on first use, so that scripts which only read tables never import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eigendrift import metrics
    from eigendrift.eigensolver.density import SpectralDensity, spectral_density
    from eigendrift.eigensolver.lanczos import EigenPairs, top_eigenpairs
    from eigendrift.eigensolver.trace import Estimate, squared_frobenius_norm, trace
    from eigendrift.hessian.gauss_newton import EmpiricalFisherOperator, GGNOperator
    from eigendrift.hessian.operator import HessianOperator
    from eigendrift.hessian.preconditioned import PreconditionedOperator, adam_preconditioner
    from eigendrift.tracking.track import Track
    from eigendrift.tracking.tracker import Tracker

__version__ = "0.1.0"
__all__ = [
    "EigenPairs",
    "EmpiricalFisherOperator",
    "Estimate",
    "GGNOperator",
    "HessianOperator",
    "PreconditionedOperator",
    "SpectralDensity",
    "Track",
    "Tracker",
    "adam_preconditioner",
    "metrics",
    "spectral_density",
    "squared_frobenius_norm",
    "top_eigenpairs",
    "trace",
]

_HOME = {
    "HessianOperator": "eigendrift.hessian.operator",
    "GGNOperator": "eigendrift.hessian.gauss_newton",
    "EmpiricalFisherOperator": "eigendrift.hessian.gauss_newton",
    "PreconditionedOperator": "eigendrift.hessian.preconditioned",
    "adam_preconditioner": "eigendrift.hessian.preconditioned",
    "EigenPairs": "eigendrift.eigensolver.result",
    "Track": "eigendrift.tracking.track",
    "Tracker": "eigendrift.tracking.tracker",
    "top_eigenpairs": "eigendrift.eigensolver.lanczos",
    "Estimate": "eigendrift.eigensolver.trace",
    "trace": "eigendrift.eigensolver.trace",
    "squared_frobenius_norm": "eigendrift.eigensolver.trace",
    "SpectralDensity": "eigendrift.eigensolver.density",
    "spectral_density": "eigendrift.eigensolver.density",
}


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return import_module("eigendrift.metrics")
    if name not in _HOME:
        raise AttributeError(f"module 'eigendrift' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
