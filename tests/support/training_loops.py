"""Small training runs for tests of the tracker."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Noisy(nn.Module):
    """Batch statistics, dropout and a tied parameter: what a tracker could disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.3)
        self.second = nn.Linear(5, 5, bias=False)
        self.third = nn.Linear(5, 5)
        self.third.weight = self.second.weight
        self.last = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs."""
        hidden = self.drop(torch.relu(self.norm(self.first(x))))
        found: Tensor = self.last(torch.relu(self.third(torch.relu(self.second(hidden)))))
        return found


def data(samples: int = 64) -> tuple[Tensor, Tensor]:
    """Inputs and targets of a classification."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(samples, 6, generator=generator)
    return inputs, (inputs[:, :3] + 0.1 * torch.randn(samples, 3, generator=generator)).argmax(1)


def plain(seed: int = 0) -> nn.Sequential:
    """A network without anything random."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    first: int = 0,
    each: Callable[[int], object] | None = None,
) -> list[float]:
    """A loop that knows nothing of a tracker; the losses. The batch depends on the step alone."""
    inputs, targets = data()
    losses = []
    for step in range(first, first + steps):
        batch = torch.arange(16 * step, 16 * step + 16) % len(inputs)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs[batch]), targets[batch])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if each is not None:
            each(step)
    return losses
