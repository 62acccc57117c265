"""Eigenvalues and localization of one run's eigenvectors, and its leading eigenvector at the end."""

from eigendrift.job import start

start(snakemake)

import numpy as np
import pandas as pd
from eigendrift.pair_files import read_pairs, run_identity
from eigendrift.run_statistics import IPR_UNITS, ipr_table
from eigendrift.scratch import Scratch
from eigendrift.storage import ArrayFile, write_arrays
from eigendrift.tables import write_table

Scratch.discard(snakemake.params.scratch, snakemake.params.finished)
output, chunks = snakemake.output, snakemake.input.eigenpairs
identity = run_identity(chunks)
tables, final = [], None
for chunk in chunks:  # one at a time: 15 vectors a snapshot fill gigabytes
    pairs, vectors = read_pairs(chunk)
    tables.append(ipr_table(pairs, vectors))
    leading = np.flatnonzero(pairs["i"] == 1)
    final = vectors[leading[-1]].copy() if len(leading) else final
write_table(output.table, pd.concat(tables, ignore_index=True), kind="ipr", identity=identity, units=IPR_UNITS)
if final is None:  # the run diverged before its first snapshot
    final = np.zeros(0, dtype=np.float32)
layers = ArrayFile(snakemake.input.final_weights, kind="final_weights", identity=identity).identity["layers"]
write_arrays(
    output.final_eigenvector,
    {"vector": final},
    kind="final_eigenvector",
    identity={**identity, "layers": layers},
    units={"vector": "1"},
)
