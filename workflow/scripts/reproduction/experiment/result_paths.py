"""Where the tables of an experiment lie below results/<name>/, by their kind."""

from collections.abc import Mapping, Sequence
from typing import Any

from reproduction.experiment.runs import Experiment

RUN_TABLES = {
    "history": "history.csv",
    "ipr": "ipr.csv",
    "alignment": "alignment.csv",
    "displacement": "displacement.csv",
    "final_eigenvector": "final_eigenvector.safetensors",
    "overlaps": "overlaps.csv",
    "subspaces": "subspaces.csv",
    "tracks": "tracks.csv",
    "identity": "identity.csv",
    "localization": "localization.csv",
    "stability": "stability.csv",
}
# What no figure and no claim needs, for questions that are asked once the eigenvectors are deleted.
KEPT_TABLES = ("overlaps", "subspaces", "tracks", "identity", "localization", "stability")
DATASET_TABLES = {
    "baseline": "baseline/{dataset}.csv",
    "interpolation": "interpolation/{dataset}.csv",
    "solutions": "interpolation/{dataset}.solutions.csv",
}
SUPPLEMENT_TABLES = {
    "baseline_overlaps": "baseline/{dataset}.overlaps.csv",
    "permuted_overlaps": "baseline/{dataset}.permuted.csv",
}
# Of each variant of figure S1, beside those of the main runs.
VARIANT_TABLES = {
    "variant_baseline": "baseline/{variant}/{dataset}.csv",
    "variant_overlaps": "baseline/{variant}/{dataset}.overlaps.csv",
}


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
    if kind in RUN_TABLES:
        runs = dict.fromkeys(run for selection in selections for run in experiment.select(**selection))
        return [f"runs/{run.folder}/{RUN_TABLES[kind]}" for run in runs]
    datasets = dict.fromkeys(dataset for selection in selections for dataset in experiment.datasets(**selection))
    return [{**DATASET_TABLES, **SUPPLEMENT_TABLES}[kind].format(dataset=dataset) for dataset in datasets]
