# Needs: the trajectory and the eigenpairs of a run.
# Leaves: its small tables, which all figures and claims are drawn from, and its leading eigenvector at the end.


rule displacement:
    input:
        eigenpairs=eigenpairs,
        trajectory=rules.train.output.trajectory,
        modules=library("displacement"),
    output:
        f"{RUN}/displacement.csv",
    log:
        f"{LOGS}/displacement/{{dataset}}.{{optimizer}}.{{variant}}.{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/displacement/{{dataset}}.{{optimizer}}.{{variant}}.{{seed}}.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: NEEDS.metric_megabytes(run_of(wildcards)),
        runtime=20,
    params:
        k=EXPERIMENT.config["eigen"]["k"],
        two_time=lambda wildcards: EXPERIMENT.two_time(run_of(wildcards)),
    script:
        "../scripts/displacement.py"


rule ipr:
    input:
        eigenpairs=eigenpairs,
        final_weights=rules.train.output.final_weights,
        modules=library("ipr"),
    output:
        table=f"{RUN}/ipr.csv",
        final_eigenvector=f"{RUN}/final_eigenvector.safetensors",
    log:
        f"{LOGS}/ipr/{{dataset}}.{{optimizer}}.{{variant}}.{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/ipr/{{dataset}}.{{optimizer}}.{{variant}}.{{seed}}.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: NEEDS.metric_megabytes(run_of(wildcards)),
        runtime=20,
    params:
        scratch=scratch_of,
        finished=lambda wildcards: f"eigensnapshot/{run_of(wildcards).folder}",
    script:
        "../scripts/ipr.py"


rule alignment:
    input:
        eigenpairs=eigenpairs,
        trajectory=rules.train.output.trajectory,
        modules=library("alignment"),
    output:
        f"{RUN}/alignment.csv",
    log:
        f"{LOGS}/alignment/{{dataset}}.{{optimizer}}.{{variant}}.{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/alignment/{{dataset}}.{{optimizer}}.{{variant}}.{{seed}}.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: NEEDS.metric_megabytes(run_of(wildcards)),
        runtime=20,
    params:
        every=lambda wildcards: EXPERIMENT.schedule(run_of(wildcards))["every"],
    script:
        "../scripts/alignment.py"
