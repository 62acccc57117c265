"""The recorded training run: weights, gradients, updates and the rest of the model's state, one row a snapshot.

The weights theta_t, the gradient g_t that step t used and the update u_t = theta_{t+1} - theta_t are rows (N,) over the
chosen parameters in the order of model.parameters(). What else the loss may depend on, buffers and parameters that were
not chosen, is stored by name, and again only when it has changed; buffers are those after the forward pass of step t.
"""

import os
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eigendrift.hessian.chosen_parameters import Choice, beneath, chosen
from eigendrift.tracking.folder import FolderError, Rows, RowWriter, checksum

DESCRIPTION = "trajectory.json"
FORMAT = "eigendrift-trajectory/1"
ROWS = ("weights", "gradients", "updates")
PARTS = (*ROWS, "buffers")


class TrackerWarning(UserWarning):
    """Something was not recorded."""


class Trajectory:
    """A recorded training run, read from its folder; the recording may still be going on.

    Attributes:
        folder: The folder.
        shapes: Shape of each chosen parameter by its name, in the order of a row.
        n_parameters: N.
        meta: What the user gave the tracker to keep.
        recorded: What was kept: "weights", "gradients", "updates", "buffers".
        left_out: Names of buffers, and of parameters that were not chosen, where they were not kept.

    Example:
        >>> import tempfile
        >>> from eigendrift import Tracker
        >>> model, folder = nn.Linear(2, 1), tempfile.mkdtemp()
        >>> with Tracker(model, folder, every=1, quiet=True) as tracker:
        ...     tracker.record(gradient=torch.ones(3))
        >>> Trajectory(folder).weights.shape
        (1, 3)
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open a folder that a tracker has written.

        Args:
            folder: The folder.

        Raises:
            ValueError: The folder holds no trajectory, or one of another format, or it is damaged.
        """
        self._rows = Rows(folder, DESCRIPTION)
        self.folder, made = self._rows.folder, self._rows.description
        if made.get("format") != FORMAT:
            raise FolderError(f"{self.folder} has format {made.get('format')!r}, expected {FORMAT!r}")
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(shape) for name, shape in made["parameters"]}
        self.n_parameters = sum(int(np.prod(shape)) for shape in self.shapes.values())
        self.meta: dict[str, Any] = made["meta"]
        self._dtype: str = made["dtype"]
        self._state: dict[str, list[Any]] = {name: [tuple(shape), dtype] for name, shape, dtype in made["state"]}
        self.left_out: list[str] = made["left_out"]
        self.recorded: tuple[str, ...] = tuple(made["record"])

    def __len__(self) -> int:
        """Number of snapshots."""
        return len(self._rows.index)

    def __repr__(self) -> str:
        steps = self.steps
        span = f"steps {steps[0]} to {steps[-1]}" if len(steps) else "nothing yet"
        return f"Trajectory({str(self.folder)!r}: {len(steps)} snapshots of N = {self.n_parameters}, {span})"

    @property
    def steps(self) -> NDArray[np.int64]:
        """Step t of each snapshot (S,): the number of optimizer steps taken before it."""
        return np.asarray([line["step"] for line in self._rows.index], dtype=np.int64)

    @property
    def learning_rates(self) -> NDArray[np.float64]:
        """Learning rate of the first parameter group at each snapshot (S,); nan where there was no optimizer."""
        rates = [line["learning_rates"] for line in self._rows.index]
        return np.asarray([rate[0] if rate else np.nan for rate in rates], dtype=np.float64)

    @property
    def edges(self) -> NDArray[np.float64]:
        """The largest eigenvalue at which full-batch steps are stable at each snapshot (S,), in loss / parameter^2.

        `eigendrift.stability.sgd_edge` of torch.optim.SGD with one group of parameters; nan for other optimizers.
        """
        found = [line.get("edge") for line in self._rows.index]
        return np.asarray([np.nan if edge is None else edge for edge in found], dtype=np.float64)

    @property
    def optimizers(self) -> list[str]:
        """Names of the optimizers' classes at the last snapshot; empty where they were not recorded."""
        return list(self._rows.index[-1].get("optimizers", ())) if len(self) else []

    @property
    def weights(self) -> NDArray[np.floating[Any]]:
        """theta_t, (S, N)."""
        return self._part("weights")

    @property
    def gradients(self) -> NDArray[np.floating[Any]]:
        """g_t, the gradient that the step from theta_t used, (S, N); nan in snapshots without one."""
        return self._part("gradients")

    @property
    def updates(self) -> NDArray[np.floating[Any]]:
        """u_t = theta_{t+1} - theta_t, (S, N); nan in snapshots without one."""
        return self._part("updates")

    def _part(self, name: str) -> NDArray[np.floating[Any]]:
        if name not in self.recorded:
            raise FolderError(f"{self.folder} has no {name}; its tracker recorded {', '.join(self.recorded)}")
        return self._rows.array(name, (self.n_parameters,), self._dtype)

    def has(self, name: str) -> NDArray[np.bool_]:
        """Which snapshots have a part: "weights", "gradients" or "updates", (S,)."""
        return np.asarray([name in line["has"] for line in self._rows.index], dtype=np.bool_)

    def state(self, row: int) -> dict[str, Tensor]:
        """Buffers, and parameters that were not chosen, at a snapshot.

        Args:
            row: Index of the snapshot.

        Returns:
            The tensors by name, on the CPU.

        Raises:
            ValueError: They are not what was written.
        """
        found: dict[str, Tensor] = {}
        for name, (start, expected) in self._rows.index[row]["state"].items():
            shape, dtype = self._state[name]
            found[name] = torch.empty(shape, dtype=getattr(torch, dtype))
            size = found[name].numel() * found[name].itemsize
            if size == 0:
                continue
            with open(self.folder / "state.bin", "rb") as file:
                file.seek(start)
                data = bytearray(file.read(size))
            if len(data) < size or zlib.crc32(data) != expected:
                raise FolderError(f"{name} at row {row} of {self.folder / 'state.bin'} is damaged")
            found[name] = torch.frombuffer(data, dtype=found[name].dtype).reshape(shape)
        return found

    @property
    def checksums(self) -> list[int]:
        """CRC-32 of the weights of each snapshot, by which solutions know the snapshot that they belong to."""
        return [line["crc32"]["weights"] for line in self._rows.index]

    def checked_weights(self, row: int) -> NDArray[np.floating[Any]]:
        """theta_t of a snapshot (N,), compared with its checksum.

        Args:
            row: Index of the snapshot.

        Returns:
            The weights.

        Raises:
            ValueError: They are not what was written.
        """
        weights: NDArray[np.floating[Any]] = self.weights[row]
        self._rows.check(row, weights=weights)
        return weights


def as_operator(hessian: Any) -> Any:
    """The operator that was given, or that a function of no arguments makes; ValueError for anything else."""
    makes_one = callable(hessian) and not isinstance(hessian, nn.Module | type) and not hasattr(hessian, "move_to")
    operator = hessian() if makes_one else hessian
    # Of an operator whose model has moved on, asking for the gradient itself would be refused.
    known = dir(operator)
    missing = [name for name in ("move_to", "shape", "gradient", "loss") if name not in known]
    if missing or isinstance(operator, type):
        what = f"the class {operator.__name__}" if isinstance(operator, type) else type(operator).__name__
        without = f" without {missing[0]}" if missing else ""
        raise ValueError(f"hessian is {what}{without}; give a HessianOperator, or a function of one")
    return operator


def move_to_snapshot(operator: Any, trajectory: "Trajectory", row: int) -> Tensor:
    """Move an operator to the weights and buffers of a snapshot; the weights (N,), on its device."""
    weights = torch.from_numpy(np.array(trajectory.checked_weights(row))).to(operator.device)
    state = {name: tensor.to(operator.device) for name, tensor in trajectory.state(row).items()}
    operator.move_to(weights, *([state] if state else []))
    return weights


def check_same_parameters(trajectory: Trajectory, operator: Any) -> None:
    """ValueError if an operator is one of other parameters than those that were recorded."""
    size = operator.shape[0]
    if size != trajectory.n_parameters:
        raise ValueError(
            f"hessian is one of {size} parameters, and {trajectory.folder} has {trajectory.n_parameters}; give both "
            "the same params="
        )
    slices = getattr(operator, "parameter_slices", None)
    if slices is not None and list(slices) != list(trajectory.shapes):
        odd = next((a, b) for a, b in zip(slices, trajectory.shapes, strict=False) if a != b)
        raise ValueError(f"hessian has parameter {odd[0]} where {trajectory.folder} has {odd[1]}; give the same model")


class Recorder:
    """Takes snapshots of a model's tensors and appends them to a trajectory."""

    def __init__(self, model: nn.Module, params: Choice | None) -> None:
        self.module = beneath(model)
        self.names = chosen(self.module, params)
        found = dict(self.module.named_parameters())
        odd = [name for name in self.names if not found[name].is_floating_point()]
        if odd:
            raise ValueError(
                f"parameter {odd[0]} is {found[odd[0]].dtype}; only real floating-point ones can be tracked"
            )
        sharded = [name for name, p in found.items() if _is_sharded(p)]
        if sharded or any("FullyShardedDataParallel" in type(m).__name__ for m in self.module.modules()):
            raise ValueError(
                "the model's parameters are sharded over processes (FSDP or DTensor); gather them, and give full "
                "vectors to record(weights=..., gradient=..., update=...)"
            )
        self.parameters = [found[name] for name in self.names]
        self.shapes = [tuple(p.shape) for p in self.parameters]
        self.size = sum(p.numel() for p in self.parameters)
        self.dtype = torch.float64 if any(p.dtype == torch.float64 for p in self.parameters) else torch.float32
        others = [(name, p) for name, p in found.items() if name not in set(self.names)]
        self._others = [name for name, _ in others]
        self.state_shapes: list[list[Any]] = [
            [name, list(t.shape), str(t.dtype).removeprefix("torch.")]
            for name, t in (*others, *self.module.named_buffers())
        ]
        # Of each buffer what was written last, its place in the file and its checksum.
        self._stored: dict[str, tuple[Tensor, tuple[int, int]]] = {}

    def check(self) -> None:
        """Check that the model still has the parameters of which snapshots are taken.

        Raises:
            ValueError: One has gone, or has another shape.
        """
        found = dict(self.module.named_parameters())
        for name, shape in zip(self.names, self.shapes, strict=True):
            if name not in found or tuple(found[name].shape) != shape:
                now = f"has shape {tuple(found[name].shape)}" if name in found else "is gone"
                raise ValueError(f"parameter {name} had shape {shape} when tracking began and {now} now")
        # A parameter may have been replaced by another tensor, as .to() does on some devices.
        self.parameters = [found[name] for name in self.names]

    def flat(self, tensors: Sequence[Tensor]) -> Tensor:
        """Tensors in the shapes of the parameters as one vector (N,) of its own."""
        device = tensors[0].device if len({t.device for t in tensors}) == 1 else torch.device("cpu")
        vector = torch.empty(self.size, dtype=self.dtype, device=device)
        start = 0
        for tensor in tensors:
            vector[start : start + tensor.numel()].copy_(tensor.detach().reshape(-1))
            start += tensor.numel()
        return vector

    def weights(self) -> Tensor:
        """theta (N,)."""
        return self.flat(self.parameters)

    def describe(self, record: Sequence[str], meta: Mapping[str, Any]) -> dict[str, Any]:
        """The description of the trajectory."""
        return {
            "format": FORMAT,
            "parameters": [[name, list(shape)] for name, shape in zip(self.names, self.shapes, strict=True)],
            "dtype": np.dtype(str(self.dtype).removeprefix("torch.")).str,
            "record": list(record),
            "state": self.state_shapes if "buffers" in record else [],
            "left_out": [] if "buffers" in record else [name for name, _, _ in self.state_shapes],
            "meta": dict(meta),
        }

    def state(self) -> dict[str, Tensor]:
        """Copies of the buffers and of the parameters that were not chosen, those that changed since the last call."""
        found = dict(self.module.named_parameters())
        present: dict[str, Tensor] = {name: found[name] for name in self._others}
        for key, buffer in self.module.named_buffers():
            present[key] = buffer
        expected: dict[str, Any] = {name: (tuple(shape), dtype) for name, shape, dtype in self.state_shapes}
        for name in present.keys() | expected.keys():
            now = present.get(name)
            is_now = None if now is None else (tuple(now.shape), str(now.dtype).removeprefix("torch."))
            if is_now != expected.get(name):
                raise ValueError(
                    f"buffer or parameter {name} was {expected.get(name)} when tracking began, now {is_now}"
                )
        return {
            name: tensor.detach().clone()
            for name, tensor in present.items()
            if name not in self._stored or not torch.equal(self._stored[name][0], tensor.detach())
        }

    def write(
        self, writer: RowWriter, line: Mapping[str, Any], rows: Mapping[str, Tensor], changed: Mapping[str, Tensor]
    ) -> None:
        """Append a snapshot; `changed` is what `state` returned."""
        for name, tensor in changed.items():
            flat = tensor.cpu().contiguous().reshape(-1)
            # As bytes, since NumPy has no bfloat16; nothing can be viewed in an empty tensor.
            data = (flat.view(torch.uint8) if tensor.numel() else flat).numpy()
            self._stored[name] = (tensor, (writer.extend("state", data), checksum(data)))
        places = {name: place for name, (_, place) in self._stored.items()}
        arrays = {name: vector.cpu().numpy() for name, vector in rows.items()}
        writer.append({**line, "state": places}, **arrays)

    def forget(self) -> None:
        """Store the whole state with the next snapshot: rows were dropped, or another process wrote them."""
        self._stored.clear()


def _is_sharded(parameter: Tensor) -> bool:
    return type(parameter).__name__ == "DTensor" or parameter.device.type == "meta"
