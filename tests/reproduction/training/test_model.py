"""The network: its layout, and how its parameters start."""

import math

import pytest
import torch
from experiments import python
from torch import nn

from reproduction.experiment.architecture import ACTIVATIONS
from reproduction.experiment.importable import load
from reproduction.measure.inputs import pick_device
from reproduction.seeds import stream_seed
from reproduction.training.model import flatten, initialize, layer_shapes, mlp


def test_layout_of_the_papers_network() -> None:
    model = mlp(784, [100, 100, 10], 10)
    shapes = [list(p.shape) for p in model.parameters()]
    assert shapes == [[100, 784], [100], [100, 100], [100], [10, 100], [10], [10, 10], [10]]
    assert layer_shapes(model) == [
        ["0.weight", [100, 784]],
        ["0.bias", [100]],
        ["2.weight", [100, 100]],
        ["2.bias", [100]],
        ["4.weight", [10, 100]],
        ["4.bias", [10]],
        ["6.weight", [10, 10]],
        ["6.bias", [10]],
    ]
    assert flatten(model).shape == (89_720,)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_the_activation_stands_between_the_layers_and_not_at_the_end(name: str) -> None:
    model = mlp(3, [4, 5], 2, name)
    kinds = [type(layer) for layer in model]
    activation = load(ACTIVATIONS[name].module)
    assert kinds == [nn.Linear, activation, nn.Linear, activation, nn.Linear]
    assert activation.__name__.lower() == name


def test_no_hidden_layer_is_a_linear_model() -> None:
    model = mlp(3, [], 2)
    assert [type(layer) for layer in model] == [nn.Linear]
    assert layer_shapes(model) == [["0.weight", [2, 3]], ["0.bias", [2]]]


def test_flatten_is_in_the_order_of_the_parameters_and_a_copy() -> None:
    model = mlp(2, [2], 2)
    with torch.no_grad():
        for position, parameter in enumerate(model.parameters()):
            parameter.copy_(10 * position + torch.arange(parameter.numel()).reshape(parameter.shape))
    vector = flatten(model)
    assert vector.tolist() == [0, 1, 2, 3, 10, 11, 20, 21, 22, 23, 30, 31]
    assert not vector.requires_grad
    vector.zero_()
    assert float(next(model.parameters()).detach().sum()) == 6


BOUND_OR_DEVIATION = {
    "xavier_uniform": math.sqrt(6 / (300 + 200)),
    "xavier_normal": math.sqrt(2 / (300 + 200)),
    "kaiming_uniform": math.sqrt(6 / 300),
    "kaiming_normal": math.sqrt(2 / 300),
}


@pytest.mark.parametrize("init", sorted(BOUND_OR_DEVIATION))
def test_weights_have_the_distribution_of_their_name(init: str) -> None:
    model = mlp(300, [200], 10)
    initialize(model, 0, init)
    weight = model[0].weight.detach()
    scale = BOUND_OR_DEVIATION[init]
    deviation = scale / math.sqrt(3) if init.endswith("uniform") else scale
    # 60 000 values: the deviation is known to 0.3%, the mean to 0.4% of it.
    assert float(weight.std()) == pytest.approx(deviation, rel=0.01)
    assert abs(float(weight.mean())) < 0.015 * deviation
    fourth = float((weight**4).mean()) / deviation**4
    if init.endswith("uniform"):
        assert float(weight.abs().max()) <= scale
        assert float(weight.abs().max()) > 0.999 * scale
        assert fourth == pytest.approx(9 / 5, rel=0.02)
    else:
        assert fourth == pytest.approx(3, rel=0.05)


def test_biases_start_at_zero_or_uniformly() -> None:
    model = mlp(400, [300], 10)
    initialize(model, 0)
    assert not model[0].bias.detach().any()
    assert not model[2].bias.detach().any()
    initialize(model, 0, bias_init="uniform")
    bias = model[0].bias.detach()
    assert 0.9 / 20 < float(bias.abs().max()) <= 1 / 20
    assert float(bias.std()) == pytest.approx(1 / 20 / math.sqrt(3), rel=0.15)


def test_the_bias_start_does_not_change_the_first_weights() -> None:
    first, second = mlp(5, [4], 3), mlp(5, [4], 3)
    initialize(first, 3, bias_init="zero")
    initialize(second, 3, bias_init="uniform")
    assert torch.equal(first[0].weight, second[0].weight)


def test_initialization_depends_on_its_seed_alone_and_leaves_torchs_generator() -> None:
    torch.manual_seed(1)
    first, second, other = (mlp(5, [4], 3) for _ in range(3))
    state = torch.get_rng_state()
    initialize(first, 7)
    torch.manual_seed(2)
    initialize(second, 7)
    torch.set_rng_state(state)
    initialize(other, 8)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(flatten(first), flatten(second))
    assert not torch.equal(flatten(first), flatten(other))
    # No two layers are alike either.
    assert not torch.equal(first[0].weight.detach().reshape(-1)[:12], first[2].weight.detach().reshape(-1)[:12])


def test_a_float64_network_starts_where_the_float32_one_does() -> None:
    single, double = mlp(5, [4], 3), mlp(5, [4], 3).double()
    initialize(single, 7)
    initialize(double, 7)
    assert torch.equal(flatten(single).double(), flatten(double))


def test_stream_seeds_are_the_same_in_every_process() -> None:
    seeds = [stream_seed("initialization", 3), stream_seed("baseline", 3), stream_seed("batches", 3, 0), stream_seed()]
    code = (
        "from reproduction.seeds import stream_seed as s; "
        "print([s('initialization', 3), s('baseline', 3), s('batches', 3, 0), s()])"
    )
    assert python(code, PYTHONHASHSEED="1").stdout.strip() == str(seeds)
    # sha256 of the empty text begins with e3b0c44298fc1c14.
    assert seeds[3] == 0xE3B0C44298FC1C14 >> 1
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_streams_of_different_names_have_different_seeds() -> None:
    names = [(kind, a, b) for kind in ("initialization", "batches", "baseline") for a in range(20) for b in range(20)]
    assert len({stream_seed(*name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("name", "available", "expected"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda", False, "cuda")],
)
def test_pick_device(monkeypatch: pytest.MonkeyPatch, name: str, available: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert pick_device(name).type == expected
