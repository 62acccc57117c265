"""Problems of the user's own, whose training a Tracker recorded: their operator, their initializations, their loss.

As a program it reads a question (JSON) from standard input, makes the operator, holds it against the folders, and says
on standard output what it is, or why it cannot be used: `experiment.recorded` asks when the Snakefile is read.
"""

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eigendrift.hessian.operator import HessianOperator
from eigendrift.localization import layers_of
from eigendrift.tracking.trajectory import Trajectory, as_operator, check_same_parameters, move_to_snapshot
from reproduction.errors import ConfigError, DataError, shown
from reproduction.experiment import importable
from reproduction.experiment.asking import reply
from reproduction.experiment.labels import RECORDED
from reproduction.measure.problem import Points, Problem
from reproduction.training.own_model import seeded


def operator_of(problem: str, seed: int = 0) -> HessianOperator:
    """The operator that the user's function makes, under this seed of the random generators.

    Raises:
        ConfigError: It cannot be imported, it fails, what it gives is no HessianOperator.
    """
    try:
        function = importable.load(problem)
        with seeded(seed):
            operator = as_operator(function())
    except Exception as error:  # the user's code may raise anything
        text = str(error) if isinstance(error, ValueError) else f"it fails with {type(error).__name__}: {error}"
        raise _refusal(problem, text) from error
    if not isinstance(operator, HessianOperator):
        raise _refusal(problem, f"it gives {type(operator).__name__}, expected an eigendrift.HessianOperator")
    return operator


def _refusal(problem: str, reason: str) -> ConfigError:
    return ConfigError(f"config: trajectories: problem {shown(problem)} is not allowed; {' '.join(reason.split())}")


def initialization(problem: str) -> Callable[[int], Tensor] | None:
    """Seed -> parameters (N,) of the network as the user's function makes it; None where all seeds give the same."""
    one, other = (operator_of(problem, seed).point for seed in (1, 2))
    if torch.equal(one, other):
        return None
    return lambda seed: operator_of(problem, seed).point


def rows_of(trajectory: Trajectory, steps: Sequence[int]) -> list[int]:
    """The rows of the steps that were planned with; `DataError` if the folder has changed since."""
    at = {int(step): row for row, step in enumerate(trajectory.steps)}
    gone = [step for step in steps if step not in at]
    if gone:
        raise DataError(f"{trajectory.folder}: step {gone[0]} is gone; run again once the recording has ended")
    return [at[step] for step in steps]


def losses(operator: HessianOperator, trajectory: Trajectory, rows: Sequence[int]) -> list[float]:
    """The loss of the problem over all its data at each of the rows."""
    found = []
    for row in rows:
        move_to_snapshot(operator, trajectory, row)
        found.append(float(operator.loss))
    return found


def problem_of_recorded(options: Mapping[str, Any]) -> Problem:
    """The problem of `options` (problem, and the folder of a run where there is one)."""
    operator = operator_of(options["problem"])

    def points(steps: Sequence[int], weights: np.ndarray) -> Points:
        trajectory = Trajectory(options["folder"])
        rows = rows_of(trajectory, steps)
        return lambda row: move_to_snapshot(operator, trajectory, rows[row])

    return Problem(RECORDED, operator, initialization(options["problem"]), points)


def _describe(problem: str, folders: Mapping[str, str]) -> dict[str, Any]:
    begun = operator_of(problem)
    shapes: list[list[Any]] = []
    for folder in folders.values():
        trajectory = Trajectory(folder)
        check_same_parameters(trajectory, begun)
        sizes = [part.stop - part.start for part in begun.parameter_slices.values()]
        for (name, shape), size in zip(trajectory.shapes.items(), sizes, strict=True):
            if int(np.prod(shape)) != size:
                raise ValueError(f"parameter {name} has {size} entries, and {int(np.prod(shape))} in {folder}")
        move_to_snapshot(begun, trajectory, 0)
        shapes = [[name, list(shape)] for name, shape in trajectory.shapes.items()]
    vector = torch.ones(1, begun.shape[0], dtype=begun.torch_dtype, device=begun.device)
    begun.product(vector)
    start = time.perf_counter()
    begun.product(vector)
    seconds = time.perf_counter() - start
    return {
        "n_parameters": begun.shape[0],
        "layers": len(layers_of(shapes)),
        "seconds": seconds,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }


if __name__ == "__main__":
    reply(lambda asked: _describe(asked["problem"], asked["folders"]))
