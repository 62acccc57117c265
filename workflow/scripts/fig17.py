"""Figure 17: update against gradient alignment, by batch size and learning rate."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.figures.inputs import read_runs
from reproduction.experiment.labels import Layout
from reproduction.figures.alignment_sweeps import update_against_gradient_by_value
from reproduction.figures.save import save

layout = Layout(**snakemake.params.layout)
alignment = read_runs(snakemake.input.alignment, "alignment")
save(update_against_gradient_by_value(alignment, layout), 17, snakemake.output)
