# Reads: the trajectory and the eigenpairs of a run.
# Writes: its small tables, which all figures and claims are drawn from, and those that later questions about its
# eigenvectors are answered from; its leading eigenvector at the end.

# A run's tables come before anything else, for the sake of the disk: its big arrays are deleted once the tables exist.
AT_ONCE = 20


rule displacement:
    """How far the eigenvectors, their span and the weights of a run have moved."""
    input:
        eigenpairs=eigenpairs,
        trajectory=rules.train.output.trajectory,
        modules=library("displacement"),
    output:
        table("displacement"),
    log:
        f"{LOGS}/displacement/{{dataset}}.{{optimizer}}.{{variant}}.{{seed}}.log",
    priority: AT_ONCE
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: RESOURCES.metric_megabytes(run_of(wildcards)),
        runtime=20,
    params:
        columns=columns("displacement"),
        k=EXPERIMENT.config["eigen"]["k"],
        two_time=lambda wildcards: EXPERIMENT.two_time(run_of(wildcards)),
    script:
        "../scripts/displacement.py"


rule ipr:
    """Localization of a run's eigenvectors, and the leading one at the end."""
    input:
        eigenpairs=eigenpairs,
        final_weights=rules.train.output.final_weights,
        modules=library("ipr"),
    output:
        table=table("ipr"),
        final_eigenvector=table("final_eigenvector"),
    log:
        f"{LOGS}/ipr/{{dataset}}.{{optimizer}}.{{variant}}.{{seed}}.log",
    priority: AT_ONCE
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: RESOURCES.metric_megabytes(run_of(wildcards)),
        runtime=20,
    params:
        columns=columns("ipr", "final_eigenvector"),
        scratch=scratch_of,
        finished=lambda wildcards: f"eigensnapshot/{run_of(wildcards).folder}",
        every=lambda wildcards: EXPERIMENT.schedule(run_of(wildcards))["every"],
    script:
        "../scripts/ipr.py"


rule alignment:
    """Alignment of a run's eigenvectors with gradient and update, and their convergence."""
    input:
        eigenpairs=eigenpairs,
        trajectory=rules.train.output.trajectory,
        modules=library("alignment"),
    output:
        table("alignment"),
    log:
        f"{LOGS}/alignment/{{dataset}}.{{optimizer}}.{{variant}}.{{seed}}.log",
    priority: AT_ONCE
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: RESOURCES.metric_megabytes(run_of(wildcards)),
        runtime=20,
    params:
        columns=columns("alignment"),
        every=lambda wildcards: EXPERIMENT.schedule(run_of(wildcards))["every"],
    script:
        "../scripts/alignment.py"


rule identity:
    """Which eigenvector of a run is which after eigenvalues have crossed."""
    input:
        eigenpairs=eigenpairs,
        modules=library("identity"),
    output:
        overlaps=table("overlaps"),
        subspaces=table("subspaces"),
        tracks=table("tracks"),
        identity=table("identity"),
    log:
        f"{LOGS}/identity/{{dataset}}.{{optimizer}}.{{variant}}.{{seed}}.log",
    priority: AT_ONCE
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: RESOURCES.mapped_megabytes(run_of(wildcards)),
        runtime=20,
    params:
        columns=columns("overlaps", "subspaces", "tracks", "identity"),
        k=lambda wildcards: EXPERIMENT.most_pairs(run_of(wildcards)),
        every=lambda wildcards: EXPERIMENT.schedule(run_of(wildcards))["every"],
        two_time=lambda wildcards: EXPERIMENT.two_time(run_of(wildcards)),
    script:
        "../scripts/identity.py"


rule localization:
    """In which layers and units the eigenvectors of a run live."""
    input:
        eigenpairs=eigenpairs,
        final_weights=rules.train.output.final_weights,
        modules=library("localization"),
    output:
        table("localization"),
    log:
        f"{LOGS}/localization/{{dataset}}.{{optimizer}}.{{variant}}.{{seed}}.log",
    priority: AT_ONCE
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: RESOURCES.mapped_megabytes(run_of(wildcards)),
        runtime=20,
    params:
        columns=columns("localization"),
    script:
        "../scripts/localization.py"


rule stability:
    """A run's largest eigenvalue against the optimizer's edge of stability."""
    input:
        eigenpairs=eigenpairs,
        modules=library("stability"),
    output:
        table("stability"),
    log:
        f"{LOGS}/stability/{{dataset}}.{{optimizer}}.{{variant}}.{{seed}}.log",
    priority: AT_ONCE
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards: RESOURCES.mapped_megabytes(run_of(wildcards)),
        runtime=20,
    params:
        columns=columns("stability"),
        optimizer=lambda wildcards: EXPERIMENT.train_parameters(run_of(wildcards))["optimizer"],
    script:
        "../scripts/stability.py"
