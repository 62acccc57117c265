"""Which tables of an experiment belong together, what their numbers depend on, and which of them are finished."""

import glob
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reproduction.experiment.labels import MAIN
from reproduction.experiment.runs import SENSITIVITY, Experiment, Run
from reproduction.experiment.table_catalogue import DATASET_TABLES, RUN_TABLES, TABLES, VARIANT_TABLES
from reproduction.files.arrays import ArrayFile
from reproduction.files.tables import read_header
from reproduction.jobs.snakemake_records import RECORDS, is_incomplete, recorded_parameters

FINAL_WEIGHTS = "final_weights"
# Where a job runs is no matter of its numbers.
_NO_MATTER = ("device",)


@dataclass(frozen=True)
class Part:
    """Files that are finished together: those of a run, or one table of a data set.

    `files`: path below results/<name> -> kind. `parameters`: what the numbers depend on. `identity`: what the files say
    of themselves. `sources`: names of the parts that this one is computed from. `noted`: output -> parameters that must
    be among those with which Snakemake has made it. `benchmarks`: patterns of the
    files in which Snakemake noted the time of its jobs.
    """

    name: str
    files: Mapping[str, str]
    parameters: Mapping[str, Any]
    identity: Mapping[str, Any]
    sources: tuple[str, ...] = ()
    noted: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    benchmarks: tuple[str, ...] = ()


def parts(experiment: Experiment) -> dict[str, Part]:
    """All parts of an experiment by name, those of the supplement included; runs first."""
    runs = dict.fromkeys([*experiment, *experiment.select(variants=SENSITIVITY)])
    found = [_run_part(experiment, run) for run in runs]
    for kind in DATASET_TABLES:
        found += [_dataset_part(experiment, kind, dataset) for dataset in experiment.datasets()]
    for variant in experiment.own_baselines:
        for kind, pattern in VARIANT_TABLES.items():
            found += [_variant_part(experiment, kind, pattern, variant, dataset) for dataset in experiment.datasets()]
    return {part.name: part for part in found}


def _run_part(experiment: Experiment, run: Run) -> Part:
    folder = f"runs/{run.folder}"
    files = {f"{folder}/{name}": kind for kind, name in RUN_TABLES.items()}
    if run.variant == MAIN:
        # The interpolation and the permuted networks start from them.
        files[f"{folder}/final_weights.safetensors"] = FINAL_WEIGHTS
    train, eigen = experiment.train_parameters(run), experiment.eigen_parameters(run)
    noted = {f"{folder}/history.csv": train}
    noted |= {f"{folder}/eigenpairs-{chunk}.safetensors": eigen for chunk in range(experiment.chunks(run))}
    own = {key: value for key, value in eigen.items() if key not in train}
    job = glob.escape(f"{run.dataset}.{run.optimizer}.{run.variant}.{run.seed}")
    return Part(
        folder,
        files,
        _plain({**train, "eigen": own}),
        experiment.identity(run),
        noted=noted,
        benchmarks=(f"*/{job}.tsv", *(f"*/{job}.{chunk}.tsv" for chunk in range(experiment.chunks(run)))),
    )


def _dataset_part(experiment: Experiment, kind: str, dataset: str) -> Part:
    table = TABLES[kind]
    name, parameters = table.path.format(dataset=dataset), experiment.rule_parameters(table.rule)
    runs = experiment.of_dataset(dataset, seeds=table.sources) if table.sources else []
    identity = {"dataset": dataset, "n_parameters": experiment.n_parameters(dataset)}
    return Part(
        name,
        {name: kind},
        _plain({**parameters, **identity}),
        identity,
        sources=tuple(f"runs/{run.folder}" for run in runs),
        noted={name: parameters},
        # Of a rule with two tables the time is noted with the first.
        benchmarks=(f"{table.rule}/{dataset}.tsv",) if _is_first(kind) else (),
    )


def _variant_part(experiment: Experiment, kind: str, pattern: str, variant: str, dataset: str) -> Part:
    """A table of the baseline that a variant of figure S1 has of its own."""
    name, parameters = pattern.format(variant=variant, dataset=dataset), experiment.baseline_parameters(variant)
    identity = {"dataset": dataset, "variant": variant, "n_parameters": experiment.n_parameters(dataset, variant)}
    return Part(
        name,
        {name: kind},
        _plain({**parameters, **identity}),
        identity,
        noted={name: parameters},
        benchmarks=(f"variant_baseline/{dataset}.{variant}.tsv",) if _is_first(kind) else (),
    )


def _is_first(kind: str) -> bool:
    """Whether a kind is the first one of its rule, with which the time is noted."""
    return next(name for name, table in TABLES.items() if table.rule == TABLES[kind].rule) == kind


def seconds(part: Part, results: Path) -> dict[str, float]:
    """Seconds of a part's jobs by rule, from the files in `benchmarks`, which hold each job's last try."""
    found: dict[str, float] = {}
    for pattern in part.benchmarks:
        for path in (results / "benchmarks").glob(pattern):
            names, values = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[:2])
            measured = float(dict(zip(names, values, strict=True))["s"])
            found[path.parent.name] = round(found.get(path.parent.name, 0.0) + measured, 1)
    return dict(sorted(found.items()))


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON gives them back, without those that are no matter of the numbers."""
    kept = {key: value for key, value in parameters.items() if key not in _NO_MATTER}
    plain: dict[str, Any] = json.loads(json.dumps(kept))
    return plain


def differences(kept: Mapping[str, Any], configured: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """What differs between two sets of parameters, each as `key VALUE kept, VALUE configured`."""
    for key in dict.fromkeys([*kept, *configured]):
        here, there = kept.get(key, "nothing"), configured.get(key, "nothing")
        name = f"{path}.{key}" if path else key
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            yield from differences(here, there, name)
        elif here != there:
            yield f"{name} {here} kept, {there} configured"


def unfinished(part: Part, results: Path, finished: Mapping[str, Part], records: Path = RECORDS) -> str | None:
    """Why a part is not finished; None if it is. `finished`: the parts of which that is known already.

    A damaged file is a `DamagedFileError`.
    """
    missing = [path for path in part.files if not (results / path).is_file()]
    if missing:
        return f"{missing[0]} is not there"
    for path in part.files:
        if is_incomplete(str(results / path), records):
            return f"the job that makes {path} is at work, or was killed"
    for path, expected in part.noted.items():
        noted = recorded_parameters(str(results / path), records)
        if noted is not None and _plain(expected) not in [_plain(one) for one in noted if isinstance(one, dict)]:
            return f"{path} was made with other parameters than the configured ones"
    for path, kind in part.files.items():
        if (key := _foreign(results / path, kind, part.identity)) is not None:
            return f"{path} has another {key} than the configured one"
    return _outdated(part, results, finished)


def _foreign(path: Path, kind: str, identity: Mapping[str, Any]) -> str | None:
    """The first fact in which a file, which is checked from end to end, is not what the configuration says of it."""
    if path.suffix == ".csv":
        found = read_header(path, kind=kind)["identity"]
    else:
        file = ArrayFile(path, kind=kind)
        found = file.identity
        for name in file.names:
            file[name]
    return next((key for key, value in identity.items() if found.get(key, value) != value), None)


def _outdated(part: Part, results: Path, finished: Mapping[str, Part]) -> str | None:
    """Which of the runs that a table is computed from is missing or newer, as when a seed has come later."""
    oldest = min((results / path).stat().st_mtime_ns for path in part.files)
    for source in part.sources:
        if source not in finished:
            return f"{source} is not finished"
        weights = (results / path for path, kind in finished[source].files.items() if kind == FINAL_WEIGHTS)
        if any(path.stat().st_mtime_ns > oldest for path in weights):
            return f"{source} is newer"
    return None
