"""Figure 2: update alignment against gradient alignment."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.figures.inputs import read_runs
from reproduction.experiment.labels import Layout
from reproduction.figures.alignment import update_against_gradient
from reproduction.figures.save import save

layout = Layout(**snakemake.params.layout)
alignment = read_runs(snakemake.input.alignment, "alignment")
save(update_against_gradient(alignment, layout), 2, snakemake.output)
