"""Loss on the lines between the optimizers' best solutions, and the sharpness of each solution."""

from reproduction.jobs.script import start

start(snakemake, imports_torch=True)

import numpy as np
from reproduction.measure.inputs import build_model, load_samples, prepare_torch
from reproduction.measure.interpolation import (
    best_solutions,
    interpolation_table,
    solution_table,
)
from reproduction.files.arrays import ArrayFile
from reproduction.files.tables import read_tables, write_table

inputs, output, options = snakemake.input, snakemake.output, snakemake.params.interpolation
device = prepare_torch(snakemake)
dataset, train, test = load_samples(inputs.data, options["scaling"], device)
files = [ArrayFile(path, kind="final_weights") for path in inputs.final_weights]
by_run = {(file.identity["optimizer"], file.identity["seed"]): file for file in files}
complete = {run: file.identity["diverged_at"] is None for run, file in by_run.items()}
found = best_solutions(read_tables(inputs.history, kind="history"), complete)
solutions = {optimizer: found[optimizer] for optimizer in dict.fromkeys(run[0] for run in by_run) if optimizer in found}
weights = {optimizer: by_run[optimizer, seed]["weights"][0] for optimizer, (seed, _) in solutions.items()}
spectra = read_tables(inputs.ipr, kind="ipr").query("i == 1").sort_values("step")
ends = spectra.groupby(["optimizer", "seed"]).tail(1)
lambda_1 = ends[ends["converged"] == 1].set_index(["optimizer", "seed"])["eigenvalue"].to_dict()
model = build_model(dataset, options["model"], seed=0, device=device)  # its parameters are set at every point
identity = {"dataset": dataset.name, "n_parameters": sum(p.numel() for p in model.parameters())}
write_table(
    output.interpolation,
    interpolation_table(model, weights, np.linspace(*options["alpha"], options["points"]), train, test),
    kind="interpolation",
    identity=identity,
)
write_table(
    output.solutions,
    solution_table(model, solutions, weights, lambda_1, options["epsilon"], train, test),
    kind="solutions",
    identity=identity,
)
