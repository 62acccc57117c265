"""Rule prepare_data: verify a data set's raw files and write its pixels and labels to one array file."""

from reproduction.jobs.script import start

start(snakemake)

from reproduction.data.sources import prepare
from reproduction.jobs.script import one_or_more

raw = snakemake.config["data"]  # no params: where the raw files lie changes nothing in them, which is checked
own = one_or_more(snakemake.input.file)
prepare(snakemake.wildcards.dataset, raw["root"], raw["download"], snakemake.output[0], *own)
