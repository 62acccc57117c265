"""Names and labels that every figure shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

# The variant of the runs that most figures and claims are about.
MAIN = "main"
# The data set of runs that a Tracker recorded, and what makes their Problem.
RECORDED = "recorded"
RECORDED_PROBLEM = "reproduction.measure.recorded:problem_of_recorded"
# Figures 2, 6, 7, 12, 13 and 17 show the three leading eigenvectors.
LEADING = 3


@dataclass(frozen=True)
class Layout:
    """Datasets and optimizers (name -> label, in the order drawn), the dense seed, the pairs k taken for every run."""

    datasets: Mapping[str, str]
    optimizers: Mapping[str, str]
    dense_seed: int
    k: int

    @property
    def leading(self) -> list[int]:
        """The eigenvector indices (from 1) of the figures of leading eigenvectors."""
        return list(range(1, min(self.k, LEADING) + 1))


def drawing_function(draw: str) -> str:
    """The function that a catalogue entry's `draw` means, as `package.module:function`."""
    return draw if ":" in draw else f"reproduction.figures.{draw.replace('.', ':')}"


class Drawing(TypedDict):
    """What the job of a figure receives besides its tables and the layout."""

    name: str
    number: int | str
    title: str
    draw: str
    kinds: list[str]
    options: dict[str, Any]
