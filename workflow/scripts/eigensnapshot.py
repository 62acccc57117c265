"""Take the top eigenpairs of the full-data Hessian at one chunk of a run's snapshots."""

from reproduction.jobs.script import start

start(snakemake, imports_torch=True)

from reproduction.files.eigenpairs import write_pairs
from reproduction.files.checkpoint import Scratch
from reproduction.measure.inputs import numerical_environment, own_code, prepare_torch
from reproduction.measure.eigenpairs import requests, solve
from reproduction.measure.problem import problem_of
from reproduction.files.arrays import ArrayFile

Scratch.discard(snakemake.params.scratch, snakemake.params.finished)
params, chunk = snakemake.params, int(snakemake.wildcards.chunk)
eigen = params.eigen
device = prepare_torch(snakemake)
problem = problem_of(snakemake.input, eigen, device)
trajectory = ArrayFile(snakemake.input.trajectory, kind="trajectory", identity=params.identity)
weights, steps = trajectory["weights"], [int(step) for step in trajectory["steps"]]
rows = range(len(steps))[chunk * eigen["snapshots_per_job"] : (chunk + 1) * eigen["snapshots_per_job"]]
wanted = [requests(steps, eigen["k"], eigen["tolerance"], eigen.get("dense"))[row] for row in rows]
point = problem.points(steps, weights)
depends_on = {
    "eigen": dict(eigen),
    "trajectory": trajectory.sha256,
    **problem.depends_on,
    "made_with": numerical_environment(problem.operator.device, snakemake.threads),
    **own_code(snakemake.input),
}
numbers, vectors = solve(
    problem.operator,
    wanted,
    lambda j: point(rows[j]),
    Scratch(params.scratch, params.job, depends_on),
    what="snapshot",
)
identity = {**trajectory.identity, "chunk": chunk}
write_pairs(snakemake.output[0], numbers, vectors, identity)
