"""Compare top eigenvectors of networks whose trained weights are permuted within each layer, for figure S2."""

from reproduction.jobs.script import start

start(snakemake, imports_torch=True)

import itertools
from functools import partial

import pandas as pd
import torch
from reproduction.measure.baseline import pairwise_overlaps
from reproduction.seeds import stream_seed
from reproduction.measure.permuted import permuted
from reproduction.files.eigenpairs import UNITS
from reproduction.files.checkpoint import Scratch
from reproduction.measure.inputs import numerical_environment, own_code, prepare_torch
from reproduction.measure.eigenpairs import Request, solve
from reproduction.measure.problem import problem_of
from reproduction.files.arrays import ArrayFile
from reproduction.files.tables import write_table


def network(trained, layers, optimizer, j):
    """The j-th permuted network of an optimizer, as a vector (N,)."""
    return permuted(trained, layers, stream_seed("permutation", optimizer, j))


params = snakemake.params
options, count, k = params.permuted, params.permuted["permutations"], params.permuted["k"]
device = prepare_torch(snakemake)
problem = problem_of(snakemake.input, options, device)
wanted = [Request(step=j, k=k, tolerance=options["tolerance"]) for j in range(count)]
pairs = []
for path in snakemake.input.final_weights:
    file = ArrayFile(path, kind="final_weights")
    optimizer, trained = file.identity["optimizer"], torch.from_numpy(file["weights"][0])
    if file.identity["diverged_at"] is not None:  # its last weights are those of no solution
        continue
    depends_on = {
        "permuted": dict(options),
        "weights": file.sha256,
        **problem.depends_on,
        "made_with": numerical_environment(problem.operator.device, snakemake.threads),
        **own_code(snakemake.input),
    }
    numbers, vectors = solve(
        problem.operator,
        wanted,
        partial(network, trained, file.identity["layers"], optimizer),
        Scratch(params.scratch, f"{params.job}/{optimizer}", depends_on),
        what=f"permuted network of {optimizer}",
    )
    converged = numbers[:, list(UNITS).index("converged")]
    for i in range(1, k + 1):
        overlaps, good = pairwise_overlaps(vectors[i - 1 :: k]), converged[i - 1 :: k]
        pairs += [
            (optimizer, a, b, i, overlaps[a, b], int(good[a] and good[b]))
            for a, b in itertools.combinations(range(count), 2)
        ]
table = pd.DataFrame(pairs, columns=["optimizer", "first", "second", "i", "overlap", "converged"])
write_table(
    snakemake.output[0],
    table,
    kind="permuted_overlaps",
    identity={"dataset": problem.dataset, "n_parameters": problem.operator.shape[0]},
)
Scratch.discard(params.scratch, params.job)
