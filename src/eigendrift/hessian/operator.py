"""The exact Hessian of a loss over a full data set, as an operator."""

import copy
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eigendrift.algebra import SymmetricOperator
from eigendrift.fully_connected import Network
from eigendrift.hessian.autograd import GRAPH_BYTES, DifferenceHessian, FunctionalHessian
from eigendrift.hessian.batches import Batch, cut_in_two, few_of, tensors_in
from eigendrift.hessian.chosen_parameters import Choice, Layout, beneath, chosen
from eigendrift.hessian.evaluation import Evaluation, State, full_precision
from eigendrift.hessian.loss_data import (
    FIXED_DATA,
    ROWS,
    BatchChunks,
    Combination,
    PairLoss,
    TensorChunks,
    as_tensor,
    batch_loss_itself,
    combination,
    ignored_index,
    is_plain_cross_entropy,
    samples_in,
    takes_outputs,
    whole_tensors,
)
from eigendrift.hessian.mlp import MLPHessian
from eigendrift.hessian.parts import Parts, parts_of, share_of
from eigendrift.hessian.self_checks import FEW, SOME, Checks
from eigendrift.hessian.surrogate import SurrogateHessian, shared_surrogate, surrogate_bytes, surrogate_of
from eigendrift.operators import Operator
from eigendrift.ranks import Ranks, on_every_rank, together

METHODS = ("autograd", "finite_difference")
# Number of batches of a loader that are checked in parts.
LOOKED_AT = 4


class HessianOperator(SymmetricOperator):
    """The exact Hessian H(theta) of a loss over all samples, with respect to the trained parameters.

    A vector (N,) has the entries of the parameters in the order of model.parameters(). Products are exact to the
    rounding of `dtype`; nothing is sampled. A fully connected network with plain mean cross-entropy takes an analytic
    path; autograd differentiates every other module and loss.

    The operator stays at the point where it was made, with parameters, buffers and training modes of its own, and never
    writes into the model. When the model has changed since then, a product raises ValueError: `refresh()` takes the
    model's present point, and `move_to(theta)` any other point, after which the model may change freely.

    A shared parameter counts once. A parameter that the loss does not use has zeros, and so has the padding row of an
    embedding, which torch never trains. Autocast is off in products.

    Attributes:
        shape: (N, N).
        dtype: The NumPy type of products, float32 for models in float16 and bfloat16; `torch_dtype` is torch's.
        device: The device of vectors and products, that of the model.
        model: The model as it was given.
        products: Number of vectors multiplied since the operator was made.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> inputs, targets = torch.randn(20, 3), torch.randint(2, (20,))
        >>> H = HessianOperator(model, nn.CrossEntropyLoss(), inputs, targets)
        >>> H.shape
        (8, 8)
        >>> (H @ torch.ones(8)).shape
        torch.Size([8])
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Tensor],
        inputs: Tensor | np.ndarray | None = None,
        targets: Tensor | np.ndarray | None = None,
        *,
        data: Any = None,
        params: Choice | None = None,
        rows: int | None = None,
        reduction: str | None = None,
        size: Callable[[Batch], float] | None = None,
        method: str = "autograd",
        distributed: Any = False,
        graph_bytes: int = GRAPH_BYTES,
    ) -> None:
        """Make the operator at the model's present point.

        Args:
            model: Any module. A compiled or data-parallel module stands for the module that it wraps.
            loss: loss(outputs, targets), a mean or a sum over samples. With `data`: a torch loss of the pairs (inputs,
                targets) that the data yield, or any function loss(model, batch).
            inputs: Tensor or array (n, ...), the whole data set.
            targets: Tensor or array (n, ...).
            data: In place of inputs and targets, a Dataset, a DataLoader, or a list of batches.
            params: The parameters of the Hessian, by default those with requires_grad: a glob or names, a compiled
                regular expression, a predicate of (name, parameter), or a list of parameters.
            rows: Number of samples that are differentiated at once, by default 512. It affects memory and speed only
                if the loss is a mean over samples; give rows=len(inputs) for any other loss.
            reduction: "mean" or "sum", where the loss itself does not state how the losses of chunks combine.
            size: size(batch), the number that the mean over a batch divides by, where it is neither the number of
                samples nor the divisor of one of torch's own losses. The batch is (inputs, targets), or what `data`
                yields.
            method: "autograd", or "finite_difference" for models that cannot be differentiated twice: an estimate,
                whose relative error is in `product_error`.
            distributed: True where each rank of torch.distributed gives its own part of the data, of any size, or none
                (an empty tensor or list); or a process group. The model is the same on all ranks, and so are the
                vectors of products. Every rank makes the same calls, and gets the Hessian of all data.
            graph_bytes: Largest memory, in bytes, of the graphs that autograd keeps from product to product, by default
                2 GiB: three quarters for the operator and the rest for its surrogate. Samples beyond it are
                differentiated anew at every product, which takes up to twice the time; 0 keeps nothing. The graph of
                one chunk of `rows` samples, the data and the vectors come on top, and the float64 form has as much
                again.

        Raises:
            ValueError: An argument has another type or form; a value is not finite; the model draws random numbers; the
                losses of chunks do not add up to the loss (the message has both numbers); autograd does not see a
                derivative; or something that has to be the same on all ranks is not.
            RuntimeError: Another rank has failed, has ended, or was not reached within the process group's timeout.
        """
        self.ranks = Ranks(distributed, _device_of(model)) if distributed is not False else None
        with together(self.ranks, "HessianOperator of a model") as same:
            if not isinstance(model, nn.Module):
                raise ValueError(f"model is {type(model).__name__}, expected a torch.nn.Module")
            if not callable(loss):
                raise ValueError(f"loss is {type(loss).__name__}, expected a module or a function")
            if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 1):
                raise ValueError(f"rows = {rows!r} is not allowed; give a whole number of samples, at least 1")
            if isinstance(graph_bytes, bool) or not isinstance(graph_bytes, int) or graph_bytes < 0:
                raise ValueError(
                    f"graph_bytes = {graph_bytes!r} is not allowed; give a whole number of bytes, 0 or more"
                )
            self._graph_bytes = graph_bytes
            if method not in METHODS:
                raise ValueError(f"method = {method!r} is not allowed; give one of {', '.join(METHODS)}")
            self.model = model
            self._source = beneath(model)
            self.names = chosen(self._source, params)
            self._every_name = [name for name, _ in self._source.named_parameters()]
            self.torch_dtype, self.device = _type_and_device(self._source)
            self.products = 0
            self._moves = 0
            self._follows = True
            self._parent: HessianOperator | None = None
            self._double: HessianOperator | None = None
            with full_precision(self.device):
                self._state = self._models_state()
                self._check_finite()
            self._layout = Layout({name: self._state[name] for name in self.names})
            self.shape = (self._layout.size, self._layout.size)
            self._watched: list[tuple[Any, int]] = []
            self.path: MLPHessian | FunctionalHessian
            same.update({**self._state, "the choice of parameters": self.names, "method": method})
            same.update({"the kind of loss": (type(loss).__name__, reduction, size is None)})
            if isinstance(loss, nn.Module):
                same.update({f"the loss's {name}": t for name, t in loss.state_dict().items()})
        with full_precision(self.device):
            with together(self.ranks, "HessianOperator of data"):
                chunks = self._chunks(inputs, targets, data, rows, loss)
                combined = self._combination(chunks, loss, reduction, size)
            parts = parts_of(self.ranks, chunks, combined)
            with together(self.ranks, "HessianOperator"):
                stated = reduction is not None or size is not None
                self._make_path(loss, parts, combined, stated, size is not None, rows, method)
        if self.ranks is not None:
            weight = self.path.total
            self._share = share_of(self.ranks, parts, combined, weight, self.path.loss)
        if not math.isfinite(self.loss):
            raise ValueError(f"the loss is {self.loss} at the model's parameters, expected a finite number")

    def _chunks(self, inputs: Any, targets: Any, data: Any, rows: int | None, loss: Any) -> TensorChunks | BatchChunks:
        if (inputs is None) != (targets is None) or (inputs is None) == (data is None):
            given = "inputs without targets: a Dataset or a DataLoader is given as data=" if data is None else "both"
            raise ValueError(f"give inputs and targets as tensors, or data=; got {given}")
        if data is not None:
            pair = whole_tensors(data) if takes_outputs(loss) else None
            if pair is None:
                if isinstance(data, tuple):
                    raise ValueError("data is a tuple; give inputs and targets by themselves, or a list of batches")
                batches = BatchChunks(data, rows or ROWS, self.device, self.ranks is not None)
                if isinstance(batches.data, list):
                    self._watch(*tensors_in(batches.data))
                return batches
            inputs, targets = pair
        x, y = as_tensor(inputs, "inputs"), as_tensor(targets, "targets")
        if len(x) != len(y) or (len(x) == 0 and self.ranks is None):
            raise ValueError(f"{len(x)} inputs and {len(y)} targets; give as many of one as of the other, at least one")
        self._watch(inputs, targets)
        x = _usual(x, self.device, self.torch_dtype)
        y = _usual(y, self.device, self.torch_dtype)
        if not y.is_floating_point() and y.dtype != torch.bool:
            y = y.long()
        # Only the extremes are tested, which NaN propagates into: isfinite would take as much memory as the data.
        for t, name in ((x, "an input"), (y, "a target")):
            if t.is_floating_point() and t.numel() and not bool(torch.isfinite(torch.stack(t.aminmax())).all()):
                raise ValueError(f"{name} is not finite")
        return TensorChunks(x, y, rows or ROWS)

    def _combination(self, chunks: Any, loss: Any, reduction: str | None, size: Any) -> Combination:
        combined = combination(loss, reduction, size)
        pairs = isinstance(chunks, TensorChunks) or takes_outputs(loss)
        if not pairs and not combined.known and size is None and reduction is None:
            combined = combination(lambda: None, None, samples_in)
        return combined

    def _watch(self, *tensors: Any) -> None:
        self._watched = [(weakref.ref(t), t._version) for t in tensors if _counts_changes(t)]

    def _make_path(
        self,
        loss: Any,
        parts: Parts,
        combined: Combination,
        stated: bool,
        trusted: bool,
        rows: int | None,
        method: str,
    ) -> None:
        chunks, across = parts.chunks, len(parts.samples) > 1
        pairs = isinstance(chunks, TensorChunks) or takes_outputs(loss)
        evaluation = Evaluation(self._source, loss, PairLoss if pairs else batch_loss_itself, self.device)
        if isinstance(chunks, TensorChunks) and not stated and method == "autograd":
            found = self._analytic(loss, chunks, rows, evaluation)
            # All ranks have the same forms of the operator.
            everywhere = self.ranks is None or all(self.ranks.gather(found is not None, "the analytic path"))
            if found is not None and everywhere:
                self.path = found
                return
        twice, kind = method == "autograd", self._kind(method)
        checks = self._checks_kind(evaluation, self._state, self.names, combined, self.torch_dtype, kind)
        if isinstance(chunks, TensorChunks):
            several = len(chunks) > 1 or across
            # Enough samples that not every target is one that the loss ignores.
            looks = (chunks.some(count) for count in (FEW, 8 * FEW, 64 * FEW, len(chunks.inputs)))
            few = next((look for look in looks if combined.weight(look) > 0), None)
            if few is None:
                combined.total(0.0)
            checks.everything(few, cut_in_two(chunks.some(SOME)) if several else [], twice)
            if several and not combined.known:
                checks.outputs(chunks, self._state, self.torch_dtype)
        else:
            self._check_batches(checks, chunks, twice, trusted)
        if across and not trusted and not checks.parts(parts.samples, twice) and combined.reduction == "mean":
            checks.neighbours(parts.samples, twice)
        self._state = {n: t.to(self._state[n].dtype) for n, t in checks.state.items()}
        data = chunks.data if isinstance(chunks, BatchChunks) and isinstance(chunks.data, list) else chunks
        own_bytes = self._graph_bytes - surrogate_bytes(self._graph_bytes)
        self.path = kind(evaluation, data, combined, self._state, self.names, self.torch_dtype, own_bytes)
        if isinstance(data, BatchChunks):
            self._check_same_data(data)

    # The checks of products along a path.
    _checks_kind: type[Checks] = Checks

    def _kind(self, method: str) -> type[FunctionalHessian]:
        """The path of models that have no analytic one."""
        return FunctionalHessian if method == "autograd" else DifferenceHessian

    def _check_batches(self, checks: Checks, chunks: BatchChunks, twice: bool, trusted: bool) -> None:
        looked_at: list[Batch] = []
        for count, batch in enumerate(chunks):
            if len(looked_at) < LOOKED_AT:
                looked_at.append(batch)
            if count > LOOKED_AT and not isinstance(chunks.data, Sequence):
                break
        last = chunks.data[-1] if isinstance(chunks.data, Sequence) else looked_at[-1]
        looks = [few_of(batch, FEW) for batch in looked_at] + looked_at
        checks.everything(next((b for b in looks if checks.combination.weight(b) > 0), looks[0]), [], twice)
        if len(looked_at) > 1 and not trusted:
            cut = [cut_in_two(few_of(batch, SOME)) for batch in [*looked_at, last]]
            checked = [checks.parts(parts, twice) for parts in cut if len(parts) > 1]
            if not any(checked) and checks.combination.reduction == "mean":
                checks.neighbours(looked_at, twice)

    def _check_same_data(self, chunks: BatchChunks) -> None:
        """Compare the loss with that of a second pass, for which the random generators are in another state.

        Raises:
            ValueError: The two differ.
        """
        assert isinstance(self.path, FunctionalHessian)
        first, content, chunks.seed = self.path.loss, chunks.last_content, 1
        terms = []
        weights = 0.0
        for batch in chunks:
            weight = self.path.combination.weight(batch)
            weights += weight
            if weight:
                terms.append(weight * self.path._chunk_loss(batch))
        chunks.seed = 0
        second = math.fsum(terms) / self.path.combination.total(weights)
        if not abs(first - second) <= 1e-5 * max(abs(first), abs(second)):
            raise ValueError(
                f"data is not the same at each pass: the loss is {first:.9g} at the first and {second:.9g} at the "
                f"second; {FIXED_DATA}"
            )
        # Batches that are padded to their longest sample differ with their order, although their loss does not.
        chunks.content = chunks.last_content if chunks.last_content == content else None

    def _analytic(self, loss: Any, chunks: TensorChunks, rows: int | None, evaluation: Evaluation) -> MLPHessian | None:
        """The analytic path for a plain fully connected network with plain cross-entropy, None for anything else."""
        x, y, ignored = chunks.inputs, chunks.targets, ignored_index(loss)
        if not is_plain_cross_entropy(loss) or y.ndim != 1 or y.dtype != torch.int64 or self._source_is_narrow():
            return None
        network = evaluation.network()
        if (
            network is None
            or (x.ndim != 2 and not network.flattens)
            or network.linear[0].weight.dtype != self.torch_dtype
        ):
            return None
        x = x.to(self.torch_dtype).flatten(1)
        if x.shape[1] != network.linear[0].in_features or (ignored is not None and bool(torch.eq(y, ignored).any())):
            return None
        classes = network.linear[-1].out_features
        wrong = y[(y < 0) | (y >= classes)]
        if len(wrong):
            raise ValueError(f"target {int(wrong[0])} is not a class; the model has {classes} outputs")
        few = chunks.some(FEW)
        if not chunks.inputs.is_floating_point():
            few = few[0].to(self.torch_dtype), few[1]
        if not self._agrees(network, few, evaluation, loss):
            return None
        self._whole = self._chosen_entries()
        return MLPHessian(*_own_layers(network), x, y, rows)

    def _agrees(self, network: Network, few: Batch, evaluation: Evaluation, loss: Any) -> bool:
        """Whether the analytic path and autograd agree on a few samples, in float64.

        Their classes are other ones than the data's: rounding hides the derivatives of samples that are fitted well.
        """
        few = few[0], (few[1] + 1) % network.linear[-1].out_features
        checks = Checks(evaluation, self._state, self._every_name, combination(loss, None, None), self.torch_dtype)
        try:
            checks.probe(few)
            checks._widen(few)
            # The trace has seen only one branch of the computation.
            checks.randomness(few)
            general = checks.hessian([few])
        except ValueError:
            return False
        linear, activations = _own_layers(network)
        x = few[0].flatten(1)
        by_hand = MLPHessian([layer.to(checks.dtype) for layer in linear], activations, x.to(checks.dtype), few[1])
        vector = torch.linspace(-1, 1, by_hand.n_parameters, dtype=checks.dtype, device=self.device).cos()[None]
        known, found = general.product(vector), by_hand.product(vector)
        tolerance = 1e3 * checks.tolerance
        same = abs(general.loss - by_hand.loss) <= tolerance * abs(general.loss)
        gradients = general.gradient(), by_hand.gradient()
        return same and all(
            float((a - b).norm()) <= tolerance * float(a.norm() + gradients[0].norm())
            for a, b in ((known, found), gradients)
        )

    def _chosen_entries(self) -> Tensor | None:
        """Indices (N,) of the chosen entries among all entries of the network; None if all are chosen."""
        if self.names == self._every_name:
            return None
        whole = Layout({name: self._state[name] for name in self._every_name})
        wanted = [whole.slices[name] for name in self._layout.slices]
        return torch.cat([torch.arange(s.start, s.stop, device=self.device) for s in wanted])

    _whole: Tensor | None = None
    # Of the loss over all ranks: the factor of this rank's part, and the sum where it is known.
    _share = 1.0
    _loss: float | None = None

    def _source_is_narrow(self) -> bool:
        return any(p.dtype != self.torch_dtype for p in self._source.parameters())

    def _models_state(self) -> State:
        """The operator's own copies of the model's present parameters and buffers."""
        found = [*self._source.named_parameters(), *self._source.named_buffers()]
        return {name: _usual(t.detach().clone(), self.device, self.torch_dtype) for name, t in found}

    def _check_finite(self) -> None:
        for name, _ in self._source.named_parameters():
            if not math.isfinite(float(self._state[name].double().sum() if self._state[name].numel() else 0)):
                raise ValueError(f"a parameter is not finite: {name}")

    def _check_current(self) -> None:
        """Check that the data have not changed, nor the model unless `move_to` set another point.

        Raises:
            ValueError: The model or the data have changed.
        """
        if self._parent is not None:
            self._parent._check_current()
            self._follow()
            return
        for reference, version in self._watched:
            tensor = reference()
            if tensor is not None and tensor._version != version:
                raise ValueError("inputs or targets were changed in place since the operator was made; make a new one")
        if not self._follows:
            return
        found = dict([*self._source.named_parameters(), *self._source.named_buffers()])
        if found.keys() != self._state.keys():
            odd = sorted(found.keys() ^ self._state.keys())
            raise ValueError(f"the model's parameters or buffers are others since the operator was made: {odd[0]}")
        pairs = [(name, t.detach(), self._state[name]) for name, t in found.items()]
        if self.device.type == "cpu":
            changed = [name for name, a, b in pairs if not _same(a, b)]
        else:
            # One comparison for all tensors: each would wait for the device.
            every = torch.stack([torch.any(_differ(a, b)) for _, a, b in pairs])
            changed = [pairs[int(i)][0] for i in every.nonzero()[:, 0]] if bool(every.any()) else []
        if changed:
            raise ValueError(
                f"the model has changed since the operator was made ({changed[0]}); call refresh() to take its present "
                "parameters and buffers, or move_to(theta) to stay at a point of your own"
            )

    @property
    def uses_thread_pool(self) -> bool:
        """Whether products run on a pool of threads; the solver then keeps torch's own threads off the cores."""
        return self.device.type == "cpu" if isinstance(self.path, MLPHessian) else self.path.uses_thread_pool

    @property
    def loss(self) -> float:
        """The loss at the operator's point."""
        with together(None if self._loss is not None else self.ranks, "loss"):
            self._check_current()
        if self.ranks is None:
            return self.path.loss
        if self._loss is None:
            part = torch.tensor([self._share * self.path.loss if self._share else 0.0], dtype=torch.float64)
            self._loss = float(self.ranks.sum(part.to(self.device)))
        return self._loss

    @property
    def gradient(self) -> Tensor:
        """The gradient of the loss at the operator's point, (N,)."""
        return self._over_ranks(self._own_gradient())

    @on_every_rank
    def _own_gradient(self) -> Tensor:
        self._check_current()
        with full_precision(self.device):
            found = self.path.gradient()
        return found if self._whole is None else found[self._whole]

    def _over_ranks(self, part: Tensor) -> Tensor:
        """The sum over all ranks of what each has from its part of the data, times its share."""
        return part if self.ranks is None else self.ranks.sum(part * self._share)

    @property
    def point(self) -> Tensor:
        """The parameters where the operator is, as a vector (N,)."""
        return torch.cat([self._state[name].detach().reshape(-1) for name in self.names])

    @property
    def product_error(self) -> float:
        """Estimated error of the last finite-difference product, relative to it; 0.0 where products are exact."""
        return self.path.error if isinstance(self.path, DifferenceHessian) else 0.0

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The chosen parameters of the model, in the order of a vector's entries."""
        named = dict(self._source.named_parameters())
        return [named[name] for name in self.names]

    @property
    def parameter_slices(self) -> dict[str, slice]:
        """The entries of a vector (N,) that belong to each parameter, by its name."""
        return dict(self._layout.slices)

    def to_named(self, vector: Tensor | np.ndarray) -> dict[str, Tensor]:
        """Split a vector into tensors with the shapes of the parameters.

        Args:
            vector: (N,), or columns (N, b).

        Returns:
            A tensor for each parameter's name; the b columns are its last axis.

        Raises:
            ValueError: The vector has another shape.
        """
        return self._layout.to_named(torch.as_tensor(vector))

    def from_named(self, named: Mapping[str, Tensor]) -> Tensor:
        """Join tensors with the shapes of the parameters, the inverse of `to_named`.

        Args:
            named: A tensor for each parameter's name, all of them with the b columns as last axis, or none.

        Returns:
            The vector (N,), or columns (N, b).

        Raises:
            ValueError: Names or shapes are not those of the parameters.
        """
        return self._layout.from_named(named)

    @on_every_rank
    def move_to(self, parameters: Tensor | np.ndarray, state: Mapping[str, Tensor] | None = None) -> None:
        """Move the operator to another point; the model does not change, and the memory is used again.

        Args:
            parameters: The point, (N,).
            state: Values of buffers, and of parameters that were not chosen, by name. Those that are not given keep the
                values that they have in the operator.

        Raises:
            ValueError: The vector has another shape, or the model has no such buffer or parameter.
            TypeError: It is neither a tensor nor an array.
        """
        for name, value in (state or {}).items():
            known = self._state.get(name)
            if known is None or name in self.names or known.shape != value.shape:
                found = "nothing" if known is None or name in self.names else f"shape {tuple(known.shape)}"
                raise ValueError(f"state[{name!r}] has shape {tuple(value.shape)}; the model has {found} of this name")
        with full_precision(self.device):
            rows, _ = self._rows(parameters, "parameters")
            if rows.shape != (1, self.shape[0]) or np.ndim(parameters) != 1:
                raise ValueError(f"parameters have shape {tuple(parameters.shape)}, expected {self.shape[:1]}")
            named = self._layout.to_named(rows[0])
            parts = dict(zip(self.names, named.values(), strict=True))
            for name, part in (*parts.items(), *(state or {}).items()):
                self._state[name].copy_(part)
            self._go(self._state)
        self._follows = False

    def refresh(self) -> None:
        """Move to the model's present parameters and buffers, and check from then on that the model stays there.

        Raises:
            ValueError: The model has other parameters or buffers than when the operator was made, or one is not finite.
        """
        with together(self.ranks, "refresh") as same:
            self._refresh()
            same.update(self._state)

    def _refresh(self) -> None:
        if self._parent is not None:
            self._parent._refresh()
            self._follow()
            return
        with full_precision(self.device):
            state = self._models_state()
            if state.keys() != self._state.keys() or any(t.shape != self._state[n].shape for n, t in state.items()):
                raise ValueError("the model has other parameters or buffers than when the operator was made")
            self._state = state
            self._check_finite()
            self._go(state)
        self._follows = True

    def _go(self, state: State) -> None:
        self._moves += 1
        self._loss = None
        with full_precision(self.device):
            if isinstance(self.path, MLPHessian):
                # The layers are in the order of all parameters.
                self.path.move_to([state[name] for name in self._every_name])
            else:
                self.path.move_to([state[name] for name in self.names], state)

    @on_every_rank
    def with_float64_forward(self) -> "HessianOperator":
        """The same Hessian at the present point, in a form whose residuals can be certified below 1e-5.

        Returns:
            On the analytic path this operator, with the forward pass in float64 until the operator moves; on other
            paths `in_float64()`.

        Raises:
            ValueError: The model has changed since the operator was made.
        """
        if self.torch_dtype == torch.float64 or not isinstance(self.path, MLPHessian):
            return self.in_float64()
        self._check_current()
        with full_precision(self.device):
            self.path.refresh(torch.float64)
        return self

    @on_every_rank
    def in_float64(self) -> "HessianOperator":
        """The same Hessian in float64, for residuals that float32 products cannot reach.

        It is made at the first call, and has a copy of the point and, on the analytic path, of the data. On a CPU a
        solve to 1e-7 and above takes a fifth to a third less time with a mixed-precision surrogate.

        Returns:
            An operator that moves with this one.

        Raises:
            ValueError: The model has changed since the operator was made.
        """
        if self.torch_dtype == torch.float64:
            return self
        self._check_current()
        if self._double is None:
            with full_precision(self.device):
                double = object.__new__(type(self))
                vars(double).update(vars(self))
                double.torch_dtype, double.products, double._parent = torch.float64, 0, self
                double._state = _wide(self._state)
                double.path, double._loss = self.path.in_float64(), None
                self._double = double
        self._double._follow()
        return self._double

    def _follow(self) -> None:
        """Move to the point of the operator that this one is the float64 twin of."""
        parent = self._parent
        if parent is not None and self._moves != parent._moves:
            with full_precision(self.device):
                self._state = _wide(parent._state)
                self._go(self._state)
            self._moves = parent._moves

    def surrogate(self, seed: int = 0) -> Operator | None:
        """A cheaper operator near this one, with which `top_eigenpairs` preconditions its solve.

        Late in training few samples carry the curvature: the surrogate is the Hessian of weighted samples, drawn by
        their importance. On the analytic path on a GPU it is that of all samples in TF32.

        Args:
            seed: Seed of the random choice of samples.

        Returns:
            The surrogate; None where the samples are too few to save time, for another loss than cross-entropy, for
            data in batches of the caller's, and for outputs that are not one tensor with a row a sample.

        Raises:
            ValueError: The model has changed since the operator was made.
        """
        found = self._own_surrogate(seed)
        return found if self.ranks is None else shared_surrogate(self.ranks, self._share, found, self.path)

    @on_every_rank
    def _own_surrogate(self, seed: int) -> SurrogateHessian | None:
        self._check_current()
        with full_precision(self.device):
            return surrogate_of(self.path, seed, self._whole, surrogate_bytes(self._graph_bytes))

    def product(self, vectors: Tensor) -> Tensor:
        """H v for several vectors as rows, the form that the eigensolver uses.

        Args:
            vectors: (b, N), in the operator's type and on its device.

        Returns:
            The products, (b, N).

        Raises:
            ValueError: The model or the data have changed since the operator was made.
        """
        part = self._own_product(vectors)
        if self.ranks is not None and isinstance(self.path, DifferenceHessian):
            # The errors of the parts add up at most.
            sizes = self._share * self.path.error * torch.linalg.vector_norm(part, dim=1)
            whole = self._over_ranks(part)
            errors = self.ranks.sum(sizes) / torch.linalg.vector_norm(whole, dim=1)
            self.path.error = float(torch.nan_to_num(errors).max())
            return whole
        return self._over_ranks(part)

    @on_every_rank
    def _own_product(self, vectors: Tensor) -> Tensor:
        self._check_current()
        self.products += len(vectors)
        with full_precision(self.device):
            if vectors.is_inference() or vectors.requires_grad:
                vectors = vectors.detach().clone()
            if len(vectors) == 0:
                return torch.zeros_like(vectors)
            if self._whole is None:
                return self.path.product(vectors)
            whole = vectors.new_zeros(len(vectors), self.path.n_parameters)
            whole[:, self._whole] = vectors
            return self.path.product(whole)[:, self._whole]

    def __getstate__(self) -> dict[str, Any]:
        if self.ranks is not None:
            raise TypeError("an operator over the ranks of torch.distributed cannot be copied or pickled; make it anew")
        return {**vars(self), "_watched": []}


def _device_of(model: Any) -> torch.device:
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((p.device for p in parameters), torch.device("cpu"))


def _type_and_device(model: nn.Module) -> tuple[torch.dtype, torch.device]:
    kinds = {p.dtype for p in model.parameters()}
    devices = {p.device for p in model.parameters()}
    narrow = kinds <= {torch.float16, torch.bfloat16, torch.float32}
    if len(devices) > 1 or not (narrow or kinds == {torch.float64}):
        found = ", ".join(sorted({f"{p.dtype} on {p.device}" for p in model.parameters()}))
        raise ValueError(f"all parameters must be of one floating-point type and on one device; found {found}")
    device = next(iter(devices))
    if device.type == "meta":
        raise ValueError("the model's parameters are on the meta device, where they have no values")
    return torch.float32 if narrow else torch.float64, device


def _usual(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    if tensor.is_inference():
        tensor = tensor.clone()
    return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)


def _counts_changes(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.is_inference()


def _wide(state: State) -> State:
    return {name: t.detach().double() if t.is_floating_point() else t for name, t in state.items()}


def _same(a: Tensor, b: Tensor) -> bool:
    a = a.to(b.dtype)
    return a.shape == b.shape and (torch.equal(a, b) or not bool(_differ(a, b).any()))


def _differ(a: Tensor, b: Tensor) -> Tensor:
    a = a.to(b.device, b.dtype)
    # NaN equals itself in this comparison.
    if a.shape != b.shape:
        return torch.ones(1, dtype=torch.bool, device=b.device)
    return torch.ne(a, b) & ~(torch.isnan(a) & torch.isnan(b))


def _own_layers(network: Network) -> tuple[list[nn.Linear], list[nn.Module]]:
    """Copies of the layers; the operator writes into them when it moves."""
    return [copy.deepcopy(layer) for layer in network.linear], [copy.deepcopy(a) for a in network.activations]
