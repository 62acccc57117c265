"""Figure 6: leading eigenvalues over training."""

from eigendrift.job import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from eigendrift.figures.inputs import read_runs
from eigendrift.figures.layout import Layout
from eigendrift.figures.spectrum import eigenvalues
from eigendrift.figures.save import save

layout = Layout(**snakemake.params.layout)
ipr = read_runs(snakemake.input.ipr, "ipr")
save(eigenvalues(ipr, layout), 6, snakemake.output)
