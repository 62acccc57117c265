"""Figure 12: alignments during one run, last dataset."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.figures.inputs import read_runs
from reproduction.experiment.labels import Layout
from reproduction.figures.alignment import alignment_over_training
from reproduction.figures.save import save

layout = Layout(**snakemake.params.layout)
alignment = read_runs(snakemake.input.alignment, "alignment")
save(alignment_over_training(alignment, layout), 12, snakemake.output)
