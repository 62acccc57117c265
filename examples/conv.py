"""A small convolutional network on images of any size, for `model: {module: "examples/conv.py:build"}`."""

from torch import nn


def build(input_shape: tuple[int, int, int], classes: int, channels: int = 4) -> nn.Module:
    """Two convolutions of 3 x 3 with `channels` and twice as many channels, and a linear layer on their means."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], channels, 3, padding=1),
        nn.GELU(),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3, padding=1),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * channels, classes),
    )
