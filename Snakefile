# arXiv:2606.30226 from raw data to a LaTeX-ready figure set: snakemake --cores N
from snakemake.utils import min_version

min_version("9.0")


configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/spectrum.smk"
include: "workflow/rules/metrics.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/paper.smk"
include: "workflow/rules/supplement.smk"
include: "workflow/rules/plan.smk"


# On a cluster these run where Snakemake does: they need the network, or TeX, or tell about this machine.
localrules:
    prepare_data,
    paper,
    plan,


rule all:
    """The figure set, which is every figure and every claim; what snakemake makes if no target is named."""
    default_target: True
    input:
        rules.figure_set.output,


rule supplement:
    """Figures S1 to S3, on what the 21 figures leave open: sensitivity, null models, accuracy."""
    input:
        expand(f"{RESULTS}/figures/fig{{number}}.pdf", number=SUPPLEMENT),
        VARIANT_BASELINES,
        [path for kind in KEPT_TABLES for path in run_files(TABLES[kind].path, SUPPLEMENTARY)],


# snakemake --list-rules says what each figure shows.
TITLES = {figure_name(number): f"Figure {number}. {entry(number)['title']}." for number in (*FIGURES, *SUPPLEMENT)}
for made in workflow.rules:
    made.docstring = TITLES.get(made.name, made.docstring)
