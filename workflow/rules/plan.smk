# Reads: nothing.
# Writes: nothing; reports the estimated cost of the configured experiment.


# It has no output, so that it reports every time that it is requested.
rule plan:
    """What the configured experiment would take on this machine: runs, jobs, disk, hours."""
    input:
        modules=library("plan"),
    log:
        f"{LOGS}/plan.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=5,
    params:
        config=EXPERIMENT.config,
        # Known when a job runs, and not when the workflow is only planned.
        cores=lambda wildcards: workflow.cores,
        gpus=1 if GPUS is None else GPUS,
    script:
        "../scripts/plan.py"
