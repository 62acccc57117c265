"""Figure 21: displacement by learning rate."""

from eigendrift.job import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from eigendrift.figures.inputs import read_datasets, read_runs
from eigendrift.figures.layout import Layout
from eigendrift.figures.two_time import displacement_by_value
from eigendrift.figures.save import save

layout = Layout(**snakemake.params.layout)
displacement = read_runs(snakemake.input.displacement, "displacement")
baseline = read_datasets(snakemake.input.baseline, "baseline")
save(displacement_by_value(displacement, baseline, layout, "learning_rate"), 21, snakemake.output)
