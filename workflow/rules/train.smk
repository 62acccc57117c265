# Reads: a dataset's file.
# Writes: of each run its trajectory (weights, gradients and updates at the snapshots), history and final weights.

# What a run leaves, whoever trains it.
TRAINED = dict(
    trajectory=bulky(f"{RUN}/trajectory.safetensors"),
    final_weights=f"{RUN}/final_weights.safetensors",
    history=f"{RUN}/history.csv",
)


if EXPERIMENT.is_recorded:

    # A Tracker has recorded them in a loop of the user's own.
    rule train:
        """One training run: its trajectory, history and final weights."""
        input:
            modules=library("recorded"),
            own_code=own_code,
            recorded=lambda wildcards: EXPERIMENT.recorded_files(run_of(wildcards)),
        output:
            **TRAINED,
        log:
            f"{LOGS}/train/{{dataset}}.{{optimizer}}.{{variant}}.{{seed}}.log",
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=lambda wildcards: RESOURCES.train_megabytes(run_of(wildcards)),
            runtime=lambda wildcards: RESOURCES.train_minutes(run_of(wildcards)),
            gpu=gpus(EXPERIMENT.config["training"]["device"]),
        params:
            run=lambda wildcards: EXPERIMENT.train_parameters(run_of(wildcards)),
        script:
            "../scripts/recorded.py"

else:

    rule train:
        """One training run: its trajectory, history and final weights."""
        input:
            data=rules.prepare_data.output[0],
            modules=library("train"),
            own_code=own_code,
            optimizer=lambda wildcards: [source(path) for path in EXPERIMENT.optimizer_sources(run_of(wildcards))],
        output:
            **TRAINED,
        log:
            f"{LOGS}/train/{{dataset}}.{{optimizer}}.{{variant}}.{{seed}}.log",
        conda:
            "../../envs/torch.yaml"
        threads: 1
        resources:
            mem_mb=lambda wildcards: RESOURCES.train_megabytes(run_of(wildcards)),
            runtime=lambda wildcards: RESOURCES.train_minutes(run_of(wildcards)),
            gpu=gpus(EXPERIMENT.config["training"]["device"]),
        params:
            run=lambda wildcards: EXPERIMENT.train_parameters(run_of(wildcards)),
            scratch=scratch_of,
            job=lambda wildcards: f"train/{run_of(wildcards).folder}",
        script:
            "../scripts/train.py"
