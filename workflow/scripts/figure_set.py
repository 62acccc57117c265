"""The figure set: the figures with their captions, every quoted number, the claims table and a manifest, for LaTeX."""

from eigendrift.job import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from eigendrift.figure_set import portable, write_figure_set
from eigendrift.latex import latex_integer
from eigendrift.numbers import collect_numbers, numbers_tex
from eigendrift.provenance import provenance
from eigendrift.scratch import Scratch
from eigendrift.tables import read_header, read_run_tables, read_table


def listed(value: str | Sequence[str]) -> list[str]:
    """Snakemake gives one file as text, several as a list."""
    return [value] if isinstance(value, str) else list(value)


def baseline_table(paths: Sequence[str]) -> pd.DataFrame:
    """The baselines of all datasets, with the dataset in front."""
    frames = []
    for path in sorted(paths):
        dataset = read_header(path, kind="baseline")["identity"].get("dataset", Path(path).stem)
        frames.append(read_table(path, kind="baseline").assign(dataset=dataset))
    return pd.concat(frames, ignore_index=True)


history = sorted(listed(snakemake.input.history))
identities = [read_header(path, kind="history")["identity"] for path in history]
record = portable(provenance(snakemake.params.config, identities))
numbers = collect_numbers(
    claims=read_table(snakemake.input.claims_csv, kind="claims"),
    history=read_run_tables(history, kind="history").infer_objects(),
    ipr=read_run_tables(sorted(listed(snakemake.input.ipr)), kind="ipr").infer_objects(),
    baseline=baseline_table(listed(snakemake.input.baseline)),
    identities=identities,
    layout=snakemake.params.layout,
    roles=snakemake.params.roles,
    provenance=record,
)
figures = listed(snakemake.input.figures)
numbers["figures"] = latex_integer(len(figures))
write_figure_set(
    figures=figures,
    captions=listed(snakemake.input.captions),
    claims_tex=snakemake.input.claims_tex,
    numbers_tex=numbers_tex(numbers),
    provenance=record,
    pdfs=listed(snakemake.output.pdfs),
    outputs={name: snakemake.output[name] for name in ("figures_tex", "numbers_tex", "claims_tex", "manifest")},
)
# Every job that keeps half-done work has its outputs in place: they are behind our inputs.
Scratch.discard(snakemake.params.scratch, ".")
