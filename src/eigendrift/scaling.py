"""The four ways to scale grey levels, each an affine map that is fitted on the training set."""

from dataclasses import dataclass
from typing import Self

import numpy as np

SCALINGS = ("standard", "unit", "symmetric", "pixelwise")
_ROWS = 4096


@dataclass(frozen=True)
class Scaling:
    """The map x = (pixels - shift) * scale, in float32.

    Pixels can thus stay uint8 where memory is scarce, and be scaled batch by batch with the same result.

    Attributes:
        shift: (d,) float32, one value a pixel, in grey levels.
        scale: (d,) float32, one value a pixel, in 1 / grey level.

    Example:
        >>> scaling = Scaling.fit(np.array([[0, 255]], np.uint8), "unit")
        >>> scaling(np.array([[0, 255]], np.uint8)).tolist()
        [[0.0, 1.0]]
    """

    shift: np.ndarray
    scale: np.ndarray

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Scale pixels.

        Args:
            pixels: (n, d) uint8, grey levels.

        Returns:
            Inputs (n, d) float32, without a unit.
        """
        inputs = pixels.astype(np.float32)
        inputs -= self.shift
        inputs *= self.scale
        return inputs

    @classmethod
    def fit(cls, pixels: np.ndarray, name: str) -> Self:
        """Fit a scaling to the training set.

        - standard: the mean and standard deviation over all pixels of all images become 0 and 1;
        - unit: grey levels 0 to 255 become 0 to 1;
        - symmetric: grey levels 0 to 255 become -1 to 1;
        - pixelwise: every pixel's mean and standard deviation over the images become 0 and 1.

        Where the standard deviation is 0 the scaled value is 0.

        Args:
            pixels: (n, d) uint8, the grey levels of the training images.
            name: One of `SCALINGS`.

        Returns:
            The fitted scaling.

        Raises:
            ValueError: `name` is another one.
        """
        if name == "standard":
            sums, squares = _moments(pixels)
            mean, deviation = _mean_and_deviation(sums.sum(keepdims=True), squares.sum(keepdims=True), pixels.size)
        elif name == "pixelwise":
            mean, deviation = _mean_and_deviation(*_moments(pixels), len(pixels))
        elif name == "unit":
            mean, deviation = np.zeros(1), np.full(1, 255.0)
        elif name == "symmetric":
            mean, deviation = np.full(1, 127.5), np.full(1, 127.5)
        else:
            raise ValueError(f"scaling: {name!r} is not one of {', '.join(SCALINGS)}")
        scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
        width = pixels.shape[1]
        return cls(*(np.broadcast_to(each, width).astype(np.float32) for each in (mean, scale)))


def _moments(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # In integers the sums are exact: the same statistics on every machine, whatever the order of the additions.
    sums = np.zeros(pixels.shape[1], np.int64)
    squares = np.zeros(pixels.shape[1], np.int64)
    for start in range(0, len(pixels), _ROWS):
        block = pixels[start : start + _ROWS].astype(np.int64)
        sums += block.sum(axis=0)
        squares += (block * block).sum(axis=0)
    return sums, squares


def _mean_and_deviation(sums: np.ndarray, squares: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    # Python integers: count * squares passes the range of int64 on MNIST.
    variances = [
        (count * int(square) - int(total) ** 2) / count**2 for total, square in zip(sums, squares, strict=True)
    ]
    return sums / count, np.sqrt(variances)
