"""Two-time statistics of one run: displacement of eigenvectors and weights, two-time update alignment."""

from reproduction.jobs.script import start

start(snakemake)

from reproduction.files.eigenpairs import read_run, run_identity
from reproduction.measure.run_tables import displacement_table
from reproduction.experiment.schedule import two_time_pairs
from reproduction.files.arrays import ArrayFile
from reproduction.files.tables import write_table

params = snakemake.params
identity = run_identity(snakemake.input.eigenpairs)
pairs, vectors = read_run(snakemake.input.eigenpairs, largest_index=params.k)
trajectory = ArrayFile(snakemake.input.trajectory, kind="trajectory", identity=identity)
table = displacement_table(
    pairs, vectors, trajectory["steps"], trajectory["weights"], two_time_pairs(**params.two_time)
)
write_table(snakemake.output[0], table, kind="displacement", identity=identity)
