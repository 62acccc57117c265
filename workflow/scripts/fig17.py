"""Figure 17: update against gradient alignment, by batch size and learning rate."""

from eigendrift.job import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from eigendrift.figures.inputs import read_runs
from eigendrift.figures.layout import Layout
from eigendrift.figures.alignment_sweeps import update_against_gradient_by_value
from eigendrift.figures.save import save

layout = Layout(**snakemake.params.layout)
alignment = read_runs(snakemake.input.alignment, "alignment")
save(update_against_gradient_by_value(alignment, layout), 17, snakemake.output)
