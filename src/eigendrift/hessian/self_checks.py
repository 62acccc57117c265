"""Checks of an operator before it is trusted: a few samples are evaluated in ways that must agree.

A model or a loss that does not fit a Hessian over chunks raises ValueError, with the two numbers that disagree.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eigendrift.hessian.autograd import FunctionalHessian
from eigendrift.hessian.batches import Batch, joined, moved, tensors_in
from eigendrift.hessian.evaluation import BY_DIFFERENCES, Evaluation, State, explained, random_states_kept
from eigendrift.hessian.loss_data import Combination, TensorChunks

# Numbers of samples that are checked.
FEW = 8
SOME = 33
# Evaluations of a model that draws random numbers: enough to detect one whose result changes a tenth of the time.
DRAWS = 24
LOOKS = 3
# Distances, relative to each parameter's own size, at which a gradient is looked for that rounding does not hide, and
# how small it is at the state itself, relative to that one, where rounding hides it.
DISTANCES = (0.1, 0.3, 1.0)
HIDDEN = {torch.float64: 1e-5, torch.float32: 1e-3}
# Largest number of output entries that are checked as a whole.
OUTPUTS = 1 << 26


class Checks:
    """Checks of an evaluation at a state, in float64 where the model works in it."""

    def __init__(
        self,
        evaluation: Evaluation,
        state: State,
        names: Sequence[str],
        combination: Combination,
        dtype: torch.dtype,
        kind: type[FunctionalHessian] = FunctionalHessian,
    ) -> None:
        """`kind`: the products that are checked."""
        self.kind = kind
        self.evaluation, self.names, self.combination = evaluation, list(names), combination
        self.dtype, self.state = dtype, state

    def everything(self, batch: Batch, parts: Sequence[Batch], twice: bool) -> None:
        """Run all checks on a `batch` of a few samples; where chunks have to add up, `parts` are chunks of samples."""
        self.probe(batch)
        self._widen(batch)
        self.randomness(batch)
        (self.where_rounding_hides_less(batch) or self).derivatives(batch, twice)
        if len(parts) > 1:
            self.parts(parts, twice)

    def where_rounding_hides_less(self, batch: Batch) -> "Checks | None":
        """The checks at other parameters, where rounding hides the loss's gradient at these; None where it does not.

        Samples that are fitted perfectly, and a minimum, leave a gradient that neither differences nor sums over other
        chunks can reproduce, or none, which anything reproduces. What is checked is how the model and the loss are
        made, which is the same at any parameters.
        """
        here = float(torch.linalg.vector_norm(self.hessian([batch]).gradient()))
        parameters = {name for name, _ in self.evaluation.source.named_parameters()}
        generator = torch.Generator("cpu").manual_seed(1)
        largest, chosen = here / HIDDEN[self.dtype], None
        for distance in DISTANCES:
            state = dict(self.state)
            for name, t in state.items():
                if name in parameters and t.is_floating_point() and t.numel():
                    size = float(torch.linalg.vector_norm(t)) / t.numel() ** 0.5
                    noise = torch.randn(t.shape, generator=generator, dtype=torch.float64, device="cpu").to(t)
                    state[name] = t + distance * size * noise
            found = type(self)(self.evaluation, state, self.names, self.combination, self.dtype, self.kind)
            try:
                there = float(torch.linalg.vector_norm(found.hessian([batch]).gradient()))
            except ValueError:
                continue
            if math.isfinite(there) and there > largest:
                largest, chosen = there, found
        return chosen

    def probe(self, batch: Batch) -> None:
        """Find out what a forward pass writes, and which parameters it uses."""
        evaluation, state = self.evaluation, self._leaves(self.state)
        for attempt in range(2):
            own = moved(batch, evaluation.device, self.dtype, clone=True)
            versions = [t._version for t in tensors_in(own)], {name: t._version for name, t in state.items()}
            with explained("evaluating the loss on a few samples"):
                loss = evaluation(state, own, self.dtype)
            evaluation.changes_inputs = versions[0] != [t._version for t in tensors_in(own)]
            written = [name for name, t in state.items() if t._version != versions[1][name]]
            parameters = {name for name, _ in evaluation.source.named_parameters()}
            if any(name in parameters for name in written):
                raise ValueError(f"the forward pass changes its own parameters in place ({', '.join(written)})")
            evaluation.changes_state = bool(written)
            if written:
                state = self._leaves(self.state)
            if not math.isfinite(float(loss.detach())):
                raise ValueError(f"the loss is {float(loss.detach())} on a few samples, expected a finite number")
            if not loss.requires_grad:
                raise ValueError(
                    "the loss does not depend on the chosen parameters by operations that autograd sees; "
                    "look for detach, no_grad, item or NumPy in the model and the loss"
                )
            if self._reaches(loss, evaluation.remembered):
                raise ValueError(
                    "the model or the loss uses a tensor that it keeps of an earlier forward pass, which does not "
                    "follow its parameters; clear what is kept before the operator is made"
                )
            if not self._reaches(loss, [p for p in evaluation.source.parameters() if p.requires_grad]):
                break
            if attempt:
                raise ValueError("the loss reaches the model's parameters by references that cannot be replaced")
            evaluation.use_callers()
        evaluation.forget()
        if evaluation.changes_state:
            # The probe itself may have written to them.
            self.state = {name: t.clone() for name, t in self.state.items()}

    def _leaves(self, state: State) -> State:
        return {n: t.detach().clone().requires_grad_(n in self.names) for n, t in state.items()}

    def _reaches(self, loss: Tensor, leaves: Sequence[Tensor]) -> bool:
        """Whether the loss depends on one of these tensors."""
        if not leaves:
            return False
        with explained("differentiating the loss"), self.evaluation.working(self.dtype):
            found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
        return any(g is not None for g in found)

    def _widen(self, batch: Batch) -> None:
        """Switch to float64, unless the model does not work in it."""
        wide = {n: t.double() if t.is_floating_point() else t for n, t in self.state.items()}
        try:
            with explained("in float64"):
                value = self.evaluation(wide, batch, torch.float64)
        except ValueError:
            return
        if value.dtype == torch.float64:
            self.state, self.dtype = wide, torch.float64

    @property
    def tolerance(self) -> float:
        """Relative differences up to this are rounding."""
        return 1e-9 if self.dtype == torch.float64 else 1e-4

    def randomness(self, batch: Batch) -> None:
        """Check that the same samples give the same loss, whatever the states of the generators."""
        first, count = self._drawn(batch, 1), 1
        drew = self.evaluation.drew
        while count < (DRAWS if drew else LOOKS):
            count += 1
            again = self._drawn(batch, count)
            if not _close(first, again, 1e-3 * self.tolerance):
                raise ValueError(
                    f"the model or the loss behaves at random: the same samples give a loss of {first:.9g} and then of "
                    f"{again:.9g}; call model.eval(), or turn off what draws random numbers"
                )

    def _drawn(self, batch: Batch, seed: int) -> float:
        with random_states_kept(self.evaluation.device, seed), explained("evaluating the loss"):
            return float(self.evaluation(self.state, batch, self.dtype).detach())

    def hessian(self, chunks: Sequence[Batch], combination: Combination | None = None) -> FunctionalHessian:
        """The operator over these chunks alone."""
        return self.kind(
            self.evaluation, list(chunks), combination or self.combination, self.state, self.names, self.dtype
        )

    def derivatives(self, batch: Batch, twice: bool) -> None:
        """Check autograd's derivatives against differences: it may not see all operations of the loss."""
        here = self.hessian([batch])
        start, loss, gradient = here.flat(), here.loss, here.gradient()
        direction = self.direction(gradient)
        product = here.product(direction[None])[0] if twice else None
        wide = self.dtype == torch.float64
        scale = max(1.0, float(torch.linalg.vector_norm(start)))
        failures: list[_Agreement] = []
        # In float64 smaller steps follow the first: where a deep network of ReLUs has a kink within the step,
        # differences are not the derivative, and a single kink can change a gradient by more than the Hessian does.
        for relative in (1e-6, 1e-8, 1e-10, 1e-4, 1e-3) if wide else (1e-2, 1e-3):
            h = relative * scale
            losses, gradients = [], []
            for sign in (1, -1):
                point = start + sign * h * direction
                parts = [
                    part.view_as(here.state[n]) for part, n in zip(point.split(here.sizes), self.names, strict=True)
                ]
                here.move_to(parts)
                losses.append(here.loss)
                gradients.append(here.gradient())
            rounding = (1e-12 if wide else 1e-5) / h
            directional, error = (losses[0] - losses[1]) / (2 * h), rounding * abs(loss)
            if failures and error > 1e-2 * abs(directional):
                # Rounding alone would let them agree.
                continue
            found = _Agreement(float(gradient @ direction), directional, error, "gradient")
            if found and product is not None:
                difference = (gradients[0] - gradients[1]) / (2 * h)
                error = rounding * float(torch.linalg.vector_norm(gradient))
                if failures and error > 1e-2 * float(torch.linalg.vector_norm(difference)):
                    continue
                found = _Agreement(product, difference, error, "Hessian's product")
            if found:
                return
            failures.append(found)
        raise ValueError(
            f"autograd does not see all of the model or the loss: the {failures[0].what} is {failures[0].numbers} by "
            "differences; look for detach, no_grad, a custom autograd.Function, or an operation whose second "
            "derivative torch has wrong" + (f" ({BY_DIFFERENCES})" if failures[0].what != "gradient" else "")
        )

    def direction(self, gradient: Tensor) -> Tensor:
        """A unit vector in which derivatives are compared, half at random, half along the gradient."""
        return self._without_padding(_direction(gradient))

    def _without_padding(self, direction: Tensor) -> Tensor:
        """A direction with zeros at the padding row of every embedding, which torch treats as constant."""
        found = direction.clone()
        starts, start = {}, 0
        for name in self.names:
            starts[name] = start
            start += self.state[name].numel()
        first = {id(p): name for name, p in self.evaluation.source.named_parameters()}
        for module in self.evaluation.source.modules():
            row = getattr(module, "padding_idx", None)
            if isinstance(module, nn.Embedding | nn.EmbeddingBag) and row is not None:
                at, width = starts.get(first.get(id(module.weight), "")), module.weight.shape[1]
                if at is not None:
                    found[at + row * width : at + (row + 1) * width] = 0
        return found

    def parts(self, parts: Sequence[Batch], twice: bool = True) -> bool:
        """Check that the loss, the gradient and one product of all these samples combine from those of the parts.

        Returns:
            Whether the parts could be joined, and were checked.
        """
        whole = joined(parts)
        if whole is None:
            return False
        nearby = self.where_rounding_hides_less(whole)
        if nearby is not None:
            return nearby.parts(parts, twice)
        one, many = self.hessian([whole]), self.hessian(parts)
        pairs = [(_number(one.loss), _number(many.loss))]
        if not math.isfinite(one.loss):
            raise ValueError(f"the loss is {one.loss} on some samples, expected a finite number")
        pairs.append((one.gradient(), many.gradient()))
        if twice:
            direction = _direction(pairs[1][0])[None]
            pairs.append((one.product(direction), many.product(direction)))
        floor = self.tolerance * float(torch.linalg.vector_norm(pairs[1][0]))
        for index, (a, b) in enumerate(pairs):
            if not self.near(a, b, floor if index else 0.0):
                self.refuse(float(a.norm()), float(b.norm()), ("loss", "gradient", "product")[index])
        return True

    def neighbours(self, batches: Sequence[Batch], twice: bool) -> None:
        """Check the sizes of batches that cannot be split by pairs of them.

        Raises:
            ValueError: They do not add up, or no pair fits together, so that nothing checks the sizes.
        """
        for pair in itertools.pairwise(batches):
            whole = joined(pair)
            if whole is None or any(self.combination.weight(batch) == 0 for batch in pair):
                continue
            try:
                self.evaluation(self.state, whole, self.dtype)
            except Exception:  # The model may refuse batches that were joined along a wrong axis with any error.
                continue
            if self.parts(pair, twice):
                return
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors_in(batches[0]))
        raise ValueError(
            f"the sizes of the batches are not known: their tensors, of shapes {shapes} in the first, can neither be "
            "split into samples nor joined. Give size=, for what the mean over a batch divides by (the number of its "
            "samples, or of its tokens), or reduction='sum'"
        )

    def near(self, a: Tensor, b: Tensor, floor: float) -> bool:
        """Whether sums over other chunks are equal up to rounding, or differ by no more than the floor."""
        return _near(a, b, 1e2 * self.tolerance, floor)

    def refuse(self, whole: float, parts: float, what: str) -> None:
        """Raise the error of chunks that do not add up."""
        raise ValueError(
            f"the loss is not taken apart into chunks: its {what} for some samples at once is {whole:.9g}, and "
            f"{parts:.9g} from parts of them, as a {self.combination.reduction}. It is no mean over samples, or the "
            "model mixes samples. Give rows=len(inputs) to take all at once, size= for what the mean over a batch "
            "divides by, or reduction='sum' for a sum"
        )

    def outputs(self, chunks: TensorChunks, state: State, dtype: torch.dtype) -> None:
        """Check the loss of all outputs at once against the chunks': a small sample may lack a rare target."""
        found, evaluation = [], self.evaluation
        with torch.no_grad(), explained("evaluating the model"):
            for inputs, _ in chunks:
                output = evaluation.apply(_outputs, state, inputs, dtype)
                if not isinstance(output, Tensor) or len(output) * len(chunks) > OUTPUTS:
                    return
                found.append(output.detach().to(self.dtype))
        outputs = torch.cat(found).requires_grad_()
        if outputs.numel() > OUTPUTS:
            return
        direction = _direction(torch.zeros(outputs.numel(), dtype=self.dtype, device=outputs.device)).view_as(outputs)
        # The loss is evaluated in float64 at the known outputs: no module but the loss's own takes part.
        ones = [(outputs, chunks.targets)]
        pieces = list(zip(outputs.split(chunks.rows), chunks.targets.split(chunks.rows), strict=True))
        one, many = (self._loss_derivatives(each, outputs, direction) for each in (ones, pieces))
        for index, (a, b) in enumerate(zip(one, many, strict=True)):
            if not self.near(a, b, 0.0):
                self.refuse(float(a.norm()), float(b.norm()), ("loss", "gradient", "product")[index])

    def _loss_derivatives(self, pieces: Sequence[Batch], outputs: Tensor, direction: Tensor) -> tuple[Tensor, ...]:
        total, weights = outputs.new_zeros(()), 0.0
        with explained("evaluating the loss"), self.evaluation.working(self.dtype):
            for piece in pieces:
                weight = self.combination.weight(piece)
                weights += weight
                if weight:
                    targets = moved(piece[1], self.evaluation.device, self.dtype)
                    total = total + weight * self.evaluation.apply(
                        _Given(self.evaluation.loss, piece[0]), self.state, targets, self.dtype
                    ).reshape(())
            total = total / self.combination.total(weights)
            if not total.requires_grad:
                return (total.detach(),)
            (gradient,) = torch.autograd.grad(total, outputs, create_graph=True)
            product = torch.zeros_like(outputs)
            if gradient.requires_grad:
                found = torch.autograd.grad(gradient, outputs, direction, allow_unused=True)[0]
                product = product if found is None else found
        return total.detach(), gradient.detach(), product.detach()


class _Given:
    """The loss as a function of the targets, at given outputs."""

    def __init__(self, loss: Any, outputs: Tensor) -> None:
        self.loss, self.outputs = loss, outputs

    def __call__(self, _: Any, targets: Tensor) -> Any:
        # The loss may change a copy in place.
        return self.loss(self.outputs.clone(), targets)


def _outputs(module: Callable[[Any], Any], inputs: Any) -> Any:
    return module(inputs)


class _Agreement:
    """Whether autograd and differences agree."""

    def __init__(self, ours: Any, theirs: Any, rounding: float, what: str) -> None:
        a, b = (each if isinstance(each, Tensor) else _number(each) for each in (ours, theirs))
        self.what = what
        self.numbers = f"{float(a.double().norm()):.6g} by autograd and {float(b.double().norm()):.6g}"
        self.right = _near(a, b.to(a.device, a.dtype), 2e-2, rounding)

    def __bool__(self) -> bool:
        return self.right


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, device="cpu")


def _direction(gradient: Tensor) -> Tensor:
    """A random unit vector, mixed in equal parts with the gradient's direction where there is one."""
    generator = torch.Generator("cpu").manual_seed(0)
    random = torch.randn(len(gradient), generator=generator, dtype=torch.float64, device="cpu")
    random = (random / random.norm()).to(gradient.device, gradient.dtype)
    # Scaled first, since the squares of a tiny gradient are zero.
    largest = gradient.abs().max() if len(gradient) else gradient.new_zeros(())
    if bool(largest > 0):
        scaled = gradient / largest
        random = random + scaled / scaled.norm()
    found: Tensor = random / random.norm()
    return found


def _near(a: Tensor, b: Tensor, relative: float, floor: float) -> bool:
    a, b = a.double(), b.double()
    # Scaled first, since the squares of tiny numbers are zero.
    scale = max(float(a.abs().max()), float(b.abs().max())) if a.numel() else 0.0
    if scale == 0:
        return True
    difference = float(((a - b) / scale).norm()) * scale
    return difference <= relative * max(float((a / scale).norm()), float((b / scale).norm())) * scale + floor


def _close(a: float, b: float, relative: float) -> bool:
    return abs(a - b) <= relative * max(abs(a), abs(b))
