"""Figure 7: convergence of the leading eigenvectors to their final direction."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.figures.inputs import read_runs
from reproduction.experiment.labels import Layout
from reproduction.figures.spectrum import convergence
from reproduction.figures.save import save

layout = Layout(**snakemake.params.layout)
alignment = read_runs(snakemake.input.alignment, "alignment")
save(convergence(alignment, layout), 7, snakemake.output)
