"""Where the tables of an experiment lie below results/<name>/, by their kind."""

from collections.abc import Mapping, Sequence
from typing import Any

from reproduction.experiment.runs import Experiment
from reproduction.experiment.table_catalogue import TABLES, VARIANT_TABLES


def variant_table_paths(experiment: Experiment) -> list[str]:
    """The files of the variants' own baselines."""
    return [
        path.format(variant=variant, dataset=dataset)
        for variant in experiment.own_baselines
        for dataset in experiment.datasets()
        for path in VARIANT_TABLES.values()
    ]


def table_paths(experiment: Experiment, kind: str, selections: Sequence[Mapping[str, Any]]) -> list[str]:
    """The files of one kind of table, of the runs or the datasets that any of the selections takes, each once."""
    table = TABLES[kind]
    if table.of_run:
        runs = dict.fromkeys(run for selection in selections for run in experiment.select(**selection))
        return [f"runs/{run.folder}/{table.path}" for run in runs]
    found: dict[str, None] = {}
    for selection in selections:
        own = selection.get("variants") == "sensitivity"
        for variant in experiment.own_baselines if own else [""]:
            pattern = table.variant_path if own else table.path
            datasets = experiment.datasets() if own else experiment.datasets(**selection)
            found |= {pattern.format(variant=variant, dataset=dataset): None for dataset in datasets}
    return list(found)
