"""Draw one figure of the catalogue from its tables: PDF, PNG and the plotted numbers."""

from reproduction.jobs.script import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from reproduction.experiment.labels import Layout
from reproduction.figures.draw import draw, sources
from reproduction.figures.save import save

figure = snakemake.params.figure
drawn = draw(figure, snakemake.input, Layout(**snakemake.params.layout))
save(drawn, figure, snakemake.output, sources(figure, snakemake.input))
