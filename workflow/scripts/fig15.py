"""Figure 15: localization of many eigenvectors over training."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.figures.inputs import read_runs
from reproduction.experiment.labels import Layout
from reproduction.figures.localization import ipr_of_many
from reproduction.figures.save import save

layout = Layout(**snakemake.params.layout)
ipr = read_runs(snakemake.input.ipr, "ipr")
save(ipr_of_many(ipr, layout), 15, snakemake.output)
