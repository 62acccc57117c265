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
device = prepare_torch(snakemake)
plan = make_plan(experiment, measure(experiment, device))
if device.type == "cpu":
    lines = plan.lines(snakemake.params.cores)
else:
    lines = plan.lines_on_gpus(snakemake.params.gpus, experiment.config["training"]["jobs_per_gpu"])
for line in lines:
    print(line)
    print(line, file=terminal, flush=True)
