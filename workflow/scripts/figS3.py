"""Figure S3: displacement against solver accuracy, and of subspaces."""

from eigendrift.job import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from eigendrift.figures.accuracy import displacement_and_accuracy
from eigendrift.figures.inputs import read_runs
from eigendrift.figures.layout import Layout
from eigendrift.figures.save import save

layout = Layout(**snakemake.params.layout)
displacement = read_runs(snakemake.input.displacement, "displacement")
save(displacement_and_accuracy(displacement, layout), "S3", snakemake.output)
