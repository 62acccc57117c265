"""Compare the top eigenvectors of independent random initializations: the displacement baseline, equation 4."""

from reproduction.jobs.script import start

start(snakemake, imports_torch=True)

import dataclasses
import itertools

import numpy as np
import pandas as pd
from reproduction.measure.baseline import baseline_statistics, no_baseline, pairwise_overlaps
from reproduction.seeds import stream_seed
from reproduction.files.checkpoint import Scratch
from reproduction.measure.inputs import numerical_environment, own_code, prepare_torch
from reproduction.measure.eigenpairs import Request, solve
from reproduction.measure.problem import problem_of
from reproduction.files.tables import write_table

params = snakemake.params
baseline, count, k = params.baseline, params.baseline["initializations"], params.baseline["k"]
device = prepare_torch(snakemake)
problem = problem_of(snakemake.input, baseline, device)
n_parameters, fresh = problem.operator.shape[0], problem.fresh
vectors = np.empty((0, n_parameters))
if fresh is not None:
    _, vectors = solve(
        problem.operator,
        [Request(step=j, k=k, tolerance=baseline["tolerance"]) for j in range(count)],
        lambda j: fresh(stream_seed("baseline", j)),
        Scratch(
            params.scratch,
            params.job,
            {
                "baseline": dict(baseline),
                **problem.depends_on,
                "made_with": numerical_environment(problem.operator.device, snakemake.threads),
                **own_code(snakemake.input),
            },
        ),
        what="initialization",
    )
rows, pairs = [], []
for i in range(1, k + 1):
    if fresh is None:
        rows.append({"i": i, **dataclasses.asdict(no_baseline())})
        continue
    overlaps = pairwise_overlaps(vectors[i - 1 :: k])
    statistics = baseline_statistics(overlaps, n_parameters)
    rows.append({"i": i, **dataclasses.asdict(statistics)})
    pairs += [(a, b, i, overlaps[a, b]) for a, b in itertools.combinations(range(count), 2)]
# Of the main runs' baseline the path says nothing, and of a variant's it does.
variant = {"variant": snakemake.wildcards.variant} if hasattr(snakemake.wildcards, "variant") else {}
identity = {"dataset": problem.dataset, **variant, "n_parameters": n_parameters}
table = pd.DataFrame(rows)
write_table(
    snakemake.output.baseline,
    table,
    kind="baseline",
    identity=identity,
)
table = pd.DataFrame(pairs, columns=["first", "second", "i", "overlap"])
write_table(
    snakemake.output.overlaps,
    table,
    kind="baseline_overlaps",
    identity=identity,
)
