"""Exact Hessian-vector products of any module and loss, by differentiating twice in reverse.

Products are taken in reverse over reverse mode, since every differentiable operation has a backward formula, but not
every one a forward formula. The graph of the gradient depends on the parameters alone, so it is kept, as far as memory
allows, and a product is then one backward pass through it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from eigendrift._threads import is_shared, parallel_map
from eigendrift.hessian.batches import Batch, tensors_in
from eigendrift.hessian.evaluation import BY_DIFFERENCES, Evaluation, State, explained
from eigendrift.hessian.loss_data import BatchChunks, Combination, TensorChunks

# Memory for graphs that are kept between products, in bytes.
GRAPH_BYTES = 2 << 30


class FunctionalHessian:
    """The Hessian at one point, as a map of row vectors (b, N) -> (b, N).

    The loss is the `combination` of the losses of the chunks. The point is a state, which holds every parameter and
    buffer of the module; `names` are the parameters with respect to which the Hessian is taken.
    """

    # What serves a model that cannot be differentiated twice.
    otherwise = BY_DIFFERENCES

    def __init__(
        self,
        evaluation: Evaluation,
        chunks: TensorChunks | BatchChunks | Sequence[Batch],
        combination: Combination,
        state: State,
        names: Sequence[str],
        dtype: torch.dtype,
        graph_bytes: int = GRAPH_BYTES,
    ) -> None:
        """`graph_bytes`: memory for kept graphs; chunks beyond it are differentiated again at every product."""
        self.evaluation, self.chunks, self.combination = evaluation, chunks, combination
        self.names, self.dtype, self.graph_bytes = list(names), dtype, graph_bytes
        self.sizes = [state[name].numel() for name in names]
        self.n_parameters = sum(self.sizes)
        self.same_order = getattr(chunks, "same_order", True)
        self._set(state)
        self.refresh()

    def in_float64(self) -> Self:
        """The same in float64: every chunk is converted as it is taken."""
        state = {name: t.double() if t.is_floating_point() else t for name, t in self.state.items()}
        return type(self)(
            self.evaluation, self.chunks, self.combination, state, self.names, torch.float64, self.graph_bytes
        )

    def of_samples(
        self, evaluation: Evaluation, chunks: Sequence[Batch], combination: Combination, graph_bytes: int
    ) -> "FunctionalHessian":
        """The Hessian at this point of the sum of a loss over other chunks, divided by what this loss divides by.

        It stays at its point when this one moves.
        """
        state = {name: t.clone() for name, t in self.state.items()}
        other = FunctionalHessian(evaluation, chunks, combination, state, self.names, self.dtype, graph_bytes)
        other.loss *= other.total / self.total
        other.total = self.total
        return other

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name not in ("_kept", "_point")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._set(self.state)
        self.refresh()

    def _set(self, state: State) -> None:
        self.state = {name: t.detach() for name, t in state.items()}
        for name in self.names:
            self.state[name] = self.state[name].clone().requires_grad_()
        self._point = [self.state[name] for name in self.names]

    def move_to(self, parts: Sequence[Tensor], others: State | None = None) -> None:
        """Move to these parameters, in the order of `names`; `others` replaces further tensors of the state."""
        self._set({**self.state, **(others or {}), **dict(zip(self.names, parts, strict=True))})
        self.refresh()

    def refresh(self) -> None:
        """Compute the losses, and as many graphs as memory allows, at the present state."""
        # What is kept of each chunk for its products; an empty list where the chunk has no part in the loss.
        self._kept: list[Any] = []
        keeping, last, self.kept_bytes = self.graph_bytes > 0, 0, 0
        counter = _SavedBytes([*self.state.values(), *self._data()])
        losses, total = [], 0.0
        for batch in self.chunks:
            weight = self.combination.weight(batch)
            total += weight
            if weight == 0:
                if keeping:
                    self._kept.append([])
                continue
            if keeping and counter.bytes + last > self.graph_bytes:
                keeping = False
            if not keeping:
                losses.append(weight * self._chunk_loss(batch))
                continue
            before = counter.bytes
            with torch.autograd.graph.saved_tensors_hooks(counter, _as_it_is):
                loss, gradients = self._chunk_gradient(batch, weight)
            last = counter.bytes - before
            losses.append(loss)
            if counter.bytes <= self.graph_bytes:
                self._kept.append(gradients)
                self.kept_bytes = counter.bytes
            else:
                keeping = False
        if not keeping and not self.same_order:
            # The chunks of a later pass might come in another order than the kept ones.
            self._kept, self.kept_bytes = [], 0
        self._complete = keeping
        # The loss of the chunks that are differentiated again at every product, which has to be the same each time.
        self._again = losses[sum(map(bool, self._kept)) :]
        self.total = self.combination.total(total)
        self.loss = math.fsum(losses) / self.total

    def _data(self) -> Iterable[Tensor]:
        if isinstance(self.chunks, TensorChunks):
            return [self.chunks.inputs, self.chunks.targets]
        # A list stays in memory; the batches of a loader do not.
        return tensors_in(self.chunks) if isinstance(self.chunks, list) else []

    def _chunk_loss(self, batch: Batch) -> float:
        with explained("evaluating the loss", self.otherwise):
            return float(self.evaluation(self.state, batch, self.dtype).detach())

    def _chunk_gradient(self, batch: Batch, weight: float, graph: bool = True) -> tuple[float, Any]:
        """A chunk's part of the loss, and of the gradient with its graph: one tensor a parameter."""
        with explained("differentiating the loss", self.otherwise), self.evaluation.working(self.dtype):
            loss = self.evaluation(self.state, batch, self.dtype) * weight
            if not loss.requires_grad:
                return float(loss), [torch.zeros_like(p) for p in self._point]
            found = torch.autograd.grad(loss, self._point, create_graph=graph, allow_unused=True)
        return float(loss.detach()), [
            torch.zeros_like(p) if g is None else g for g, p in zip(found, self._point, strict=True)
        ]

    def _gradients(self, graph: bool) -> Iterator[Any]:
        """The gradient of each chunk, of kept ones first."""
        yield from filter(None, self._kept)
        yield from self._others(graph)

    @property
    def device(self) -> torch.device:
        """The device of the point."""
        return self._point[0].device

    @property
    def uses_thread_pool(self) -> bool:
        """Whether products run on a pool of threads alone: every graph is kept, and there are enough of them."""
        return self._complete and self._on_pool and is_shared(len(self._kept))

    @property
    def _on_pool(self) -> bool:
        # The mode that widens types holds for one thread.
        return self.device.type == "cpu" and not self.evaluation.widens(self.dtype)

    def _others(self, graph: bool) -> Iterator[Any]:
        """The gradient of each chunk whose graph is not kept."""
        if self._complete:
            return
        losses = []
        for index, batch in enumerate(self.chunks):
            weight = self.combination.weight(batch) if index >= len(self._kept) else 0.0
            if weight:
                loss, gradients = self._chunk_gradient(batch, weight, graph)
                losses.append(loss)
                yield gradients
        self._compare(losses)

    def _compare(self, losses: Sequence[float]) -> None:
        """Check that chunks have the loss at this point that they had before.

        Raises:
            ValueError: They have another.
        """
        before, now = math.fsum(self._again), math.fsum(losses)
        scale = math.fsum(map(abs, self._again))
        # A GPU adds in another order each time.
        if not abs(before - now) <= (1e-5 if self.dtype != torch.float64 else 1e-8) * scale:
            raise ValueError(
                f"the loss is another than when the operator came to this point, {now / self.total:.9g} and not "
                f"{before / self.total:.9g}; the data, or something that the model or the loss refers to, has changed"
            )

    def gradient(self) -> Tensor:
        """The gradient of the loss, (N,)."""
        total = torch.zeros_like(self.flat())
        for parts in self._gradients(graph=False):
            total += torch.cat([part.detach().reshape(-1) for part in parts])
        return total / self.total

    def flat(self) -> Tensor:
        """The point as a vector (N,)."""
        return torch.cat([p.detach().reshape(-1) for p in self._point])

    def product(self, vectors: Tensor) -> Tensor:
        """H v for each row: (b, N) -> (b, N), over all samples."""
        tangents = [
            part.reshape(len(vectors), *point.shape)
            for part, point in zip(vectors.split(self.sizes, dim=1), self._point, strict=True)
        ]
        total = torch.zeros_like(vectors)
        if not len(vectors):
            return total

        def multiply(graphs: Sequence[Any]) -> Tensor:
            found = torch.zeros_like(vectors)
            for gradients in graphs:
                found += self._chunk_product(gradients, tangents, True)
            return found

        kept = [gradients for gradients in self._kept if gradients]
        with explained("differentiating the gradient", self.otherwise), self.evaluation.working(self.dtype):
            for part in parallel_map(multiply, kept) if self._on_pool else [multiply(kept)]:
                total += part
        for gradients in self._others(graph=True):
            with explained("differentiating the gradient", self.otherwise), self.evaluation.working(self.dtype):
                total += self._chunk_product(gradients, tangents, False)
        return total / self.total

    def _chunk_product(self, gradients: list[Tensor], tangents: list[Tensor], keep: bool) -> Tensor:
        # A gradient without a graph does not depend on the parameters, for example that of a linear function.
        pairs = [(g, t) for g, t in zip(gradients, tangents, strict=True) if g.requires_grad]
        b = len(tangents[0])
        if not pairs:
            return tangents[0].new_zeros(b, self.n_parameters)
        found = pulled_back([g for g, _ in pairs], [t for _, t in pairs], self._point, keep)
        return torch.cat([part.reshape(b, -1) for part in found], dim=1)


def pulled_back(
    outputs: Sequence[Tensor], tangents: Sequence[Tensor], inputs: Sequence[Tensor], keep: bool
) -> list[Tensor]:
    """J' t with the Jacobian J of the outputs by the inputs, for b vectors t: one tensor (b, *shape) an input.

    `tangents` has a tensor (b, *shape) for each output; `keep` keeps the graph.
    """
    b = len(tangents[0])
    # A CPU takes several vectors at once in no less time than one after the other.
    if b > 1 and inputs[0].device.type != "cpu":
        try:
            found = torch.autograd.grad(
                list(outputs), inputs, list(tangents), retain_graph=True, is_grads_batched=True, allow_unused=True
            )
            return [p.new_zeros(b, *p.shape) if f is None else f.detach() for f, p in zip(found, inputs, strict=True)]
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, NotImplementedError):
            # Some operations have no rule for several vectors at once.
            pass
    rows = []
    for index in range(b):
        # grad_outputs= is avoided, since its first use loads a computer algebra system.
        inner = torch.stack([(g * t[index]).sum() for g, t in zip(outputs, tangents, strict=True)]).sum()
        found = torch.autograd.grad(inner, inputs, retain_graph=keep or index < b - 1, allow_unused=True)
        rows.append([torch.zeros_like(p) if f is None else f.detach() for f, p in zip(found, inputs, strict=True)])
    return [torch.stack(parts) for parts in zip(*rows, strict=True)]


class DifferenceHessian(FunctionalHessian):
    """The Hessian by differences of gradients, for losses that cannot be differentiated twice: an estimate.

    H v = (4 D(h) - D(2 h)) / 3 with central differences D(h) = (g(theta + h v) - g(theta - h v)) / 2h. The difference
    of the two D estimates the error of the last product, relative to it: `error`.
    """

    error = math.nan

    def refresh(self) -> None:
        """Take the loss at the present state; no graph is kept."""
        self.graph_bytes = 0
        super().refresh()

    def _compare(self, losses: Sequence[float]) -> None:
        """Gradients are taken at other points too, whose losses are not known."""

    def product(self, vectors: Tensor) -> Tensor:
        """H v for each row: (b, N) -> (b, N), over all samples."""
        here, start = dict(self.state), self.flat()
        step = torch.finfo(self.dtype).eps ** 0.25 * max(1.0, float(torch.linalg.vector_norm(start)))
        found, worst = torch.zeros_like(vectors), 0.0

        def gradient(point: Tensor) -> Tensor:
            parts = (part.view_as(p) for part, p in zip(point.split(self.sizes), self._point, strict=True))
            self._set({**here, **dict(zip(self.names, parts, strict=True))})
            return self.gradient()

        try:
            for row, v in enumerate(vectors):
                length = float(torch.linalg.vector_norm(v))
                if length == 0:
                    continue
                unit = v / length
                near, far = (
                    (gradient(start + h * unit) - gradient(start - h * unit)) / (2 * h) for h in (step, 2 * step)
                )
                found[row] = (4 * near - far) / 3 * length
                size = float(torch.linalg.vector_norm(near))
                worst = max(worst, float(torch.linalg.vector_norm(near - far)) / 3 / size if size else 0.0)
        finally:
            self._set(here)
        self.error = worst
        return found


class _SavedBytes:
    """Memory of the tensors that graphs save, each counted once; tensors that exist anyway do not count."""

    def __init__(self, present: Iterable[Tensor]) -> None:
        self.bytes = 0
        self._seen = {tensor.untyped_storage().data_ptr() for tensor in present if tensor.layout == torch.strided}

    def __call__(self, tensor: Tensor) -> Tensor:
        if tensor.layout != torch.strided:
            return tensor.detach()
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        # Detached, since an output that its own operation saves would keep itself alive.
        return tensor.detach()


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
