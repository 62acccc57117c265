"""Figure 5: final test accuracy."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.figures.inputs import read_runs
from reproduction.experiment.labels import Layout
from reproduction.figures.performance import final_accuracy
from reproduction.figures.save import save

layout = Layout(**snakemake.params.layout)
history = read_runs(snakemake.input.history, "history")
save(final_accuracy(history, layout), 5, snakemake.output)
