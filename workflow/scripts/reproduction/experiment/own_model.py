"""A network of the user's own: what the configuration's `model.module` names, and the sizes and costs that follow.

Read when the Snakefile is, so it does not import torch: another process makes the network once (`asking`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reproduction.errors import ConfigError, shown
from reproduction.experiment import importable
from reproduction.experiment.architecture import FullyConnected
from reproduction.experiment.asking import UnusableError, answer
from reproduction.experiment.datasets import DatasetRecord

# The module that is asked, which imports torch.
ANSWERS = "reproduction.training.own_model"
# Forward passes that a gradient and a product of the Hessian are worth: by autograd, backward through backward.
GRADIENT, PRODUCT = 3, 9
# Samples that are evaluated at once without a graph of the solver's (training.loop.evaluate, measure.interpolation).
AT_ONCE = 4096


@dataclass(frozen=True)
class OwnNetwork:
    """A module of the user's own.

    `layers` is the number of its layers as `eigendrift.localization.layers_of` counts them, `flops` the operations of a
    forward pass of one sample, `saved` the numbers that autograd keeps of it for the backward pass.
    """

    n_parameters: int
    layers: int
    flops: float
    saved: int
    keeps_graph: bool = True

    def values_kept(self, samples: int) -> int:
        """Numbers that are kept of so many samples at once; graphs of products have a bound of their own."""
        return 3 * self.saved * min(samples, AT_ONCE)

    def gradient_flops(self, samples: int) -> float:
        """Operations of the gradient."""
        return GRADIENT * self.forward_flops(samples)

    def forward_flops(self, samples: float) -> float:
        """Operations of a forward pass."""
        return samples * self.flops

    def product_flops(self, samples: int) -> float:
        """Operations of one product of the Hessian with one vector."""
        return PRODUCT * self.forward_flops(samples)


def network(model: Mapping[str, Any], record: DatasetRecord) -> FullyConnected | OwnNetwork:
    """The configured network for a data set.

    Raises:
        ConfigError: A module of the user's own cannot be used; the message says why.
    """
    if "module" not in model:
        return FullyConnected(record.inputs, model["hidden"], record.classes, model["activation"])
    return OwnNetwork(**_answer(model, record))


def sources_of(model: Mapping[str, Any]) -> list[str]:
    """The files of a module of the user's own: an edit of one changes all that is computed with the network."""
    return [str(path) for path in importable.sources(model["module"])] if "module" in model else []


def _answer(model: Mapping[str, Any], record: DatasetRecord) -> dict[str, Any]:
    module = model["module"]
    files = sources_of(model)
    if not importable.is_path(module) or not files:
        raise refusal(module, "give an existing function or class, as file.py:name or package.module:name")
    question = {"module": module, "args": model["args"], "classes": record.classes}
    try:
        return answer(ANSWERS, {**question, "image_shape": list(record.image_shape)}, files)
    except UnusableError as error:
        raise refusal(module, str(error)) from None


def refusal(module: Any, reason: str) -> ConfigError:
    """The error of a module that cannot be used."""
    return ConfigError(f"config: model.module: {shown(module)} is not allowed; {' '.join(reason.split())}")
