"""A training loop of one's own with batch normalization, dropout and a schedule: `python examples/loop.py` records it.

The workflow takes it from there with `trajectories: {mine: {folder: runs/mine, problem: "examples/loop.py:hessian"}}`.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from eigendrift import HessianOperator, Tracker


def network() -> nn.Module:
    """A convolutional network whose batches are normalized."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(36, 10),
    )


def data() -> tuple[Tensor, Tensor]:
    """Images (1797, 64) from 0 to 1, and their digits."""
    pixels, digits = load_digits(return_X_y=True)
    return torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)


def hessian() -> HessianOperator:
    """The Hessian that the eigenvectors are of: all images, the network as it predicts."""
    return HessianOperator(network().eval(), nn.CrossEntropyLoss(), *data())


def train(folder: str, steps: int = 100, every: int = 10) -> None:
    """The loop, and the lines that record it."""
    torch.manual_seed(0)
    model, (inputs, targets) = network(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with Tracker(model, folder, every=every).attach(optimizer):
        for _ in range(steps):
            batch = torch.randint(len(inputs), (64,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
            optimizer.step()
            schedule.step()


if __name__ == "__main__":
    train(*sys.argv[1:2] or ["runs/mine"])
