"""Every quantity that a test can name. Importing this package fills the registry."""

from reproduction.claims.quantities import (
    alignment,
    baseline,
    causes,
    displacement,
    localization,
    solutions,
    sweeps,
    training,
)
from reproduction.claims.quantities.registry import QUANTITIES, Quantity

__all__ = [
    "QUANTITIES",
    "Quantity",
    "alignment",
    "baseline",
    "causes",
    "displacement",
    "localization",
    "solutions",
    "sweeps",
    "training",
]
