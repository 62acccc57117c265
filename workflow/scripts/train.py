"""Train one network; leave its trajectory, its history and its final weights."""

from reproduction.jobs.script import start

start(snakemake, imports_torch=True)

import numpy as np
import pandas as pd
from reproduction.errors import DataError
from reproduction.training.model import layer_shapes
from reproduction.seeds import stream_seed
from reproduction.experiment.schedule import snapshot_steps
from reproduction.files.checkpoint import Scratch
from reproduction.measure.inputs import (
    build_model,
    check_size,
    data_sha256,
    load_samples,
    numerical_environment,
    own_code,
    prepare_torch,
)
from reproduction.files.arrays import write_arrays
from reproduction.files.tables import write_table
from reproduction.training.loop import HISTORY, train
from reproduction.training.optimizers import check_optimizer_is_made

output, params = snakemake.output, snakemake.params
device = prepare_torch(snakemake)
check_optimizer_is_made(f"optimizers.{params.run['identity']['optimizer']}", params.run["optimizer"])
dataset, train_samples, test_samples = load_samples(snakemake.input.data, params.run["scaling"], device)
seed, expected = params.run["identity"]["seed"], params.run["identity"]["n_train"]
if len(train_samples) != expected:
    raise DataError(f"{snakemake.input.data}: {len(train_samples)} training samples, expected {expected}")
model = build_model(dataset, params.run["model"], stream_seed("initialization", seed), device)
check_size(model, params.run["identity"]["n_parameters"])
depends_on = {
    "run": params.run,
    "data": data_sha256(snakemake.input.data),
    "made_with": numerical_environment(device, snakemake.threads),
    **own_code(snakemake.input),
}
trajectory = train(
    model,
    train_samples,
    test_samples,
    params.run["optimizer"],
    params.run["identity"]["batch_size"],
    seed,
    snapshot_steps(**params.run["schedule"]),
    Scratch(params.scratch, params.job, depends_on),
)
identity = {
    **params.run["identity"],
    "diverged_at": trajectory.diverged_at,
    **numerical_environment(device, snakemake.threads),
}
write_arrays(
    output.trajectory,
    {
        "steps": trajectory.steps,
        "weights": trajectory.weights,
        "gradients": trajectory.gradients,
        "updates": trajectory.updates,
    },
    kind="trajectory",
    identity=identity,
    units={"steps": "training steps", "weights": "1", "gradients": "loss / parameter", "updates": "1"},
)
write_arrays(
    output.final_weights,
    {"weights": np.array(trajectory.weights[-1:])},
    kind="final_weights",
    identity={**identity, "layers": layer_shapes(model)},
    units={"weights": "1"},
)
history = pd.DataFrame(trajectory.history, columns=list(HISTORY))
history.insert(0, "step", trajectory.steps)
write_table(output.history, history, kind="history", identity=identity)
