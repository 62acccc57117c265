"""Figure 7: convergence of the leading eigenvectors to their final direction."""

from eigendrift.job import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from eigendrift.figures.inputs import read_runs
from eigendrift.figures.layout import Layout
from eigendrift.figures.spectrum import convergence
from eigendrift.figures.save import save

layout = Layout(**snakemake.params.layout)
alignment = read_runs(snakemake.input.alignment, "alignment")
save(convergence(alignment, layout), 7, snakemake.output)
