"""Figure 4: training loss."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.figures.inputs import read_runs
from reproduction.experiment.labels import Layout
from reproduction.figures.performance import training_loss
from reproduction.figures.save import save

layout = Layout(**snakemake.params.layout)
history = read_runs(snakemake.input.history, "history")
save(training_loss(history, layout), 4, snakemake.output)
