# Needs: nothing.
# Leaves: nothing; tells what the configured experiment will take.


# It has no output, not even a benchmark file, so that it tells every time that it is asked.
rule plan:
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
        # Known when a job runs, and not when the workflow is only looked at.
        cores=lambda wildcards: workflow.cores,
    script:
        "../scripts/plan.py"
