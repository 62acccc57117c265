"""Take the top eigenpairs of the full-data Hessian at one chunk of a run's snapshots."""

from reproduction.jobs.script import start

start(snakemake)

import torch
from eigendrift.hessian.operator import HessianOperator
from reproduction.files.eigenpairs import write_pairs
from reproduction.files.checkpoint import Scratch
from reproduction.jobs.gpu import wanted_device
from reproduction.measure.inputs import (
    build_model,
    data_sha256,
    load_samples,
    numerical_environment,
    own_code,
    prepare_torch,
)
from reproduction.measure.eigenpairs import requests, solve
from reproduction.files.arrays import ArrayFile

Scratch.discard(snakemake.params.scratch, snakemake.params.finished)
params, chunk = snakemake.params, int(snakemake.wildcards.chunk)
eigen = params.eigen
device = prepare_torch(snakemake.threads, wanted_device(snakemake))
dataset, samples, _ = load_samples(snakemake.input.data, eigen["scaling"], device)
trajectory = ArrayFile(snakemake.input.trajectory, kind="trajectory", identity=params.identity)
weights, steps = trajectory["weights"], [int(step) for step in trajectory["steps"]]
rows = range(len(steps))[chunk * eigen["snapshots_per_job"] : (chunk + 1) * eigen["snapshots_per_job"]]
wanted = [requests(steps, eigen["k"], eigen["tolerance"], eigen.get("dense"))[row] for row in rows]
model = build_model(dataset, eigen["model"], seed=0, device=device)  # its parameters are set at every snapshot
operator = HessianOperator(model, torch.nn.functional.cross_entropy, samples.inputs, samples.targets)
del samples  # the operator has what it needs of them
depends_on = {
    "eigen": dict(eigen),
    "trajectory": trajectory.sha256,
    "data": data_sha256(snakemake.input.data),
    "made_with": numerical_environment(device, snakemake.threads),
    **own_code(snakemake.input),
}
numbers, vectors = solve(
    operator,
    wanted,
    lambda j: torch.from_numpy(weights[rows[j]]),
    Scratch(params.scratch, params.job, depends_on),
    what="snapshot",
)
identity = {**trajectory.identity, "chunk": chunk}
write_pairs(snakemake.output[0], numbers, vectors, identity)
