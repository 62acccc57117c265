"""Models, losses, data and choices of parameters that people have, each against a dense Hessian in float64."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from dense_hessian import CLASSES, D, N, chain, check, drawn, exact, labels, matrix, widened
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from eigendrift import HessianOperator
from eigendrift.hessian.autograd import FunctionalHessian
from eigendrift.hessian.mlp import MLPHessian

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*enable_nested_tensor.*", "ignore:.*weight_norm.*", "ignore:.*jit.*"),
]
# Chunks of unequal size.
ROWS = 11
WEIGHT = torch.tensor([1.0, 4.0, 0.2])


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(D, D), nn.Linear(D, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(x + torch.tanh(self.a(x)))


class Functional(nn.Module):
    """A network as people write it, without activation modules, over inputs of any shape."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(D, 5), nn.Linear(5, 4, bias=False), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(x.size(0), -1)
        x = functional.dropout(functional.gelu(self.a(x), approximate="tanh"), 0.5, training=False)
        return self.c(torch.sigmoid(self.b(x)))


class Registered(nn.Module):
    """Layers are registered in another order than they are used in."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Linear(5, CLASSES), nn.Linear(D, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))


class Scaled(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * super().forward(x)


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unused, self.used = nn.Linear(2, 2), chain(nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


def tied() -> nn.Module:
    first, last = nn.Linear(D, D), nn.Linear(D, D)
    last.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), last)


def hooked(register: str, hook: Callable[..., Any]) -> nn.Module:
    model = chain(nn.Tanh())
    getattr(model[0], register)(hook)
    return model


def pruned() -> nn.Module:
    model = chain(nn.Tanh())
    prune.random_unstructured(model[0], "weight", 0.5)
    # A copy of it takes the mask's product along only where that has no graph.
    model[0].weight = model[0].weight.detach()
    return model


def parametrized() -> nn.Module:
    class Doubled(nn.Module):
        def forward(self, w: Tensor) -> Tensor:
            return 2 * torch.tanh(w)

    model = chain(nn.Tanh())
    nn.utils.parametrize.register_parametrization(model[0], "weight", Doubled())
    return model


def patched() -> nn.Module:
    model = chain(nn.Tanh())
    object.__setattr__(model, "forward", lambda x: 2 * nn.Sequential.forward(model, x))
    return model


BY_HAND: dict[str, Callable[[], nn.Module]] = {
    "one layer": lambda: nn.Linear(D, CLASSES),
    "without biases": lambda: nn.Sequential(nn.Linear(D, 5, bias=False), nn.Tanh(), nn.Linear(5, CLASSES, bias=False)),
    "first bias missing": lambda: nn.Sequential(nn.Linear(D, 5, bias=False), nn.SiLU(), nn.Linear(5, CLASSES)),
    "gelu": lambda: chain(nn.GELU()),
    "gelu by tanh": lambda: chain(nn.GELU(approximate="tanh")),
    "silu": lambda: chain(nn.SiLU()),
    "silu in place": lambda: chain(nn.SiLU(inplace=True)),
    "leaky relu": lambda: chain(nn.LeakyReLU(0.2)),
    "elu": lambda: chain(nn.ELU(0.7)),
    "softplus": lambda: chain(nn.Softplus(beta=3)),
    "relu in place": lambda: chain(nn.ReLU(inplace=True)),
    "flatten": lambda: nn.Sequential(nn.Flatten(), *chain(nn.Tanh())),
    "nested": lambda: nn.Sequential(
        nn.Sequential(nn.Linear(D, 5), nn.Identity()), nn.Sequential(nn.SiLU(), nn.Linear(5, CLASSES))
    ),
    "dropout": lambda: chain(nn.Dropout(0.5), nn.Sigmoid()).eval(),
    "functional": Functional,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_plain_networks_are_taken_by_hand(name: str) -> None:
    torch.manual_seed(0)
    model, y = BY_HAND[name](), labels(N)
    x = drawn(N, 2, 3) if name in ("flatten", "functional") else drawn(N, D)
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y, rows=ROWS)
    assert isinstance(H.path, MLPHessian)
    check(H, exact(model, lambda m: functional.cross_entropy(m(x.double()), y)))
    general = HessianOperator(model, lambda o, t: functional.cross_entropy(o, t), x, y)
    assert isinstance(general.path, FunctionalHessian)
    torch.testing.assert_close(H.gradient, general.gradient, rtol=1e-4, atol=1e-6)
    assert H.loss == pytest.approx(general.loss, rel=1e-5)


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "registered in another order": Registered,
    "scaled": lambda: Scaled(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, CLASSES)),
    "unused": Unused,
    "tied": tied,
    "forward hook": lambda: hooked("register_forward_hook", lambda m, i, o: 2 * o),
    "forward pre-hook": lambda: hooked("register_forward_pre_hook", lambda m, i: (i[0] * 2,)),
    "pruned": pruned,
    "parametrized": parametrized,
    "two activations": lambda: chain(nn.Tanh(), nn.Sigmoid()),
    "softmax between": lambda: chain(nn.Softmax(1)),
    "spectral norm": lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(D, CLASSES))).eval(),
    "batch norm": lambda: chain(nn.BatchNorm1d(5), nn.Tanh()).eval(),
    "layer norm": lambda: chain(nn.LayerNorm(5), nn.Tanh()),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_are_differentiated_as_they_are(name: str) -> None:
    torch.manual_seed(0)
    model, x, y = OTHERS[name](), drawn(N, D), labels(N)
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y, rows=ROWS)
    assert isinstance(H.path, FunctionalHessian)
    assert H.shape[0] == sum(p.numel() for p in model.parameters())
    check(H, exact(model, lambda m: functional.cross_entropy(m(x.double()), y)))


def test_a_forward_pass_set_on_the_object_counts() -> None:
    torch.manual_seed(0)
    model, x, y = patched(), drawn(N, D), labels(N)
    twice = Scaled(*model)
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y)
    check(H, exact(twice, lambda m: functional.cross_entropy(4 * m(x.double()), y)))


def test_hooks_on_all_modules_count() -> None:
    torch.manual_seed(0)
    model, x, y = chain(nn.Tanh()), drawn(N, D), labels(N)
    plain = HessianOperator(model, nn.CrossEntropyLoss(), x, y)
    handle = nn.modules.module.register_module_forward_hook(
        lambda m, i, o: 2 * o if isinstance(m, nn.Linear) and m.out_features == 5 else None
    )
    try:
        H = HessianOperator(model, nn.CrossEntropyLoss(), x, y)
        assert isinstance(H.path, FunctionalHessian)
        assert float((matrix(H) - matrix(plain)).norm() / matrix(plain).norm()) > 0.1
    finally:
        handle.remove()


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **settings: Any) -> None:
        super().__init__()
        self.body = kind(2, 3, batch_first=True, **settings)
        self.head = nn.Linear(3 * (1 + self.body.bidirectional), CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1])


class Encoder(nn.Module):
    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.body = nn.TransformerEncoderLayer(2, 1, 4, dropout=0.2, batch_first=True, **settings)
        self.head = nn.Linear(2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(1))


class Vision(nn.Module):
    """Patches, a class token, positions, attention without weights."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv1d(2, 4, 1), nn.Parameter(torch.zeros(1, 1, 4))
        self.position, self.qkv, self.head = nn.Parameter(drawn(1, 4, 4) / 2), nn.Linear(4, 12), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = self.patch(x.transpose(1, 2)).transpose(1, 2)
        z = torch.cat([self.token.expand(len(z), -1, -1), z], 1) + self.position
        q, k, v = (
            t.unflatten(-1, (2, 2)).transpose(1, 2) for t in self.qkv(functional.layer_norm(z, (4,))).chunk(3, -1)
        )
        return self.head((z + functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))[:, 0])


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.a, self.b, self.reentrant, self.on = nn.Linear(2, 4), nn.Linear(4, CLASSES), reentrant, True

    def forward(self, x: Tensor) -> Tensor:
        def block(z: Tensor) -> Tensor:
            return torch.tanh(self.a(z))

        return self.b(checkpoint(block, x.mean(1), use_reentrant=self.reentrant) if self.on else block(x.mean(1)))


SEQUENCES: dict[str, Callable[[], nn.Module]] = {
    "rnn": partial(Recurrent, nn.RNN),
    "gru": partial(Recurrent, nn.GRU, bidirectional=True),
    "lstm": partial(Recurrent, nn.LSTM, num_layers=2),
    "encoder": lambda: Encoder().eval(),
    "encoder, norm first": lambda: Encoder(norm_first=True, activation="gelu").eval(),
    "vision": Vision,
    "checkpointed": partial(Checkpointed, False),
    "checkpointed, reentrant": partial(Checkpointed, True),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_what_torch_cannot_differentiate_twice_is_replaced(name: str) -> None:
    torch.manual_seed(0)
    model, x, y = SEQUENCES[name](), drawn(N, 3, 2), labels(N)
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y, rows=ROWS)
    model.on = False
    check(H, exact(model, lambda m: functional.cross_entropy(m(x.double()), y)))


class Normed(nn.Module):
    """The effective weights of weight normalization, by operations alone."""

    def __init__(self, model: nn.Sequential, length: Tensor, direction: Tensor) -> None:
        super().__init__()
        self.bias, self.last = copy.deepcopy(model[0].bias), copy.deepcopy(model[2])
        self.length, self.direction = (nn.Parameter(t.detach().clone()) for t in (length, direction))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.length * self.direction / self.direction.square().sum(1, keepdim=True).sqrt()
        return self.last(torch.tanh(functional.linear(x, weight, self.bias)))


@pytest.mark.parametrize("by_hook", [False, True])
def test_weight_normalization_has_its_second_derivative(by_hook: bool) -> None:
    torch.manual_seed(0)
    model, x, y = chain(nn.Tanh()), drawn(N, D), labels(N)
    if by_hook:
        nn.utils.weight_norm(model[0])
        plain = Normed(model, model[0].weight_g, model[0].weight_v)
    else:
        nn.utils.parametrizations.weight_norm(model[0])
        own = model[0].parametrizations.weight
        plain = Normed(model, own.original0, own.original1)
    before = torch._weight_norm
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y, rows=ROWS)
    check(H, exact(plain, lambda m: functional.cross_entropy(m(x.double()), y)))
    assert torch._weight_norm is before


def test_autocast_of_the_models_own_is_off_too() -> None:
    class Narrowing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = chain(nn.Tanh())

        @torch.autocast("cpu", torch.bfloat16)
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.body(x).float()

    torch.manual_seed(0)
    model, x, y = Narrowing(), drawn(N, D), labels(N)
    expected = exact(model.body, lambda m: functional.cross_entropy(m(x.double()), y))
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y)
    torch.testing.assert_close(matrix(H).double(), expected, rtol=1e-4, atol=1e-6)
    # The caller's own use of it is as before.
    assert model.body[0](x).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert model.body[0](x).dtype == torch.bfloat16


def test_evaluations_on_several_threads_leave_torch_as_it_was() -> None:
    torch.manual_seed(0)
    model, x, y = Residual(), drawn(N, D), labels(N)
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y, rows=7)
    H.path.graph_bytes = 0
    H.refresh()
    vector, before = drawn(H.shape[0]), (torch.autocast.__enter__, torch._weight_norm, checkpoint)
    expected = H @ vector
    outside: list[torch.dtype] = []

    def trains() -> None:
        for _ in range(200):
            with torch.autocast("cpu", torch.bfloat16):
                outside.append(model.a(x).dtype)

    with ThreadPoolExecutor(5) as pool:
        training = pool.submit(trains)
        found = list(pool.map(lambda _: copy.deepcopy(H) @ vector, range(40)))
        training.result()
    assert all(torch.equal(each, expected) for each in found)
    assert set(outside) == {torch.bfloat16}
    assert (torch.autocast.__enter__, torch._weight_norm, checkpoint) == before


class Language(nn.Module):
    """A small decoder with tied embeddings, which are asked to have sparse gradients."""

    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.embedding, self.body = nn.Embedding(5, 4, sparse=sparse), nn.TransformerEncoderLayer(4, 2, 4, dropout=0.0)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.head(self.body(self.embedding(tokens.T), src_mask=mask, is_causal=True)).permute(1, 2, 0)


def test_the_padding_row_of_an_embedding_is_a_constant() -> None:
    torch.manual_seed(0)
    tokens, y = labels(N, 4, classes=5), labels(N)
    model = nn.Sequential(nn.Embedding(5, 3, padding_idx=0), nn.Tanh(), nn.Flatten(), nn.Linear(12, CLASSES))
    model[0].weight.data[0] = 0.5
    H = HessianOperator(model, nn.CrossEntropyLoss(), tokens, y, rows=ROWS)
    expected = exact(model, lambda m: functional.cross_entropy(m(tokens), y))
    assert not bool(expected[:3].any())
    check(H, expected)


def test_lazy_layers_are_refused_before_their_first_use() -> None:
    with pytest.raises(ValueError, match="lazy layers"):
        HessianOperator(nn.LazyLinear(CLASSES), nn.CrossEntropyLoss(), drawn(N, D), labels(N))


@pytest.mark.parametrize("sparse", [False, True])
def test_a_language_model_with_padded_tokens(sparse: bool) -> None:
    torch.manual_seed(0)
    tokens = labels(N, 4, classes=5)
    targets = tokens.roll(-1, 1)
    targets[: N // 2, 2:] = -100
    model = Language(sparse)
    H = HessianOperator(model, nn.CrossEntropyLoss(), tokens, targets, rows=ROWS)
    assert H.shape[0] == sum(p.numel() for p in model.parameters())
    model.embedding.sparse = False
    check(H, exact(model, lambda m: functional.cross_entropy(m(tokens), targets)))


def test_compiled_models_stand_for_what_is_beneath() -> None:
    torch.manual_seed(0)
    model, x, y = Residual(), drawn(N, D), labels(N)
    H = HessianOperator(torch.compile(model), nn.CrossEntropyLoss(), x, y)
    assert list(H.parameter_slices) == ["a.weight", "a.bias", "b.weight", "b.bias"]
    check(H, exact(model, lambda m: functional.cross_entropy(m(x.double()), y)))
    part = chain(nn.Tanh())
    expected = exact(part, lambda m: functional.cross_entropy(m(x.double()), y))
    part[0] = torch.compile(part[0], backend="eager")
    H = HessianOperator(part, nn.CrossEntropyLoss(), x, y)
    assert list(H.parameter_slices) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    torch.testing.assert_close(matrix(H).double(), expected, rtol=1e-4, atol=1e-6)


IGNORED = torch.where(torch.arange(N) < 9, -100, labels(N))
REAL = drawn(N, CLASSES, seed=5)
SOFT = REAL.softmax(1)
LOSSES: dict[str, tuple[Callable[..., Tensor], Tensor]] = {
    "weights": (nn.CrossEntropyLoss(weight=WEIGHT), labels(N).sort().values),
    "weights of a function": (partial(functional.cross_entropy, weight=WEIGHT), labels(N).sort().values),
    "ignored": (nn.CrossEntropyLoss(), IGNORED),
    "ignored function": (functional.cross_entropy, IGNORED),
    "another ignored index": (nn.CrossEntropyLoss(ignore_index=1), labels(N).sort().values),
    "smoothing and weights": (nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.2), labels(N).sort().values),
    "probabilities": (nn.CrossEntropyLoss(weight=WEIGHT), SOFT),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), labels(N)),
    "sum of a function": (partial(functional.mse_loss, reduction="sum"), REAL),
    "mean squared": (nn.MSELoss(), REAL),
    "huber": (nn.HuberLoss(delta=0.5), REAL),
    "logits": (nn.BCEWithLogitsLoss(pos_weight=WEIGHT), (REAL > 0).float()),
    "smooth": (nn.SmoothL1Loss(), REAL),
    "poisson": (nn.PoissonNLLLoss(), SOFT),
    "own": (lambda o, t: ((o - t) ** 4).mean(), REAL),
    "tiny": (lambda o, t: 1e-22 * ((o - t) ** 2).mean(), REAL),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_chunks_add_up_to_the_callers(name: str) -> None:
    torch.manual_seed(0)
    loss, targets = LOSSES[name]
    model, x = chain(nn.Tanh()), drawn(N, D)
    H = HessianOperator(model, loss, x, targets, rows=7)
    double = loss.double() if isinstance(loss, nn.Module) and "BCE" not in type(loss).__name__ else loss

    def value(m: nn.Module) -> Tensor:
        made = copy.deepcopy(double).double() if isinstance(double, nn.Module) else double
        if isinstance(made, partial) and "weight" in made.keywords:
            made = partial(made.func, weight=WEIGHT.double())
        return made(m(x.double()), widened(targets))

    check(H, exact(model, value))


@pytest.mark.parametrize("log_target", [False, True])
def test_batchmean_is_the_mean_over_samples(log_target: bool) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(chain(nn.Tanh()), nn.LogSoftmax(1)), drawn(N, D)
    loss = nn.KLDivLoss(reduction="batchmean", log_target=log_target)
    targets = SOFT.log() if log_target else SOFT
    H = HessianOperator(model, loss, x, targets, rows=ROWS)
    check(H, exact(model, lambda m: loss(m(x.double()), targets.double())))


def test_a_penalty_on_the_parameters_is_part_of_the_loss() -> None:
    torch.manual_seed(0)
    model, x, y = chain(nn.Tanh()), drawn(N, D), labels(N)

    def penalty(m: nn.Module) -> Tensor:
        return 0.05 * sum(p.square().sum() + p.pow(4).sum() for p in m.parameters())

    expected = exact(model, lambda m: functional.cross_entropy(m(x.double()), y) + penalty(m))
    H = HessianOperator(model, lambda o, t: functional.cross_entropy(o, t) + penalty(model), x, y, rows=ROWS)
    check(H, expected)
    batches = [(x[:9], y[:9]), (x[9:], y[9:])]
    check(
        HessianOperator(model, lambda m, b: functional.cross_entropy(m(b[0]), b[1]) + penalty(m), data=batches),
        expected,
    )
    # It moves along, and leaves the model alone.
    before = [p.clone() for p in model.parameters()]
    H.move_to(2 * H.point)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    moved = copy.deepcopy(model)
    nn.utils.vector_to_parameters(H.point, moved.parameters())
    check(H, exact(moved, lambda m: functional.cross_entropy(m(x.double()), y) + penalty(m)))


def test_weights_of_the_samples_come_with_the_targets_or_with_all_rows() -> None:
    torch.manual_seed(0)
    model, x, y = chain(nn.Tanh()), drawn(N, D), labels(N)
    weight = drawn(N, seed=3).abs()

    def weighted(o: Tensor, t: Tensor) -> Tensor:
        return (weight.to(o.dtype) * functional.cross_entropy(o, t, reduction="none")).mean()

    expected = exact(model, lambda m: weighted(m(x.double()), y))
    with pytest.raises(ValueError, match="failed"):
        HessianOperator(model, weighted, x, y, rows=ROWS)
    batches = DataLoader(TensorDataset(x, y, weight), batch_size=8)

    def of_batch(m: nn.Module, batch: Any) -> Tensor:
        inputs, targets, weights = batch
        return (weights * functional.cross_entropy(m(inputs), targets, reduction="none")).mean()

    check(HessianOperator(model, of_batch, data=batches), expected)


def contrastive(outputs: Tensor, targets: Tensor) -> Tensor:
    z = functional.normalize(outputs, dim=1)
    return functional.cross_entropy(z @ z.T, torch.arange(len(z)).roll(1))


NO_MEANS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "contrastive": contrastive,
    "sum": lambda o, t: functional.cross_entropy(o, t, reduction="sum"),
    "root": lambda o, t: functional.cross_entropy(o, t).sqrt(),
    "sum that is zero": lambda o, t: (o - o.detach()).square().sum() + 0 * o.sum(),
    "class weights": lambda o, t: functional.cross_entropy(o, t, weight=WEIGHT.to(o.dtype)),
    "one ignored": lambda o, t: functional.cross_entropy(o, t, ignore_index=2),
}


@pytest.mark.parametrize("name", NO_MEANS)
def test_losses_that_are_no_mean_are_refused_in_chunks_and_exact_at_once(name: str) -> None:
    torch.manual_seed(0)
    model, x, loss = chain(nn.Tanh()), drawn(N, D), NO_MEANS[name]
    y = torch.where(torch.arange(N) == 17, 2, labels(N, classes=2)) if name == "one ignored" else labels(N)
    with pytest.raises(ValueError, match=r"chunks|by differences"):
        HessianOperator(model, loss, x, y, rows=ROWS)
    if "zero" in name:
        return
    H = HessianOperator(model, loss, x, y, rows=N)
    check(H, exact(model, lambda m: loss(m(x.double()), y)))


def test_the_callers_own_normalizer_makes_them_exact() -> None:
    torch.manual_seed(0)
    model, x, y = chain(nn.Tanh()), drawn(N, D), labels(N).sort().values
    loss = NO_MEANS["class weights"]
    expected = exact(model, lambda m: loss(m(x.double()), y))
    check(HessianOperator(model, loss, x, y, rows=ROWS, size=lambda b: float(WEIGHT[b[1]].double().sum())), expected)
    total = exact(model, lambda m: NO_MEANS["sum"](m(x.double()), y))
    check(HessianOperator(model, NO_MEANS["sum"], x, y, rows=ROWS, reduction="sum"), total)


class Centred(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.tanh(self.layer(x))
        return z - z.mean(0, keepdim=True)


MIXING: dict[str, Callable[[], nn.Module]] = {
    "centred": Centred,
    "batch norm in training": lambda: chain(nn.BatchNorm1d(5), nn.Tanh()).train(),
    "attention over the batch": lambda: nn.Sequential(
        nn.Linear(D, 2), nn.TransformerEncoderLayer(2, 1, 4, 0.0), nn.Linear(2, CLASSES)
    ),
}


@pytest.mark.parametrize("name", MIXING)
def test_models_that_mix_samples_are_refused_in_chunks_and_exact_at_once(name: str) -> None:
    torch.manual_seed(0)
    model, x, y = MIXING[name](), drawn(N, D) + torch.linspace(-2, 2, N)[:, None], labels(N)
    buffers = [b.clone() for b in model.buffers()]
    with pytest.raises(ValueError, match=r"mixes samples"):
        HessianOperator(model, nn.CrossEntropyLoss(), x, y, rows=ROWS)
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y)
    check(H, exact(model, lambda m: functional.cross_entropy(m(x.double()), y)))
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))


class Noisy(nn.Module):
    def __init__(self, noise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.noise = nn.Linear(D, 5), nn.Linear(5, CLASSES), noise

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.noise(self.a(x))))


RANDOM: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: chain(nn.Dropout(0.5), nn.Tanh()),
    "functional dropout": lambda: Noisy(lambda z: functional.dropout(z, 0.3)),
    "stochastic depth": lambda: Noisy(lambda z: z if torch.rand(()) < 0.8 else torch.zeros_like(z)),
    "noise of numpy": lambda: Noisy(lambda z: z + 0.1 * float(np.random.default_rng().standard_normal())),
    "recurrent dropout": partial(Recurrent, nn.LSTM, num_layers=2, dropout=0.5),
    "dropout of attention": lambda: Encoder().train(),
    "rrelu": lambda: chain(nn.RReLU()),
}


@pytest.mark.parametrize("name", RANDOM)
def test_randomness_is_found_and_the_generators_stay(name: str) -> None:
    model = RANDOM[name]().train()
    x = drawn(N, 3, 2) if isinstance(model, Recurrent | Encoder) else drawn(N, D)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    with pytest.raises(ValueError, match="at random"):
        HessianOperator(model, nn.CrossEntropyLoss(), x, labels(N))
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * (1 - x.tanh() ** 2)


HIDDEN: dict[str, Callable[[Tensor], Tensor]] = {
    "once differentiable": Once.apply,
    "detached": lambda z: z.detach().tanh(),
    "half detached": lambda z: z * z.detach().tanh(),
    "straight through": lambda z: z + (z.round() - z).detach(),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_autograd_does_not_see_is_refused(name: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"autograd|once_differentiable"):
        HessianOperator(Noisy(HIDDEN[name]), nn.CrossEntropyLoss(), drawn(N, D), labels(N))


def test_a_loss_without_second_derivative_is_named() -> None:
    with pytest.raises(ValueError, match=r"no second derivative.*finite_difference"):
        HessianOperator(chain(nn.Tanh()), nn.MultiMarginLoss(p=2), drawn(N, D), labels(N))


def test_finite_differences_bound_their_error() -> None:
    torch.manual_seed(0)
    model, x, y = Noisy(Once.apply), drawn(N, D), labels(N)
    plain = Noisy(torch.tanh)
    plain.load_state_dict(model.state_dict())
    expected = exact(plain, lambda m: functional.cross_entropy(m(x.double()), y))
    vector = drawn(len(expected), seed=4).double()
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y, rows=ROWS, method="finite_difference")
    for operator, most in ((H, 1e-2), (H.in_float64(), 1e-6)):
        error = float(((operator @ vector).double() - expected @ vector).norm() / (expected @ vector).norm())
        assert error <= operator.product_error <= most


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_narrow_models_have_the_hessian_of_their_values_in_float32(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    model, x, y = chain(nn.LayerNorm(5), nn.GELU()).to(kind), drawn(N, D).to(kind), labels(N)
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y, rows=ROWS)
    assert H.torch_dtype == torch.float32
    check(H, exact(model, lambda m: functional.cross_entropy(m(x.double()), y)))


CHOICES: dict[str, tuple[Any, list[str]]] = {
    "glob": ("2.*", ["2.weight", "2.bias"]),
    "names": (["2.weight", "0.bias"], ["0.bias", "2.weight"]),
    "pattern": (__import__("re").compile("bias$"), ["0.bias", "2.bias"]),
    "predicate": (lambda name, p: p.ndim == 2, ["0.weight", "2.weight"]),
}


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=1e-13)])
@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_of_parameters_is_a_block(name: str, loss: nn.Module) -> None:
    torch.manual_seed(0)
    model, x, y = chain(nn.Tanh()), drawn(N, D), labels(N)
    params, names = CHOICES[name]
    H = HessianOperator(model, loss, x, y, params=params, rows=ROWS)
    assert list(H.parameter_slices) == names
    check(H, exact(model, lambda m: functional.cross_entropy(m(x.double()), y), names))
    H.move_to(2 * H.point)
    with torch.no_grad():
        for n, p in model.named_parameters():
            p.mul_(2 if n in names else 1)
    check(H, exact(model, lambda m: functional.cross_entropy(m(x.double()), y), names))


@pytest.mark.parametrize("act", [nn.Tanh(), nn.Mish()])
def test_frozen_parameters_are_left_out(act: nn.Module) -> None:
    torch.manual_seed(0)
    model, x, y = chain(act), drawn(N, D), labels(N)
    model[0].requires_grad_(False)
    H = HessianOperator(model, nn.CrossEntropyLoss(), x, y)
    expected = exact(model, lambda m: functional.cross_entropy(m(x.double()), y))
    assert len(expected) == 5 * CLASSES + CLASSES
    check(H, expected)
    assert not model[0].weight.requires_grad
    torch.testing.assert_close(
        H.gradient,
        torch.cat(
            [
                g.reshape(-1)
                for g in torch.autograd.grad(functional.cross_entropy(model(x), y), [*model[2].parameters()])
            ]
        ),
    )
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="requires_grad=False"):
        HessianOperator(model, nn.CrossEntropyLoss(), x, y)
