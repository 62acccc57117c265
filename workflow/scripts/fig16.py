"""Figure 16: leading eigenvector in the shape of the layers."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.figures.inputs import read_final_eigenvectors
from reproduction.experiment.labels import Layout
from reproduction.figures.eigenvector_map import draw_eigenvector_map
from reproduction.figures.save import save

layout = Layout(**snakemake.params.layout)
vectors = read_final_eigenvectors(snakemake.input.final_eigenvector)
save(draw_eigenvector_map(vectors, layout), 16, snakemake.output)
