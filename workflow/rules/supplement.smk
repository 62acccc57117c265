# Reads: tables of main and sensitivity runs, final weights, a dataset's file.
# Writes: overlaps between eigenvectors of permuted networks; figures S1 to S4, each as PDF, PNG and the plotted numbers.

SUPPLEMENTARY = [run for run in EXPERIMENT.select(variants="sensitivity") if EXPERIMENT.is_supplementary(run)]


# How far apart random initializations of each variant lie: their tau is a fingerprint of what the paper did.
VARIANT_BASELINES = [f"{RESULTS}/{path}" for path in variant_table_paths(EXPERIMENT)]


rule permuted:
    """Overlaps between eigenvectors of networks with permuted weights."""
    input:
        data=data_of,
        final_weights=lambda wildcards: run_files(
            "final_weights.safetensors", EXPERIMENT.of_dataset(wildcards.dataset, seeds="dense")
        ),
        modules=library("permuted"),
        own_code=own_code,
    output:
        table("permuted_overlaps"),
    log:
        f"{LOGS}/permuted/{{dataset}}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: RESOURCES.permuted_megabytes(wildcards.dataset),
        runtime=lambda wildcards: RESOURCES.permuted_minutes(wildcards.dataset),
        gpu=gpus(EXPERIMENT.config["training"]["device"]),
    params:
        columns=columns("permuted_overlaps"),
        permuted=EXPERIMENT.permuted_parameters(),
        scratch=SUPPLEMENT_SCRATCH,
        job="permuted/{dataset}",
    script:
        "../scripts/permuted.py"


for number in SUPPLEMENT:

    rule:
        name:
            f"fig{number}"
        input:
            **figure_inputs(number),
            modules=library("draw_figure", drawn_by(number)),
        output:
            pdf=f"{RESULTS}/figures/fig{number}.pdf",
            png=report(
                f"{RESULTS}/figures/fig{number}.png",
                caption=f"../report/fig{number}.rst",
                category=part_of(number),
                labels=figure_labels(number),
            ),
            csv=f"{RESULTS}/figures/fig{number}.csv",
        log:
            f"{LOGS}/fig{number}.log",
        conda:
            "../../envs/analysis.yaml"
        threads: 1
        resources:
            mem_mb=1500,
            runtime=20,
        params:
            layout=EXPERIMENT.layout(),
            figure=drawing(number, EXPERIMENT.settings, missing(number)),
        script:
            "../scripts/draw_figure.py"
