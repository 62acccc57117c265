"""Figure 16 of networks that are not fully connected: which layers it shows, and what it calls them."""

import numpy as np
import pytest

from reproduction.experiment.labels import Layout
from reproduction.figures.eigenvector_map import MOST_LAYERS, draw_eigenvector_map, split_layers
from reproduction.files.final_eigenvectors import FinalEigenvectors

# A convolution, a normalization behind a linear layer without a bias, and many more.
SHAPES: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("stem.weight", (2, 1, 3, 3)),
    ("stem.bias", (2,)),
    ("mix.weight", (4, 2)),
    ("norm.weight", (4,)),
    ("norm.bias", (4,)),
    *((f"encoder.layers.{n}.self_attention.weight", (3, 2)) for n in range(MOST_LAYERS - 1)),
)
SIZE = sum(int(np.prod(shape)) for _, shape in SHAPES)


def vector(optimizer: str, weak: str) -> FinalEigenvectors:
    """A vector with little in the parameter `weak`."""
    parts = [np.full(int(np.prod(shape)), 1e-3 if name == weak else 1.0) for name, shape in SHAPES]
    values = np.concatenate(parts) * np.random.RandomState(0).uniform(0.5, 1.5, SIZE)
    identity = {"dataset": "digits", "optimizer": optimizer, "variant": "main", "seed": 0, "diverged_at": None}
    rows = np.tile(values / np.linalg.norm(values), (2, 1))
    return FinalEigenvectors(rows, (10, 10), (0.1, 0.1), SHAPES, identity)


def test_every_parameter_is_in_one_layer() -> None:
    found = split_layers(vector("sgd", "none"))
    assert [layer.name for layer in found[:3]] == ["stem", "mix", "norm"]
    assert [layer.weight.shape for layer in found[:3]] == [(2, 9), (4, 2), (4, 1)]
    assert [bool(np.isnan(layer.bias).all()) for layer in found[:3]] == [False, True, False]
    assert sum(layer.share for layer in found) == pytest.approx(1, abs=1e-12)
    assert sum(layer.weight.size + int((~np.isnan(layer.bias)).sum()) for layer in found) == SIZE


def test_of_a_deep_network_all_optimizers_show_the_same_layers() -> None:
    layout = Layout({"digits": "digits"}, {"sgd": "SGD", "adam": "Adam"}, 0, 1)
    shown = draw_eigenvector_map([vector("sgd", "mix.weight"), vector("adam", "stem.weight")], layout)
    layers = {name: set(rows["layer"]) for name, rows in shown.numbers.groupby("optimizer")}
    assert layers["sgd"] == layers["adam"]
    assert len(layers["sgd"]) == MOST_LAYERS
    titles = [ax.get_title(loc) for ax in shown.figure.axes for loc in ("left", "center")]
    named = [title for title in titles if "self_attention" in title]
    assert named
    assert not any("encoder" in title for title in named)
    assert f"Of {len(SHAPES) - 2} layers the {MOST_LAYERS}" in shown.figure.get_suptitle()
