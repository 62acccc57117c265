"""The Hessian that a job is about: of the configured network on a data set, or of a problem of the user's own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eigendrift.hessian.operator import HessianOperator
from reproduction.experiment.importable import load
from reproduction.experiment.labels import RECORDED_PROBLEM
from reproduction.jobs.script import one_or_more
from reproduction.measure.inputs import build_model, data_sha256, load_samples
from reproduction.training.model import flatten

# A row of a trajectory -> its weights (N,).
Points = Callable[[int], Tensor]


def _plain(steps: Sequence[int], weights: np.ndarray) -> Points:
    return lambda row: torch.from_numpy(weights[row])


@dataclass(frozen=True)
class Problem:
    """An operator over all training samples, to be moved to the points of a job.

    Attributes:
        dataset: The name of its data.
        operator: The operator.
        fresh: Gives the parameters (N,) of a random initialization under a seed; None where there is only one.
        points: From the steps (S,) and weights (S, N) of a trajectory, the weights of each row. Those of a recorded run
            move the operator to the buffers of the row too.
        depends_on: What the key of a scratch folder must hold of the data.
    """

    dataset: str
    operator: HessianOperator
    fresh: Callable[[int], Tensor] | None
    points: Callable[[Sequence[int], np.ndarray], Points] = _plain
    depends_on: Mapping[str, Any] = field(default_factory=dict)


def problem_of(inputs: Any, options: Mapping[str, Any], device: torch.device) -> Problem:
    """The problem of a rule's inputs and parameters: `problem`, or `model` and `scaling`."""
    if "problem" in options:
        # By its name, so that it is code of those jobs alone that need it.
        made: Problem = load(RECORDED_PROBLEM)(options)
        return made
    (path,) = one_or_more(inputs.data)
    dataset, samples, _ = load_samples(path, options["scaling"], device)
    # Its parameters are set at every point.
    model = build_model(dataset, options["model"], seed=0, device=device)
    operator = HessianOperator(model, nn.functional.cross_entropy, samples.inputs, samples.targets)

    def fresh(seed: int) -> Tensor:
        return flatten(build_model(dataset, options["model"], seed, device))

    return Problem(dataset.name, operator, fresh, depends_on={"data": data_sha256(path)})
