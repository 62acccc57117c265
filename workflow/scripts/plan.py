"""Report what the configured experiment will take on this machine, on the terminal and in the log."""

import os

# Before start(), which sends the process's own output to the log.
terminal = os.fdopen(os.dup(1), "w")

from reproduction.jobs.script import start

start(snakemake)

from reproduction.planning.plan import make_plan, measure
from reproduction.experiment.runs import Experiment
from reproduction.measure.inputs import prepare_torch

experiment = Experiment(snakemake.params.config)
device = prepare_torch(snakemake.threads, experiment.config["training"]["device"])
# Jobs on the GPU wait for each other.
at_once = snakemake.params.cores if device.type == "cpu" else 1
for line in make_plan(experiment, measure(experiment, device)).lines(at_once):
    print(line)
    print(line, file=terminal, flush=True)
