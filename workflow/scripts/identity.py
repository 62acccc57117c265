"""Overlaps between all eigenvectors of two snapshots of one run, and which is which through crossings."""

from reproduction.jobs.script import start

start(snakemake)

from reproduction.measure import identity_tables
from reproduction.measure.eigenbases import Eigenbases
from reproduction.files.eigenpairs import map_run, run_identity
from reproduction.experiment.schedule import two_time_pairs
from reproduction.files.tables import write_table

params, chunks = snakemake.params, snakemake.input.eigenpairs
identity = run_identity(chunks)
taken = identity_tables.run_overlaps(Eigenbases(*map_run(chunks)), two_time_pairs(**params.two_time), params.every)
tables = {
    "overlaps": identity_tables.overlaps_table(taken, params.k),
    "subspaces": identity_tables.subspaces_table(taken),
    "tracks": identity_tables.tracks_table(taken),
    "identity": identity_tables.identity_table(taken),
}
for kind, table in tables.items():
    units = identity_tables.overlaps_units(params.k) if kind == "overlaps" else None
    write_table(snakemake.output[kind], table, kind=kind, identity=identity, units=units)
