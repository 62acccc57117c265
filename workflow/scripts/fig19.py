"""Figure 19: localization by learning rate."""

from eigendrift.job import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from eigendrift.figures.inputs import read_runs
from eigendrift.figures.layout import Layout
from eigendrift.figures.localization import ipr_by_value
from eigendrift.figures.save import save

layout = Layout(**snakemake.params.layout)
ipr = read_runs(snakemake.input.ipr, "ipr")
save(ipr_by_value(ipr, layout, "learning_rate"), 19, snakemake.output)
