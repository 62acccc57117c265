"""Compare the top eigenvectors of independent random initializations: the displacement baseline, equation 4."""

from reproduction.jobs.script import start

start(snakemake)

import dataclasses
import itertools

import pandas as pd
import torch
from reproduction.measure.baseline import baseline_statistics, pairwise_overlaps
from eigendrift.hessian.operator import HessianOperator
from reproduction.training.model import flatten
from reproduction.seeds import stream_seed
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
from reproduction.measure.eigenpairs import Request, solve
from reproduction.files.tables import write_table

params = snakemake.params
baseline, count, k = params.baseline, params.baseline["initializations"], params.baseline["k"]
device = prepare_torch(snakemake.threads, wanted_device(snakemake))
dataset, samples, _ = load_samples(snakemake.input.data, baseline["scaling"], device)
model = build_model(dataset, baseline["model"], seed=0, device=device)
operator = HessianOperator(model, torch.nn.functional.cross_entropy, samples.inputs, samples.targets)
del samples  # the operator has what it needs of them
_, vectors = solve(
    operator,
    [Request(step=j, k=k, tolerance=baseline["tolerance"]) for j in range(count)],
    lambda j: flatten(build_model(dataset, baseline["model"], stream_seed("baseline", j), device)),
    Scratch(
        params.scratch,
        params.job,
        {
            "baseline": dict(baseline),
            "data": data_sha256(snakemake.input.data),
            "made_with": numerical_environment(device, snakemake.threads),
            **own_code(snakemake.input),
        },
    ),
    what="initialization",
)
n_parameters = operator.shape[0]
rows, pairs = [], []
for i in range(1, k + 1):
    overlaps = pairwise_overlaps(vectors[i - 1 :: k])
    statistics = baseline_statistics(overlaps, n_parameters)
    rows.append({"i": i, **dataclasses.asdict(statistics)})
    pairs += [(a, b, i, overlaps[a, b]) for a, b in itertools.combinations(range(count), 2)]
# Of the main runs' baseline the path says nothing, and of a variant's it does.
variant = {"variant": snakemake.wildcards.variant} if hasattr(snakemake.wildcards, "variant") else {}
identity = {"dataset": dataset.name, **variant, "n_parameters": n_parameters}
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
