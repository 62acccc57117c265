# Reads: the embedded digits, or raw files in data.root (downloaded if they are not there), or a file of the user's own.
# Writes: one checked file of 8-bit pixels and labels a dataset.


rule prepare_data:
    """A dataset as one checked file; MNIST and FashionMNIST are downloaded where they are not there."""
    input:
        modules=library("prepare_data", *loader_modules()),
        file=lambda wildcards: EXPERIMENT.data_file(wildcards.dataset),
    output:
        f"{RESULTS}/data/{{dataset}}.safetensors",
    log:
        f"{LOGS}/prepare_data/{{dataset}}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=30,
    script:
        "../scripts/prepare_data.py"
