"""Small tables with chosen values, for the tests of the claims."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reproduction.claims.evidence import Evidence, build_evidence
from reproduction.files.final_eigenvectors import FinalEigenvectors

ROLES = {"sgd": "sgd", "adam": "adam", "sam": "sam"}
TWO_DATASETS = ("MNIST", "FashionMNIST")


def run_rows(
    columns: dict[str, Any], *, optimizer: str = "sgd", seed: int = 0, dataset: str = "MNIST", variant: str = "main"
) -> pd.DataFrame:
    """Rows of one run, with its key in front."""
    frame = pd.DataFrame(columns)
    head: dict[str, Any] = {
        "dataset": dataset,
        "optimizer": optimizer,
        "variant": variant,
        "seed": seed,
        "batch_size": 128,
    }
    for position, (name, value) in enumerate({**head, "learning_rate": 0.01}.items()):
        frame.insert(position, name, value)
    return frame


def constant(value: float) -> Callable[[float, float], float]:
    """A function that is the same everywhere."""
    return lambda step, i: value


def stack(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Several runs' rows in one table."""
    return pd.concat(list(frames), ignore_index=True)


def evidence(
    *,
    datasets: Sequence[str] = TWO_DATASETS,
    roles: dict[str, str] | None = None,
    dense_seed: int = 0,
    vectors: Sequence[FinalEigenvectors] = (),
    diverged: Iterable[tuple[str, str, str, int]] = (),
    **tables: pd.DataFrame,
) -> Evidence:
    """Evidence from the given tables; those that are not given are empty."""
    return build_evidence(
        tables,
        vectors=vectors,
        diverged=diverged,
        datasets=datasets,
        optimizer_roles=ROLES if roles is None else roles,
        dense_seed=dense_seed,
    )


def two_times(
    displacement: Callable[[float, float], float],
    *,
    weights: Callable[[float, float], float] = lambda tw, lag: 1.0,
    alignment: Callable[[float, float], float] = lambda tw, lag: 0.5,
    waiting_times: Sequence[int] = (0, 10, 100, 1000, 5000, 8000),
    lags: Sequence[int] = (1, 10, 100, 1000),
    end: int = 10_000,
    **run: Any,
) -> pd.DataFrame:
    """Displacement rows of one run of `end` steps for i = 1, with the longest lag of every waiting time."""
    pairs = [(tw, lag) for tw in waiting_times for lag in sorted({*lags, end - tw}) if tw + lag <= end]
    return run_rows(
        {
            "waiting_time": [tw for tw, _ in pairs],
            "lag": [lag for _, lag in pairs],
            "i": 1,
            "displacement": [displacement(*pair) for pair in pairs],
            "overlap": 0.5,
            "weight_displacement": [weights(*pair) for pair in pairs],
            "update_alignment": [alignment(*pair) for pair in pairs],
            "angle_bound": 0.0,
            "converged": 1,
        },
        **run,
    )


def history(
    train_loss: Sequence[float] = (2.0, 1.0),
    test_accuracy: float = 0.9,
    steps: Sequence[int] = (0, 100_000),
    **run: Any,
) -> pd.DataFrame:
    """History rows of one run; the test accuracy holds at its last snapshot, 0.1 before."""
    accuracy = np.full(len(steps), 0.1)
    accuracy[-1] = test_accuracy
    columns = {"step": steps, "train_loss": train_loss, "test_loss": train_loss, "train_accuracy": accuracy}
    return run_rows({**columns, "test_accuracy": accuracy}, **run)


def pairs(
    ipr: Callable[[float, int], float] = lambda step, i: 1e-3,
    eigenvalue: Callable[[float, int], float] = lambda step, i: 10.0 / i,
    *,
    steps: Sequence[int] = (0, 50_000, 90_000, 100_000),
    k: int = 3,
    **run: Any,
) -> pd.DataFrame:
    """IPR rows of one run."""
    at = [(step, i) for step in steps for i in range(1, k + 1)]
    return run_rows(
        {
            "step": [step for step, _ in at],
            "i": [i for _, i in at],
            "eigenvalue": [eigenvalue(*pair) for pair in at],
            "residual": 5e-4,
            "gap": 1.0,
            "clustered": 0,
            "matvecs": 15,
            "converged": 1,
            "ipr": [ipr(*pair) for pair in at],
        },
        **run,
    )


def alignments(
    gradient: Callable[[float, int], float] = lambda step, i: 0.3,
    update: Callable[[float, int], float] = lambda step, i: 0.2,
    convergence: Callable[[float, int], float] = lambda step, i: 1.0,
    *,
    steps: Sequence[int] = tuple(range(0, 100_001, 10_000)),
    k: int = 3,
    **run: Any,
) -> pd.DataFrame:
    """Alignment rows of one run."""
    at = [(step, i) for step in steps for i in range(1, k + 1)]
    columns = {"gradient_alignment": gradient, "update_alignment": update, "convergence": convergence}
    return run_rows(
        {
            "step": [step for step, _ in at],
            "i": [i for _, i in at],
            **{name: [measure(*pair) for pair in at] for name, measure in columns.items()},
            "converged": 1,
        },
        **run,
    )


def baseline(dataset: str = "MNIST", tau: float = 0.0523, n: int = 89_610, initializations: int = 100) -> pd.DataFrame:
    """Baseline rows of one dataset for i = 1, 2."""
    displacement = 2.0 * (1.0 - tau) / n
    return pd.DataFrame(
        {
            "dataset": dataset,
            "n_parameters": n,
            "i": [1, 2],
            "mean_overlap": [tau, 0.9],
            "displacement": [displacement, 1.0],
            "displacement_low": [displacement * 0.999, 1.0],
            "displacement_high": [displacement * 1.001, 1.0],
            "overlap_low": [tau - 0.001, 0.9],
            "overlap_high": [tau + 0.002, 0.9],
            "n_initializations": initializations,
        }
    )


def vector(entries: np.ndarray, layers: Sequence[tuple[str, tuple[int, ...]]], **run: Any) -> FinalEigenvectors:
    """A final eigenvector of the main run of seed 0."""
    key = {"dataset": "MNIST", "optimizer": "adam", "variant": "main", "seed": 0, **run}
    return FinalEigenvectors(np.asarray(entries, dtype=np.float64)[None], (0,), (0.0,), tuple(layers), key)
