"""Solutions and the loss between them, on a small network."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from reproduction.experiment.table_catalogue import TABLES
from reproduction.measure.interpolation import (
    best_solutions,
    interpolation_table,
    solution_table,
    training_loss_and_gradient,
)
from reproduction.measure.sharpness import epsilon_sharpness
from reproduction.training.batches import Samples
from reproduction.training.model import flatten, initialize, mlp

INPUTS, HIDDEN, CLASSES = 4, 5, 3


def samples(n: int, seed: int, dtype: Any = np.float32) -> Samples:
    inputs = np.random.default_rng(seed).standard_normal((n, INPUTS)).astype(dtype)
    return Samples(inputs, inputs[:, :CLASSES].argmax(axis=1).astype(np.int64), torch.device("cpu"))


def weights(seed: int) -> np.ndarray:
    model = mlp(INPUTS, [HIDDEN], CLASSES)
    initialize(model, seed, bias_init="uniform")
    return flatten(model).numpy()


TRAIN, TEST = samples(30, 0), samples(11, 1)
WEIGHTS = {"sgd": weights(0), "adam": weights(1), "sam": weights(2)}


def numpy_loss(theta: np.ndarray, data: Samples) -> float:
    w1, b1, w2, b2 = np.split(theta.astype(np.float64), np.cumsum([HIDDEN * INPUTS, HIDDEN, CLASSES * HIDDEN]))
    hidden = np.maximum(data.inputs.double().numpy() @ w1.reshape(HIDDEN, INPUTS).T + b1, 0)
    scores = hidden @ w2.reshape(CLASSES, HIDDEN).T + b2
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return float(-log_p[np.arange(len(data)), data.targets.numpy()].mean())


# Which solutions


def history(rows: list[tuple[str, int, int, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["optimizer", "seed", "step", "test_accuracy"])


def test_the_best_seed_is_that_of_the_highest_accuracy_at_the_end() -> None:
    table = history(
        [
            ("sgd", 0, 0, 0.99),
            ("sgd", 0, 100, 0.7),
            ("sgd", 1, 100, 0.8),
            ("sgd", 1, 0, 0.1),
            ("adam", 2, 100, 0.9),
            ("adam", 1, 100, 0.9),
            ("adam", 0, 50, 0.95),
        ]
    )
    complete = {("sgd", 0): True, ("sgd", 1): True, ("adam", 0): False, ("adam", 1): True, ("adam", 2): True}
    # Of equal ones the first seed; a run that did not reach its end does not count.
    assert best_solutions(table, complete) == {"sgd": (1, 0.8), "adam": (1, 0.9)}


def test_an_optimizer_without_a_complete_run_has_no_solution() -> None:
    table = history([("sgd", 0, 10, 0.5), ("adam", 0, 3, 0.5)])
    assert best_solutions(table, {("sgd", 0): True, ("adam", 0): False}) == {"sgd": (0, 0.5)}
    assert best_solutions(history([]), {("sgd", 0): False}) == {}


# The lines between them


def test_the_ends_of_each_line_are_the_solutions() -> None:
    model = mlp(INPUTS, [HIDDEN], CLASSES)
    table = interpolation_table(model, WEIGHTS, [-1.0, 0.0, 0.5, 1.0, 2.0], TRAIN, TEST)
    assert list(table.columns) == list(TABLES["interpolation"].units)
    assert list(dict.fromkeys(zip(table["first"], table["second"], strict=True))) == [
        ("sgd", "adam"),
        ("sgd", "sam"),
        ("adam", "sam"),
    ]
    at = table.set_index(["first", "second", "alpha"])
    for first, second in (("sgd", "adam"), ("sgd", "sam"), ("adam", "sam")):
        for alpha, name in ((1.0, first), (0.0, second)):
            row = at.loc[(first, second, alpha)]
            assert row["train_loss"] == pytest.approx(numpy_loss(WEIGHTS[name], TRAIN), rel=1e-6)
            assert row["test_loss"] == pytest.approx(numpy_loss(WEIGHTS[name], TEST), rel=1e-6)


def test_every_point_of_a_line_is_where_it_should_be() -> None:
    table = interpolation_table(mlp(INPUTS, [HIDDEN], CLASSES), WEIGHTS, np.linspace(-1, 2, 7).tolist(), TRAIN, TEST)
    assert len(table) == 3 * 7
    for row in table.to_dict("records"):
        theta = row["alpha"] * WEIGHTS[row["first"]].astype(float) + (1 - row["alpha"]) * WEIGHTS[row["second"]].astype(
            float
        )
        assert row["train_loss"] == pytest.approx(numpy_loss(theta, TRAIN), rel=1e-5)
        assert row["test_loss"] == pytest.approx(numpy_loss(theta, TEST), rel=1e-5)
        # Train and test together: every sample counts the same.
        assert row["loss"] == pytest.approx((30 * row["train_loss"] + 11 * row["test_loss"]) / 41, rel=1e-12)


@pytest.mark.parametrize("names", [[], ["sgd"]])
def test_without_two_solutions_there_is_no_line(names: list[str]) -> None:
    chosen = {name: WEIGHTS[name] for name in names}
    table = interpolation_table(mlp(INPUTS, [HIDDEN], CLASSES), chosen, [0.0, 1.0], TRAIN, TEST)
    assert (len(table), list(table.columns)) == (0, list(TABLES["interpolation"].units))
    assert {str(table[name].dtype) for name in ("alpha", "train_loss", "test_loss", "loss")} == {"float64"}


# Loss and gradient for the sharpness


@pytest.mark.parametrize("rows", [7, 30, 4096])
def test_the_gradient_is_that_of_finite_differences(rows: int) -> None:
    model = mlp(INPUTS, [HIDDEN], CLASSES, "tanh").double()
    at = training_loss_and_gradient(model, samples(30, 0, np.float64), rows)
    theta = WEIGHTS["sgd"].astype(np.float64)
    loss, gradient = at(theta)
    assert gradient.shape == theta.shape
    assert gradient.dtype == np.float64
    for j in range(0, len(theta), 3):
        step = np.zeros_like(theta)
        step[j] = 1e-5
        assert gradient[j] == pytest.approx((at(theta + step)[0] - at(theta - step)[0]) / 2e-5, abs=1e-9)
    assert at(theta)[0] == loss


def test_the_loss_is_the_mean_over_the_training_set_however_it_is_cut() -> None:
    model = mlp(INPUTS, [HIDDEN], CLASSES)
    expected = numpy_loss(WEIGHTS["adam"], TRAIN)
    results = [
        training_loss_and_gradient(model, TRAIN, rows)(WEIGHTS["adam"].astype(float)) for rows in (1, 7, 30, 100)
    ]
    for loss, gradient in results:
        assert loss == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(gradient, results[-1][1], atol=1e-6)
    assert np.abs(results[-1][1]).max() > 1e-2


# Their sharpness


def test_solutions_with_their_losses_and_sharpness() -> None:
    solutions = {"sgd": (3, 0.75), "sam": (0, 0.5)}
    lambda_1 = {("sgd", 3): 12.5, ("sgd", 0): -1.0, ("adam", 0): -2.0}
    model = mlp(INPUTS, [HIDDEN], CLASSES)
    table = solution_table(model, solutions, WEIGHTS, lambda_1, [1e-3, 5e-4], TRAIN, TEST)
    assert list(table.columns) == list(TABLES["solutions"].units)
    assert table["optimizer"].tolist() == ["sgd", "sgd", "sam", "sam"]
    assert table["seed"].tolist() == [3, 3, 0, 0]
    assert table["test_accuracy"].tolist() == [0.75, 0.75, 0.5, 0.5]
    assert table["epsilon"].tolist() == [1e-3, 5e-4] * 2
    assert table["lambda_1"].tolist()[:2] == [12.5, 12.5]
    # A solution whose spectrum is not known has none, rather than another's.
    assert table["lambda_1"].isna().tolist() == [False, False, True, True]
    for row in table.to_dict("records"):
        theta = WEIGHTS[row["optimizer"]].astype(float)
        assert row["train_loss"] == pytest.approx(numpy_loss(theta, TRAIN), rel=1e-6)
        assert row["test_loss"] == pytest.approx(numpy_loss(theta, TEST), rel=1e-6)
        loss_and_gradient = training_loss_and_gradient(mlp(INPUTS, [HIDDEN], CLASSES), TRAIN)
        assert row["sharpness"] == pytest.approx(epsilon_sharpness(loss_and_gradient, theta, row["epsilon"]).sharpness)
        assert row["sharpness"] > 0
    # A larger box holds the smaller one.
    assert (table["sharpness"][::2].to_numpy() > table["sharpness"][1::2].to_numpy()).all()


def test_no_solution_is_a_table_without_rows() -> None:
    table = solution_table(mlp(INPUTS, [HIDDEN], CLASSES), {}, {}, {}, [1e-3], TRAIN, TEST)
    assert (len(table), list(table.columns)) == (0, list(TABLES["solutions"].units))
    assert str(table["seed"].dtype) == "int64"
    assert str(table["sharpness"].dtype) == "float64"


def test_the_network_is_left_on_its_device_and_in_its_type() -> None:
    model = mlp(INPUTS, [HIDDEN], CLASSES)
    solution_table(model, {"sgd": (0, 0.5)}, WEIGHTS, {}, [1e-3], TRAIN, TEST)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert isinstance(model[0], nn.Linear)
    assert math.isfinite(float(flatten(model).sum()))
