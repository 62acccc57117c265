"""Alignment of one run's eigenvectors with gradient, update and their own final direction, at equal intervals.

The last snapshot is one of them, whether or not the interval divides the length of the run.
"""

from reproduction.jobs.script import start

start(snakemake)

import pandas as pd
from reproduction.files.eigenpairs import read_pairs, run_identity
from reproduction.measure.run_tables import alignment_table, on_grid
from reproduction.files.arrays import ArrayFile
from reproduction.files.tables import write_table

chunks = snakemake.input.eigenpairs
identity = run_identity(chunks)
trajectory = ArrayFile(snakemake.input.trajectory, kind="trajectory", identity=identity)
steps, gradients, updates = (trajectory[name] for name in ("steps", "gradients", "updates"))
last = int(steps[-1]) if len(steps) else 0
final = {}
for chunk in reversed(chunks):
    pairs, vectors = read_pairs(chunk)
    if len(pairs):
        at_end = pairs.index[pairs["step"] == pairs["step"].iloc[-1]]
        final = {int(pairs["i"][row]): vectors[row].copy() for row in at_end}
        break
tables = []
for chunk in chunks:
    pairs, vectors = on_grid(*read_pairs(chunk), snakemake.params.every, last)
    tables.append(alignment_table(pairs, vectors, steps, gradients, updates, final))
write_table(
    snakemake.output[0],
    pd.concat(tables, ignore_index=True),
    kind="alignment",
    identity=identity,
)
