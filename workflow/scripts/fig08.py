"""Figure 8: loss between the optimizers' solutions, and their sharpness."""

from eigendrift.job import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from eigendrift.figures.inputs import read_datasets
from eigendrift.figures.layout import Layout
from eigendrift.figures.interpolation import draw_interpolation
from eigendrift.figures.save import save

layout = Layout(**snakemake.params.layout)
losses = read_datasets(snakemake.input.interpolation, "interpolation")
solutions = read_datasets(snakemake.input.solutions, "solutions")
save(draw_interpolation(losses, solutions, layout), 8, snakemake.output)
