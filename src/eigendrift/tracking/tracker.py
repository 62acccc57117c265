"""Recording a training run from hooks of its optimizers, without a change to the run.

A round is one optimizer step, or with several optimizers one step of each at least. theta_t is copied when the first
optimizer of the round is about to step; the gradient of each optimizer's parameters when that one is about to step, as
it will use it; and u_t when the last one has stepped. Nothing is drawn at random and nothing of the model is written.
"""

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from eigendrift.hessian.chosen_parameters import Choice
from eigendrift.stability import sgd_edge
from eigendrift.tracking.folder import RowWriter
from eigendrift.tracking.trajectory import DESCRIPTION, PARTS, ROWS, Recorder, TrackerWarning, Trajectory

if TYPE_CHECKING:
    from eigendrift.tracking.solve import Inline
    from eigendrift.tracking.track import Track

BY_HAND = "call tracker.record(...) in the loop instead"
# Optimizers that step parts of the parameters or of their gradients in processes of their own.
_SHARDING = ("ZeroRedundancyOptimizer", "DeepSpeedZeroOptimizer", "DeepSpeedZeroOptimizer_Stage3", "FSDPOptimizer")
# Packages whose optimizers wrap one of torch.
_WRAPPING = ("accelerate", "lightning", "lightning_fabric", "pytorch_lightning")


class _Round:
    """What is known of the step that is being taken."""

    def __init__(self, due: bool) -> None:
        self.due = due
        self.weights: Tensor | None = None
        self.state: dict[str, Tensor] = {}
        self.gradients: dict[int, Tensor | None] = {}
        self.of_optimizers: dict[str, Any] = {}
        self.entered: set[int] = set()
        self.evaluated: set[int] = set()
        self.stepped: set[int] = set()


class Tracker:
    """Records theta_t, g_t, u_t and buffers of a training run, to be solved for eigenvectors later or at once.

    The recorded run is the same, to the last bit, as without a tracker. A snapshot is on disk before the next step
    begins, so that a killed process loses one at most.

    Attributes:
        folder: Where the snapshots go.
        step: Number of steps that moved the parameters: t of the next step. Set it, or load the tracker's state, when a
            run is resumed.

    Example:
        >>> import tempfile
        >>> model = nn.Linear(4, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with Tracker(model, tempfile.mkdtemp(), every=2, quiet=True).attach(optimizer) as tracker:
        ...     for _ in range(5):
        ...         optimizer.zero_grad()
        ...         model(torch.ones(1, 4)).square().sum().backward()
        ...         optimizer.step()
        >>> tracker.trajectory.steps.tolist()
        [0, 2, 4, 5]
    """

    def __init__(
        self,
        model: nn.Module,
        folder: str | os.PathLike[str],
        every: int | None = None,
        *,
        at: Iterable[int] | Callable[[int], bool] | None = None,
        params: Choice | None = None,
        record: Sequence[str] = PARTS,
        hessian: Any = None,
        k: int = 3,
        tol: float = 1e-3,
        log: Callable[[dict[str, float], int], Any] | None = None,
        meta: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        quiet: bool = False,
    ) -> None:
        """Make the folder, or open it to go on.

        Args:
            model: The module that is trained. A compiled or data-parallel one stands for the module that it wraps.
            folder: Where the snapshots go. One folder belongs to one run.
            every: Steps between snapshots, from step 0 on.
            at: In place of `every`, the steps of the snapshots, or a predicate of the step.
            params: The parameters whose Hessian is meant, as HessianOperator takes them; by default the trained ones.
            record: What to keep of "weights", "gradients", "updates" and "buffers"; weights always.
            hessian: To solve while training, a HessianOperator of this model, or a function of no arguments that makes
                one when the first snapshot is due. By default nothing is solved before `solve`.
            k: Number of eigenpairs that are solved for while training.
            tol: Their relative residual norm.
            log: Called with a dictionary of numbers and the step for every snapshot that is solved while training, as
                `wandb.log` and `mlflow.log_metrics` are.
            meta: Plain values to keep with the trajectory, such as the learning rate or the seed.
            overwrite: Whether to delete a trajectory and its eigenpairs that the folder holds.
            quiet: Whether to keep from standard error how much disk the snapshots take.

        Raises:
            ValueError: An argument is not allowed, or the folder belongs to another model or is in use.
        """
        if not isinstance(model, nn.Module):
            raise ValueError(f"model is {type(model).__name__}, expected a torch.nn.Module")
        self._due = _schedule(every, at)
        unknown = [part for part in record if part not in PARTS]
        if isinstance(record, str) or unknown:
            raise ValueError(f"record = {record!r} is not allowed; give some of {', '.join(PARTS)}")
        self._record = tuple(part for part in PARTS if part in record or part == "weights")
        self._recorder = Recorder(model, params)
        self.folder = Path(folder)
        self._quiet, self._step, self._resumed, self._closed = quiet, 0, False, False
        self._optimizers: list[Optimizer] = []
        self._places: dict[int, list[int]] = {}
        self._handles: list[RemovableHandle] = []
        self._round: _Round | None = None
        self._kept: Tensor | None = None
        self._perturbed: set[int] = set()
        self._failed: str | None = None
        self._writes = not (torch.distributed.is_available() and torch.distributed.is_initialized()) or (
            torch.distributed.get_rank() == 0
        )
        self._writer: RowWriter | None = None
        if self._writes:
            description = self._recorder.describe(self._record, _plain(meta or {}))
            if overwrite:
                self._delete()
            self._writer = RowWriter(self.folder, DESCRIPTION, description)
        self._inline: Inline | None = None
        if hessian is not None and self._writes:
            self._inline = _inline(self.folder, hessian, k, tol, log)

    def _delete(self) -> None:
        if self.folder.is_dir() and any(self.folder.iterdir()):
            if not (self.folder / DESCRIPTION).is_file():
                raise ValueError(
                    f"folder = {str(self.folder)!r} holds something else than a trajectory; name another one"
                )
            # The lock of a tracker that is at work there forbids it.
            RowWriter(self.folder, DESCRIPTION, Trajectory(self.folder)._rows.description).close()
            shutil.rmtree(self.folder)

    # Attaching

    def attach(self, *optimizers: Any) -> "Tracker":
        """Record at the steps of these optimizers; may be called again for others.

        Args:
            optimizers: Optimizers of torch, also as accelerate and Lightning wrap them. Of a SAM with a
                `base_optimizer` that one is followed; call `keep_gradient()` before its first step, since the gradient
                at its second one is that of a perturbed point, which is not recorded.

        Returns:
            The tracker itself, which detaches at the end of a with block.

        Raises:
            ValueError: An optimizer is none of torch, shares no parameter with the model, or cannot be followed.
        """
        if not optimizers:
            raise ValueError("attach() needs an optimizer")
        for given in optimizers:
            optimizer, perturbed = _torch_optimizer(given)
            own = {id(p) for group in optimizer.param_groups for p in group["params"]}
            places = [i for i, p in enumerate(self._recorder.parameters) if id(p) in own]
            if not places:
                raise ValueError(
                    f"optimizer {type(given).__name__} trains none of the tracked parameters; give the optimizer of "
                    "this model, made from its present parameters"
                )
            if optimizer in self._optimizers:
                raise ValueError(f"optimizer {type(given).__name__} is attached already")
            if any(hasattr(p, "_in_backward_optimizers") for p in self._recorder.parameters):
                raise ValueError(f"the model's parameters are stepped within backward(); {BY_HAND}")
            self._optimizers.append(optimizer)
            self._places[id(optimizer)] = places
            if perturbed:
                self._perturbed.add(id(optimizer))
            self._handles += [
                optimizer.register_step_pre_hook(self._before),
                optimizer.register_step_post_hook(self._after),
            ]
        self._announce()
        return self

    def detach(self) -> None:
        """Remove the hooks, record the final weights, and close the files; a second call does nothing."""
        if self._closed:
            return
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        try:
            trained = self._optimizers and (self._step > 0 or self._resumed)
            safe = self._writer is not None and self._failed is None
            if trained and safe and self._last_step() < self._step:
                self._write(
                    self._step, {"weights": self._recorder.weights()}, self._recorder.state(), self._of_optimizers()
                )
        finally:
            self._closed = True
            if self._inline is not None:
                self._inline.close()
            if self._writer is not None:
                self._writer.close()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    # Steps

    @property
    def step(self) -> int:
        """Number of steps that moved the parameters."""
        return self._step

    @step.setter
    def step(self, step: int) -> None:
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise ValueError(f"step = {step!r} is not allowed; give a whole number, at least 0")
        self._step, self._round, self._resumed = step, None, True
        if self._writer is not None:
            self._writer.drop(lambda line: bool(line["step"] >= step))
            self._recorder.forget()
        if self._inline is not None:
            self._inline.drop(step)

    def state_dict(self) -> dict[str, Any]:
        """What belongs into the checkpoint of a run that may be resumed.

        Returns:
            Plain values.
        """
        return {"step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: snapshots at its step and later are dropped, and recorded again.

        Args:
            state: What `state_dict` returned.

        Raises:
            ValueError: It is something else.
        """
        if set(state) != {"step"}:
            raise ValueError(f"state has the keys {sorted(state)}, expected those of Tracker.state_dict()")
        self.step = state["step"]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Called when an optimizer is about to step."""
        me = id(optimizer)
        if self._round is None or me in self._round.entered - self._round.stepped:
            # At the start, or after a step that raised.
            self._round = self._begin()
        now = self._round
        if me in now.entered:
            return None
        now.entered.add(me)
        if not now.due or "gradients" not in self._record:
            return None
        if self._kept is not None:
            self._note(now, optimizer, self._kept)
            return None
        if me in self._perturbed:
            return None
        if len(args) > 1 and args[1] is not None:
            return (args[0], self._watched(now, optimizer, args[1]), *args[2:]), kwargs
        if kwargs.get("closure") is not None:
            return args, {**kwargs, "closure": self._watched(now, optimizer, kwargs["closure"])}
        self._note(now, optimizer)
        return None

    def _begin(self) -> _Round:
        if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                f"the optimizer's step is being captured into a CUDA graph, which runs no hook; {BY_HAND}"
            )
        due = bool(self._due(self._step)) and self._writer is not None and self._failed is None
        now = _Round(due)
        if due:
            self._refuse_unknown_rows()
            self._recorder.check()
            now.weights, now.state = self._recorder.weights(), self._recorder.state()
            now.of_optimizers = self._of_optimizers()
            if self._inline is not None:
                self._inline.solve(self._step, now.weights, now.state)
        return now

    def _watched(self, now: _Round, optimizer: Optimizer, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure, after whose first evaluation, which is at theta_t, the gradient is noted."""

        def evaluated() -> Any:
            value = closure()
            if id(optimizer) not in now.evaluated:
                now.evaluated.add(id(optimizer))
                self._note(now, optimizer)
            return value

        return evaluated

    def _note(self, now: _Round, optimizer: Optimizer, vector: Tensor | None = None) -> None:
        """Note the gradients of the optimizer's parameters, as its step will use them."""
        scale = getattr(optimizer, "grad_scale", None)
        for place in self._places[id(optimizer)]:
            parameter = self._recorder.parameters[place]
            gradient = self._piece(vector, place) if vector is not None else parameter.grad
            if gradient is not None:
                gradient = gradient.to_dense() if gradient.layout != torch.strided else gradient
                gradient = gradient.detach().clone().to(self._recorder.dtype)
                # A fused optimizer divides by the scale of a GradScaler within its step.
                gradient = gradient / scale if scale is not None and vector is None else gradient
            now.gradients[place] = gradient

    def _piece(self, vector: Tensor, place: int) -> Tensor:
        start = sum(p.numel() for p in self._recorder.parameters[:place])
        shape = self._recorder.shapes[place]
        return vector[start : start + self._recorder.parameters[place].numel()].reshape(shape)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Called when an optimizer has stepped."""
        now = self._round
        if now is None or id(optimizer) not in now.entered:
            return
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None and bool(found_inf > 0):
            # A fused optimizer has skipped its step.
            now.entered.discard(id(optimizer))
            if not now.stepped:
                self._round = None
            return
        now.stepped.add(id(optimizer))
        if len(now.stepped) == len(self._optimizers):
            self._finish(now)

    def _finish(self, now: _Round) -> None:
        step, self._step, self._round, self._kept = self._step, self._step + 1, None, None
        if not now.due or now.weights is None:
            return
        rows = {"weights": now.weights}
        if "updates" in self._record:
            rows["updates"] = self._recorder.weights() - now.weights
        gradient = self._joined(now)
        if gradient is not None:
            rows["gradients"] = gradient
        self._write(step, rows, now.state, now.of_optimizers)

    def _joined(self, now: _Round) -> Tensor | None:
        if "gradients" not in self._record:
            return None
        found = [now.gradients.get(place) for place in range(len(self._recorder.parameters))]
        if all(gradient is None for gradient in found):
            remedy = "call keep_gradient() before the first step of SAM" if self._perturbed else BY_HAND
            warnings.warn(
                f"no gradient of step {self._step - 1} was recorded, since none is known at its point; {remedy}",
                TrackerWarning,
                stacklevel=2,
            )
            return None
        # The step leaves a parameter without a gradient as it is, as one with a gradient of zero.
        return self._recorder.flat(
            [torch.zeros_like(p) if g is None else g for p, g in zip(self._recorder.parameters, found, strict=True)]
        )

    # By hand

    def keep_gradient(self, gradient: Tensor | None = None) -> None:
        """Take the present gradients for those of the coming step, whatever becomes of them before it.

        Call it after backward(): before SAM's first step, or before gradients are clipped to record them unclipped.

        Args:
            gradient: The gradient (N,), where it is not in the parameters' .grad.

        Raises:
            ValueError: The gradient has another shape, or no parameter has one.
        """
        if self._due(self._step):
            self._kept = self._vector("gradient", gradient) if gradient is not None else self._present_gradient()

    def _present_gradient(self) -> Tensor:
        grads = [p.grad for p in self._recorder.parameters]
        if all(g is None for g in grads):
            raise ValueError("no parameter has a gradient; call it after backward()")
        return self._recorder.flat(
            [
                torch.zeros_like(p) if g is None else g.to_dense() if g.layout != torch.strided else g
                for p, g in zip(self._recorder.parameters, grads, strict=True)
            ]
        )

    def record(
        self,
        step: int | None = None,
        *,
        weights: Tensor | np.ndarray | None = None,
        gradient: Tensor | np.ndarray | None = None,
        update: Tensor | np.ndarray | None = None,
    ) -> None:
        """Record a snapshot now, whatever the schedule says: for loops without an optimizer of torch.

        Args:
            step: Step t of the snapshot, by default the tracker's; the next step is then t + 1.
            weights: theta_t (N,), by default the model's present parameters.
            gradient: g_t (N,), if it is known.
            update: u_t (N,), if it is known.

        Raises:
            ValueError: A vector has another shape, the step is not later than the last one, or the tracker is closed.
        """
        if self._closed:
            raise ValueError("the tracker is detached; make a new one")
        now = self._step if step is None else step
        if isinstance(now, bool) or not isinstance(now, int) or now <= self._last_step():
            raise ValueError(f"step = {now!r} is not allowed; the last snapshot is of step {self._last_step()}")
        given = {"weights": weights, "gradients": gradient, "updates": update}
        rows = {name: self._vector(name, value) for name, value in given.items() if value is not None}
        self._recorder.check()
        rows.setdefault("weights", self._recorder.weights())
        self._step = now + 1
        if self._writer is not None and self._failed is None:
            self._refuse_unknown_rows()
            self._announce()
            state = self._recorder.state()
            if self._inline is not None:
                self._inline.solve(now, rows["weights"], state)
            self._write(
                now, {name: row for name, row in rows.items() if name in self._record}, state, self._of_optimizers()
            )

    def _vector(self, name: str, value: Any) -> Tensor:
        vector = torch.as_tensor(value).detach()
        if tuple(vector.shape) != (self._recorder.size,):
            raise ValueError(f"{name} has shape {tuple(vector.shape)}, expected ({self._recorder.size},)")
        return vector.to(self._recorder.dtype).clone()

    # Writing

    @property
    def _index(self) -> list[dict[str, Any]]:
        return [] if self._writer is None else self._writer.index

    def _last_step(self) -> int:
        return self._index[-1]["step"] if self._index else -1

    def _refuse_unknown_rows(self) -> None:
        """A run that starts anew in a folder with snapshots would mix two runs."""
        if self._step <= self._last_step():
            raise ValueError(
                f"{self.folder} holds {len(self._index)} snapshots up to step {self._last_step()}, and this run is at "
                f"step {self._step}; to resume, load the tracker's state_dict or set tracker.step; to start anew, give "
                "overwrite=True or another folder"
            )

    def _of_optimizers(self) -> dict[str, Any]:
        """What a snapshot says of the optimizers as they are now."""
        groups = [(optimizer, group) for optimizer in self._optimizers for group in optimizer.param_groups]
        return {
            "learning_rates": [float(group["lr"]) for _, group in groups if "lr" in group],
            "optimizers": [type(optimizer).__name__ for optimizer in self._optimizers],
            "edge": _edge(*groups[0]) if len(groups) == 1 and not self._perturbed else None,
        }

    def _write(
        self, step: int, rows: dict[str, Tensor], state: Mapping[str, Tensor], of_optimizers: Mapping[str, Any]
    ) -> None:
        has = sorted(rows)
        for name in ROWS:
            if name in self._record and name not in rows:
                rows[name] = torch.full((self._recorder.size,), torch.nan, dtype=self._recorder.dtype)
        line = {"step": step, "has": has, **of_optimizers}
        assert self._writer is not None
        try:
            self._recorder.write(self._writer, line, rows, state if "buffers" in self._record else {})
        except OSError as error:
            # Hours of training are worth more than the snapshots that are still to come.
            self._failed = f"{self.folder}: {error.strerror or error}"
            self._recorder.forget()
            warnings.warn(
                f"{self._failed}; the snapshot of step {step} was not recorded and no later one will be, and the "
                f"{len(self._index)} before it are safe; training goes on",
                TrackerWarning,
                stacklevel=2,
            )

    # Disk

    @property
    def bytes_per_snapshot(self) -> int:
        """Bytes of disk that a snapshot takes, buffers that change apart."""
        rows = sum(name in self._record for name in ROWS)
        return rows * self._recorder.size * self._recorder.dtype.itemsize

    def _announce(self) -> None:
        if self._quiet or not self._writes:
            return
        self._quiet = True
        free = shutil.disk_usage(self.folder).free
        size = self.bytes_per_snapshot
        message = (
            f"eigendrift: a snapshot of {self._recorder.size} parameters takes {_bytes(size)} in {self.folder}; "
            f"{_bytes(free)} are free, enough for {free // max(size, 1)}"
        )
        print(message, file=sys.stderr)

    # Afterwards

    @property
    def trajectory(self) -> Trajectory:
        """What has been recorded so far."""
        return Trajectory(self.folder)

    def solve(self, hessian: Any, k: int = 3, tol: float = 1e-3, **options: Any) -> "Track":
        """Eigenpairs at the recorded snapshots; see `eigendrift.tracking.solve.solve`.

        Args:
            hessian: A HessianOperator of the model, or a function of no arguments that makes one. It is moved to each
                snapshot; the model itself stays as it is.
            k: Number of eigenpairs.
            tol: Relative residual norm.
            options: Passed on to `solve`.

        Returns:
            The eigenpairs and their statistics.

        Raises:
            ValueError: The operator is one of other parameters.
        """
        from eigendrift.tracking.solve import solve

        return solve(self.folder, hessian, k, tol, **options)


def _inline(folder: Path, hessian: Any, k: int, tol: float, log: Any) -> "Inline":
    from eigendrift.tracking.solve import Inline  # a second to import, and only needed here

    return Inline(folder, hessian, k, tol, log)


def _schedule(every: int | None, at: Iterable[int] | Callable[[int], bool] | None) -> Callable[[int], bool]:
    if every is not None and at is not None:
        raise ValueError("give every or at, not both")
    if every is None and at is None:
        raise ValueError("give every=, the steps between snapshots, or at=, their steps")
    if every is not None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every = {every!r} is not allowed; give a whole number of steps, at least 1")
        return lambda step: step % every == 0
    if callable(at):
        return at
    assert at is not None
    steps = list(at)
    odd = [step for step in steps if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 0]
    if odd or not steps:
        raise ValueError(f"at holds {odd[0]!r}" if odd else "at is empty" + "; give whole numbers of steps, at least 0")
    return frozenset(map(int, steps)).__contains__


def _torch_optimizer(given: Any) -> tuple[Optimizer, bool]:
    """The optimizer of torch within one, and whether its steps use the gradient of another point."""
    wrapped = type(given).__module__.split(".")[0] in (
        "accelerate",
        "lightning",
        "pytorch_lightning",
        "lightning_fabric",
    )
    inner = getattr(given, "optimizer", None)
    if wrapped and isinstance(inner, Optimizer):
        return _torch_optimizer(inner)
    base = getattr(given, "base_optimizer", None)
    if isinstance(base, Optimizer):
        return base, True
    names = {kind.__name__ for kind in type(given).__mro__}
    if names & set(_SHARDING) or type(given).__module__.startswith("deepspeed"):
        raise ValueError(
            f"optimizer {type(given).__name__} keeps its parameters in shards; {BY_HAND} with full vectors"
        )
    if not isinstance(given, Optimizer):
        raise ValueError(f"optimizer is {type(given).__name__}, expected a torch.optim.Optimizer; {BY_HAND}")
    return given, False


def _edge(optimizer: Optimizer, group: Mapping[str, Any]) -> float | None:
    """The largest curvature at which the optimizer's steps are stable, where it is a function of the Hessian."""
    if type(optimizer) is not torch.optim.SGD or group.get("maximize"):
        return None
    try:
        names = ("momentum", "nesterov", "dampening", "weight_decay")
        return sgd_edge(float(group["lr"]), **{name: group[name] for name in names})
    except ValueError:  # a learning rate of 0, as at the start of a warm-up
        return None


def _plain(meta: Mapping[str, Any]) -> dict[str, Any]:
    import json

    try:
        found: dict[str, Any] = json.loads(json.dumps(dict(meta)))
    except TypeError as error:
        raise ValueError(f"meta holds what JSON cannot: {error}") from None
    return found


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
