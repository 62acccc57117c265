"""Eigenvalues and localization of one run's eigenvectors, and its leading eigenvector at the end."""

from reproduction.jobs.script import start

start(snakemake)

import numpy as np
import pandas as pd
from reproduction.files.final_eigenvectors import typical_snapshot, write_final_eigenvectors
from reproduction.files.eigenpairs import map_run, run_identity
from reproduction.measure.run_tables import ipr_table
from reproduction.files.checkpoint import Scratch
from reproduction.files.arrays import ArrayFile
from reproduction.files.tables import write_table

Scratch.discard(snakemake.params.scratch, snakemake.params.finished)
output, chunks = snakemake.output, snakemake.input.eigenpairs
identity = run_identity(chunks)
pairs, arrays = map_run(chunks)
ends = np.cumsum([0, *map(len, arrays)])
parts = [pairs.iloc[ends[j] : ends[j + 1]] for j in range(len(arrays))]
table = pd.concat([ipr_table(part, array) for part, array in zip(parts, arrays, strict=True)], ignore_index=True)
write_table(output.table, table, kind="ipr", identity=identity)
leading = np.flatnonzero(table["i"] == 1)
chosen = []
if len(leading):  # else the run diverged before its first snapshot
    first = table.iloc[leading]
    chosen = [leading[-1], leading[typical_snapshot(first["step"], first["ipr"], snakemake.params.every)]]
places = [(j, row - ends[j]) for row in chosen for j in [int(np.searchsorted(ends, row, side="right")) - 1]]
vectors = np.reshape([arrays[j][row] for j, row in places], (len(chosen), identity["n_parameters"]))
layers = ArrayFile(snakemake.input.final_weights, kind="final_weights", identity=identity).identity["layers"]
steps, iprs = (table[name].iloc[chosen].tolist() for name in ("step", "ipr"))
write_final_eigenvectors(output.final_eigenvector, vectors, steps, iprs, layers, identity)
