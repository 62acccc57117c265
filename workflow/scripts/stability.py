"""How the curvature of one run lies to the edge of stability of its optimizer."""

from reproduction.jobs.script import start

start(snakemake)

from reproduction.files.eigenpairs import map_run, run_identity
from reproduction.measure.stability_tables import stability_table
from reproduction.files.tables import write_table

chunks = snakemake.input.eigenpairs
identity = run_identity(chunks)
table = stability_table(map_run(chunks)[0], snakemake.params.optimizer)
write_table(snakemake.output[0], table, kind="stability", identity=identity)
