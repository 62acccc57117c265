"""Overlaps between all eigenvectors of two snapshots of one run, and which is which through crossings."""

from eigendrift.job import start

start(snakemake)

from eigendrift import identity_tables
from eigendrift.eigenbases import Eigenbases
from eigendrift.pair_files import map_run, run_identity
from eigendrift.schedule import two_time_pairs
from eigendrift.tables import write_table

params, chunks = snakemake.params, snakemake.input.eigenpairs
identity = run_identity(chunks)
taken = identity_tables.run_overlaps(Eigenbases(*map_run(chunks)), two_time_pairs(**params.two_time), params.every)
tables = {
    "overlaps": (identity_tables.overlaps_table(taken, params.k), identity_tables.overlaps_units(params.k)),
    "subspaces": (identity_tables.subspaces_table(taken), identity_tables.SUBSPACES_UNITS),
    "tracks": (identity_tables.tracks_table(taken), identity_tables.TRACKS_UNITS),
    "identity": (identity_tables.identity_table(taken), identity_tables.IDENTITY_UNITS),
}
for kind, (table, units) in tables.items():
    write_table(snakemake.output[kind], table, kind=kind, identity=identity, units=units)
