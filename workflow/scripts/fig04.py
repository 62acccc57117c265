"""Figure 4: training loss."""

from eigendrift.job import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from eigendrift.figures.inputs import read_runs
from eigendrift.figures.layout import Layout
from eigendrift.figures.performance import training_loss
from eigendrift.figures.save import save

layout = Layout(**snakemake.params.layout)
history = read_runs(snakemake.input.history, "history")
save(training_loss(history, layout), 4, snakemake.output)
