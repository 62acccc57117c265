"""The Gauss-Newton matrix and the empirical Fisher: J' A J, with the Jacobian J of a few numbers a sample.

The loss is a function of numbers z that the model computes. Gauss-Newton takes z = all outputs of the model and A = the
Hessian of the loss by the outputs: it is the part of the Hessian without the second derivatives of the model
(Schraudolph, Neural Computation 14, 2002). The empirical Fisher takes z = the loss of each sample and A = the weight of
each sample in the loss, which for a mean over n samples gives the mean of g g' over their gradients g.

All three factors are applied in reverse mode: J'u is linear in u, so that its derivative by u is J. Thus everything
that the Hessian can be taken of has both matrices too, and the graphs of J'u and of the small gradient are kept
between products.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from eigendrift.hessian.autograd import FunctionalHessian, pulled_back
from eigendrift.hessian.batches import Batch, moved, replaced, rows_in, tensors_in
from eigendrift.hessian.evaluation import BatchLoss, Evaluation, explained
from eigendrift.hessian.loss_data import PairLoss, TensorChunks
from eigendrift.hessian.mlp import MLPHessian
from eigendrift.hessian.operator import HessianOperator
from eigendrift.hessian.self_checks import Checks


@dataclass
class _Factors:
    """The numbers z of one chunk, with the two graphs of J' A J."""

    loss: float
    outputs: list[Tensor]  # z, with its graph to the parameters
    weights: list[Tensor]  # derivative of the loss by z
    leaves: list[Tensor]  # z alone
    gradients: list[Tensor]  # gradient of the loss by z as a function of the leaves, whose Jacobian is A
    places: list[int]  # which of all numbers that the model computes
    seeds: list[Tensor] = field(default_factory=list)  # u
    pulled: list[Tensor] = field(default_factory=list)  # J'u with its graph to u, one tensor a parameter


class FactoredCurvature(FunctionalHessian):
    """J' A J at one point, as a map of row vectors (b, N) -> (b, N)."""

    otherwise = "only HessianOperator(..., method='finite_difference') serves such a model"

    def _factors(self, batch: Batch, weight: float, given: Mapping[int, Tensor] | None = None) -> _Factors:
        """z and the gradient of the loss by z for a chunk; with `given`, that gradient at these values of z."""
        raise NotImplementedError

    def _chunk_gradient(self, batch: Batch, weight: float, graph: bool = True) -> tuple[float, _Factors]:
        """A chunk's part of the loss, and its factors; without `graph`, those of the gradient alone."""
        with explained("differentiating the loss", self.otherwise), self.evaluation.working(self.dtype):
            factors = self._factors(batch, weight)
            if graph and factors.outputs:
                factors.seeds = [torch.zeros_like(z).requires_grad_() for z in factors.outputs]
                # grad_outputs= is avoided, since its first use loads a computer algebra system.
                inner = torch.stack([(z * u).sum() for z, u in zip(factors.outputs, factors.seeds, strict=True)]).sum()
                found = torch.autograd.grad(inner, self._point, create_graph=True, allow_unused=True)
                factors.pulled = [
                    torch.zeros_like(p) if g is None else g for g, p in zip(found, self._point, strict=True)
                ]
        return factors.loss, factors

    def gradient(self) -> Tensor:
        """The gradient of the loss, (N,)."""
        total = torch.zeros_like(self.flat())
        for factors in self._gradients(graph=False):
            if factors.outputs:
                with explained("differentiating the loss", self.otherwise), self.evaluation.working(self.dtype):
                    found = pulled_back(factors.outputs, [w[None] for w in factors.weights], self._point, keep=True)
                total += torch.cat([part.reshape(-1) for part in found])
        return total / self.total

    def _chunk_product(self, factors: Any, tangents: list[Tensor], keep: bool) -> Tensor:
        b = len(tangents[0])
        # A derivative without a graph is zero, and a chunk without outputs has no part in the loss.
        pairs = [(p, t) for p, t in zip(factors.pulled, tangents, strict=bool(factors.outputs)) if p.requires_grad]
        gradients = [(g, i) for i, g in enumerate(factors.gradients) if g.requires_grad]
        if not pairs or not gradients:
            return tangents[0].new_zeros(b, self.n_parameters)
        change = pulled_back([p for p, _ in pairs], [t for _, t in pairs], factors.seeds, keep=True)
        weighted = pulled_back([g for g, _ in gradients], [change[i] for _, i in gradients], factors.leaves, keep=True)
        found = pulled_back(factors.outputs, weighted, self._point, keep)
        return torch.cat([part.reshape(b, -1) for part in found], dim=1)

    def product_by_differences(self, vector: Tensor, step: float) -> Tensor:
        """J' A J v, where J v and A (J v) are taken from differences over this step, (N,)."""
        start, here = self.flat(), dict(self.state)
        total = torch.zeros_like(start)
        for batch in self.chunks:
            weight = self.combination.weight(batch)
            if weight == 0:
                continue
            found = self._factors(batch, weight)
            ends = []
            for sign in (1, -1):
                point = (start + sign * step * vector).split(self.sizes)
                self._set(
                    {**here, **{n: p.view_as(here[n]) for n, p in zip(self.names, point, strict=True)}},
                )
                ends.append([z.detach() for z in self._factors(batch, weight).outputs])
            self._set(here)
            change = [(a - b) / (2 * step) for a, b in zip(*ends, strict=True)]
            size = float(torch.cat([c.reshape(-1) for c in change]).norm())
            if size == 0:
                continue
            far = step / size * max(1.0, float(torch.cat([z.detach().reshape(-1) for z in found.leaves]).norm()))
            gradients = []
            for sign in (1, -1):
                moved_z = [z.detach() + sign * far * c for z, c in zip(found.leaves, change, strict=True)]
                gradients.append(self._factors(batch, weight, dict(zip(found.places, moved_z, strict=True))).gradients)
            weighted = [((a - b) / (2 * far)).detach() for a, b in zip(*gradients, strict=True)]
            # The point was set anew, so that the graph has to be made again.
            again = self._factors(batch, weight)
            parts = pulled_back(again.outputs, [w[None] for w in weighted], self._point, keep=False)
            total += torch.cat([part.reshape(-1) for part in parts])
        return total / self.total


class FunctionalGaussNewton(FactoredCurvature):
    """J' A J with the Jacobian J of the model's outputs and the Hessian A of the loss by the outputs."""

    def _factors(self, batch: Batch, weight: float, given: Mapping[int, Tensor] | None = None) -> _Factors:
        split = _AtTheOutputs(self.evaluation.batch_loss, given)
        value = self.evaluation.apply(split, self.state, batch, self.dtype).reshape(()) * weight
        if not split.leaves or not value.requires_grad:
            raise ValueError(
                "the loss does not depend on outputs of the model, which the Gauss-Newton matrix needs; call the model "
                "itself in loss(model, batch), model(...), and let it return tensors, or a tuple, list or dict of them"
            )
        found = torch.autograd.grad(value, [*split.leaves, *self._point], create_graph=True, allow_unused=True)
        gradients, beside = found[: len(split.leaves)], found[len(split.leaves) :]
        for name, g in zip(self.names, beside, strict=True):
            if g is not None:
                raise ValueError(
                    f"the loss depends on the parameter {name} besides through the model's outputs, for example by a "
                    "penalty or a part of the model that is called by itself; the Gauss-Newton matrix needs a loss of "
                    "the outputs alone. A penalty s/2 |theta|^2 is added by G.shifted(s)"
                )
        if len(split.outputs) > 1:
            chained = torch.autograd.grad(
                torch.stack([z.sum() for z in split.outputs]).sum(), split.leaves, retain_graph=True, allow_unused=True
            )
            if any(g is not None for g in chained):
                raise ValueError(
                    "the model is called with its own earlier outputs; the Gauss-Newton matrix needs a loss of "
                    "independent calls"
                )
        used = [i for i, g in enumerate(gradients) if g is not None]
        used_gradients = [gradients[i] for i in used]
        if not any(g.requires_grad for g in used_gradients):
            raise ValueError(
                "the loss is linear in the model's outputs, so that its Gauss-Newton matrix is zero; if the model "
                "returns the loss itself, give a loss of its other outputs, such as loss(outputs, targets)"
            )
        return _Factors(
            float(value.detach()),
            [split.outputs[i] for i in used],
            [g.detach() for g in used_gradients],
            [split.leaves[i] for i in used],
            used_gradients,
            used,
        )


class _AtTheOutputs:
    """A loss of (module, batch) whose module's outputs are cut off from the parameters, as `leaves`, and kept.

    With `given`, these values take the place of the outputs.
    """

    def __init__(self, batch_loss: BatchLoss, given: Mapping[int, Tensor] | None) -> None:
        self.batch_loss, self.given = batch_loss, given
        self.outputs: list[Tensor] = []
        self.leaves: list[Tensor] = []

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        handle = module.register_forward_hook(self._cut)
        try:
            return self.batch_loss(module, batch)
        finally:
            handle.remove()

    def _cut(self, _: nn.Module, __: Any, result: Any) -> Any:
        return replaced(result, self._leaf)

    def _leaf(self, output: Tensor) -> Tensor:
        if not output.requires_grad:
            return output
        value = (self.given or {}).get(len(self.leaves), output)
        self.outputs.append(output)
        self.leaves.append(value.detach().clone().requires_grad_())
        # The loss may change a copy in place.
        return self.leaves[-1].clone()


class FunctionalFisher(FactoredCurvature):
    """J' A J with the Jacobian J of each sample's own loss and the diagonal matrix A of the samples' weights."""

    def _factors(self, batch: Batch, weight: float, given: Mapping[int, Tensor] | None = None) -> _Factors:
        batch = moved(batch, self.evaluation.device, self.dtype)
        n = samples_of(batch)
        each = self.combination.weights(batch, n, (sample(batch, i) for i in range(n)))
        rows = torch.nonzero(each)[:, 0].to(self.evaluation.device)
        each = each[each != 0].to(self.evaluation.device, self.dtype)
        if not len(rows):
            return _Factors(0.0, [], [], [], [], [])
        if len(rows) < n:
            batch = replaced(batch, lambda t: t[rows.to(t.device)] if t.ndim else t)
        losses = self.evaluation.apply(self._losses, self.state, batch, self.dtype)
        value = losses.detach() if given is None else given[0]
        leaf = value.clone().requires_grad_()
        if not losses.requires_grad:
            return _Factors(float(each @ losses), [], [], [], [], [])
        return _Factors(float(each @ losses.detach()), [losses], [each], [leaf], [each * leaf], [0])

    def _losses(self, module: nn.Module, batch: Batch) -> Tensor:
        """The loss of each sample by itself, (n,)."""
        loss = self.evaluation.batch_loss
        if isinstance(loss, PairLoss):
            outputs = module(batch[0])
            if isinstance(outputs, Tensor) and outputs.ndim and len(outputs) == len(batch[0]):
                return _each((outputs, batch[1]), lambda pair: loss.loss(*pair))
        return _each(batch, lambda one: loss(module, one))


def _each(batch: Batch, function: Callable[[Batch], Tensor]) -> Tensor:
    """function(sample) for each sample as a batch of one, (n,)."""
    rows = [t for t in tensors_in(batch) if t.ndim]
    n = len(rows[0])

    def one(*parts: Tensor) -> Tensor:
        left = iter(parts)
        return function(replaced(batch, lambda t: next(left)[None] if t.ndim else t)).reshape(())

    if n > 1:
        try:
            found: Tensor = torch.func.vmap(one)(*rows)
            return found
        except torch.OutOfMemoryError:
            raise
        except Exception:  # Some operations, and Python code that looks at numbers, have no rule for many samples.
            pass
    return torch.stack([one(*(t[i] for t in rows)) for i in range(n)])


def samples_of(batch: Batch) -> int:
    """The number of samples of a batch.

    Raises:
        ValueError: Its tensors do not have one row a sample.
    """
    rows = rows_in(batch)
    if rows is None:
        lengths = {len(t) for t in tensors_in(batch) if t.ndim}
        raise ValueError(
            "the empirical Fisher needs batches whose tensors have one row a sample; the first axes of a batch's "
            f"tensors have lengths {', '.join(map(str, sorted(lengths))) or 'none'}"
        )
    return rows


def sample(batch: Batch, index: int) -> Batch:
    """One sample as a batch of one."""
    return replaced(batch, lambda t: t[index : index + 1] if t.ndim else t)


class FactoredChecks(Checks):
    """Checks of J' A J: the gradient, and one product, against differences."""

    def derivatives(self, batch: Batch, twice: bool) -> None:
        """Check autograd's derivatives against differences: it may not see all operations of the loss."""
        super().derivatives(batch, False)
        here = self.hessian([batch])
        assert isinstance(here, FactoredCurvature)
        direction = self.direction(here.gradient())
        product = here.product(direction[None])[0]
        wide = self.dtype == torch.float64
        scale = max(1.0, float(here.flat().norm()))
        size = float(here.gradient().norm()) + float(product.norm())
        numbers = []
        for relative in (1e-6, 1e-4, 1e-3) if wide else (1e-2, 1e-3):
            with explained("evaluating the loss", here.otherwise), self.evaluation.working(self.dtype):
                found = here.product_by_differences(direction, relative * scale)
            error = float((found - product).norm())
            if error <= 2e-2 * float(product.norm()) + (1e-12 if wide else 1e-5) / relative * size:
                return
            numbers.append(f"{float(product.norm()):.6g} by autograd and {float(found.norm()):.6g} by differences")
        raise ValueError(
            f"autograd does not see all of the model or the loss: a product of this operator is {numbers[0]}; look for "
            "detach, no_grad or a custom autograd.Function"
        )


class FisherChecks(FactoredChecks):
    """The same, and whether each sample has a loss of its own."""

    def derivatives(self, batch: Batch, twice: bool) -> None:
        """Check the derivatives, and that the loss of a few samples is the sum of their own losses."""
        super().derivatives(batch, twice)
        batch = moved(batch, self.evaluation.device, self.dtype)
        singles = self.hessian([sample(batch, i) for i in range(samples_of(batch))])
        # The loss itself, of all these samples; the products of many samples at once and of each.
        whole = FunctionalHessian(
            self.evaluation, [batch], self.combination, self.state, self.names, self.dtype, graph_bytes=0
        )
        gradient = whole.gradient()
        direction = self.direction(gradient)[None]
        pairs = {
            "loss": tuple(torch.tensor(one.loss, dtype=torch.float64, device="cpu") for one in (whole, singles)),
            "gradient": (gradient, singles.gradient()),
            "product": (self.hessian([batch]).product(direction), singles.product(direction)),
        }
        for what, (a, b) in pairs.items():
            floor = 0.0 if what == "loss" else self.tolerance * float(gradient.norm())
            if not self.near(a, b, floor):
                self.refuse(float(a.norm()), float(b.norm()), what)

    def refuse(self, whole: float, parts: float, what: str) -> None:
        """Raise the error of samples that have no loss of their own."""
        raise ValueError(
            f"the empirical Fisher needs a loss of each sample by itself: the {what} for some samples at once is "
            f"{whole:.9g}, and {parts:.9g} from each by itself, as a {self.combination.reduction}. The loss is no mean "
            "over samples (size= says what the mean over a batch divides by, reduction='sum' that it is a sum), or the "
            "model mixes samples"
        )


class _FactoredOperator(HessianOperator):
    """What both operators share: they take no analytic path, and no differences of gradients."""

    _path_kind: type[FactoredCurvature]

    def _kind(self, method: str) -> type[FunctionalHessian]:
        if method != "autograd":
            raise ValueError(f"method = {method!r} is not allowed; {type(self).__name__} takes 'autograd' alone")
        return self._path_kind

    def _analytic(self, loss: Any, chunks: TensorChunks, rows: int | None, evaluation: Evaluation) -> MLPHessian | None:
        return None

    def surrogate(self, seed: int = 0) -> None:
        """No cheaper operator is offered.

        Args:
            seed: Not used.
        """
        return


class GGNOperator(_FactoredOperator):
    """The Gauss-Newton matrix of a loss over all samples, with respect to the trained parameters, as an operator.

    G = J' A J, with the Jacobian J of the model's outputs and the Hessian A of the loss by the outputs: the Hessian
    without the second derivatives of the model. It is positive semidefinite where the loss is convex in the outputs,
    and the Hessian itself where the model is linear in its parameters. For plain cross-entropy it is the Fisher
    information matrix (Martens, JMLR 21, 2020).

    It takes what HessianOperator takes, except `method`, and is used like it. Its products are exact to the rounding of
    `dtype`. The loss must depend on the parameters through the model's outputs alone: a penalty on the parameters is
    refused.

    Attributes:
        shape: (N, N).
        dtype: The NumPy type of products, float32 for models in float16 and bfloat16; `torch_dtype` is torch's.
        device: The device of vectors and products, that of the model.
        model: The model as it was given.
        products: Number of vectors multiplied since the operator was made.

    Example:
        >>> from eigendrift import top_eigenpairs
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> inputs, targets = torch.randn(20, 3), torch.randint(2, (20,))
        >>> G = GGNOperator(model, nn.CrossEntropyLoss(), inputs, targets)
        >>> bool(top_eigenpairs(G, k=1, which="SA").values[0] > -1e-6)
        True
    """

    _path_kind = FunctionalGaussNewton
    _checks_kind = FactoredChecks


class EmpiricalFisherOperator(_FactoredOperator):
    """The empirical Fisher matrix of a loss over all samples, with respect to the trained parameters, as an operator.

    F = (1/n) sum_i g_i g_i' for a mean over n samples, with the gradient g_i of the loss of sample i by itself; the sum
    of g_i g_i' for a sum. Where the mean divides by other numbers than n, each g_i g_i' has the weight of the sample's
    loss in the mean: that of its class, 0 for an ignored target. A sample is one row of the first axis. It is not near
    the Hessian in general, not even at a minimum (Kunstner et al. 2019, arXiv:1905.12558).

    It takes what HessianOperator takes, except `method`, and is used like it. Its products are exact to the rounding of
    `dtype`, and the gradients of the samples are never stored. A model or a loss that mixes samples is refused.

    Attributes:
        shape: (N, N).
        dtype: The NumPy type of products, float32 for models in float16 and bfloat16; `torch_dtype` is torch's.
        device: The device of vectors and products, that of the model.
        model: The model as it was given.
        products: Number of vectors multiplied since the operator was made.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> inputs, targets = torch.randn(20, 3), torch.randint(2, (20,))
        >>> F = EmpiricalFisherOperator(model, nn.CrossEntropyLoss(), inputs, targets)
        >>> F.shape
        (8, 8)
    """

    _path_kind = FunctionalFisher
    _checks_kind = FisherChecks
