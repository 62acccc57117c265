# Reads: a dataset's file and the trajectories of its runs.
# Writes: eigenpairs at the snapshots of each run, in chunks; the baseline over random initializations; loss and
# sharpness on the lines between solutions.


rule eigensnapshot:
    """Certified eigenpairs of the Hessian at some snapshots of a run."""
    input:
        data=data_of,
        trajectory=rules.train.output.trajectory,
        modules=library("eigensnapshot"),
        recorded=lambda wildcards: EXPERIMENT.recorded_files(run_of(wildcards)),
        own_code=own_code,
    output:
        bulky(f"{RUN}/eigenpairs-{{chunk}}.safetensors"),
    log:
        f"{LOGS}/eigensnapshot/{{dataset}}.{{optimizer}}.{{variant}}.{{seed}}.{{chunk}}.log",
    # A run is followed to its tables before the next one is trained, so that what a stopped workflow has done is whole.
    priority: 10
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: RESOURCES.eigen_megabytes(run_of(wildcards)),
        runtime=lambda wildcards: RESOURCES.eigen_minutes(run_of(wildcards)),
        gpu=gpus(EXPERIMENT.config["training"]["device"]),
    params:
        eigen=lambda wildcards: EXPERIMENT.eigen_parameters(run_of(wildcards)),
        identity=lambda wildcards: EXPERIMENT.identity(run_of(wildcards)),
        scratch=scratch_of,
        job=lambda wildcards: f"eigensnapshot/{run_of(wildcards).folder}/{wildcards.chunk}",
        finished=lambda wildcards: f"train/{run_of(wildcards).folder}",
    script:
        "../scripts/eigensnapshot.py"


rule baseline:
    """How far apart the leading eigenvectors of random initializations are."""
    input:
        data=data_of,
        modules=library("baseline"),
        own_code=own_code,
    output:
        baseline=table("baseline"),
        overlaps=table("baseline_overlaps"),
    log:
        f"{LOGS}/baseline/{{dataset}}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: RESOURCES.baseline_megabytes(wildcards.dataset),
        runtime=lambda wildcards: RESOURCES.baseline_minutes(wildcards.dataset),
        gpu=gpus(EXPERIMENT.config["training"]["device"]),
    params:
        columns=columns("baseline", "baseline_overlaps"),
        baseline=EXPERIMENT.baseline_parameters(),
        scratch=SCRATCH,
        job="baseline/{dataset}",
    script:
        "../scripts/baseline.py"


rule variant_baseline:
    """How far apart they are for a variant of the network or of the scaling."""
    input:
        data=data_of,
        modules=library("baseline"),
        own_code=own_code,
    output:
        baseline=variant_table("baseline"),
        overlaps=variant_table("baseline_overlaps"),
    log:
        f"{LOGS}/variant_baseline/{{dataset}}.{{variant}}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: RESOURCES.baseline_megabytes(wildcards.dataset, wildcards.variant),
        runtime=lambda wildcards: RESOURCES.baseline_minutes(wildcards.dataset, wildcards.variant),
        gpu=gpus(EXPERIMENT.config["training"]["device"]),
    params:
        columns=columns("baseline", "baseline_overlaps"),
        baseline=lambda wildcards: EXPERIMENT.baseline_parameters(wildcards.variant),
        scratch=SUPPLEMENT_SCRATCH,
        job="variant_baseline/{variant}/{dataset}",
    script:
        "../scripts/baseline.py"


rule interpolation:
    """Loss on the lines between solutions, and their sharpness."""
    input:
        data=data_of,
        final_weights=lambda wildcards: run_files("final_weights.safetensors", EXPERIMENT.of_dataset(wildcards.dataset)),
        history=lambda wildcards: run_files("history.csv", EXPERIMENT.of_dataset(wildcards.dataset)),
        ipr=lambda wildcards: run_files("ipr.csv", EXPERIMENT.of_dataset(wildcards.dataset)),
        modules=library("interpolation"),
        own_code=own_code,
    output:
        interpolation=table("interpolation"),
        solutions=table("solutions"),
    log:
        f"{LOGS}/interpolation/{{dataset}}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: RESOURCES.baseline_megabytes(wildcards.dataset),
        runtime=lambda wildcards: RESOURCES.interpolation_minutes(wildcards.dataset),
        gpu=gpus(EXPERIMENT.config["training"]["device"]),
    params:
        columns=columns("interpolation", "solutions"),
        interpolation=EXPERIMENT.interpolation_parameters(),
    script:
        "../scripts/interpolation.py"
