"""Figure 5: final test accuracy."""

from eigendrift.job import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from eigendrift.figures.inputs import read_runs
from eigendrift.figures.layout import Layout
from eigendrift.figures.performance import final_accuracy
from eigendrift.figures.save import save

layout = Layout(**snakemake.params.layout)
history = read_runs(snakemake.input.history, "history")
save(final_accuracy(history, layout), 5, snakemake.output)
