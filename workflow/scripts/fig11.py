"""Figure 11: two-time update alignment."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.figures.inputs import read_runs
from reproduction.experiment.labels import Layout
from reproduction.figures.two_time import two_time_alignment
from reproduction.figures.save import save

layout = Layout(**snakemake.params.layout)
displacement = read_runs(snakemake.input.displacement, "displacement")
save(two_time_alignment(displacement, layout), 11, snakemake.output)
