"""Permuted networks: each layer keeps its own entries."""

import torch

from reproduction.measure.permuted import permuted
from reproduction.training.model import flatten, initialize, layer_shapes, mlp


def test_every_layer_keeps_its_entries_and_few_stay_in_place() -> None:
    model = mlp(9, [7, 5], 3)
    initialize(model, 0, bias_init="uniform")
    trained, layers = flatten(model), layer_shapes(model)
    shuffled = permuted(trained, layers, seed=1)
    start = 0
    for parameter in model.parameters():
        part = slice(start, start + parameter.numel())
        torch.testing.assert_close(shuffled[part].sort().values, trained[part].sort().values, rtol=0, atol=0)
        start += parameter.numel()
    assert (shuffled == trained).float().mean() < 0.2


def test_seeds_decide_the_permutation() -> None:
    layers, trained = [["weight", [4, 6]], ["bias", [4]]], torch.arange(28.0)
    assert torch.equal(permuted(trained, layers, 3), permuted(trained, layers, 3))
    assert not torch.equal(permuted(trained, layers, 3), permuted(trained, layers, 4))
    assert torch.equal(trained, torch.arange(28.0))
