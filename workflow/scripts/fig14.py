"""Figure 14: run-mean alignments with many eigenvectors."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.figures.inputs import read_runs
from reproduction.experiment.labels import Layout
from reproduction.figures.alignment import means_of_many
from reproduction.figures.save import save

layout = Layout(**snakemake.params.layout)
alignment = read_runs(snakemake.input.alignment, "alignment")
save(means_of_many(alignment, layout), 14, snakemake.output)
