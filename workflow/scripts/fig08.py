"""Figure 8: loss between the optimizers' solutions, and their sharpness."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.figures.inputs import read_datasets
from reproduction.experiment.labels import Layout
from reproduction.figures.interpolation import draw_interpolation
from reproduction.figures.save import save

layout = Layout(**snakemake.params.layout)
losses = read_datasets(snakemake.input.interpolation, "interpolation")
solutions = read_datasets(snakemake.input.solutions, "solutions")
save(draw_interpolation(losses, solutions, layout), 8, snakemake.output)
