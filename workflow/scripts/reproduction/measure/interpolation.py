"""The solutions that optimizers end in, and the loss between them: figure 8."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from reproduction.experiment.table_catalogue import TABLES
from reproduction.measure.columns import typed
from reproduction.measure.sharpness import epsilon_sharpness, interpolate
from reproduction.training.batches import Samples
from reproduction.training.loop import evaluate


def best_solutions(history: pd.DataFrame, complete: Mapping[tuple[str, int], bool]) -> dict[str, tuple[int, float]]:
    """optimizer -> (seed, test accuracy) of the run that ends with the highest test accuracy; of equals the first seed.

    `history`: tables of one dataset's main runs. `complete` says of each (optimizer, seed) whether it reached its end;
    runs that did not are omitted, and so is an optimizer none of whose runs did.
    """
    best: dict[str, tuple[int, float]] = {}
    last = history.loc[history.groupby(["optimizer", "seed"], sort=True)["step"].idxmax()]
    columns = (last[name].to_numpy() for name in ("optimizer", "seed", "test_accuracy"))
    for optimizer, seed, accuracy in zip(*columns, strict=True):
        key = (str(optimizer), int(seed))
        if complete[key] and (key[0] not in best or accuracy > best[key[0]][1]):
            best[key[0]] = (key[1], float(accuracy))
    return best


def _evaluate_at(model: nn.Module, theta: np.ndarray, samples: Samples) -> float:
    like = next(model.parameters())
    nn.utils.vector_to_parameters(torch.from_numpy(theta).to(like.device, like.dtype), model.parameters())
    return evaluate(model, samples)[0]


def interpolation_table(
    model: nn.Module, weights: Mapping[str, np.ndarray], alphas: Sequence[float], train: Samples, test: Samples
) -> pd.DataFrame:
    """Mean loss over training, test and all samples on the line through each two solutions (equation 5).

    weights: optimizer -> theta (N,). alpha = 1 is the first optimizer of a pair, alpha = 0 the second.
    """
    rows = []
    for first, second in itertools.combinations(weights, 2):
        for alpha in alphas:
            theta = interpolate(weights[first], weights[second], alpha)
            on_train, on_test = _evaluate_at(model, theta, train), _evaluate_at(model, theta, test)
            both = (len(train) * on_train + len(test) * on_test) / (len(train) + len(test))
            rows.append((first, second, alpha, on_train, on_test, both))
    return typed(rows, TABLES["interpolation"].units)


def training_loss_and_gradient(
    model: nn.Module, samples: Samples, rows: int = 4096
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """The mean training loss and its gradient as a float64 function of theta (N,), in the model's own precision."""

    def at(theta: np.ndarray) -> tuple[float, np.ndarray]:
        like = next(model.parameters())
        nn.utils.vector_to_parameters(torch.from_numpy(theta).to(like.device, like.dtype), model.parameters())
        total, gradient = 0.0, np.zeros(theta.shape)
        for start in range(0, len(samples), rows):
            model.zero_grad(set_to_none=True)
            targets = samples.targets[start : start + rows]
            loss = nn.functional.cross_entropy(model(samples.inputs[start : start + rows]), targets, reduction="sum")
            loss.backward()
            total += float(loss.detach())
            gradient += (
                torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]).double().cpu().numpy()
            )
        return total / len(samples), gradient / len(samples)

    return at


def solution_table(
    model: nn.Module,
    solutions: Mapping[str, tuple[int, float]],
    weights: Mapping[str, np.ndarray],
    lambda_1: Mapping[tuple[str, int], float],
    epsilons: Sequence[float],
    train: Samples,
    test: Samples,
) -> pd.DataFrame:
    """Sharpness of each solution: lambda_1 of the training loss and its epsilon-sharpness, one row an epsilon.

    Keskar et al. 2017, metric 2.1.
    """
    loss_and_gradient = training_loss_and_gradient(model, train)
    rows = []
    for optimizer, (seed, accuracy) in solutions.items():
        theta = weights[optimizer].astype(np.float64)
        on_train, on_test = _evaluate_at(model, theta, train), _evaluate_at(model, theta, test)
        for epsilon in epsilons:
            sharpness = epsilon_sharpness(loss_and_gradient, theta, epsilon).sharpness
            top = lambda_1.get((optimizer, seed), np.nan)
            rows.append((optimizer, seed, accuracy, on_train, on_test, top, epsilon, sharpness))
    return typed(rows, TABLES["solutions"].units)
