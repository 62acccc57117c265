"""Optimizers of the configuration against torch itself: its classes, their arguments, and the kinds of values."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from experiments import python

from reproduction.errors import ConfigError
from reproduction.experiment import importable
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
    assert dict(torch_optimizers()[name]) == expected


def refused(arguments: dict[str, Any]) -> str | None:
    try:
        check_optimizer("optimizers.x", arguments)
    except ConfigError as error:
        message = str(error)
        assert message.startswith("config: optimizers.x.")
        assert len(message.splitlines()) == 1
        return message
    return None


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
    assert "optimizers.x.betas: " in str(refused({**sam, "betas": [0.5, 0.5]}))
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
    monkeypatch.setattr(importable, "source", lambda module: None)
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
        "        pass\n"
        "class Schedule:\n"
        "    def __init__(self, optimizer, last=math.inf): pass\n"
        "class _Hidden(Optimizer):\n"
        "    def __init__(self, params, lr=1): pass\n"
    )
    monkeypatch.setattr(importable, "source", lambda module: tmp_path / "__init__.py")
    torch_optimizers.cache_clear()
    try:
        assert set(torch_optimizers()) == {"New"}
        assert refused({"class": "New", "lr": 0.1, "size": "any", "mode": [1], "scale": 2}) is None
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


# Classes that are not torch's

LION = """
import absent_at_this_time
class Lion(absent_at_this_time.Optimizer):
    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), *, cautious=False): pass
class Heir(Lion): pass
class Open(Lion):
    def __init__(self, params, lr, **others): pass
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_for_tests" / "deep").mkdir(parents=True)
    # To import it would fail.
    (tmp_path / "mine_for_tests" / "__init__.py").write_text("import absent_at_this_time\n")
    (tmp_path / "mine_for_tests" / "deep" / "lion.py").write_text(LION)
    (tmp_path / "mine_for_tests" / "deep" / "broken.py").write_text("class Lion(:")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("mine")
def test_keywords_of_any_class_are_read_without_importing_it() -> None:
    lion = {"class": "mine_for_tests.deep.lion:Lion", "lr": 0.1}
    assert refused(lion) is None
    assert refused({**lion, "betas": [0.5, 0.6], "cautious": True}) is None
    assert "x.beta: unknown key; did you mean 'betas'?" in str(refused({**lion, "beta": 1}))
    assert "x.cautious: 3 " in str(refused({**lion, "cautious": 3}))
    sam = {"class": "SAM", "base": lion["class"], "lr": 0.1, "rho": 0.1}
    assert refused(sam) is None
    assert "x.beta: unknown key" in str(refused({**sam, "beta": 1}))


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize("name", ["lion:Heir", "lion:Open", "lion:Absent", "broken:Lion", "absent:Lion"])
def test_what_the_source_does_not_show_is_left_to_training(name: str) -> None:
    assert refused({"class": f"mine_for_tests.deep.{name}", "lr": 0.1, "any": 1}) is None
    assert refused({"class": "absent_package:Lion", "lr": 0.1, "any": 1}) is None


@pytest.mark.parametrize("name", ["a.b", "a:", ":B", "a:b:C", "a.b:C.D", "a b:C", "a/b:C", "../a:B", "a..b:C", "1a:B"])
def test_names_of_another_form(name: str) -> None:
    message = str(refused({"class": name, "lr": 0.1}))
    assert f"optimizers.x.class: {name!r} is not allowed; give " in message
    assert "package.module:Class" in message


@pytest.mark.parametrize("name", ["torch.optim:LBFGS", "torch.optim.SGD", "torch.optim.sgd:SGD"])
def test_torchs_classes_are_given_by_name(name: str) -> None:
    assert "by its name alone" in str(refused({"class": name, "lr": 0.1}))
