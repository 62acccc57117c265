"""Figure 1: displacement of the leading eigenvector, first dataset."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.figures.inputs import read_datasets, read_runs
from reproduction.experiment.labels import Layout
from reproduction.figures.two_time import displacement_by_optimizer
from reproduction.figures.save import save

layout = Layout(**snakemake.params.layout)
displacement = read_runs(snakemake.input.displacement, "displacement")
baseline = read_datasets(snakemake.input.baseline, "baseline")
save(displacement_by_optimizer(displacement, baseline, layout), 1, snakemake.output)
