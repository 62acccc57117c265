"""A network of the user's own: what the configuration's `model.module` names, and the sizes and costs that follow.

Read when the Snakefile is, so it does not import torch: another process makes the network once and says what it is, and
the answer is kept by the content of the files and the arguments that it depends on.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from reproduction.errors import ConfigError, shown
from reproduction.experiment import importable
from reproduction.experiment.architecture import FullyConnected
from reproduction.experiment.datasets import DatasetRecord

# The module that is asked, which imports torch.
ANSWERS = "reproduction.training.own_model"
KEPT = Path(".snakemake") / "eigendrift-models"
PATIENCE = 600.0
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
    return OwnNetwork(**_answer(_question(model, record)))


def sources_of(model: Mapping[str, Any]) -> list[str]:
    """The files of a module of the user's own: an edit of one changes all that is computed with the network."""
    return [str(path) for path in importable.sources(model["module"])] if "module" in model else []


def _question(model: Mapping[str, Any], record: DatasetRecord) -> str:
    asked = {"module": model["module"], "args": model["args"], "classes": record.classes}
    return json.dumps({**asked, "image_shape": list(record.image_shape)}, sort_keys=True)


@cache
def _answer(question: str) -> dict[str, Any]:
    model = json.loads(question)
    files = importable.sources(model["module"])
    if not importable.is_path(model["module"]) or not files:
        raise refusal(model["module"], "give an existing function or class, as file.py:name or package.module:name")
    kept = KEPT / f"{_key(question, files)}.json"
    with suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    answer = _ask(question, model["module"])
    with suppress(OSError):
        # Of a folder that cannot be written to, the question is asked again.
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(answer), encoding="utf-8")
        part.replace(kept)
    return answer


def _key(question: str, files: list[Path]) -> str:
    asked = importable.source(ANSWERS)
    digest = hashlib.sha256(question.encode())
    with suppress(PackageNotFoundError):
        digest.update(version("torch").encode())
    for file in (*files, *([asked] if asked else [])):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:32]


def _ask(question: str, module: str) -> dict[str, Any]:
    # What the user's file imports must be found as it is here; a GPU is not needed.
    own = [str(Path(__file__).parents[4] / "src"), str(Path(__file__).parents[2])]
    found_in = os.pathsep.join([*own, *filter(None, sys.path)])
    surroundings = {"PYTHONPATH": found_in, "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(
            [sys.executable, "-m", ANSWERS],
            input=question,
            env={**os.environ, **surroundings},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise refusal(module, f"it did not make a network within {PATIENCE:.0f} s") from None
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise refusal(module, f"the process that makes it ended with {done.returncode}: {last}") from None
    if "refused" in answer:
        raise refusal(module, answer["refused"])
    return answer


def refusal(module: Any, reason: str) -> ConfigError:
    """The error of a module that cannot be used."""
    return ConfigError(f"config: model.module: {shown(module)} is not allowed; {' '.join(reason.split())}")
