"""What only a GPU can show: products in each precision, solves, and a recorded training step. Skipped without one."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from eigendrift import (
    EmpiricalFisherOperator,
    GGNOperator,
    HessianOperator,
    PreconditionedOperator,
    adam_preconditioner,
    spectral_density,
    squared_frobenius_norm,
    top_eigenpairs,
    trace,
)
from eigendrift.hessian.mixed_precision import multiplying_in
from eigendrift.hessian.mlp import MLPHessian
from eigendrift.hessian.surrogate import surrogate_of
from eigendrift.scaling import Scaling
from reproduction.data.sources import load_raw
from reproduction.training.batches import Samples
from reproduction.training.gradients import FlatParameters
from reproduction.training.loop import Trainer
from reproduction.training.model import initialize, mlp

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
CUDA = torch.device("cuda")


def network() -> nn.Sequential:
    model = mlp(64, (20, 20), 10, "tanh")
    initialize(model, 2)
    return model.to(CUDA)


def operator() -> HessianOperator:
    raw = load_raw("digits", "", download=False)
    fitted = Scaling.fit(raw.train_inputs, "standard")
    x, y = torch.from_numpy(fitted(raw.train_inputs)), torch.from_numpy(raw.train_targets)
    return HessianOperator(network(), nn.CrossEntropyLoss(), x, y)


def test_errors_of_products_follow_their_precision() -> None:
    plain = operator()
    assert isinstance(plain.path, MLPHessian)
    block = torch.randn(3, plain.shape[0], device=CUDA)
    exact = plain.in_float64().product(block.double())
    errors = {}
    for precision in ("float32", "tf32"):
        with multiplying_in(precision):
            found = plain.path.in_precision(precision).product(block).double()
        errors[precision] = float((found - exact).norm() / exact.norm())
    assert errors["float32"] < 1e-6
    assert 1e-5 < errors["tf32"] < 3e-3


@pytest.mark.parametrize("preconditioned", [False, True])
def test_pairs_are_those_of_float64(preconditioned: bool) -> None:
    ours = operator()
    assert isinstance(ours.path, MLPHessian)
    exact = ours.in_float64()
    pairs = top_eigenpairs(ours, 3, 1e-3, surrogate=surrogate_of(ours.path, 0) if preconditioned else None)
    tight = top_eigenpairs(exact, 3, 1e-8)
    assert float((pairs.vectors.double() * tight.vectors).sum(0).abs().min()) > 1 - 1e-5
    vectors = pairs.vectors.double()
    true = (exact @ vectors - vectors * pairs.values.to(CUDA)).norm(dim=0).cpu() / pairs.values
    assert float(true.max()) <= 1.01e-3


@pytest.mark.parametrize("kind", [GGNOperator, EmpiricalFisherOperator])
def test_other_operators_are_those_of_the_cpu(kind: type[HessianOperator]) -> None:
    raw = load_raw("digits", "", download=False)
    x, y = torch.from_numpy(raw.train_inputs).float() / 16, torch.from_numpy(raw.train_targets).long()
    model, loss = network(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    loss(model(x.to(CUDA)), y.to(CUDA)).backward()
    optimizer.step()
    here, there = kind(model, loss, x, y), kind(copy.deepcopy(model).cpu(), loss, x, y)
    diagonal = adam_preconditioner(optimizer, here)
    assert diagonal.is_cuda
    pairs = [
        (here, there),
        ((2 * here).shifted(0.5), (2 * there).shifted(0.5)),
        (PreconditionedOperator(here, optimizer), PreconditionedOperator(there, diagonal.cpu())),
    ]
    vectors = torch.randn(here.shape[0], 2, device=CUDA)
    for ours, theirs in pairs:
        expected = theirs @ vectors.cpu()
        assert float(((ours @ vectors).cpu() - expected).norm()) < 1e-4 * float(expected.norm())
        for estimate in (trace, squared_frobenius_norm):
            assert estimate(ours).value == pytest.approx(estimate(theirs).value, rel=1e-3)
    known = top_eigenpairs(here, k=3)
    found = spectral_density(here, known, probes=2, steps=10)
    expected_density = spectral_density(there, top_eigenpairs(there, k=3), probes=2, steps=10)
    assert found.trace.value == pytest.approx(expected_density.trace.value, rel=1e-3)


SPECS: list[dict[str, Any]] = [
    {"class": "SGD", "lr": 0.1},
    {"class": "SGD", "lr": 0.1, "momentum": 0.9},
    {"class": "Adam", "lr": 0.01},
    {"class": "RMSprop", "lr": 0.01},
    {"class": "SAM", "base": "SGD", "lr": 0.1, "rho": 0.05},
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: "-".join(map(str, spec.values())))
def test_a_recorded_step_is_the_step(spec: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    data = random.standard_normal((90, 64)).astype(np.float32), random.integers(0, 10, 90)
    recorded, plain = FlatParameters(network()), FlatParameters(network())
    one, two = (Trainer(flat, spec, Samples(*data, CUDA), 16, 5) for flat in (recorded, plain))
    for t in range(12):
        one.take(t)
        two.compute_gradient(t)
        two.finish()
        assert torch.equal(recorded.vector, plain.vector)
    assert one._whole.graph is not None
