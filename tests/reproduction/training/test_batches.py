"""Mini-batches: which samples they hold, and that every way to fetch them gives the same bits."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from eigendrift.scaling import SCALINGS, Scaling
from reproduction.training import batches
from reproduction.training.batches import Batches, Samples, batch_loader

SIZES = st.tuples(st.integers(1, 60), st.integers(1, 90), st.integers(0, 2**31))


@given(SIZES)
@settings(derandomize=True, deadline=None, max_examples=40)
def test_every_batch_is_full_and_every_sample_comes_once_an_epoch(sizes: tuple[int, int, int]) -> None:
    n, size, seed = sizes
    batches = Batches(n, size, seed)
    stream = [batches[t] for t in range(3 * n // size + 3)]
    assert {len(batch) for batch in stream} == {size}
    joined = torch.cat(stream)
    for epoch in range(len(joined) // n):
        assert sorted(joined[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))


@given(SIZES, st.lists(st.integers(0, 200), max_size=10))
@settings(derandomize=True, deadline=None, max_examples=40)
def test_a_batch_depends_on_seed_and_step_alone(sizes: tuple[int, int, int], order: list[int]) -> None:
    used, fresh = Batches(*sizes), Batches(*sizes)
    for t in order:
        used[t]
    for t in (0, 7, 3):
        assert torch.equal(used[t], fresh[t])
        assert torch.equal(used[t], Batches(*sizes)[t])


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    first, second = Batches(50, 50, 0), Batches(50, 50, 1)
    orders = [tuple(batches[t].tolist()) for batches in (first, second) for t in range(4)]
    assert len(set(orders)) == 8
    assert tuple(range(50)) not in orders


# How they are fetched

N, D, CPU = 70, 12, torch.device("cpu")


def samples(scaling: str, *, pixels: bool) -> Samples:
    random = np.random.default_rng(4)
    levels = random.integers(0, 256, (N, D), dtype=np.uint8)
    levels[:, 3] = 9  # a pixel that never changes
    targets, fitted = random.integers(0, 5, N), Scaling.fit(levels, scaling)
    return Samples(fitted(levels), targets, CPU, *([levels, fitted] if pixels else []))


def test_a_run_of_batches_is_these_batches_one_after_the_other() -> None:
    stream = Batches(N, 16, 2)
    assert torch.equal(stream.run(3, 9), torch.cat([stream[t] for t in range(3, 12)]))


@pytest.mark.parametrize("size", [1, 16, 48, 150])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_batch_from_grey_levels_has_the_bits_of_one_from_inputs(scaling: str, size: int, either_way: str) -> None:
    inputs, pixels = (batch_loader(samples(scaling, pixels=kept), size, 7) for kept in (False, True))
    assert type(inputs) is not type(pixels)
    places = [each.inputs.data_ptr() for each in (inputs, pixels)]
    # In turn as in training, on from anywhere, and back.
    for t in [*range(2 * batches.BATCHES_PER_FETCH + 3), 1000, 1001, 1003, 1000 + batches.BATCHES_PER_FETCH, 5, 4]:
        for each in (inputs, pixels):
            each.select(t)
            each.gather()
        assert torch.equal(inputs.inputs, pixels.inputs)
        assert torch.equal(inputs.targets, pixels.targets)
        expected = samples(scaling, pixels=False).inputs[Batches(N, size, 7)[t]]
        assert torch.equal(pixels.inputs, expected)
    assert places == [each.inputs.data_ptr() for each in (inputs, pixels)]


def test_without_the_loops_grey_levels_are_fetched_many_batches_at_a_time(
    monkeypatch: pytest.MonkeyPatch, no_loops: None
) -> None:
    fetched, select = [], torch.index_select
    monkeypatch.setattr(
        torch, "index_select", lambda *given, **named: (fetched.append(given[0]), select(*given, **named))
    )
    source = samples("standard", pixels=True)
    each = batch_loader(source, 16, 7)
    for t in range(2 * batches.BATCHES_PER_FETCH):
        each.select(t)
        each.gather()
    assert len(fetched) == 4
    assert all(array.data_ptr() != source.inputs.data_ptr() for array in fetched)


def test_the_full_batch_is_the_samples_themselves() -> None:
    source = samples("unit", pixels=True)
    each = batch_loader(source, N, 7)
    each.select(3)
    each.gather()
    assert each.inputs is source.inputs
    assert each.targets is source.targets
