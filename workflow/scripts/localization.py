"""Where one run's eigenvectors live: layers, units, numbers of parameters."""

from eigendrift.job import start

start(snakemake)

from eigendrift.eigenbases import Eigenbases
from eigendrift.localization_tables import LOCALIZATION_UNITS, localization_table
from eigendrift.pair_files import map_run, run_identity
from eigendrift.storage import ArrayFile
from eigendrift.tables import write_table

chunks = snakemake.input.eigenpairs
identity = run_identity(chunks)
layers = ArrayFile(snakemake.input.final_weights, kind="final_weights", identity=identity).identity["layers"]
table = localization_table(Eigenbases(*map_run(chunks)), layers)
write_table(snakemake.output[0], table, kind="localization", identity=identity, units=LOCALIZATION_UNITS)
