"""A caller's model and loss as a function of parameters and a batch, evaluated without a change to either.

The module's parameters and buffers are replaced by the operator's own during an evaluation. Whatever a forward pass
writes to buffers, attributes, random generators or gradients is undone. Inside, torch uses the kernels that can be
differentiated twice.
"""

# ruff: noqa: NPY002 (a model may draw from NumPy's old generator)

import copy
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from eigendrift.fully_connected import Network, read_network
from eigendrift.hessian.batches import Batch, moved, tensors_in
from eigendrift.hessian.fast_operations import FastOperations
from eigendrift.hessian.mixed_precision import multiplying_in

# The loss of a batch by a module.
BatchLoss = Callable[[nn.Module, Batch], Tensor]
State = dict[str, Tensor]

_NARROW = (torch.float16, torch.bfloat16)
_CASTS = (Tensor.float, Tensor.half, Tensor.bfloat16)


class Evaluation:
    """Losses of batches at any point, in any type.

    `source` is the caller's module. `module` is the one that is evaluated: a copy, which later changes of the caller's
    module do not reach, or the caller's module itself where the loss refers to it.
    """

    def __init__(
        self, model: nn.Module, loss: Any, batch_loss: Callable[[Any], BatchLoss], device: torch.device
    ) -> None:
        self.source, self._given, self._batch_loss, self.device = model, loss, batch_loss, device
        self.module, self.loss, self.remembered = _copied(model, loss)
        self._prepare()

    def forget(self) -> None:
        """Make plain tensors of those that stand for what the module keeps of an earlier forward pass."""
        for module, _ in self._modes:
            for value in vars(module).values():
                for tensor in tensors_in(value):
                    if tensor.grad_fn is not None and not tensor._is_view():
                        tensor.detach_()
        self.remembered = []

    def use_callers(self) -> None:
        """Evaluate the caller's own module, as it is now: the loss refers to it."""
        self.module, self.loss, self.remembered = self.source, self._given, []
        self._prepare()

    @property
    def batch_loss(self) -> BatchLoss:
        """The loss of a batch by the module that is evaluated."""
        return self._batch_loss(self.loss)

    def with_loss(self, batch_loss: Callable[[Any], BatchLoss]) -> "Evaluation":
        """The same module with another loss of a batch, made of the same loss."""
        other = copy.copy(self)
        other._batch_loss = batch_loss
        return other

    def _prepare(self) -> None:
        self._substituted = _Substituted(self.module)
        modules = list(self.module.modules())
        self._modes = [(m, m.training) for m in modules]
        self._structure = _structure(modules)
        self._recurrent = any(isinstance(m, nn.RNNBase) for m in modules)
        # Side effects of a forward pass that were seen: it writes into its inputs, into its buffers, draws at random.
        self.changes_inputs = self.changes_state = self.drew = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._structure = _structure([m for m, _ in self._modes])

    def __call__(self, state: State, batch: Batch, dtype: torch.dtype) -> Tensor:
        """The loss of a batch at this state, one number with its graph; all floating-point tensors are in `dtype`."""
        value = self.apply(self.batch_loss, state, batch, dtype)
        if not isinstance(value, Tensor):
            raise ValueError(f"the loss is {type(value).__name__}, expected a tensor with one number")
        if value.numel() != 1:
            raise ValueError(
                f"the loss has shape {tuple(value.shape)}, expected one number; take its mean (reduction='mean') or sum"
            )
        if value.is_complex():
            raise ValueError("the loss is complex, expected a real number")
        return value.reshape(())

    def apply(self, function: Callable[[nn.Module, Batch], Any], state: State, batch: Batch, dtype: torch.dtype) -> Any:
        """function(module, batch) with the module at this state."""
        if self.module is self.source and self._structure != _structure(list(self.module.modules())):
            raise ValueError("the model's modules have changed since the operator was made; make a new one")
        with self.working(dtype):
            batch = moved(batch, self.device, dtype, self.changes_inputs)
            if self.changes_state:
                state = {name: tensor.clone() for name, tensor in state.items()}
            with self._undone():
                before = _fingerprint(self.device)
                found = self._substituted.call(function, state, batch)
                self.drew = before != _fingerprint(self.device)
                return found

    @contextmanager
    def working(self, dtype: torch.dtype) -> Iterator[None]:
        """Set torch up for an evaluation in `dtype` and its derivatives, whatever is set outside."""
        with ExitStack() as stack:
            enter = stack.enter_context
            enter(full_precision(self.device))
            enter(torch.enable_grad())
            # The other kernels of attention have no second derivative, and the fast path of encoders has not even a
            # first.
            enter(sdpa_kernel(SDPBackend.MATH))
            if torch.backends.mha.get_fastpath_enabled():
                torch.backends.mha.set_fastpath_enabled(False)
                stack.callback(torch.backends.mha.set_fastpath_enabled, True)
            if self._recurrent:
                # The recurrent networks of cuDNN and oneDNN have no second derivative either. The contexts of
                # torch.backends are not used, since they set precisions too.
                stack.callback(torch._C._set_cudnn_enabled, torch._C._get_cudnn_enabled())
                stack.callback(torch._C._set_mkldnn_enabled, torch._C._get_mkldnn_enabled())
                torch._C._set_cudnn_enabled(False)
                torch._C._set_mkldnn_enabled(False)
            enter(_with_replacements())
            if "torch._dynamo" in sys.modules:
                enter(torch.compiler.set_stance("force_eager"))
            enter(random_states_kept(self.device))
            if torch.get_default_device().type != self.device.type:
                enter(self.device)
            enter(FastOperations())
            if self.widens(dtype):
                if torch.get_default_dtype() != dtype:
                    stack.callback(torch.set_default_dtype, torch.get_default_dtype())
                    torch.set_default_dtype(dtype)
                enter(_InType(dtype))
            yield

    def widens(self, dtype: torch.dtype) -> bool:
        """Whether an evaluation in `dtype` computes in a wider type than the module has."""
        return any(
            t.is_floating_point() and t.dtype != dtype for t in (*self.source.parameters(), *self.source.buffers())
        )

    def network(self) -> Network | None:
        """The fully connected network that the module is, None for any other; its layers share its parameters."""
        with self._undone(), random_states_kept(self.device):
            return read_network(self.module)

    @contextmanager
    def _undone(self) -> Iterator[None]:
        """Restore attributes of the modules and their training modes afterwards; inside, sparse gradients are off."""
        if isinstance(self.module, torch.jit.ScriptModule):
            yield
            return
        # A hook may add a module, and a forward pass an attribute: all present attributes are restored.
        before = [(m, dict(vars(m))) for m, _ in self._modes]
        try:
            for m, training in self._modes:
                m.training = training
                if isinstance(m, nn.Embedding | nn.EmbeddingBag):
                    m.sparse = False
            yield
        finally:
            for m, attributes in before:
                if any(vars(m).get(name, m) is not value for name, value in attributes.items()) or len(vars(m)) != len(
                    attributes
                ):
                    vars(m).clear()
                    vars(m).update(attributes)


class _Direct:
    """Replacement for torch's checkpoints: the function is called, and keeps the tensors that its derivatives need."""

    @staticmethod
    def apply(function: Callable[..., Any], _: bool, *args: Any) -> Any:
        return function(*args)

    @staticmethod
    def generator(function: Any, *args: Any, **kwargs: Any) -> Iterator[None]:
        yield


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Weight normalization by operations whose second derivatives are right; that of torch's own kernel is not."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _enter_autocast(self: torch.autocast) -> Any:
    """Enter a context of the model's own, without its rounding; other threads are as they were."""
    enabled = self._enabled
    self._enabled = enabled and not getattr(_EVALUATING, "depth", 0)
    try:
        return _BEFORE[torch.autocast, "__enter__"](self)
    finally:
        self._enabled = enabled


# Owner, name, and what stands in its place. An activation checkpoint would recompute when the module has its own
# parameters back.
_REPLACED: tuple[tuple[Any, str, Any], ...] = (
    (torch.utils.checkpoint, "CheckpointFunction", _Direct),
    (torch.utils.checkpoint, "_checkpoint_without_reentrant_generator", _Direct.generator),
    (torch.utils.checkpoint, "_checkpoint_without_reentrant_generator_impl", _Direct.generator),
    (torch, "_weight_norm", _weight_norm),
    (sys.modules["torch.nn.utils.weight_norm"], "_weight_norm", _weight_norm),
    (torch.autocast, "__enter__", _enter_autocast),
)
# The functions that are replaced, while an evaluation runs on any thread; how many run, and how many on this thread.
_BEFORE: dict[tuple[Any, str], Any] = {}
_RUNNING = [0]
_LOCK = threading.Lock()
_EVALUATING = threading.local()


@contextmanager
def _with_replacements() -> Iterator[None]:
    """Replace functions of torch that have no right second derivative, or that round."""
    with _LOCK:
        _RUNNING[0] += 1
        if _RUNNING[0] == 1:
            for owner, name, own in _REPLACED:
                if hasattr(owner, name):
                    _BEFORE[owner, name] = getattr(owner, name)
                    setattr(owner, name, own)
    _EVALUATING.depth = getattr(_EVALUATING, "depth", 0) + 1
    try:
        yield
    finally:
        _EVALUATING.depth -= 1
        with _LOCK:
            _RUNNING[0] -= 1
            if _RUNNING[0] == 0:
                # The last thread to leave restores all of them; another one may still call what it has found.
                for (owner, name), value in _BEFORE.items():
                    setattr(owner, name, value)


class _Substituted(nn.Module):
    """Substitutes parameters and buffers of its module while a function uses it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def call(self, function: Callable[[nn.Module, Batch], Any], state: State, batch: Batch) -> Any:
        substitutes = {f"module.{name}": tensor for name, tensor in state.items()}
        return torch.func.functional_call(self, substitutes, (function, batch))

    def forward(self, function: Callable[[nn.Module, Batch], Any], batch: Batch) -> Any:
        return function(self.module, batch)


class _InType(TorchFunctionMode):
    """Computes in one floating-point type: narrower tensors are widened, and casts to a narrower type are ignored."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.narrow = (*_NARROW, torch.float32) if dtype == torch.float64 else _NARROW

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__"):
            return func(*args, **kwargs)
        if func in _CASTS:
            return args[0].to(self.dtype)
        in_place = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
        first = args[:1] if in_place else self._wide(args[:1])
        return self._wide(func(*first, *self._wide(args[1:]), **self._wide(kwargs)))

    def _wide(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(self.dtype) if value.dtype in self.narrow else value
        if isinstance(value, torch.dtype):
            return self.dtype if value in self.narrow else value
        if type(value) in (tuple, list):
            return type(value)(self._wide(each) for each in value)
        if type(value) is dict:
            return {key: self._wide(each) for key, each in value.items()}
        return value


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute products in the types of the tensors, without autocast and TF32; tensors can be differentiated."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        for kind in {"cpu", device.type}:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(multiplying_in("float32"))
        yield


@contextmanager
def random_states_kept(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Restore the generators of torch, NumPy and Python afterwards; inside they start from `seed`, if it is given."""
    ours, theirs, pythons = torch.get_rng_state(), np.random.get_state(), random.getstate()
    on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        if seed is not None:
            torch.default_generator.manual_seed(seed)
            if on_gpu is not None:
                torch.cuda.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
        yield
    finally:
        torch.set_rng_state(ours)
        np.random.set_state(theirs)
        random.setstate(pythons)
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu, device)


def _fingerprint(device: torch.device) -> tuple[Any, ...]:
    """The states of all generators: they differ if a number was drawn."""
    name, keys, position, has, cached = np.random.get_state()
    on_gpu = torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else b""
    ours = torch.get_rng_state().numpy().tobytes()
    return ours, on_gpu, name, np.asarray(keys).tobytes(), position, has, cached, random.getstate()


# Parts of torch's messages where it cannot differentiate twice, and the remedy.
_REMEDIES = (
    ("once_differentiable", "a custom autograd.Function of the model is marked once_differentiable"),
    ("derivative for", "torch has no second derivative of an operation of the model"),
    ("double backward", "torch has no second derivative of an operation of the model"),
    ("does not have a derivative", "torch has no derivative of an operation of the model"),
    ("parse", "the model asks for sparse gradients, which have no second derivative; set sparse=False"),
)
BY_DIFFERENCES = "method='finite_difference' needs no second derivatives"


@contextmanager
def explained(doing: str, otherwise: str = BY_DIFFERENCES) -> Iterator[None]:
    """Turn an error of the model, the loss or torch into one line that names the remedy.

    `otherwise`: what serves a model that cannot be differentiated twice.

    Raises:
        ValueError: Any error inside, except exhausted memory.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError, TypeError, IndexError, AttributeError, KeyError) as error:
        text = " ".join(str(error).split())
        if "not enough memory" in text:
            raise
        for sign, remedy in _REMEDIES:
            if sign in text:
                raise ValueError(f"{remedy}; {otherwise} ({text[:300]})") from error
        raise ValueError(f"{doing} failed: {type(error).__name__}: {text[:400]}") from error


def _copied(model: nn.Module, loss: Any) -> tuple[nn.Module, Any, list[Tensor]]:
    """A copy of the module, and of the loss where it is one, that share their parameters and buffers with it.

    Tensors of an earlier forward pass cannot be copied with their graph. The third is the leaves of which the tensors
    in their place are made, so that it shows whether a loss depends on them.
    """
    remembered: list[Tensor] = []

    def stand_in(tensor: Tensor) -> Tensor:
        remembered.append(tensor.detach().requires_grad_())
        return remembered[-1].clone()

    memo: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    modules = list(model.modules()) if not isinstance(model, torch.jit.ScriptModule) else []
    for module in modules:
        for name, value in vars(module).items():
            if name.endswith("_hooks"):
                # The owner of a hook, such as a trainer, is no part of the model.
                owners = [getattr(hook, "__self__", None) for hook in value.values()] if value else []
                memo.update({id(owner): owner for owner in owners if not isinstance(owner, nn.Module)})
            else:
                with torch.enable_grad():
                    memo.update({id(t): stand_in(t) for t in tensors_in(value) if t.grad_fn is not None})
    try:
        copied = copy.deepcopy(model, memo)
        return copied, copy.deepcopy(loss, memo) if isinstance(loss, nn.Module) else loss, remembered
    except Exception:  # A copy may fail with any error; then the caller's own module is used.
        return model, loss, []


def _structure(modules: list[nn.Module]) -> list[Any]:
    """The modules and the plain values among their attributes: they differ if a module may compute something else."""
    plain = (bool, int, float, str, type(None))
    return [
        (id(m), {k: v for k, v in vars(m).items() if type(v) in plain and k != "training"}, _hooks(m)) for m in modules
    ]


def _hooks(module: nn.Module) -> list[int]:
    return [len(v) for k, v in vars(module).items() if k.endswith("_hooks") and hasattr(v, "__len__")]
