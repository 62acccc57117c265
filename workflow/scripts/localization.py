"""Where one run's eigenvectors live: layers, units, numbers of parameters."""

from reproduction.jobs.script import start

start(snakemake)

from reproduction.measure.eigenbases import Eigenbases
from reproduction.measure.localization_tables import localization_table
from reproduction.files.eigenpairs import map_run, run_identity
from reproduction.files.arrays import ArrayFile
from reproduction.files.tables import write_table

chunks = snakemake.input.eigenpairs
identity = run_identity(chunks)
layers = ArrayFile(snakemake.input.final_weights, kind="final_weights", identity=identity).identity["layers"]
table = localization_table(Eigenbases(*map_run(chunks)), layers)
write_table(snakemake.output[0], table, kind="localization", identity=identity)
