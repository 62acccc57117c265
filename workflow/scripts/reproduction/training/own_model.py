"""A network of the user's own, made by the function or class that the configuration's `model.module` names.

As a program it reads a question (JSON) from standard input, makes the network, and says on standard output what it is,
or why it cannot be used: `experiment.own_model` asks when the Snakefile is read.
"""

import inspect
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from eigendrift.hessian.operator import HessianOperator
from eigendrift.localization import layers_of
from reproduction.experiment import importable
from reproduction.experiment.asking import reply
from reproduction.experiment.own_model import refusal
from reproduction.training.model import Shaped

# Samples on which a network is tried, and those of them that are differentiated at once.
TRIED, ROWS = 32, 16


def input_shape(image_shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of one input: grey images have one channel in front, and everything else is as the data have it."""
    return (1, *image_shape) if len(image_shape) == 2 else tuple(image_shape)


def make(model: Mapping[str, Any], image_shape: Sequence[int], classes: int, seed: int) -> nn.Module:
    """The network of `model` (module, args) for data of this kind, as the random generators with this seed make it.

    The function or class is called with `args`, and with `input_shape` and `classes` if it has arguments of these
    names. The generators of torch, NumPy and Python are left as they were.

    Raises:
        ConfigError: It cannot be imported, it fails, or what it gives is no module.
    """
    name, shape = model["module"], input_shape(image_shape)
    try:
        function = importable.load(name)
        known = inspect.signature(function).parameters
    except Exception as error:  # importing the user's code runs it, which may raise anything
        from_file = isinstance(error, ValueError) and importable.is_file(name.rpartition(":")[0])
        raise refusal(name, str(error) if from_file else f"{type(error).__name__}: {error}") from error
    own = {key: value for key, value in (("input_shape", shape), ("classes", classes)) if key in known}
    try:
        with seeded(seed):
            made = function(**{**own, **model["args"]})
    except Exception as error:
        raise refusal(name, f"it fails with {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise refusal(name, f"it gives {type(made).__name__}, expected a torch.nn.Module")
    return Shaped(made, shape) if len(shape) > 1 else made


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The generators of torch, NumPy and Python under a seed, and as they were afterwards."""
    others = random.getstate(), np.random.get_state()  # noqa: NPY002 -- the generator that the user's code may draw from
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(others[0])
            np.random.set_state(others[1])  # noqa: NPY002


def describe(model: Mapping[str, Any], image_shape: Sequence[int], classes: int) -> dict[str, Any]:
    """What `experiment.own_model.OwnNetwork` holds of a network, once it is known that training and solver can use it.

    Raises:
        ConfigError: They cannot; the message says why.
    """
    name = model["module"]
    network, again, other = (make(model, image_shape, classes, seed) for seed in (0, 0, 1))
    parameters = dict(network.named_parameters())
    if not parameters:
        raise refusal(name, "its module has no parameters")
    for key, parameter in parameters.items():
        if parameter.dtype != torch.float32 or not parameter.requires_grad:
            found = f"{parameter.dtype}{'' if parameter.requires_grad else ', without requires_grad'}"
            raise refusal(name, f"parameter {key} is {found}; every parameter must be a trained one in torch.float32")
    if not _equal(network, again):
        raise refusal(name, "two calls under one seed give other parameters; draw them from torch's generator alone")
    if _equal(network, other):
        raise refusal(name, "its parameters are the same under every seed; the baseline needs random initializations")
    inputs = torch.randn(TRIED, int(np.prod(image_shape)), generator=torch.Generator().manual_seed(0))
    targets = torch.arange(TRIED) % classes
    saved, flops = _cost(network, inputs, name)
    outputs = network(inputs)
    if outputs.shape != (TRIED, classes) or not outputs.is_floating_point():
        raise refusal(
            name,
            f"{TRIED} samples give outputs {tuple(outputs.shape)}; the data have {classes} classes: {TRIED, classes}",
        )
    try:
        # Its checks: nothing random, no sample that another one's output depends on, derivatives that autograd sees.
        HessianOperator(network, nn.functional.cross_entropy, inputs, targets, rows=ROWS)
    except ValueError as error:
        raise refusal(name, f"{error}; a loop of your own can be recorded instead (docs/own_problems.md)") from error
    return {
        "n_parameters": sum(p.numel() for p in parameters.values()),
        "layers": len(layers_of([[key, list(p.shape)] for key, p in parameters.items()])),
        "flops": flops,
        "saved": saved,
    }


def _equal(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(p.shape == q.shape and torch.equal(p, q) for p, q in pairs)


def _cost(network: nn.Module, inputs: Tensor, name: str) -> tuple[int, float]:
    """Numbers that autograd saves of a sample, and operations of its forward pass."""
    own = {p.data_ptr() for p in network.parameters()}
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            found[tensor.data_ptr()] = tensor.numel()
        return tensor

    try:
        with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            kept = network(inputs)
    except Exception as error:  # whatever the user's code raises
        raise refusal(name, f"it fails on inputs {tuple(inputs.shape)}: {type(error).__name__}: {error}") from error
    del kept
    return max(1, sum(found.values()) // TRIED), max(1.0, counter.get_total_flops() / TRIED)


if __name__ == "__main__":
    reply(lambda asked: describe(asked, asked["image_shape"], asked["classes"]))
