"""Tell what the configured experiment will take on this machine, on the terminal and in the log."""

import os

# Before start(), which sends the process's own output to the log.
terminal = os.fdopen(os.dup(1), "w")

from eigendrift.job import start

start(snakemake)

from eigendrift.plan import make_plan, measure
from eigendrift.runs import Experiment

experiment = Experiment(snakemake.params.config)
for line in make_plan(experiment, measure(experiment)).lines(snakemake.params.cores):
    print(line)
    print(line, file=terminal, flush=True)
