"""Edges of stability against the optimizers' own steps on quadratics, and the table of a run."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from eigendrift.stability import adam_edge, edge_of, preconditioned_edge_of, sam_edge, sgd_edge
from reproduction.measure.stability_tables import STABILITY_UNITS, stability_table
from reproduction.training.optimizers import OptimizerStep

LR = 0.05


def grows(spec: dict[str, Any], eigenvalue: float, steps: int = 400) -> bool:
    """Whether the optimizer's own steps on the loss eigenvalue x^2 / 2 grow."""
    x = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))

    def gradient() -> None:
        x.grad = eigenvalue * x.detach().clone()

    step = OptimizerStep([x], spec)
    largest = [0.0, 0.0]
    for j in range(steps):
        gradient()
        step(gradient)
        if j >= steps // 4:
            half = int(j >= 5 * steps // 8)
            largest[half] = max(largest[half], abs(float(x.detach())))
    return largest[1] > largest[0]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.5, "nesterov": True},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.5, "dampening": 0.5},
        {"weight_decay": 3.0},
        {"momentum": 0.9, "weight_decay": 3.0},
    ],
)
def test_gradient_descent_grows_above_its_edge_alone(spec: dict[str, Any]) -> None:
    edge = sgd_edge(LR, **spec)
    for factor in (0.98, 1.02):
        assert grows({"class": "SGD", "lr": LR, **spec}, factor * edge) == (factor > 1), factor


def test_the_edges_known_in_closed_form() -> None:
    assert sgd_edge(0.01) == 200
    assert sgd_edge(0.01, 0.9) == pytest.approx(380)
    assert sgd_edge(0.01, 0.9, nesterov=True) == pytest.approx(3.8 / 2.8 / 0.01)
    assert adam_edge(1e-3) == pytest.approx(38_000)
    assert adam_edge(1e-3, 0.0) == pytest.approx(2000)


@pytest.mark.parametrize("spec", [{}, {"momentum": 0.6}])
@pytest.mark.parametrize("norm", [1e-3, 0.2, 50.0])
def test_sams_edge_is_where_its_effective_curvature_meets_the_bases(spec: dict[str, Any], norm: float) -> None:
    rho, base = 0.05, sgd_edge(LR, **spec)
    edge = float(sam_edge(base, rho, norm))
    assert edge * (1 + rho * edge / norm) == pytest.approx(base, rel=1e-12)
    assert edge < base
    if not spec:
        assert edge == pytest.approx(norm / (2 * rho) * (math.sqrt(1 + 8 * rho / (LR * norm)) - 1), rel=1e-9)


def test_sam_reverses_a_gradient_of_its_edges_norm() -> None:
    # At |g| = lambda |x| a step of SAM takes x to -x: below it shrinks, above it grows.
    rho, eigenvalue = 0.05, 25.0
    norm = next(g for g in np.linspace(0.5, 8, 200_000) if float(sam_edge(2 / LR, rho, g)) >= eigenvalue)
    x = torch.nn.Parameter(torch.tensor([norm / eigenvalue], dtype=torch.float64))

    def gradient() -> None:
        x.grad = eigenvalue * x.detach().clone()

    gradient()
    OptimizerStep([x], {"class": "SAM", "base": "SGD", "lr": LR, "rho": rho})(gradient)
    assert float(x.detach()) == pytest.approx(-norm / eigenvalue, rel=1e-3)


def test_sams_edge_at_the_ends() -> None:
    np.testing.assert_array_equal(sam_edge(40.0, 0.05, [0.0, np.nan]), [0.0, np.nan])
    assert sam_edge(40.0, 0.05, 1e12) == pytest.approx(40.0)
    np.testing.assert_array_equal(sam_edge(40.0, 0.0, [0.0, 1.0]), [40.0, 40.0])
    assert float(sam_edge(40.0, 1e-12, 1.0)) == pytest.approx(40.0)


def test_configured_optimizers_and_those_without_an_edge() -> None:
    norms = np.array([0.1, 1.0])
    np.testing.assert_array_equal(edge_of({"class": "SGD", "lr": 0.01}, norms), [200, 200])
    sam = {"class": "SAM", "base": "SGD", "lr": 0.01, "rho": 0.05}
    np.testing.assert_array_equal(edge_of(sam, norms), sam_edge(200, 0.05, norms))
    for spec in (
        {"class": "Adam", "lr": 1e-3},
        {"class": "SAM", "base": "Adam", "lr": 1e-3, "rho": 0.05},
        {"class": "SGD", "lr": 0.01, "momentum": 1.0},
        {"class": "SAM", "base": "SGD", "lr": 0.01, "rho": 0.05, "weight_decay": 1000.0},
    ):
        assert np.isnan(edge_of(spec, norms)).all(), spec
    assert preconditioned_edge_of({"class": "Adam", "lr": 1e-3}) == pytest.approx(38_000)
    assert preconditioned_edge_of({"class": "Adam", "lr": 1e-3, "betas": [0.0, 0.9]}) == pytest.approx(2000)
    for other in ({"class": "AdamW", "lr": 1e-3}, {"class": "SGD", "lr": 0.1}, sam):
        assert math.isnan(preconditioned_edge_of(other))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sgd_edge(0.0), "learning_rate.* not 0.0"),
        (lambda: sgd_edge(math.nan), "learning_rate.* not nan"),
        (lambda: sgd_edge(0.1, 1.0), "momentum.* not 1.0"),
        (lambda: sgd_edge(0.1, dampening=-1.0), "dampening.* not -1.0"),
        (lambda: sgd_edge(0.1, weight_decay=-1.0), "weight_decay.* not -1.0"),
        (lambda: sam_edge(2.0, -0.1, 1.0), "rho.* not -0.1"),
        (lambda: sam_edge(2.0, 0.1, [-1.0]), "gradient_norm.* -1.0"),
        (lambda: sam_edge(-2.0, 0.1, 1.0), "base_edge.* not -2.0"),
        (lambda: adam_edge(1e-3, 1.0), "beta1.* not 1.0"),
    ],
)
def test_impossible_values_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# The table


def frame(rows: list[tuple[int, int, float]], **columns: Any) -> pd.DataFrame:
    made = pd.DataFrame(rows, columns=["step", "i", "eigenvalue"]).astype({"step": "int64", "i": "int64"})
    return made.assign(converged=1, gradient_norm=0.5).assign(**columns)


def test_the_table_of_a_run() -> None:
    pairs = frame(
        [(0, 1, 30.0), (0, 2, 20.0), (0, 3, 15.0), (0, 4, 1.0), (10, 1, 100.0), (10, 2, 90.0)],
        gradient_norm=[0.5] * 4 + [0.25] * 2,
        converged=[1, 1, 1, 0, 1, 0],
    )
    table = stability_table(pairs, {"class": "SAM", "base": "SGD", "lr": 0.01, "rho": 0.05})
    assert list(table.columns) == list(STABILITY_UNITS)
    assert table["step"].tolist() == [0, 10]
    assert table["scaled_lambda_1"].tolist() == pytest.approx([0.3, 1.0])
    assert table["edge"].tolist() == pytest.approx(sam_edge(200, 0.05, [0.5, 0.25]).tolist(), rel=1e-5)
    assert table["lambda_1_over_edge"].tolist() == pytest.approx(
        [30 / table["edge"][0], 100 / table["edge"][1]], rel=1e-5
    )
    assert table["gap_12"].tolist() == [10, 10]
    np.testing.assert_array_equal(table["gap_23"], [5, np.nan])
    assert table["gradient_norm"].tolist() == [0.5, 0.25]
    assert table["converged"].tolist() == [1, 0]
    assert table["preconditioned_edge"].isna().all()


def test_under_adam_the_edge_is_one_of_the_preconditioned_hessian() -> None:
    table = stability_table(frame([(0, 1, 30.0)]), {"class": "Adam", "lr": 1e-3})
    assert table[["edge", "lambda_1_over_edge"]].isna().all(axis=None)
    assert table["preconditioned_edge"].tolist() == pytest.approx([38_000])


def test_without_gradient_norms_sams_edge_is_missing_and_sgds_is_not() -> None:
    pairs = frame([(0, 1, 30.0)]).drop(columns="gradient_norm")
    assert stability_table(pairs, {"class": "SGD", "lr": 0.01})["edge"].tolist() == [200]
    assert stability_table(pairs, {"class": "SAM", "base": "SGD", "lr": 0.01, "rho": 0.1})["edge"].isna().all()


def test_the_table_of_no_snapshots_has_its_types() -> None:
    table = stability_table(frame([]), {"class": "SGD", "lr": 0.01})
    assert (len(table), list(table.columns)) == (0, list(STABILITY_UNITS))
    assert {name: str(table[name].dtype) for name in table} == {
        name: "int64" if name in ("step", "converged") else "float64" for name in table
    }
