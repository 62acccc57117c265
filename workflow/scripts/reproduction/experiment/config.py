"""Validate a merged configuration: one `ConfigError` line that names each key, its value and what is allowed.

Runs when the Snakefile is read, so it imports neither torch nor pandas.
"""

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from reproduction.errors import ConfigError, dotted, nearest, shown
from reproduction.experiment import own_model
from reproduction.experiment.architecture import ACTIVATIONS
from reproduction.experiment.datasets import DATASETS, names_of, records_of
from reproduction.experiment.optimizer_arguments import check_optimizer
from reproduction.experiment.schedule import most_snapshots, scaled_every
from reproduction.schema import SCHEMAS, check, in_one_line, read_schema

SCHEMA = SCHEMAS / "config.schema.yaml"
# Limits that stop a typing error before it fills memory or disk; ten times what anyone would ask for.
MAX_DEPTH = 12
MAX_VALUES = 1_000_000
MAX_INTEGER = 10**18
MAX_SNAPSHOTS = 100_000
MAX_RUNS = 100_000


def validate(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration in canonical form, or raise `ConfigError`, which names all keys that do not fit.

    Keys become text, those set to null are removed, and the others are sorted, so that neither the order within a file
    nor the order in which files are merged changes anything.
    """
    canonical: dict[str, Any] = canonical_form(config)
    check(canonical, full_schema(), "config", example="config.yaml")
    _resolve(canonical)
    misfits: list[str] = []
    for check_values in _CHECKS:
        try:
            check_values(canonical)
        except ConfigError as error:
            misfits += error.args
    if misfits:
        raise ConfigError(f"config: {in_one_line([misfit.removeprefix('config: ') for misfit in misfits])}")
    ordered: dict[str, Any] = _ordered(canonical)
    return ordered


def _resolve(canonical: dict[str, Any]) -> None:
    """Put names for what is said by its place, and leave out what the rest of the configuration makes meaningless."""
    model, sweeps = canonical["model"], canonical["sweeps"]
    # Results from before there was this key are read too.
    canonical["training"].setdefault("jobs_per_gpu", 1)
    if "module" in model:
        canonical["model"] = {"module": model["module"], "args": model.get("args", {})}
    elif model.pop("args", {}):
        raise ConfigError("config: model.args: needs model.module, which it is given to")
    if not canonical.get("trajectories", {}):
        canonical.pop("trajectories", None)
    if sweeps["dataset"] == "first":
        sweeps["dataset"] = names_of(canonical)[0]


def _ordered(value: Any) -> Any:
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    return {key: _ordered(value[key]) for key in sorted(value, key=_place)} if isinstance(value, dict) else value


def _place(key: str) -> tuple[int, float, str]:
    """The paper's optimizers in the paper's order, then numbers, then text."""
    if key in _PAPERS:
        return 0, _PAPERS.index(key), ""
    try:
        return 1, float(key), ""
    except ValueError:
        return 2, 0.0, key


_PAPERS = ("sgd", "adam", "sam")


def full_schema() -> dict[str, Any]:
    """The schema with the choices that the file leaves to the records: names of data sets and activations."""
    return read_schema(SCHEMA, dataset=DATASETS, activation=ACTIVATIONS)


def canonical_form(value: Any, path: tuple[str, ...] = (), seen: Iterator[int] | None = None) -> Any:
    """A document with keys as text, without those set to null; `ConfigError` for what a schema cannot refuse."""
    seen = itertools.count(1) if seen is None else seen
    if len(path) > MAX_DEPTH:
        raise ConfigError(f"config: {dotted(*path[:2])}: nested more than {MAX_DEPTH} deep; config.yaml shows its form")
    if next(seen) > MAX_VALUES:
        # A few YAML anchors that refer to each other can expand to more values than any memory holds.
        raise ConfigError(f"config: {dotted(*path[:2])}: more than {MAX_VALUES} values; config.yaml shows its form")
    if isinstance(value, Mapping):
        kept: dict[str, Any] = {}
        for key, item in value.items():
            name = _key_name(key, path)
            if name in kept:
                raise ConfigError(f"config: {dotted(*path, name)}: given twice, as a number and as text; give it once")
            if item is not None:
                kept[name] = canonical_form(item, (*path, name), seen)
        return kept
    if isinstance(value, (list, tuple)):
        return [canonical_form(item, (*path, str(position)), seen) for position, item in enumerate(value)]
    if (wanted := _unusable(value)) is not None:
        raise ConfigError(f"config: {dotted(*path)}: {shown(value)} is not allowed; give {wanted}")
    return value


def _key_name(key: Any, path: tuple[str, ...]) -> str:
    wanted = _unusable(key)
    if isinstance(key, bool) or not isinstance(key, (str, int, float)):
        wanted = "text or a number (YAML reads on, off, yes and no as true and false: put them in quotes)"
    if wanted is not None:
        raise ConfigError(f"config: {dotted(*path, shown(key))}: the key {shown(key)} is not allowed; give {wanted}")
    return str(key)


# Line breaks and other control characters, and unpaired surrogates, which no file name can hold.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _unusable(value: Any) -> str | None:
    """What to give instead, for a value that no key accepts; None for a usable value."""
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return "a number of at most 18 digits"
    if isinstance(value, str) and _CONTROL.search(value):
        return "text without line breaks and other control characters"
    return None


def _check_datasets(config: Mapping[str, Any]) -> None:
    spelled: dict[str, str] = {name.lower(): name for name in ("first", *DATASETS)}
    for position, entry in enumerate(config["datasets"]):
        name = entry if isinstance(entry, str) else entry["name"]
        if isinstance(entry, str):
            continue
        if spelled.setdefault(name.lower(), name) != name or name in ("first", *DATASETS):
            raise ConfigError(f"config: datasets.{position}.name: {shown(name)} is taken; give it another name")
    names = names_of(config)
    if len(set(names)) < len(names):
        raise ConfigError(f"config: datasets: {shown(names)} is not allowed; give each name once")


def _check_trajectories(config: Mapping[str, Any]) -> None:
    spelled: dict[str, str] = {}
    for name in config.get("trajectories", {}):
        twin = spelled.setdefault(name.lower(), name)
        if twin != name:
            raise ConfigError(f"config: trajectories.{name}: differs from {twin} in case only; give it another name")


def _check_optimizers(config: Mapping[str, Any]) -> None:
    spelled: dict[str, str] = {}
    for name, arguments in config["optimizers"].items():
        twin = spelled.setdefault(name.lower(), name)
        if twin != name:
            raise ConfigError(
                f"config: optimizers.{name}: differs from {twin} in case only, which some file systems do not tell "
                "apart; give it another name"
            )
        check_optimizer(f"optimizers.{name}", arguments)


def _check_seeds(config: Mapping[str, Any]) -> None:
    seeds = config["training"]["seeds"]
    dense = config["eigen"]["dense_seed"]
    if dense not in seeds:
        raise ConfigError(
            f"config: eigen.dense_seed: {dense} is not allowed; give one of training.seeds {shown(seeds)}"
        )
    for seed in config["sweeps"]["seeds"]:
        if seed not in seeds:
            raise ConfigError(
                f"config: sweeps.seeds: {seed} is not allowed; give some of training.seeds {shown(seeds)}, "
                "since the main runs are drawn beside the sweeps"
            )


def _check_sensitivity(config: Mapping[str, Any]) -> None:
    block = config["sensitivity"]
    if not _is_sensitivity_on(config):
        return
    for key, allowed, where in (
        ("optimizers", list(config["optimizers"]), "optimizers"),
        ("seeds", config["training"]["seeds"], "training.seeds"),
    ):
        for value in block[key]:
            if value not in allowed:
                raise ConfigError(
                    f"config: sensitivity.{key}: {shown(value)} is not allowed; give some of {where} {shown(allowed)}"
                )
    own = {"scaling": config["data"]["scaling"], **config["model"]}
    allowed_keys = [key for key in own if key != "module"]
    known: dict[str, str] = {json.dumps(own, sort_keys=True): "the main runs"}
    spelled: dict[str, str] = {}
    for name, changes in block["variants"].items():
        path = f"config: sensitivity.variants.{name}"
        twin = spelled.setdefault(name.lower(), name)
        if twin != name:
            raise ConfigError(f"{path}: differs from {twin} in case only; give it another name")
        for key in changes:
            if key not in allowed_keys:
                raise ConfigError(f"{path}.{key}: is not used by this model; give one of {', '.join(allowed_keys)}")
        same = known.setdefault(json.dumps({**own, **changes}, sort_keys=True), name)
        if same != name:
            raise ConfigError(f"{path}: {shown(changes)} is not allowed; {same} have these settings already")


def _is_sensitivity_on(config: Mapping[str, Any]) -> bool:
    """Whether any run is added for figure S1; without one, the block is not checked."""
    return bool(config["sensitivity"]["variants"])


def _check_sweeps(config: Mapping[str, Any]) -> None:
    dataset, names = config["sweeps"]["dataset"], names_of(config)
    if dataset not in names:
        meant = nearest(dataset, names) or ("" if dataset in DATASETS else nearest(dataset, DATASETS))
        raise ConfigError(
            f"config: sweeps.dataset: {shown(dataset)} is not allowed; give one of datasets {names}, or first{meant}"
        )
    if str(config["training"]["batch_size"]) in config["sweeps"]["batch_size"]:
        raise ConfigError(
            f"config: sweeps.batch_size.{config['training']['batch_size']}: this is training.batch_size, which the "
            "main runs show already; leave it out"
        )
    written: dict[float, str] = {}
    for factor in config["sweeps"]["learning_rate"]:
        if float(factor) in (0.0, 1.0):
            raise ConfigError(
                f"config: sweeps.learning_rate.{factor}: give a factor other than 0 and 1 (the main runs)"
            )
        if (same := written.setdefault(float(factor), factor)) != factor:
            raise ConfigError(f"config: sweeps.learning_rate.{factor}: the same factor as {same}; give it once")


def _check_tolerances(config: Mapping[str, Any]) -> None:
    for dataset, optimizers in config["eigen"]["tolerance_for"].items():
        path = ("eigen", "tolerance_for", dataset)
        known_names = list(dict.fromkeys([*names_of(config), *DATASETS]))
        if dataset not in known_names:
            raise ConfigError(
                f"config: {dotted(*path)}: unknown dataset{nearest(dataset, known_names)} "
                f"(known: {', '.join(known_names)})"
            )
        for optimizer in optimizers:
            if optimizer not in config["optimizers"]:
                known = ", ".join(config["optimizers"])
                raise ConfigError(
                    f"config: {dotted(*path, optimizer)}: unknown optimizer"
                    f"{nearest(optimizer, config['optimizers'])} (known: {known})"
                )


def _check_snapshots(config: Mapping[str, Any]) -> None:
    steps = config["training"]["steps"]
    main = config["snapshots"]
    for key in main["dense"]:
        larger, smaller = (main[key], main["dense"][key]) if key == "every" else (main["dense"][key], main[key])
        if larger % smaller:
            multiple = "a divisor" if key == "every" else "a multiple"
            raise ConfigError(
                f"config: snapshots.dense.{key}: {main['dense'][key]} is not allowed; give {multiple} of "
                f"snapshots.{key} = {main[key]}, so that the dense seed has the snapshots of the other seeds too"
            )
    blocks = {"snapshots": main, "sweeps.snapshots": config["sweeps"]["snapshots"]}
    if _is_sensitivity_on(config):
        blocks["sensitivity.snapshots"] = config["sensitivity"]["snapshots"]
    misfits = [misfit for path, block in blocks.items() for misfit in _snapshot_misfits(path, block, steps)]
    if misfits:
        raise ConfigError(*misfits)


def _snapshot_misfits(path: str, block: Mapping[str, Any], steps: int) -> Iterator[str]:
    """What does not fit into a run of this many steps."""
    times = block["waiting_times"]
    if times != sorted(times):
        yield f"config: {path}.waiting_times: {shown(times)} is not allowed; give them in ascending order"
    elif times[-1] >= steps:
        yield (
            f"config: {path}.waiting_times: {times[-1]} is not allowed; give times below training.steps = {steps}, "
            f"such as {shown([time for time in times if time < steps] or [0])}"
        )
    if block["every"] > steps:
        yield f"config: {path}.every: {block['every']} is not allowed; give at most training.steps = {steps}"


def _check_amounts(config: Mapping[str, Any]) -> None:
    main, sweeps = config["training"]["steps"], config["sweeps"]
    own = {key: value for key, value in config["snapshots"].items() if key != "dense"}
    schedules = [("snapshots", own, main), ("snapshots.dense", {**own, **config["snapshots"]["dense"]}, main)]
    for steps in (*sweeps["batch_size"].values(), *sweeps["learning_rate"].values()):
        schedules.append(("sweeps.snapshots", sweeps["snapshots"], steps))
    sensitivity = config["sensitivity"]
    if _is_sensitivity_on(config):
        schedules.append(("sensitivity.snapshots", sensitivity["snapshots"], sensitivity["steps"]))
    for path, block, steps in schedules:
        # For the main runs this equals `every`.
        every = scaled_every(block["every"], steps, main)
        if most_snapshots(steps, **{**block, "every": every}) > MAX_SNAPSHOTS:
            key = "every" if steps // every > MAX_SNAPSHOTS // 2 else "lags_per_decade"
            raise ConfigError(
                f"config: {path}.{key}: {block[key]} is not allowed; a run of {steps} steps would have more than "
                f"{MAX_SNAPSHOTS} snapshots"
            )
    variants = len(sweeps["seeds"]) * (len(sweeps["batch_size"]) + len(sweeps["learning_rate"]))
    runs = len(config["optimizers"]) * (len(config["datasets"]) * len(config["training"]["seeds"]) + variants)
    added = len(sensitivity["variants"]) * len(sensitivity["optimizers"]) * len(sensitivity["seeds"])
    runs += len(config["datasets"]) * added
    if runs > MAX_RUNS:
        raise ConfigError(f"config: training.seeds: {runs} runs in all are not allowed; give at most {MAX_RUNS}")


def _check_sizes(config: Mapping[str, Any]) -> None:
    eigen = config["eigen"]
    if eigen["dense_k"] < eigen["k"]:
        raise ConfigError(
            f"config: eigen.dense_k: {eigen['dense_k']} is not allowed; give at least eigen.k = {eigen['k']}"
        )
    for dataset, record in records_of(config).items():
        samples = record.samples
        sizes = [("training.batch_size", config["training"]["batch_size"])]
        if dataset == config["sweeps"]["dataset"]:
            sizes += [(f"sweeps.batch_size.{size}", size) for size in config["sweeps"]["batch_size"]]
        for path, size in sizes:
            if size != "full" and int(size) > samples:
                raise ConfigError(f"config: {path}: {size} is not allowed; {dataset} has {samples} training samples")
        parameters = own_model.network(config["model"], record).n_parameters
        if eigen["dense_k"] >= parameters:
            raise ConfigError(
                f"config: eigen.dense_k: {eigen['dense_k']} is not allowed; the network has {parameters} parameters"
            )
        for name, changes in config["sensitivity"]["variants"].items():
            model = {key: changes.get(key, value) for key, value in config["model"].items()}
            parameters = own_model.network(model, record).n_parameters
            if eigen["k"] >= parameters:
                raise ConfigError(
                    f"config: sensitivity.variants.{name}: its network has {parameters} parameters on {dataset}; "
                    f"give one with more than eigen.k = {eigen['k']}"
                )


def _check_ranges(config: Mapping[str, Any]) -> None:
    low, high = config["interpolation"]["alpha"]
    if not low < high:
        raise ConfigError(f"config: interpolation.alpha: [{low}, {high}] is not allowed; give the smaller end first")
    root = config["data"]["root"]
    if "{" in root or "}" in root:
        # Snakemake would read text between braces as a wildcard.
        raise ConfigError(f"config: data.root: {shown(root)} is not allowed; give the path of a folder without braces")


_CHECKS = (
    _check_datasets,
    _check_trajectories,
    _check_optimizers,
    _check_seeds,
    _check_sweeps,
    _check_sensitivity,
    _check_tolerances,
    _check_snapshots,
    _check_amounts,
    _check_sizes,
    _check_ranges,
)
