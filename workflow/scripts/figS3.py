"""Figure S3: displacement against solver accuracy, and of subspaces."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.figures.solver_accuracy import displacement_and_accuracy
from reproduction.figures.inputs import read_runs
from reproduction.experiment.labels import Layout
from reproduction.figures.save import save

layout = Layout(**snakemake.params.layout)
displacement = read_runs(snakemake.input.displacement, "displacement")
save(displacement_and_accuracy(displacement, layout), "S3", snakemake.output)
