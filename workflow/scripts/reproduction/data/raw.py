"""The record that every loader returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RawData:
    """Images and labels before any scaling.

    `train_inputs` (n, d) and `test_inputs` (m, d) are uint8 grey levels, one flattened image of `image_shape` a row;
    `train_targets` (n,) and `test_targets` (m,) are int64 class indices from 0 to `n_classes` - 1. `provenance` says
    what the data were made from (JSON values).
    """

    name: str
    train_inputs: np.ndarray
    train_targets: np.ndarray
    test_inputs: np.ndarray
    test_targets: np.ndarray
    n_classes: int
    image_shape: tuple[int, ...]
    provenance: Mapping[str, Any]
