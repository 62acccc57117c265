"""Another number of threads: the bits may differ, the tables agree within the tolerances that the manifest states."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import TinyRun
from snakemake_process import TINY, run_snakemake

from reproduction.files.tables import read_header, read_table

RUNS = [f"runs/digits/{optimizer}/main/seed1" for optimizer in ("sgd", "adam")]
KINDS = ("history", "ipr", "alignment", "displacement")


@pytest.fixture
def on_two_threads(finished_checkout: Path) -> Path:
    """Two runs of the finished tiny run made anew with two threads in each job."""
    results = finished_checkout / "results" / "tiny"
    tables = [results / run / f"{kind}.csv" for run in RUNS for kind in KINDS]
    for run in RUNS:
        for name in ("history.csv", "trajectory.safetensors", "eigenpairs-0.safetensors"):
            (results / run / name).unlink()
    targets = [str(path.relative_to(finished_checkout)) for path in tables]
    threads = ("--set-threads", "train=2", "eigensnapshot=2")
    run_snakemake(finished_checkout, "--cores", "2", *TINY, *threads, "--", *targets)
    return results


def test_tables_agree_within_the_stated_tolerances(tiny_run: TinyRun, on_two_threads: Path) -> None:
    manifest = json.loads((tiny_run.results / "figure_set" / "manifest.json").read_text(encoding="utf-8"))
    tolerances = manifest["provenance"]["comparable"]["tables"]["tolerances"]
    for run in RUNS:
        for kind in KINDS:
            path, name = f"{run}/{kind}.csv", kind
            assert read_header(tiny_run.results / path, kind=name)["identity"]["threads"] == 1
            assert read_header(on_two_threads / path, kind=name)["identity"]["threads"] == 2
            one, two = (read_table(results / path, kind=name) for results in (tiny_run.results, on_two_threads))
            assert list(one.columns) == list(two.columns)
            for column, tolerance in tolerances[name].items():
                np.testing.assert_allclose(two[column], one[column], rtol=tolerance, atol=tolerance, err_msg=column)
            exact = one.columns.difference(
                [*tolerances[name], "matvecs", "residual", "gap", "angle_bound", "span_bound"]
            )
            assert (one[exact] == two[exact]).all(axis=None), exact
