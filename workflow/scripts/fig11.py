"""Figure 11: two-time update alignment."""

from eigendrift.job import start

start(snakemake)  # before the other imports, so that a failing one leaves its traceback in the rule's log

from eigendrift.figures.inputs import read_runs
from eigendrift.figures.layout import Layout
from eigendrift.figures.two_time import two_time_alignment
from eigendrift.figures.save import save

layout = Layout(**snakemake.params.layout)
displacement = read_runs(snakemake.input.displacement, "displacement")
save(two_time_alignment(displacement, layout), 11, snakemake.output)
