"""Figure 6: leading eigenvalues over training."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.figures.inputs import read_runs
from reproduction.experiment.labels import Layout
from reproduction.figures.spectrum import eigenvalues
from reproduction.figures.save import save

layout = Layout(**snakemake.params.layout)
ipr = read_runs(snakemake.input.ipr, "ipr")
save(eigenvalues(ipr, layout), 6, snakemake.output)
