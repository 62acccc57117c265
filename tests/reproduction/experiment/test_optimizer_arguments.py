"""Optimizers of the configuration against torch itself: its classes, their arguments, and the values they take."""

import importlib.util
import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from experiments import python

from reproduction.errors import ConfigError
from reproduction.experiment import optimizer_arguments
from reproduction.experiment.optimizer_arguments import RESERVED, UNSUITABLE, check_optimizer, torch_optimizers

CLASSES = {
    name: getattr(torch.optim, name)
    for name in dir(torch.optim)
    if inspect.isclass(getattr(torch.optim, name))
    and issubclass(getattr(torch.optim, name), torch.optim.Optimizer)
    and name not in UNSUITABLE
}


def test_the_classes_are_torchs() -> None:
    assert set(torch_optimizers()) == set(CLASSES)
    assert {"SGD", "Adam", "AdamW", "RMSprop", "Adagrad"} <= set(CLASSES)
    assert set(UNSUITABLE) <= set(dir(torch.optim))


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_arguments_and_defaults_are_those_of_the_constructor(name: str) -> None:
    parameters = inspect.signature(CLASSES[name]).parameters
    expected = {key: value.default for key, value in parameters.items() if key not in RESERVED}
    assert dict(torch_optimizers()[name].defaults) == expected


def refused(arguments: dict[str, Any]) -> str | None:
    try:
        check_optimizer("optimizers.x", arguments)
    except ConfigError as error:
        message = str(error)
        assert message.startswith("config: optimizers.x.")
        assert len(message.splitlines()) == 1
        return message
    return None


def torch_refuses(name: str, arguments: dict[str, Any]) -> bool:
    try:
        CLASSES[name]([torch.zeros(2, requires_grad=True)], **arguments)
    except ValueError:
        return True
    return False


def numeric_cases() -> Iterator[tuple[str, str, Any]]:
    values = [-1.5, -1.0, -0.1, 0.0, 0.5, 0.999, 1.0, 1.5]
    for name, signature in torch_optimizers().items():
        for argument, default in signature.defaults.items():
            if isinstance(default, tuple):
                pairs = itertools.product(values, [None, *values] if None in default else values)
                yield from (
                    (name, argument, list(pair)) for pair in pairs if not (pair[1] is None and name == "Adafactor")
                )
            elif isinstance(default, (int, float)) and not isinstance(default, bool):
                yield from ((name, argument, value) for value in values)


def test_a_number_is_refused_exactly_where_torch_refuses_it() -> None:
    counts = {True: 0, False: 0}
    for name, argument, value in numeric_cases():
        expected = torch_refuses(name, {argument: value})
        arguments = {"class": name, argument: value}
        message = refused(arguments)
        assert (message is not None) == expected, (name, argument, value, message)
        if message is not None:
            assert f"optimizers.x.{argument}: {value!r} is not allowed; torch.optim.{name}" in message
        counts[expected] += 1
    assert min(counts.values()) > 50


def test_conditions_on_several_arguments() -> None:
    base = {"class": "SGD", "lr": 0.1}
    assert refused({**base, "nesterov": True, "momentum": 0.9}) is None
    assert refused({**base, "nesterov": True}) is not None
    assert refused({**base, "nesterov": True, "momentum": 0.9, "dampening": 0.5}) is not None
    # AdamW hands its arguments on to Adam, which looks at them.
    assert refused({"class": "AdamW", "lr": 0.1, "betas": [0.9, 1.0]}) is not None
    assert refused({"class": "AdamW", "lr": 0.1, "betas": [1, 0.9]}) is not None


@pytest.mark.parametrize(
    ("argument", "value", "wanted"),
    [
        ("momentum", "0.9", "a number"),
        ("momentum", True, "a number"),
        ("momentum", [0.9], "a number"),
        ("momentum", {"a": 1}, "a number"),
        ("nesterov", "yes", "true or false"),
        ("nesterov", 1, "true or false"),
        ("foreach", 0, "true or false"),
    ],
)
def test_values_of_another_type(argument: str, value: Any, wanted: str) -> None:
    message = refused({"class": "SGD", "lr": 0.1, argument: value})
    assert message is not None
    assert message.endswith(f"optimizers.x.{argument}: {value!r} is not allowed; give {wanted}")


@pytest.mark.parametrize("value", [0.9, "0.9, 0.99", [0.9], [0.9, 0.99, 0.999], [0.9, "x"], [0.9, True], [0.9, None]])
def test_pairs_of_another_form(value: Any) -> None:
    message = refused({"class": "Adam", "lr": 0.1, "betas": value})
    assert message is not None
    assert "optimizers.x.betas: " in message
    assert "a list of 2 numbers" in message


def test_sam_takes_its_own_and_its_bases_arguments() -> None:
    sam = {"class": "SAM", "base": "SGD", "lr": 0.1, "rho": 0.05}
    assert refused({**sam, "momentum": 0.9}) is None
    assert refused({**sam, "base": "Adam", "betas": [0.5, 0.5]}) is None
    # rho beyond what Adadelta's own rho may be: it is SAM's.
    assert refused({**sam, "base": "Adadelta", "rho": 3.0}) is None
    assert "optimizers.x.betas: unknown key" in str(refused({**sam, "betas": [0.5, 0.5]}))
    assert "optimizers.x.base: 'Sgd' is not allowed" in str(refused({**sam, "base": "Sgd"}))
    assert "did you mean 'SGD'?" in str(refused({**sam, "base": "Sgd"}))
    for name in UNSUITABLE:
        assert f"optimizers.x.base: {name!r} is not allowed; {UNSUITABLE[name]}" in str(refused({**sam, "base": name}))


@pytest.mark.parametrize("key", ["base", "rho"])
def test_base_and_rho_belong_to_sam(key: str) -> None:
    assert f"optimizers.x.{key}: unknown key" in str(refused({"class": "SGD", "lr": 0.1, key: 0.5}))


@pytest.mark.parametrize("argument", [name for name in RESERVED if name not in ("self", "params")])
def test_what_the_training_loop_sets_is_not_the_users(argument: str) -> None:
    assert f"optimizers.x.{argument}: unknown key" in str(refused({"class": "Adam", "lr": 0.1, argument: False}))


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    torch_optimizers.cache_clear()
    yield
    monkeypatch.undo()
    torch_optimizers.cache_clear()


@pytest.mark.usefixtures("without_torch")
def test_without_torch_the_check_is_left_to_training() -> None:
    assert torch_optimizers() == {}
    assert refused({"class": "Whatever", "lr": 0.1, "anything": "goes"}) is None
    assert refused({"class": "LBFGS", "lr": 0.1}) is not None
    assert refused({"class": "SAM", "lr": 0.1, "rho": 0.1}) is not None


def test_an_unknown_future_signature_does_not_stop_a_configuration(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "new.py").write_text(
        "class New(Optimizer):\n"
        "    def __init__(self, params, lr=required, size=math.inf, *, scale=1.0, mode):\n"
        "        if not scale > SMALLEST: raise ValueError('too small')\n"
        "        if size.numel() > scale: raise ValueError('too many')\n"
        "        if scale > 5: raise ValueError('too large')\n"
        "class Schedule:\n"
        "    def __init__(self, optimizer, last=math.inf): pass\n"
        "class _Hidden(Optimizer):\n"
        "    def __init__(self, params, lr=1): pass\n"
    )
    spec = importlib.util.spec_from_file_location("torch", tmp_path / "__init__.py")
    monkeypatch.setattr(optimizer_arguments.importlib.util, "find_spec", lambda name: spec)
    torch_optimizers.cache_clear()
    try:
        assert set(torch_optimizers()) == {"New"}
        assert refused({"class": "New", "lr": 0.1, "size": "any", "mode": [1], "scale": 2}) is None
        assert "New refuses scale > 5" in str(refused({"class": "New", "lr": 0.1, "scale": 6}))
        assert "optimizers.x.scal: unknown key; did you mean 'scale'?" in str(refused({"class": "New", "scal": 6}))
    finally:
        torch_optimizers.cache_clear()


def test_signatures_are_read_without_importing_torch() -> None:
    code = (
        "import sys; from reproduction.experiment.optimizer_arguments import torch_optimizers; "
        "print(len(torch_optimizers()) > 10, 'torch' in sys.modules)"
    )
    done = python(code)
    assert done.stdout.split() == ["True", "False"], done.stderr
