"""Figure 19: localization by learning rate."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.figures.inputs import read_runs
from reproduction.experiment.labels import Layout
from reproduction.figures.localization import ipr_by_value
from reproduction.figures.save import save

layout = Layout(**snakemake.params.layout)
ipr = read_runs(snakemake.input.ipr, "ipr")
save(ipr_by_value(ipr, layout, "learning_rate"), 19, snakemake.output)
