"""Figure S2: null models of the overlap between eigenvectors."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.experiment.labels import Layout
from reproduction.figures.null_models import null_models
from reproduction.figures.inputs import read_overlaps
from reproduction.figures.save import save

layout = Layout(**snakemake.params.layout)
initial = read_overlaps(snakemake.input.baseline_overlaps, "baseline_overlaps")
permuted = read_overlaps(snakemake.input.permuted_overlaps, "permuted_overlaps")
save(null_models(initial, permuted, layout), "S2", snakemake.output)
