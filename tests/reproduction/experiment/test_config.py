"""The configuration: what is shipped is valid, and every kind of bad input ends in one helpful line."""

import datetime
import importlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from experiments import REPOSITORY, at, overlaid, pinned, python, read
from pages import marked
from pages import read as page
from refusals import refused

from eigendrift.scaling import SCALINGS
from reproduction.data.sources import load_raw
from reproduction.errors import ConfigError, shown
from reproduction.experiment.architecture import ACTIVATIONS, FullyConnected
from reproduction.experiment.config import MAX_DEPTH, MAX_RUNS, MAX_SNAPSHOTS, MAX_VALUES, SCHEMA, full_schema, validate
from reproduction.experiment.datasets import DATASETS
from reproduction.experiment.runs import Experiment


def refusal(config: Any) -> str:
    """The message that a configuration is refused with: always one line that starts alike."""
    with pytest.raises(ConfigError) as refused:
        validate(config)
    message = str(refused.value)
    assert len(message.splitlines()) == 1
    assert message.startswith("config: ")
    assert message.isprintable()
    return message


# What is shipped


def test_the_shipped_configuration_is_valid_and_canonical() -> None:
    config = validate(read("config.yaml"))
    assert validate(config) == config
    sweeps = validate(pinned())["sweeps"]
    assert sweeps["batch_size"] == {"32": 1200, "full": 600}
    assert sweeps["learning_rate"] == {"0.3": 1200, "3": 1200}


def test_overlays_are_merged_here_as_snakemake_merges_them() -> None:
    utils = importlib.import_module("snakemake.utils")
    theirs, paper = read("config.yaml"), read("config/paper.yaml")
    utils.update_config(theirs, paper)
    assert overlaid(paper) == theirs


def test_the_papers_overlay_is_the_papers_experiment() -> None:
    config = validate(overlaid(read("config/paper.yaml")))
    experiment = Experiment(config)
    mains = experiment.select()
    assert len(mains) == 30
    assert {len(experiment.snapshots(run)) for run in mains} == {1584}
    assert {experiment.n_parameters(run.dataset) for run in mains} == {89_720}
    assert config["datasets"] == ["MNIST", "FashionMNIST"]
    assert config["model"]["hidden"] == [100, 100, 10]
    assert (config["model"]["activation"], config["model"]["init"][:6]) == ("relu", "xavier")
    assert (config["training"]["steps"], config["training"]["batch_size"]) == (100_000, 128)
    assert len(config["training"]["seeds"]) == 5
    assert len(config["sweeps"]["seeds"]) == 3
    assert config["optimizers"] == {
        "sgd": {"class": "SGD", "lr": 0.01},
        "adam": {"class": "Adam", "lr": 0.001},
        "sam": {"class": "SAM", "base": "SGD", "lr": 0.01, "rho": 0.05},
    }
    assert (config["eigen"]["k"], config["eigen"]["dense_k"], config["eigen"]["tolerance"]) == (3, 15, 1e-3)
    assert config["eigen"]["tolerance_for"]["MNIST"]["adam"] <= 1e-6
    assert config["eigen"]["dense_tolerance"] <= 1e-6
    assert config["baseline"]["initializations"] == 100
    assert config["interpolation"]["alpha"] == [-1, 2]


@pytest.mark.parametrize("name", ["digits", "digits_noisy"])
def test_sizes_of_the_embedded_data(name: str) -> None:
    raw = load_raw(name, "not used", download=False)
    record = DATASETS[name]
    assert (record.samples, record.inputs) == raw.train_inputs.shape
    assert (record.image_shape, record.classes) == (raw.image_shape, raw.n_classes)


def test_choices_are_those_of_the_library() -> None:
    assert full_schema()["$defs"]["dataset"]["enum"] == [
        *("digits", "digits_noisy", "MNIST", "FashionMNIST", "KMNIST", "EMNIST", "CIFAR10", "CIFAR100")
    ]
    assert full_schema()["$defs"]["activation"]["enum"] == list(ACTIVATIONS)
    assert sorted(schema()["$defs"]["scaling"]["enum"]) == sorted(SCALINGS)


def test_n_parameters_by_hand() -> None:
    three, two = FullyConnected(784, [100, 100, 10], 10), FullyConnected(784, [100, 100], 10)
    assert two.n_parameters == 784 * 100 + 100 + 100 * 100 + 100 + 100 * 10 + 10 == 89_610
    assert three.n_parameters == 784 * 100 + 100 + 100 * 100 + 100 + 100 * 10 + 10 + 10 * 10 + 10 == 89_720
    assert FullyConnected(64, [], 10).n_parameters == 64 * 10 + 10


def test_reading_a_configuration_imports_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, yaml; from reproduction.experiment.config import validate; "
        "from reproduction.experiment.resources import JobResources; "
        "from reproduction.experiment.runs import Experiment; "
        "import reproduction.experiment.figure_catalogue, reproduction.jobs.dependencies; "
        "JobResources(Experiment(validate(yaml.safe_load(open(sys.argv[1]))))); "
        "print(sorted({'torch', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = python(code, REPOSITORY / "config.yaml")
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


# The schema and the file


def schema() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    return loaded


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """A schema with what it refers to."""
    if "$ref" not in node:
        return node
    target: dict[str, Any] = schema()["$defs"][node["$ref"].removeprefix("#/$defs/")]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def objects(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of an object, by its path."""
    node = resolved(node)
    if node.get("type") == "object":
        yield path, node
    for name, child in node.get("properties", {}).items():
        yield from objects(child, f"{path}.{name}".lstrip("."))
    if isinstance(node.get("additionalProperties"), dict):
        yield from objects(node["additionalProperties"], f"{path}.*".lstrip("."))


def test_the_schema_is_closed_at_every_level() -> None:
    found = dict(objects(schema()))
    assert len(found) > 12
    # The arguments of an optimizer are those of its torch class, which optimizer_arguments reads.
    open_levels = {path for path, node in found.items() if "additionalProperties" not in node}
    assert open_levels == {"optimizers.*"}
    assert all(node["additionalProperties"] is not True for node in found.values() if "additionalProperties" in node)


def test_every_property_of_the_schema_has_a_description() -> None:
    for path, node in objects(schema()):
        for name, child in node.get("properties", {}).items():
            description = resolved(child).get("description", "")
            assert len(description) > 5, f"{path}.{name}"


def test_every_key_of_the_schema_stands_in_the_shipped_file() -> None:
    config = read("config.yaml")
    for path, node in objects(schema()):
        # What lies below a free name, and what is empty unless somebody wants it, has no values to show.
        if "*" in path or path == "snapshots.dense":
            continue
        block = config
        for part in path.split(".") if path else []:
            block = block[part]
        for name in node.get("properties", {}):
            assert name in block, f"{path}.{name}"
            # A network has four keys, or a module of the user's own.
            needed = {*node.get("required", []), *node.get("else", {}).get("required", [])}
            optional = ("model.module", "model.args", ".trajectories", "training.jobs_per_gpu")
            assert name in needed or f"{path}.{name}" in optional, f"{path}.{name}"


def test_every_key_of_the_shipped_file_has_a_comment_above_it() -> None:
    lines = [line for line in (REPOSITORY / "config.yaml").read_text().splitlines() if line.strip()]
    commented: dict[int, bool] = {}
    checked = 0
    for above, line, below in zip(lines, lines[1:], [*lines[2:], ""], strict=False):
        if line.lstrip().startswith("#"):
            continue
        depth = len(line) - len(line.lstrip())
        said = above.lstrip().startswith("#") and len(above) - len(above.lstrip()) == depth
        commented[depth] = said
        # A block says itself what it is, key by key; one comment may speak for all the keys below it.
        is_block = line.rstrip().endswith(":") and below.lstrip().startswith("#")
        inherited = any(commented.get(outer, False) for outer in range(0, depth, 2))
        assert said or is_block or inherited, line
        checked += 1
    assert checked > 40


# Bad input, kind by kind: where, what, and what the line must say

BAD = [
    # unknown keys, at each level, with the nearest spelling
    ("trainig", {}, ["trainig: unknown key", "did you mean 'training'?", "allowed here: name, datasets"]),
    ("training.step", 5, ["training.step: unknown key", "did you mean 'steps'?"]),
    ("training.\u202esteps", 5, ["training.'\\u202esteps': unknown key", "did you mean 'steps'?"]),
    ("TRAINING", {}, ["TRAINING: unknown key", "did you mean 'training'?"]),
    ("data.path", "x", ["data.path: unknown key", "root, download, scaling"]),
    ("model.width", 3, ["model.width: unknown key"]),
    ("snapshots.evry", 3, ["snapshots.evry: unknown key", "did you mean 'every'?"]),
    ("eigen.tolerence", 0.1, ["eigen.tolerence: unknown key", "did you mean 'tolerance'?"]),
    ("baseline.seeds", [1], ["baseline.seeds: unknown key", "initializations"]),
    ("sweeps.seed", [1], ["sweeps.seed: unknown key", "did you mean 'seeds'?"]),
    ("sweeps.snapshots.lags", 2, ["sweeps.snapshots.lags: unknown key"]),
    ("interpolation.point", 2, ["interpolation.point: unknown key", "did you mean 'points'?"]),
    ("storage.keep", True, ["storage.keep: unknown key", "keep_arrays"]),
    ("optimizers.sgd.momentun", 0.9, ["optimizers.sgd.momentun: unknown key", "did you mean 'momentum'?", "nesterov"]),
    # unknown names
    ("datasets", ["digit"], ["datasets.0: 'digit'", "one of digits, digits_noisy, MNIST", "did you mean 'digits'?"]),
    ("datasets", ["fashion-mnist"], ["'fashion-mnist'", "did you mean 'FashionMNIST'?"]),
    ("sweeps.dataset", "mnist", ["sweeps.dataset: 'mnist'", "did you mean 'MNIST'?"]),
    ("sweeps.dataset", "MNIST", ["sweeps.dataset: 'MNIST'", "one of datasets ['digits', 'digits_noisy']"]),
    ("model.activation", "ReLu", ["model.activation: 'ReLu'", "relu, tanh", "did you mean 'relu'?"]),
    ("model.init", "glorot", ["model.init: 'glorot'", "xavier_uniform"]),
    ("model.bias_init", "ones", ["model.bias_init: 'ones'", "zero, uniform"]),
    ("data.scaling", "standart", ["data.scaling: 'standart'", "did you mean 'standard'?"]),
    ("training.device", "gpu", ["training.device: 'gpu'", "auto, cpu, cuda"]),
    ("optimizers.sgd.class", "sdg", ["optimizers.sgd.class: 'sdg'", "did you mean 'SGD'?", "AdamW"]),
    ("optimizers.sam.base", "SAM", ["optimizers.sam.base: 'SAM'", "give one of"]),
    ("optimizers.sgd.class", "LBFGS", ["optimizers.sgd.class: 'LBFGS'", "many times"]),
    ("eigen.tolerance_for", {"MINST": {"sgd": 0.1}}, ["eigen.tolerance_for.MINST: unknown", "did you mean 'MNIST'?"]),
    ("eigen.tolerance_for", {"MNIST": {"adm": 0.1}}, ["tolerance_for.MNIST.adm: unknown", "did you mean 'adam'?"]),
    # wrong types
    ("training", [], ["training: []", "a mapping of keys to values"]),
    ("training.steps", "many", ["training.steps: 'many'", "a whole number"]),
    ("training.steps", 2.5, ["training.steps: 2.5", "a whole number"]),
    ("training.steps", 2000.0, ["training.steps: 2000.0", "a whole number (write 2000)"]),
    ("training.steps", True, ["training.steps: True", "a whole number"]),
    ("training.steps", "1e5", ["training.steps: '1e5'", "a whole number (write 100000)"]),
    ("training.steps", [5], ["training.steps: [5]", "a whole number"]),
    ("training.seeds", 3, ["training.seeds: 3", "a list"]),
    ("training.seeds", ["0"], ["training.seeds.0: '0'", "a whole number"]),
    ("training.seeds", [0, False], ["training.seeds.1: False", "a whole number"]),
    ("training.batch_size", "all", ["training.batch_size: 'all'", 'a whole number from 1 to 1000000000, or "full"']),
    ("training.batch_size", 32.0, ["training.batch_size: 32.0", "a whole number"]),
    ("model.hidden", [100.0], ["model.hidden.0: 100.0", "(write 100)"]),
    ("model.hidden", "100", ["model.hidden: '100'", "a list"]),
    ("datasets", "digits", ["datasets: 'digits'", "a list"]),
    ("datasets", [None], ["datasets.0: None", "text"]),
    ("name", 5, ["name: 5", "text"]),
    ("name", datetime.date(2020, 1, 1), ["name: datetime.date(2020, 1, 1)", "text"]),
    ("data.download", "yes", ["data.download: 'yes'", "true or false"]),
    ("data.download", 1, ["data.download: 1", "true or false"]),
    ("storage.keep_arrays", 0, ["storage.keep_arrays: 0", "true or false"]),
    ("optimizers.sgd", "SGD", ["optimizers.sgd: 'SGD'", "a mapping"]),
    ("optimizers.sgd.class", 3, ["optimizers.sgd.class: 3", "text"]),
    ("optimizers.sgd.lr", "0.1", ["optimizers.sgd.lr: '0.1'", "a number"]),
    ("optimizers.sgd.lr", True, ["optimizers.sgd.lr: True", "a number"]),
    ("optimizers.sgd.lr", 1j, ["optimizers.sgd.lr: 1j", "a number"]),
    ("optimizers.sgd.momentum", "high", ["optimizers.sgd.momentum: 'high'", "a number"]),
    ("optimizers.sgd.nesterov", 1, ["optimizers.sgd.nesterov: 1", "true or false"]),
    ("optimizers.adam.betas", 0.9, ["optimizers.adam.betas: 0.9", "a list of 2 numbers"]),
    ("optimizers.adam.betas", [0.9], ["optimizers.adam.betas: [0.9]", "a list of 2 numbers"]),
    ("interpolation.alpha", 2, ["interpolation.alpha: 2", "a list"]),
    ("sweeps.batch_size", [32], ["sweeps.batch_size: [32]", "a mapping"]),
    ("eigen.tolerance_for", {"MNIST": 0.1}, ["eigen.tolerance_for.MNIST: 0.1", "a mapping"]),
    # numbers that YAML reads as text
    ("eigen.tolerance", "1e-3", ["eigen.tolerance: '1e-3'", "YAML reads 1e-3 as text; write 1.0e-3"]),
    ("optimizers.sgd.lr", "1E2", ["optimizers.sgd.lr: '1E2'", "write 1.0e+2"]),
    ("optimizers.sgd.lr", "2.5e3", ["optimizers.sgd.lr: '2.5e3'", "write 2.5e+3"]),
    # out of range
    ("training.steps", 0, ["training.steps: 0", "not below 1"]),
    ("training.steps", 10**9 + 1, ["training.steps: 1000000001", "not above 1000000000"]),
    ("training.seeds", [-1], ["training.seeds.0: -1", "not below 0"]),
    ("training.seeds", [2**31], ["training.seeds.0: 2147483648", "not above 2147483647"]),
    ("training.seeds", [], ["training.seeds: []", "at least 1 entries"]),
    ("training.batch_size", 0, ["training.batch_size: 0", "from 1"]),
    ("training.batch_size", 1439, ["training.batch_size: 1439", "digits has 1438 training samples"]),
    ("model.hidden", [0], ["model.hidden.0: 0", "not below 1"]),
    ("model.hidden", [5] * 101, ["model.hidden: [5, 5", "at most 100 entries"]),
    ("optimizers.sgd.lr", 0, ["optimizers.sgd.lr: 0", "above 0"]),
    ("optimizers.sam.rho", -0.1, ["optimizers.sam.rho: -0.1", "above 0"]),
    ("eigen.k", 0, ["eigen.k: 0", "not below 1"]),
    ("eigen.k", 16, ["eigen.dense_k: 15", "at least eigen.k = 16"]),
    ("eigen.tolerance", 0.0, ["eigen.tolerance: 0.0", "above 0"]),
    ("eigen.tolerance", 0.2, ["eigen.tolerance: 0.2", "not above 0.1"]),
    ("eigen.dense_seed", 7, ["eigen.dense_seed: 7", "one of training.seeds [0, 1, 2]"]),
    ("eigen.snapshots_per_job", 0, ["eigen.snapshots_per_job: 0", "not below 1"]),
    ("baseline.initializations", 2, ["baseline.initializations: 2", "not below 3"]),
    ("interpolation.alpha", [2, -1], ["interpolation.alpha: [2, -1]", "the smaller end first"]),
    ("interpolation.alpha", [1, 1.0], ["interpolation.alpha: [1, 1.0]", "the smaller end first"]),
    ("interpolation.alpha", [0, 1, 2], ["interpolation.alpha: [0, 1, 2]", "at most 2 entries"]),
    ("interpolation.points", 1, ["interpolation.points: 1", "not below 2"]),
    ("interpolation.epsilon", [0.0], ["interpolation.epsilon.0: 0.0", "above 0"]),
    ("snapshots.waiting_times", [0, 2000], ["waiting_times: 2000", "below training.steps = 2000"]),
    ("snapshots.waiting_times", [10, 0], ["snapshots.waiting_times: [10, 0]", "ascending"]),
    ("snapshots.every", 2001, ["snapshots.every: 2001", "at most training.steps = 2000"]),
    ("sweeps.snapshots.waiting_times", [5, 1], ["sweeps.snapshots.waiting_times: [5, 1]", "ascending"]),
    ("sweeps.seeds", [5], ["sweeps.seeds: 5", "some of training.seeds [0, 1, 2]"]),
    ("data.root", "", ["data.root: ''", "at least 1 characters"]),
    ("data.root", "a{b}", ["data.root: 'a{b}'", "without braces"]),
    # the same thing twice
    ("training.seeds", [0, 1, 1], ["training.seeds: [0, 1, 1]", "each entry once"]),
    ("datasets", ["digits", "digits"], ["datasets: ['digits', 'digits']", "each entry once"]),
    ("interpolation.epsilon", [1, 1.0], ["interpolation.epsilon: [1, 1.0]", "each entry once"]),
    ("optimizers.SGD", {"class": "SGD", "lr": 0.1}, ["optimizers.SGD: differs from sgd in case only"]),
    ("sweeps.batch_size", {"32": 5}, ["sweeps.batch_size.32: given twice"]),
    # values of the sweeps
    ("sweeps.batch_size", {"half": 5}, ["sweeps.batch_size.half: the key 'half'", "a number of samples or full"]),
    ("sweeps.batch_size", {0: 5}, ["sweeps.batch_size.0: the key '0'", "a number of samples or full"]),
    ("sweeps.batch_size", {1439: 5}, ["sweeps.batch_size.1439: 1439", "digits has 1438 training samples"]),
    ("sweeps.batch_size", {128: 5}, ["sweeps.batch_size.128", "which the main runs show already"]),
    ("sweeps.batch_size", {64: 0}, ["sweeps.batch_size.64: 0", "not below 1"]),
    ("sweeps.learning_rate", {1: 5}, ["sweeps.learning_rate.1", "other than 0 and 1"]),
    ("sweeps.learning_rate", {"0.0": 5}, ["sweeps.learning_rate.0.0", "other than 0 and 1"]),
    ("sweeps.learning_rate", {"0.30": 5}, ["sweeps.learning_rate.0.30: the same factor as 0.3"]),
    ("sweeps.learning_rate", {-2: 5}, ["sweeps.learning_rate.-2: the key '-2'", "a decimal number such as 0.3"]),
    ("sweeps.learning_rate", {1e-7: 5}, ["sweeps.learning_rate.1e-07", "a decimal number such as 0.3"]),
    # names that would make bad paths
    ("name", "../up", ["name: '../up'", "letters, digits and _"]),
    ("name", "demo\n", ["name: 'demo\\n'", "without line breaks"]),
    ("name", "x" * 65, ["name: 'xxx", "letters, digits and _"]),
    ("optimizers.a-b", {"class": "SGD", "lr": 0.1}, ["optimizers.a-b: the key 'a-b'", "letters, digits and _"]),
    ("optimizers.sgd\n", {"class": "SGD", "lr": 0.1}, ["the key 'sgd\\n'", "without line breaks"]),
    ("sweeps.batch_size.64\n", 5, ["the key '64\\n'", "without line breaks"]),
    ("data.root", "a\0b", ["data.root: 'a\\x00b'", "without line breaks and other control characters"]),
    ("data.root", "\ud800", ["data.root: '\\ud800'", "without line breaks and other control characters"]),
    # not finite, too large, too deep
    ("optimizers.sgd.lr", float("inf"), ["optimizers.sgd.lr: inf", "a finite number"]),
    ("eigen.tolerance", float("nan"), ["eigen.tolerance: nan", "a finite number"]),
    ("interpolation.alpha", [0, float("-inf")], ["interpolation.alpha.1: -inf", "a finite number"]),
    ("optimizers.sgd.lr", 10**30, ["optimizers.sgd.lr: 1000000", "at most 18 digits"]),
    ("training.steps", -(10**5000), ["training.steps: a value of type int", "at most 18 digits"]),
    ("training.steps", 1e308, ["training.steps: 1e+308", "a whole number"]),
    # keys that are not text
    ("optimizers", {True: {"class": "SGD", "lr": 1}}, ["optimizers.True: the key True", "on, off, yes and no"]),
    ("optimizers", {("a", "b"): {}}, ["the key ('a', 'b')", "text or a number"]),
    ("optimizers", {float("nan"): {}}, ["optimizers.nan: the key nan", "a finite number"]),
    ("sweeps.batch_size", {10**30: 5}, ["the key 1000000", "at most 18 digits"]),
    ("training", {None: 5}, ["training.None: the key None", "text or a number"]),
    # missing
    ("training.steps", None, ["training.steps: missing", "config.yaml shows its form"]),
    ("eigen", None, ["eigen: missing"]),
    ("optimizers.sgd.lr", None, ["optimizers.sgd.lr: missing"]),
    ("optimizers.sgd.class", None, ["optimizers.sgd.class: missing"]),
    ("optimizers.sam.rho", None, ["optimizers.sam.rho: missing", "SAM needs base"]),
    ("optimizers.sam.base", None, ["optimizers.sam.base: missing", "SAM needs base"]),
    ("optimizers", {"sgd": None, "adam": None, "sam": None}, ["optimizers: {}", "at least 1 entries"]),
]


@pytest.mark.parametrize(("path", "value", "said"), BAD, ids=[f"{path}={shown(value):.30}" for path, value, _ in BAD])
def test_bad_input_ends_in_one_line_that_says_where_what_and_what_else(path: str, value: Any, said: list[str]) -> None:
    message = refusal(pinned(at(path, value)))
    for part in said:
        assert part in message
    assert len(message) < 600


@pytest.mark.parametrize("config", [None, [], "config", 3, {}, {1: 2}])
def test_something_else_than_a_configuration(config: Any) -> None:
    refusal(config)


def test_a_thousand_mappings_in_each_other() -> None:
    deep: dict[str, Any] = {}
    for _ in range(3000):
        deep = {"a": deep}
    assert f"training.steps: nested more than {MAX_DEPTH}" in refusal(
        pinned({"training": {"steps": 1}}) | at("training.steps", deep)
    )


@pytest.mark.parametrize("kind", ["list", "mapping"])
def test_anchors_that_stand_for_more_values_than_memory_holds(kind: str) -> None:
    # As YAML's anchors make them: nine times nine times nine ... references to one value.
    value: Any = 1
    for _ in range(9):
        value = [value] * 9 if kind == "list" else dict.fromkeys("abcdefghi", value)
    assert f"training.seeds: more than {MAX_VALUES}" in refusal(pinned({"training": {}}) | at("training.seeds", value))


def test_a_mapping_that_contains_itself() -> None:
    config = read("config.yaml")
    config["training"]["steps"] = config["training"]
    assert f"training.steps: nested more than {MAX_DEPTH}" in refusal(config)
    config["training"] = [config]
    assert "nested more than" in refusal(config)


def test_all_keys_that_do_not_fit_are_named_at_once() -> None:
    config = read("config.yaml")
    config["training"]["step"], config["eigen"]["k"] = 5, -1
    config["snapshots"] |= {"evry": 5, "every": "often"}
    config["optimizers"]["sgd"]["lr"] = -0.1
    said = refusal(config)
    for named in ("training.step: unknown key", "eigen.k: -1", "snapshots.evry", "snapshots.every: 'often'", "sgd.lr"):
        assert said.count(named) == 1, said
    assert said.count("; and ") == 4


def test_what_is_within_a_wrong_value_is_not_named_too() -> None:
    config = read("config.yaml")
    config["training"] = {"steps": []}
    said = refusal(config)
    assert said.count("training.steps") == 1
    assert "training.batch_size: missing" in said or "training.seeds: missing" in said


def test_an_example_of_a_short_run_is_valid() -> None:
    block = marked(page("docs/own_problems.md"), "short run").strip().removeprefix("```yaml").removesuffix("```")
    experiment = Experiment(validate(overlaid(yaml.safe_load(block))))
    assert experiment.config["training"]["steps"] == 100
    assert set(experiment.variants) == {"main"}


def test_the_uppermost_of_several_errors_is_named() -> None:
    config = pinned({"training": {"steps": 0, "batch_size": "x"}, "trainingg": {}, "model": {"hidden": [0]}})
    assert refusal(config).startswith("config: trainingg: unknown key")


# Figure S1

ON: dict[str, Any] = {"variants": {"scaling-unit": {"scaling": "unit"}}}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"seeds": [0, 7]}, "sensitivity.seeds: 7 is not allowed; give some of training.seeds [0, 1, 2]"),
        ({"optimizers": ["adamw"]}, "sensitivity.optimizers: 'adamw' is not allowed; give some of optimizers"),
        ({"snapshots": {"waiting_times": [100, 0]}}, "sensitivity.snapshots.waiting_times: [100, 0] is not allowed"),
        ({"snapshots": {"waiting_times": [0, 2000]}}, "sensitivity.snapshots.waiting_times: 2000 is not allowed"),
        (
            {"variants": {"a": {"scaling": "units"}}},
            "sensitivity.variants.a.scaling: 'units' is not allowed; give one of",
        ),
        ({"variants": {"a": {"hiden": [5]}}}, "sensitivity.variants.a.hiden: unknown key; did you mean 'hidden'?"),
        ({"variants": {"a": {"hidden": 5}}}, "sensitivity.variants.a.hidden: 5 is not allowed; give a list"),
        ({"variants": {"a": {"hidden": [0]}}}, "sensitivity.variants.a.hidden.0: 0 is not allowed"),
        ({"variants": {"a": {}}}, "sensitivity.variants.a: {} is not allowed; give at least 1 entries"),
        ({"variants": {"main": {"scaling": "unit"}}}, "sensitivity.variants.main: the key 'main' is not allowed"),
        ({"variants": {"batch_size-5": {"scaling": "unit"}}}, "sensitivity.variants.batch_size-5: the key"),
        (
            {"variants": {"a": {"scaling": "standard"}}},
            "sensitivity.variants.a: {'scaling': 'standard'} is not allowed; the main",
        ),
        (
            {"variants": {"a": {"bias_init": "uniform"}, "b": {"bias_init": "uniform"}}},
            "sensitivity.variants.b: {'bias_init': 'uniform'} is not allowed; a have",
        ),
        (
            {"variants": {"a": {"bias_init": "uniform"}, "A": {"hidden": [5]}}},
            "sensitivity.variants.A: differs from a in case only",
        ),
    ],
)
def test_variants_must_fit_the_main_runs(block: dict[str, Any], message: str) -> None:
    assert refusal(pinned({"sensitivity": {**ON, **block}})).startswith(f"config: {message}")


def test_without_variants_nothing_has_to_fit() -> None:
    overlay = {"training": {"steps": 60, "seeds": [5]}, "snapshots": {"every": 20, "waiting_times": [0]}}
    rest = {"eigen": {"dense_seed": 5}, "sweeps": {"seeds": [5], "snapshots": {"every": 20, "waiting_times": [0]}}}
    validate(pinned({**overlay, **rest, "optimizers": {"adam": None}}))


@pytest.mark.parametrize(
    ("dense", "message"),
    [
        ({"every": 30}, "snapshots.dense.every: 30 is not allowed; give a divisor of snapshots.every = 100"),
        ({"every": 200}, "snapshots.dense.every: 200 is not allowed; give a divisor of snapshots.every = 100"),
        ({"lags_per_decade": 4}, "snapshots.dense.lags_per_decade: 4 is not allowed; give a multiple of"),
        ({"waiting_times": [0]}, "snapshots.dense.waiting_times: unknown key"),
    ],
)
def test_the_dense_seed_must_have_the_snapshots_of_the_others(dense: dict[str, Any], message: str) -> None:
    assert refusal(pinned({"snapshots": {"dense": dense}})).startswith(f"config: {message}")


# Too much of it


@pytest.mark.parametrize(
    ("overlay", "key"),
    [
        ({"training": {"steps": 10**9}, "snapshots": {"every": 1}}, "snapshots.every: 1 "),
        ({"training": {"steps": 10**9}, "snapshots": {"every": 10**9, "lags_per_decade": 1000,
          "waiting_times": list(range(500))}}, "snapshots.lags_per_decade: 1000 "),
        ({"training": {"steps": 10**9}, "snapshots": {"every": 10**8},
          "sweeps": {"batch_size": {64: 10**8}, "snapshots": {"every": 20}}}, "sweeps.snapshots.every: 20 "),
    ],
)  # fmt: skip
def test_more_snapshots_than_a_disk_holds(overlay: dict[str, Any], key: str) -> None:
    message = refusal(pinned(overlay))
    assert message.startswith(f"config: {key}")
    assert str(MAX_SNAPSHOTS) in message


def test_more_runs_than_a_machine_does() -> None:
    optimizers = {f"o{i}": {"class": "SGD", "lr": 0.1} for i in range(97)}
    message = refusal(pinned({"optimizers": optimizers, "training": {"seeds": list(range(1000))}}))
    assert message.startswith("config: training.seeds: 200800 runs in all")
    assert f"at most {MAX_RUNS}" in message


# Overlays


def test_null_removes_a_key() -> None:
    config = validate(pinned({"optimizers": {"adam": None}, "sweeps": {"batch_size": {32: None}}}))
    assert list(config["optimizers"]) == ["sgd", "sam"]
    assert config["sweeps"]["batch_size"] == {"full": 600}


def test_what_an_overlay_leaves_of_another_optimizer_is_named() -> None:
    before = {"optimizers": {"sgd": {"momentum": 0.9, "nesterov": True}}}
    after = {"optimizers": {"sgd": {"class": "Adam"}}}
    message = refusal(pinned(before, after))
    assert message.startswith("config: optimizers.sgd.momentum: unknown key")
    repaired = {"optimizers": {"sgd": {"momentum": None, "nesterov": None}}}
    assert validate(pinned(before, after, repaired))["optimizers"]["sgd"] == {"class": "Adam", "lr": 0.01}


@pytest.mark.parametrize(
    "overlay",
    [
        {"optimizers": {"adamw": {"class": "AdamW", "lr": 0.001, "weight_decay": 0.1}}},
        {"optimizers": {"rmsprop": {"class": "RMSprop", "lr": 0.001, "alpha": 0.9}}},
        {"optimizers": {"momentum": {"class": "SGD", "lr": 0.01, "momentum": 0.9, "nesterov": True}}},
        {"optimizers": {"sam_adam": {"class": "SAM", "base": "Adam", "lr": 0.001, "rho": 0.1, "betas": [0.8, 0.9]}}},
        {"optimizers": {"NA": {"class": "Adadelta", "lr": 1, "rho": 0.5}}},
        {"optimizers": {"factor": {"class": "Adafactor", "lr": 0.1, "eps": [None, 0.001]}}},
        {"model": {"hidden": []}},
        {"model": {"hidden": [3] * 100, "activation": "gelu", "init": "kaiming_normal", "bias_init": "uniform"}},
        {"training": {"batch_size": "full"}, "sweeps": {"batch_size": {"full": None}}},
        {"training": {"batch_size": 1438}},
        {"training": {"seeds": [2147483647, 0]}, "sweeps": {"seeds": [0]}},
        {"datasets": ["digits_noisy"], "sweeps": {"dataset": "digits_noisy"}},
        {"sweeps": {"batch_size": {}, "learning_rate": {"0.5": 1}}},
        {"data": {"root": "../data; rm -rf $HOME/ü x"}},
        {"interpolation": {"alpha": [-0.5, 1.5], "epsilon": [1]}},
        # The grid of a sweep run grows with its length.
        {"sweeps": {"batch_size": {64: 10**9}, "snapshots": {"every": 1}}},
        {"eigen": {"k": 1, "dense_k": 1, "tolerance_for": {"FashionMNIST": {"sgd": 1e-5}}}},
    ],
)  # fmt: skip
def test_what_is_allowed(overlay: dict[str, Any]) -> None:
    config = validate(pinned(overlay))
    assert len(list(Experiment(config))) > 0


def test_a_key_is_refused_wherever_the_shipped_file_has_one() -> None:
    """A misspelled twin of every key of the file, one at a time."""

    def paths(block: dict[str, Any], path: str = "") -> Iterator[str]:
        for key, value in block.items():
            yield f"{path}{key}"
            if isinstance(value, dict):
                yield from paths(value, f"{path}{key}.")

    shipped = read("config.yaml")
    user_named = re.compile(r"optimizers\.\w+|sweeps\.(batch_size|learning_rate)\..*")
    fixed = [path for path in paths(shipped) if not user_named.fullmatch(path)]
    assert len(fixed) > 45
    for path in fixed:
        overlay = pinned(at(f"{path}x", 1))
        if path.endswith(".class"):
            continue
        message = refusal(overlay)
        assert message.startswith(f"config: {path}x: unknown key; did you mean "), message


def test_more_dense_pairs_than_the_network_has_parameters() -> None:
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))
    config["model"]["hidden"] = []
    config["eigen"]["dense_k"] = 650
    with refused(ConfigError, "eigen.dense_k", 650):
        validate(config)


def test_the_order_of_keys_changes_nothing() -> None:
    def reversed_keys(value: Any) -> Any:
        return {key: reversed_keys(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    config = pinned(
        {"optimizers": {"rmsprop": {"class": "RMSprop", "lr": 0.001}, "adamw": {"class": "AdamW", "lr": 0.1}}}
    )
    found = validate(reversed_keys(config))
    assert json.dumps(found) == json.dumps(validate(config))
    assert list(found["optimizers"]) == ["sgd", "adam", "sam", "adamw", "rmsprop"]
    assert list(found["sweeps"]["batch_size"]) == ["32", "full"]


def test_all_keys_that_do_not_fit_a_shorter_run_are_named_at_once() -> None:
    message = refusal(
        pinned({"training": {"steps": 60, "seeds": [0]}, "sensitivity": {"variants": {"u": {"init": "xavier_normal"}}}})
    )
    keys = ("snapshots.waiting_times", "snapshots.every", "sweeps.snapshots.waiting_times", "sweeps.snapshots.every")
    for key in (
        *keys,
        "sensitivity.snapshots.every",
        "sensitivity.snapshots.waiting_times",
        "sweeps.seeds",
        "sensitivity.seeds",
    ):
        assert re.search(rf"(^config:|; and) {re.escape(key)}: ", message), key
    # What it says is enough for a run.
    validate(
        pinned(
            {
                "training": {"steps": 60, "seeds": [0]},
                "snapshots": {"waiting_times": [0, 10], "every": 60},
                "sweeps": {"seeds": [0], "snapshots": {"waiting_times": [0, 10], "every": 60}},
            }
        )
    )
