"""Figure 14: run-mean alignments with many eigenvectors."""

from eigendrift.job import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from eigendrift.figures.inputs import read_runs
from eigendrift.figures.layout import Layout
from eigendrift.figures.alignment import means_of_many
from eigendrift.figures.save import save

layout = Layout(**snakemake.params.layout)
alignment = read_runs(snakemake.input.alignment, "alignment")
save(means_of_many(alignment, layout), 14, snakemake.output)
