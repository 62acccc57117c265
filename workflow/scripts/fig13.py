"""Figure 13: run-mean alignments with the leading eigenvectors."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.figures.inputs import read_runs
from reproduction.experiment.labels import Layout
from reproduction.figures.alignment import run_means
from reproduction.figures.save import save

layout = Layout(**snakemake.params.layout)
alignment = read_runs(snakemake.input.alignment, "alignment")
save(run_means(alignment, layout), 13, snakemake.output)
