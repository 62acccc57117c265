"""Figure 10: displacement of the weights."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.figures.inputs import read_runs
from reproduction.experiment.labels import Layout
from reproduction.figures.two_time import weight_displacement
from reproduction.figures.save import save

layout = Layout(**snakemake.params.layout)
displacement = read_runs(snakemake.input.displacement, "displacement")
save(weight_displacement(displacement, layout), 10, snakemake.output)
