"""Figure S1: what the choices that the paper leaves open decide."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.figures.inputs import read_datasets, read_runs
from reproduction.experiment.labels import Layout
from reproduction.figures.save import save
from reproduction.figures.sensitivity import sensitivity

layout = Layout(**snakemake.params.layout)
ipr = read_runs(snakemake.input.ipr, "ipr")
displacement = read_runs(snakemake.input.displacement, "displacement")
alignment = read_runs(snakemake.input.alignment, "alignment")
baseline = read_datasets(snakemake.input.baseline, "baseline")
save(sensitivity(ipr, displacement, alignment, baseline, layout, snakemake.params.settings), "S1", snakemake.output)
