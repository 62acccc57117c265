"""Figure 16: leading eigenvector in the shape of the layers."""

from eigendrift.job import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from eigendrift.figures.inputs import read_final_eigenvectors
from eigendrift.figures.layout import Layout
from eigendrift.figures.eigenvector_map import draw_eigenvector_map
from eigendrift.figures.save import save

layout = Layout(**snakemake.params.layout)
vectors = read_final_eigenvectors(snakemake.input.final_eigenvector)
save(draw_eigenvector_map(vectors, layout), 16, snakemake.output)
