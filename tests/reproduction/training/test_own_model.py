"""A network of the user's own: what is made of it, what it is trained with, and what is refused before any work."""

import copy
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiments import REPOSITORY, pinned
from refusals import refused
from torch import nn

from eigendrift import HessianOperator
from reproduction.errors import ConfigError
from reproduction.experiment import asking, importable
from reproduction.experiment.config import validate
from reproduction.experiment.runs import Experiment
from reproduction.training.gradients import FlatParameters, batch_gradient
from reproduction.training.model import flatten, layer_shapes
from reproduction.training.own_model import describe, input_shape, make

CONV = {"module": f"{REPOSITORY}/examples/conv.py:build", "args": {"channels": 2}}
ROWS = {"module": f"{REPOSITORY}/examples/transformer.py:Rows", "args": {"width": 4}}
EXAMPLES = [pytest.param(CONV, id="convolutional"), pytest.param(ROWS, id="transformer")]


@pytest.mark.parametrize("model", EXAMPLES)
def test_a_seed_gives_a_network_and_leaves_the_generators_alone(model: dict[str, Any]) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]  # noqa: NPY002
    one, same, other = (make(model, (8, 8), 10, seed) for seed in (5, 5, 6))
    assert torch.equal(flatten(one), flatten(same))
    assert not torch.equal(flatten(one), flatten(other))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    np.testing.assert_array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002


@pytest.mark.parametrize("model", EXAMPLES)
def test_gradient_and_hessian_are_those_of_the_network_on_images(model: dict[str, Any], one_thread: None) -> None:
    network = make(model, (4, 4), 3, 0)
    flat_images, targets = torch.randn(12, 16), torch.arange(12) % 3
    plain = network.network
    assert [name for name, _ in layer_shapes(network)] == [name for name, _ in plain.named_parameters()]
    wide = copy.deepcopy(plain).double()

    def gradient_at(theta: torch.Tensor) -> torch.Tensor:
        nn.utils.vector_to_parameters(theta, wide.parameters())
        loss = nn.functional.cross_entropy(wide(flat_images.double().view(-1, 1, 4, 4)), targets)
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(wide.parameters()))])

    # Differences of gradients in float64: torch.func has LayerNorm's second derivatives wrong.
    theta, vector = flatten(network).double(), torch.randn(len(flatten(network)))
    expected, h = gradient_at(theta), 1e-5
    product = (gradient_at(theta + h * vector.double()) - gradient_at(theta - h * vector.double())) / (2 * h)
    operator = HessianOperator(network, nn.functional.cross_entropy, flat_images, targets)
    torch.testing.assert_close((operator @ vector).double(), product, rtol=0, atol=1e-4 * float(product.norm()))
    flat = FlatParameters(network)
    batch_gradient(flat)(flat_images, targets)
    torch.testing.assert_close(flat.gradient.double(), expected, rtol=0, atol=1e-5 * float(expected.norm()))


def test_the_shape_of_an_input() -> None:
    assert input_shape((8, 8)) == (1, 8, 8)
    assert input_shape((3, 32, 32)) == (3, 32, 32)
    assert input_shape((20,)) == (20,)


def test_what_is_said_of_a_network() -> None:
    found = describe(CONV, (8, 8), 10)
    # Two convolutions and a linear layer on 2 x 2 means of 4 channels.
    assert found["n_parameters"] == (9 * 2 + 2) + (9 * 2 * 4 + 4) + (16 * 10 + 10)
    assert found["layers"] == 3
    # Multiplications and additions of the three.
    assert found["flops"] == 2 * (64 * 9 * 2 + 16 * 9 * 2 * 4 + 16 * 10)
    assert found["saved"] >= 64


MODULES = {
    "broken": ("import nothing_of_this_name\n", "nothing_of_this_name"),
    "absent": ("def other(): ...\n", "'build'"),
    "failing": ("def build():\n    raise KeyError('lost')\n", "KeyError"),
    "arguments": ("def build(width):\n    ...\n", "width"),
    "nothing": ("def build():\n    return [1]\n", "list"),
    "empty": ("from torch import nn\ndef build():\n    return nn.Flatten()\n", "no parameters"),
    "frozen": (
        "from torch import nn\ndef build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10).requires_grad_(False))\n",
        "1.weight",
    ),
    "wide": (
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10).double())\n",
        "float64",
    ),
    "constant": (
        "import torch\nfrom torch import nn\ndef build():\n    torch.manual_seed(3)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n",
        "same under every seed",
    ),
    "unseeded": (
        "import torch\nfrom torch import nn\nfrom itertools import count\nN = count()\ndef build():\n"
        "    torch.seed()\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n",
        "under one seed",
    ),
    "outputs": (
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9))\n",
        "(32, 9)",
    ),
    "inputs": (
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(65, 10))\n",
        "RuntimeError",
    ),
    "dropout": (
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 10))\n",
        "at random",
    ),
    "batch statistics": (
        "from torch import nn\ndef build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))\n",
        "own_problems.md",
    ),
}


@pytest.mark.parametrize(("text", "reason"), MODULES.values(), ids=MODULES)
def test_a_module_that_cannot_be_used_is_one_line(text: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "m.py"
    file.write_text(text)
    with refused(ConfigError, "model.module", reason):
        describe({"module": f"{file}:build", "args": {}}, (8, 8), 10)


def test_a_configuration_asks_once_and_again_after_an_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blocks.py").write_text("from torch import nn\ndef last(n):\n    return nn.Linear(n, 10)\n")
    (tmp_path / "net.py").write_text(
        "from torch import nn\nfrom blocks import last\nprint('hello')\n"
        "def build(input_shape, width):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Tanh(), last(width))\n"
    )
    assert [path.name for path in importable.sources("net.py:build")] == ["blocks.py", "net.py"]
    overlay = {"model": {"module": "net.py:build", "args": {"width": 3}}}
    config = validate(pinned(overlay))
    # What the module replaces is gone, and stays so.
    assert config["model"] == {"module": "net.py:build", "args": {"width": 3}}
    assert validate(config) == config
    experiment = Experiment(config)
    assert experiment.n_parameters("digits") == 64 * 3 + 3 + 30 + 10
    assert [Path(file).name for file in experiment.model_sources()] == ["blocks.py", "net.py"]
    parameters = experiment.train_parameters(experiment.select()[0])
    assert parameters["model"] == config["model"]
    asked = asking.ask
    monkeypatch.setattr(asking, "ask", lambda *_: pytest.fail("asked again"))
    assert Experiment(validate(pinned(overlay))).n_parameters("digits") == 64 * 3 + 3 + 30 + 10
    monkeypatch.setattr(asking, "ask", asked)
    (tmp_path / "blocks.py").write_text("from torch import nn\ndef last(n):\n    return nn.Linear(n, 10, bias=False)\n")
    assert experiment.n_parameters("digits") == 64 * 3 + 3 + 30


def test_a_reference_to_nothing_is_refused_without_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ask", lambda *_: pytest.fail("asked"))
    for module in ("no_file.py:build", "no_package_of_this_name.net:build", "conv", f"{REPOSITORY}/examples/conv.py"):
        with refused(ConfigError, "model.module", "file.py:name"):
            validate(pinned({"model": {"module": module}}))


def test_keys_that_the_other_kind_of_network_has_are_refused() -> None:
    with refused(ConfigError, "model.args", "model.module"):
        validate(pinned({"model": {"args": {"channels": 3}}}))
    with refused(ConfigError, "sensitivity.variants.wide.args", "hidden"):
        validate(pinned({"sensitivity": {"variants": {"wide": {"args": {}}}}}))
    with refused(ConfigError, "sensitivity.variants.wide.hidden", "args"):
        validate(pinned({"model": CONV, "sensitivity": {"variants": {"wide": {"hidden": [3]}}}}))


def test_a_variant_has_arguments_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(asking, "ask", lambda _, question: describe(*_arguments(question)))
    variants = {"wide": {"args": {"channels": 3}}}
    experiment = Experiment(validate(pinned({"model": CONV, "sensitivity": {"variants": variants}})))
    assert experiment.settings["wide"]["args"] == {"channels": 3}
    assert experiment.n_parameters("digits", "wide") > experiment.n_parameters("digits")


def _arguments(question: str) -> tuple[Any, Any, Any]:
    asked = json.loads(question)
    return asked, asked["image_shape"], asked["classes"]
