"""Rule prepare_data: verify a data set's raw files and write its pixels and labels to one array file."""

from eigendrift.job import start

start(snakemake)

from eigendrift.data import prepare

prepare(
    snakemake.wildcards.dataset,
    snakemake.params.root,
    snakemake.params.download,
    snakemake.output[0],
)
