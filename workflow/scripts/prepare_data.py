"""Rule prepare_data: verify a data set's raw files and write its pixels and labels to one array file."""

from reproduction.jobs.script import start

start(snakemake)

from reproduction.data.sources import prepare

prepare(
    snakemake.wildcards.dataset,
    snakemake.params.root,
    snakemake.params.download,
    snakemake.output[0],
)
