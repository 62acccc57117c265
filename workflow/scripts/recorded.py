"""Take what a Tracker recorded of a loop of the user's own; leave its trajectory, its history and its final weights."""

from reproduction.jobs.script import start

start(snakemake, imports_torch=True)

import numpy as np
import pandas as pd
from eigendrift.tracking.trajectory import Trajectory
from reproduction.files.arrays import write_arrays
from reproduction.files.tables import write_table
from reproduction.measure.inputs import numerical_environment, prepare_torch
from reproduction.measure.recorded import losses, operator_of, rows_of
from reproduction.training.loop import HISTORY

output, run = snakemake.output, snakemake.params.run
prepare_torch(snakemake)
operator = operator_of(run["problem"])
trajectory = Trajectory(run["folder"])
rows, steps = rows_of(trajectory, run["steps"]), np.asarray(run["steps"], dtype=np.int64)
identity = {**run["identity"], "diverged_at": None, **numerical_environment(operator.device, snakemake.threads)}
weights = trajectory.weights[rows].astype(np.float32)
# What was not recorded is missing: no alignment with it is drawn.
both = [getattr(trajectory, name)[rows].astype(np.float32) for name in ("gradients", "updates") if run["has_steps"]]
gradients, updates = both or [np.zeros_like(weights)] * 2
write_arrays(
    output.trajectory,
    {"steps": steps, "weights": weights, "gradients": gradients, "updates": updates},
    kind="trajectory",
    identity=identity,
    units={"steps": "training steps", "weights": "1", "gradients": "loss / parameter", "updates": "1"},
)
write_arrays(
    output.final_weights,
    {"weights": weights[-1:]},
    kind="final_weights",
    identity={**identity, "layers": [[name, list(shape)] for name, shape in trajectory.shapes.items()]},
    units={"weights": "1"},
)
history = pd.DataFrame(np.nan, index=range(len(rows)), columns=list(HISTORY))
history["train_loss"] = losses(operator, trajectory, rows)
history.insert(0, "step", steps)
write_table(output.history, history, kind="history", identity=identity)
