"""What is measured: the data, the networks, and how large everything is."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eigendrift.scaling import Scaling
from reproduction.data.sources import load_raw
from reproduction.experiment.architecture import FullyConnected
from reproduction.seeds import stream_seed
from reproduction.training.batches import Samples
from reproduction.training.model import initialize, mlp

HOME = Path(__file__).parent

OPTIMIZERS: Mapping[str, Mapping[str, Any]] = {
    "sgd": {"class": "SGD", "lr": 1e-2},
    "adam": {"class": "Adam", "lr": 1e-3},
    "sam": {"class": "SAM", "base": "SGD", "lr": 1e-2, "rho": 0.05},
}
BATCH_SIZE = 128
SEED = 0


@dataclass(frozen=True)
class Scale:
    """How large a benchmark is: the paper's problem, or one for trying the programs."""

    dataset: str
    hidden: tuple[int, ...]
    # Steps of the last snapshot, and all that are kept.
    steps: int
    snapshots: tuple[int, ...]
    # Snapshots on which every library runs, the most telling first.
    compared: tuple[int, ...]
    repeats: int
    block_sizes: tuple[int, ...]
    # One step of training is measured on this many.
    training_steps: int
    # Optimizers of which two runs are put side by side.
    paired: tuple[str, ...]
    # How the cost grows: fractions of the samples, widths of the first two hidden layers, numbers of pairs.
    fractions: tuple[float, ...]
    widths: tuple[int, ...]
    width_steps: int
    pairs: tuple[int, ...]
    dense_pairs: int
    # Snapshots at which two of these eigenvalues nearly coincide.
    clustered: tuple[tuple[str, int], ...]
    # The convolutional network: images, and steps of Adam before its spectrum is taken.
    images: int
    image_steps: int
    # Growth of the memory: solves, and the samples of each.
    solves: int
    solve_samples: int


PAPER = Scale(
    dataset="MNIST",
    hidden=(100, 100, 10),
    steps=100_000,
    snapshots=(0, 100, 1000, 5000, 10_000, 20_000, 40_000, 60_000, 80_000, 100_000),
    compared=(60_000, 20_000, 100_000, 2000),
    repeats=5,
    block_sizes=(1, 2, 3, 4, 8),
    training_steps=600,
    paired=("sgd", "adam", "sam"),
    fractions=(0.125, 0.25, 0.5, 1.0),
    widths=(50, 100, 200, 400),
    width_steps=1000,
    pairs=(1, 3, 6, 15),
    dense_pairs=15,
    clustered=(("sam", 5000), ("sgd", 5000)),
    images=2000,
    image_steps=300,
    solves=500,
    solve_samples=200,
)

QUICK = Scale(
    dataset="digits",
    hidden=(20, 20, 10),
    steps=400,
    snapshots=(0, 100, 200, 400),
    compared=(200, 400),
    repeats=3,
    block_sizes=(1, 2, 3),
    training_steps=60,
    paired=("sgd",),
    fractions=(0.5, 1.0),
    widths=(10, 20),
    width_steps=100,
    pairs=(1, 3),
    dense_pairs=6,
    clustered=(("adam", 400),),
    images=200,
    image_steps=20,
    solves=20,
    solve_samples=200,
)


@dataclass(frozen=True)
class Data:
    """Standardized inputs (n, d) float32 and class indices (n,), for training and test, and the shape of an image.

    The grey levels (n, d) of the training inputs are kept too, uint8, with the scaling that made the inputs of them.
    """

    train_inputs: np.ndarray
    train_targets: np.ndarray
    test_inputs: np.ndarray
    test_targets: np.ndarray
    classes: int
    image_shape: tuple[int, ...]
    train_pixels: np.ndarray
    scaling: Scaling

    def tensors(self) -> tuple[Tensor, Tensor]:
        """The training set as tensors that share the arrays' memory."""
        return torch.from_numpy(self.train_inputs), torch.from_numpy(self.train_targets)

    def train_samples(self, device: torch.device) -> Samples:
        """The training set as the workflow trains on it."""
        return Samples(self.train_inputs, self.train_targets, device, self.train_pixels, self.scaling)


@cache
def load(dataset: str) -> Data:
    """The data set from EIGENDRIFT_DATA, or from data/, into which it is fetched if need be."""
    root = data_folder(dataset)
    raw = load_raw(dataset, root, download=root == HOME.parent / "data")
    scaling = Scaling.fit(raw.train_inputs, "standard")
    return Data(
        scaling(raw.train_inputs),
        raw.train_targets,
        scaling(raw.test_inputs),
        raw.test_targets,
        raw.n_classes,
        raw.image_shape,
        raw.train_inputs,
        scaling,
    )


def data_folder(dataset: str) -> Path:
    if named := os.environ.get("EIGENDRIFT_DATA"):
        return Path(named)
    return HOME.parent / "data"


def widened(hidden: Sequence[int], width: int) -> tuple[int, ...]:
    """The hidden layers with the first two of another width, which hold nearly all parameters."""
    return (width, width, *hidden[2:])


def network(data: Data, hidden: Sequence[int]) -> nn.Sequential:
    """The fully connected ReLU network for the data, at its initialization."""
    model = mlp(data.train_inputs.shape[1], hidden, data.classes)
    initialize(model, stream_seed("initialization", SEED))
    return model


def product_flops(data: Data, hidden: Sequence[int]) -> float:
    """Floating-point operations that one H v with all training samples needs when the forward pass is kept."""
    return FullyConnected(data.train_inputs.shape[1], hidden, data.classes).product_flops(len(data.train_inputs))


def schedule_weights(steps: Sequence[int], last: int) -> np.ndarray:
    """Share of the paper's equally spaced snapshots in [0, `last`] that are nearest to each of `steps` (ascending)."""
    middles = [(a + b) / 2 for a, b in pairwise(steps)]
    edges = np.array([0.0, *middles, float(last)])
    return np.diff(edges) / last
