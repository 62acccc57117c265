"""The figure set: the figures with their captions, every quoted number, the claims table and a manifest, for LaTeX."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.publication.figure_set import check_claims_tex, check_grades_tex, portable, write_figure_set
from reproduction.latex import latex_integer
from reproduction.publication.quoted_numbers import numbers_of, numbers_tex
from reproduction.jobs.provenance import provenance
from reproduction.jobs.script import one_or_more
from reproduction.files.checkpoint import Scratch


check_claims_tex(snakemake.input.claims_csv, snakemake.input.claims_tex)
check_grades_tex(snakemake.input.grades, snakemake.input.grades_tex)
numbers, record = numbers_of(
    claims=snakemake.input.claims_csv,
    grades=snakemake.input.grades,
    history=one_or_more(snakemake.input.history),
    ipr=one_or_more(snakemake.input.ipr),
    baseline=one_or_more(snakemake.input.baseline),
    layout=snakemake.params.layout,
    roles=snakemake.params.roles,
    provenance=lambda identities: portable(provenance(snakemake.params.config, identities)),
)
figures = one_or_more(snakemake.input.figures)
numbers["figures"] = latex_integer(len(figures))
write_figure_set(
    figures=figures,
    captions=one_or_more(snakemake.input.captions),
    claims_tex=snakemake.input.claims_tex,
    grades_tex=snakemake.input.grades_tex,
    numbers_tex=numbers_tex(numbers),
    provenance=record,
    pdfs=one_or_more(snakemake.output.pdfs),
    outputs={
        name: snakemake.output[name] for name in ("figures_tex", "numbers_tex", "claims_tex", "grades_tex", "manifest")
    },
)
# Every job that keeps half-done work has its outputs in place: they are behind our inputs.
Scratch.discard(snakemake.params.scratch, ".")
