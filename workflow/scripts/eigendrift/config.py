"""Validate a merged configuration: one `ConfigError` line that names the key, its value and what is allowed.

Runs when the Snakefile is read, so it imports neither torch nor pandas.
"""

import math
import re
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from eigendrift.errors import ConfigError, nearest, shown
from eigendrift.optimizer_arguments import check_optimizer

SCHEMA = Path(__file__).parents[2] / "schemas" / "config.schema.yaml"
# Training samples and inputs of each dataset, for checks that must not wait for the data.
DATASET_SIZES = {
    "digits": (1437, 64),
    "digits_noisy": (1437, 64),
    "MNIST": (60_000, 784),
    "FashionMNIST": (60_000, 784),
}
CLASSES = 10


def validate(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration in canonical form (text keys, keys set to null removed), or raise `ConfigError`."""
    canonical: dict[str, Any] = _canonical(config, ())
    errors = list(jsonschema.Draft202012Validator(_schema()).iter_errors(canonical))
    if errors:
        # The least deep error is the cause; what lies below it follows from it.
        raise ConfigError(_message(min(errors, key=lambda error: (len(error.absolute_path), str(error.absolute_path)))))
    for check in (_check_optimizers, _check_seeds, _check_sweeps, _check_snapshots, _check_sizes, _check_ranges):
        check(canonical)
    return canonical


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    return schema


def _canonical(value: Any, path: tuple[str, ...]) -> Any:
    if isinstance(value, Mapping):
        kept: dict[str, Any] = {}
        for key, item in value.items():
            name = str(key)
            if name in kept:
                raise ConfigError(f"config: {_dotted((*path, name))}: given twice")
            if item is not None:
                kept[name] = _canonical(item, (*path, name))
        return kept
    if isinstance(value, (list, tuple)):
        return [_canonical(item, (*path, str(position))) for position, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"config: {_dotted(path)}: {value} is not allowed; give a finite number")
    return value


def _dotted(path: Iterable[object]) -> str:
    return ".".join(str(part) for part in path) or "(top level)"


def _message(error: jsonschema.ValidationError) -> str:
    path = [str(part) for part in error.absolute_path]
    schema: dict[str, Any] = dict(error.schema)
    value = error.instance
    if error.validator == "additionalProperties":
        allowed = list(schema.get("properties", {}))
        unknown = next(key for key in value if key not in allowed)
        return (
            f"config: {_dotted([*path, unknown])}: unknown key{nearest(unknown, allowed)} "
            f"(allowed here: {', '.join(allowed)})"
        )
    if error.validator == "required":
        missing = next(key for key in schema["required"] if key not in value)
        return f"config: {_dotted([*path, missing])}: missing; config.yaml shows its form"
    # propertyNames reports the key as the instance, at the path of the mapping that holds it.
    parent = error.parent
    if parent is None and "propertyNames" in error.absolute_schema_path:
        return f"config: {_dotted([*path, value])}: the key {shown(value)} is not allowed; give {_key_wanted(error)}"
    return f"config: {_dotted(path)}: {shown(value)} is not allowed; give {_wanted(error, schema, value)}"


def _key_wanted(error: jsonschema.ValidationError) -> str:
    return str(dict(error.schema).get("description", "another key"))


_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping of keys to values",
}


def _wanted(error: jsonschema.ValidationError, schema: Mapping[str, Any], value: Any) -> str:
    limit = error.validator_value
    if error.validator == "type":
        wanted = _TYPES[str(limit)]
        if isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value, re.IGNORECASE):
            mantissa, exponent = re.split("e", value, flags=re.IGNORECASE)
            wanted += f" (YAML reads {value} as text; write {mantissa}.0e{int(exponent):+d})"
        return wanted
    if error.validator == "enum":
        return f"one of {', '.join(map(str, limit))}{nearest(value, map(str, limit))}"
    if error.validator == "oneOf":
        return 'a whole number from 1 on, or "full"'
    words = {
        "minimum": f"a number not below {limit}",
        "maximum": f"a number not above {limit}",
        "exclusiveMinimum": f"a number above {limit}",
        "exclusiveMaximum": f"a number below {limit}",
        "minItems": f"at least {limit} entries",
        "maxItems": f"at most {limit} entries",
        "uniqueItems": "each entry once",
        "minProperties": f"at least {limit} entries",
        "maxProperties": f"at most {limit} entries",
        "minLength": f"at least {limit} characters",
        "maxLength": f"at most {limit} characters",
        "pattern": str(schema.get("description", f"text that matches {limit}")),
    }
    return words.get(str(error.validator), str(error.message))


def _check_optimizers(config: Mapping[str, Any]) -> None:
    for name, arguments in config["optimizers"].items():
        check_optimizer(f"optimizers.{name}", arguments)


def _check_seeds(config: Mapping[str, Any]) -> None:
    seeds = config["training"]["seeds"]
    dense = config["eigen"]["dense_seed"]
    if dense not in seeds:
        raise ConfigError(f"config: eigen.dense_seed: {dense} is not allowed; give one of training.seeds {seeds}")
    for seed in config["sweeps"]["seeds"]:
        if seed not in seeds:
            raise ConfigError(
                f"config: sweeps.seeds: {seed} is not allowed; give some of training.seeds {seeds}, "
                "since the main runs are drawn beside the sweeps"
            )


def _check_sweeps(config: Mapping[str, Any]) -> None:
    dataset = config["sweeps"]["dataset"]
    if dataset not in config["datasets"]:
        raise ConfigError(
            f"config: sweeps.dataset: {dataset!r} is not allowed; give one of datasets {config['datasets']}"
        )
    if str(config["training"]["batch_size"]) in config["sweeps"]["batch_size"]:
        raise ConfigError(
            f"config: sweeps.batch_size.{config['training']['batch_size']}: this is training.batch_size, which the "
            "main runs show already; leave it out"
        )
    for factor in config["sweeps"]["learning_rate"]:
        if float(factor) in (0.0, 1.0):
            raise ConfigError(
                f"config: sweeps.learning_rate.{factor}: give a factor other than 0 and 1 (the main runs)"
            )
    for dataset, optimizers in config["eigen"]["tolerance_for"].items():
        if dataset not in DATASET_SIZES:
            raise ConfigError(
                f"config: eigen.tolerance_for.{dataset}: unknown dataset{nearest(dataset, DATASET_SIZES)} "
                f"(known: {', '.join(DATASET_SIZES)})"
            )
        for optimizer in optimizers:
            if optimizer not in config["optimizers"]:
                known = ", ".join(config["optimizers"])
                raise ConfigError(
                    f"config: eigen.tolerance_for.{dataset}.{optimizer}: unknown optimizer"
                    f"{nearest(optimizer, config['optimizers'])} (known: {known})"
                )


def _check_snapshots(config: Mapping[str, Any]) -> None:
    steps = config["training"]["steps"]
    for path, block in (("snapshots", config["snapshots"]), ("sweeps.snapshots", config["sweeps"]["snapshots"])):
        times = block["waiting_times"]
        if times != sorted(times):
            raise ConfigError(
                f"config: {path}.waiting_times: {shown(times)} is not allowed; give them in ascending order"
            )
        if times[-1] >= steps:
            raise ConfigError(
                f"config: {path}.waiting_times: {times[-1]} is not allowed; give times below training.steps = {steps}"
            )
        if block["every"] > steps:
            raise ConfigError(
                f"config: {path}.every: {block['every']} is not allowed; give at most training.steps = {steps}"
            )


def _check_sizes(config: Mapping[str, Any]) -> None:
    eigen = config["eigen"]
    if eigen["dense_k"] < eigen["k"]:
        raise ConfigError(
            f"config: eigen.dense_k: {eigen['dense_k']} is not allowed; give at least eigen.k = {eigen['k']}"
        )
    for dataset in config["datasets"]:
        samples, inputs = DATASET_SIZES[dataset]
        sizes = [("training.batch_size", config["training"]["batch_size"])]
        if dataset == config["sweeps"]["dataset"]:
            sizes += [(f"sweeps.batch_size.{size}", size) for size in config["sweeps"]["batch_size"]]
        for path, size in sizes:
            if size != "full" and int(size) > samples:
                raise ConfigError(f"config: {path}: {size} is not allowed; {dataset} has {samples} training samples")
        parameters = n_parameters(inputs, config["model"]["hidden"])
        if eigen["dense_k"] >= parameters:
            raise ConfigError(
                f"config: eigen.dense_k: {eigen['dense_k']} is not allowed; the network has {parameters} parameters"
            )


def _check_ranges(config: Mapping[str, Any]) -> None:
    low, high = config["interpolation"]["alpha"]
    if not low < high:
        raise ConfigError(f"config: interpolation.alpha: [{low}, {high}] is not allowed; give the smaller end first")
    root = config["data"]["root"]
    if "\0" in root or "\n" in root:
        raise ConfigError(f"config: data.root: {shown(root)} is not allowed; give the path of a folder")


def n_parameters(inputs: int, hidden: Iterable[int], outputs: int = CLASSES) -> int:
    """Number of weights and biases of a fully connected network."""
    widths = [inputs, *hidden, outputs]
    return sum(a * b + b for a, b in pairwise(widths))
