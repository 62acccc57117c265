"""The paper: main.tex with the figure set, compiled by latexmk."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from pathlib import Path

from reproduction.publication.compile import compile_paper

compile_paper(
    main=Path(snakemake.input.main),
    references=Path(snakemake.input.references),
    figure_set=[Path(path) for path in (*snakemake.input.figure_set, *snakemake.input.supplement)],
    build=Path(snakemake.params.build),
    pdf=Path(snakemake.output.pdf),
)
