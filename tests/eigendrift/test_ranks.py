"""Data over the ranks of torch.distributed: the Hessian of all of it, and errors that end every rank in one line."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rank_cases
import torch
import torch.distributed as dist
from dense_hessian import CLASSES, N, exact, labels
from rank_cases import CROSS_ENTROPY, IGNORED, WEIGHT, model, run, x
from torch import Tensor, nn
from torch.nn import functional

from eigendrift import (
    EmpiricalFisherOperator,
    GGNOperator,
    HessianOperator,
    PreconditionedOperator,
    spectral_density,
    top_eigenpairs,
    trace,
)

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch has no gloo here"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What three ranks found in all cases."""
    return run(3, tmp_path_factory.mktemp("ranks"))


def values(found: list[dict[str, Any]], name: str) -> list[Any]:
    for rank, each in enumerate(found):
        assert "error" not in each[name], f"rank {rank}: {each[name]}"
    return [each[name]["value"] for each in found]


def bits(value: Any) -> Any:
    """A result in a form that == compares."""
    if isinstance(value, Tensor):
        return value.dtype, value.tolist()
    if isinstance(value, dict):
        return {name: bits(each) for name, each in value.items()}
    return [bits(each) for each in value] if isinstance(value, tuple | list) else value


def mean(targets: Tensor, weight: Tensor | None = None, reduction: str = "mean") -> Callable[[nn.Module], Tensor]:
    return lambda m: functional.cross_entropy(m(x()), targets, weight=weight, reduction=reduction)


SORTED = labels(N).sort().values
SAME: dict[str, tuple[Callable[[nn.Module], Tensor], str]] = {
    "analytic": (mean(labels(N)), "MLPHessian"),
    "general": (mean(labels(N)), "FunctionalHessian"),
    "class_weights": (mean(SORTED, WEIGHT), "FunctionalHessian"),
    "ignored": (mean(IGNORED), "FunctionalHessian"),
    "summed": (mean(labels(N), reduction="sum"), "FunctionalHessian"),
    "own_normalizer": (mean(IGNORED), "FunctionalHessian"),
    "loaders": (mean(labels(N)), "FunctionalHessian"),
    "one_batch_a_rank": (mean(labels(N)), "FunctionalHessian"),
    "some_parameters": (mean(labels(N)), "MLPHessian"),
    "one_member": (mean(labels(N)), "FunctionalHessian"),
    "two_members": (mean(labels(N)), "FunctionalHessian"),
}


@pytest.mark.parametrize("name", SAME)
def test_every_rank_has_the_hessian_and_the_pairs_of_all_data(found: list[dict[str, Any]], name: str) -> None:
    value, path = SAME[name]
    results = [each for each in values(found, name) if each is not None]
    assert len(results) == (2 if name == "two_members" else 3)
    assert bits(results[1:]) == bits([results[0]] * (len(results) - 1))
    network = model(nn.Tanh()) if path == "MLPHessian" else model()
    names = ["2.weight", "2.bias"] if name == "some_parameters" else [n for n, _ in network.named_parameters()]
    expected, result = exact(network, value, names), results[0]
    assert result["path"] == path
    torch.testing.assert_close(result["matrix"], expected, rtol=1e-9, atol=1e-12)
    assert result["loss"] == pytest.approx(float(value(network).detach()), rel=1e-12)
    chosen = [p for n, p in network.named_parameters() if n in names]
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(value(network), chosen)])
    torch.testing.assert_close(result["gradient"], gradient, rtol=1e-9, atol=1e-12)
    exact_values, q = torch.linalg.eigh(expected)
    torch.testing.assert_close(result["pairs"]["values"], exact_values.flip(0)[:2], rtol=1e-9, atol=0)
    overlaps = (result["pairs"]["vectors"] * q.flip(1)[:, :2]).sum(0).abs()
    torch.testing.assert_close(overlaps, torch.ones(2, dtype=torch.float64), rtol=1e-9, atol=0)


def test_one_process_with_all_data_takes_the_same_steps(found: list[dict[str, Any]]) -> None:
    H = HessianOperator(model(nn.Tanh()), CROSS_ENTROPY, x(), labels(N))
    pairs, spread = top_eigenpairs(H, 2, 1e-8), values(found, "analytic")[0]["pairs"]
    assert spread["matvecs"] == pairs.matvecs
    torch.testing.assert_close(spread["vectors"], pairs.vectors, rtol=0, atol=1e-12)
    torch.testing.assert_close(spread["values"], pairs.values, rtol=1e-14, atol=0)


def test_differences_have_their_error_over_all_ranks(found: list[dict[str, Any]]) -> None:
    results = values(found, "differences")
    assert bits(results[1:]) == bits(results[:1] * 2)
    expected = exact(model(), mean(labels(N)))
    errors = torch.linalg.vector_norm(results[0]["matrix"] - expected, dim=0)
    relative = float((errors / torch.linalg.vector_norm(expected, dim=0)).max())
    assert relative <= 2 * results[0]["error"] < 1e-3


def test_the_operator_moves_on_all_ranks(found: list[dict[str, Any]]) -> None:
    results = values(found, "elsewhere")
    assert bits(results[1:]) == bits(results[:1] * 2)
    (moved, loss, twin), (refreshed, later, gradient) = results[0]
    for factor, matrix, value in ((2.0, moved, loss), (3.0, refreshed, later)):
        network = model(nn.Tanh())
        with torch.no_grad():
            for p in network.parameters():
                p.mul_(factor)
        torch.testing.assert_close(matrix, exact(network, mean(labels(N))), rtol=1e-9, atol=1e-12)
        assert value == pytest.approx(float(mean(labels(N))(network).detach()), rel=1e-12)
    assert twin == pytest.approx(loss, rel=1e-12)
    assert gradient.shape == refreshed.shape[:1]


def test_tolerances_choose_the_precision_on_all_ranks(found: list[dict[str, Any]]) -> None:
    results = values(found, "single_precision")
    assert bits(results[1:]) == bits(results[:1] * 2)
    solved, (n, _), types = results[0]
    expected = torch.linalg.eigvalsh(exact(model(nn.Tanh()).float(), mean(labels(N)))).flip(0)[:2]
    for (eigenvalues, vectors, residuals), tolerance in zip(solved, (1e-3, 1e-5, 1e-6), strict=True):
        assert vectors.shape == (n, 2)
        assert float(residuals.max()) <= tolerance
        torch.testing.assert_close(eigenvalues, expected, rtol=tolerance, atol=0)
    assert types[-1] == torch.float64


def test_start_vectors_are_those_of_the_first_rank(found: list[dict[str, Any]]) -> None:
    results = values(found, "both_ends")
    assert bits(results[1:]) == bits(results[:1] * 2)
    exact_values = torch.linalg.eigvalsh(exact(model(), mean(labels(N))))
    (smallest, _), (largest, _) = results[0]
    torch.testing.assert_close(smallest, exact_values[:2], rtol=1e-7, atol=0)
    order = exact_values.abs().argsort(descending=True)[:2]
    torch.testing.assert_close(largest, exact_values[order], rtol=1e-7, atol=0)


def test_scipy_runs_on_all_ranks(found: list[dict[str, Any]]) -> None:
    results = values(found, "by_scipy")
    expected = torch.linalg.eigvalsh(exact(model(), mean(labels(N))))[-2:]
    for each in results:
        torch.testing.assert_close(torch.from_numpy(each), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("case", ["with_surrogates", "with_surrogates_of_any_module"])
def test_each_rank_adds_its_surrogate(found: list[dict[str, Any]], case: str) -> None:
    results = values(found, case)
    assert bits(results[1:]) == bits(results[:1] * 2)
    eigenvalues, _, surrogate_products, products, expected = results[0]
    torch.testing.assert_close(eigenvalues, expected, rtol=1e-4, atol=0)
    assert surrogate_products > 2 * products > 0


def test_every_operator_and_estimate_is_that_of_all_data(found: list[dict[str, Any]]) -> None:
    results = values(found, "other_operators")
    assert bits(results[1:]) == bits(results[:1] * 2)
    result, network = results[0], model()
    nn.utils.vector_to_parameters(result["theta"], network.parameters())
    given: tuple[Any, ...] = (network, CROSS_ENTROPY, x(), labels(N))
    unit = torch.eye(len(result["theta"]), dtype=torch.float64)
    H = HessianOperator(*given)
    G, F = GGNOperator(*given), EmpiricalFisherOperator(*given)
    expected = [G @ unit, F @ unit, 2 * (H @ unit) - G @ unit, PreconditionedOperator(H, result["diagonal"]) @ unit]
    for matrix, found_values, dense in zip(result["matrices"], result["values"], expected, strict=True):
        torch.testing.assert_close(matrix, dense, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found_values, torch.linalg.eigvalsh(dense).flip(0)[:2], rtol=1e-9, atol=0)
    assert result["exact"] == pytest.approx([float(expected[2].trace()), float(expected[0].square().sum())], rel=1e-10)
    assert result["trace"] == pytest.approx(trace(H, products=24).value, rel=1e-10)
    assert result["density"] == pytest.approx(spectral_density(H, probes=3, steps=10, seed=1).trace.value, rel=1e-10)


# What is refused is refused on every rank, in one line

REFUSED: dict[str, str] = {
    "other_vectors": "vectors differs between ranks 0 and 1",
    "other_columns": "vectors differs between ranks 0 and 1",
    "other_parameters": r"2\.bias differs between ranks 0 and 2",
    "other_statistics": r"1\.running_mean differs between ranks 0 and 1",
    "other_class_weights": "weight differs between ranks 0 and 1",
    "other_choice": "parameters differs between ranks 0 and 1",
    "other_number_of_pairs": "k differs between ranks 0 and 1",
    "other_steps": "not in the same step: _own_gradient on rank 0, _own_product on rank 1",
    "an_optimizer_that_went_on": "the optimizer's state has changed",
    "changed_on_one": r"the model has changed since the operator was made \(0\.weight\)",
    "bad_input_on_one": "an input is not finite",
    "no_model_on_one": "model is str, expected",
    "no_mean": "size=",
    "no_mean_that_one_rank_sees": "size=",
    "same_samples": "ranks 0 and 1 have the same samples",
    "no_samples": "no rank has a sample",
    "tensors_and_batches": "some ranks give inputs and targets",
    "repeated_samples": r"takes 30 samples of 29.*Subset",
    "a_sampler_alone": "give distributed=True",
    "bad_options_of_a_solve": r"tol = -1\.0 is not allowed",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_one_rank_refuses_ends_all_of_them(found: list[dict[str, Any]], name: str) -> None:
    for rank, each in enumerate(found):
        assert "error" in each[name], f"rank {rank} was not told"
        assert each[name]["error"] == "ValueError"
        assert re.search(REFUSED[name], each[name]["message"]), each[name]["message"]
        assert "\n" not in each[name]["message"]


def test_an_operator_of_several_ranks_is_not_copied(found: list[dict[str, Any]]) -> None:
    assert {each["a_pickled_operator"]["error"] for each in found} == {"TypeError"}


def test_a_rank_that_fails_in_the_middle_of_a_solve_ends_the_others(found: list[dict[str, Any]]) -> None:
    errors = [each["a_rank_that_fails_in_a_solve"] for each in found]
    assert [each["error"] for each in errors] == ["RuntimeError", "RuntimeError", "OSError"]
    for each in errors[:2]:
        assert re.search("rank 2 failed: OSError: the disk is gone", each["message"])
        assert "\n" not in each["message"]


def test_a_rank_that_dies_ends_the_others_at_once(tmp_path: Path) -> None:
    first, second, third = run(3, tmp_path, ["a_rank_that_dies"])
    assert not second
    for each in (first, third):
        lost = each["a_rank_that_dies"]
        assert lost["error"] == "LostRankError"
        assert re.search(r"rank [02] of 3 has lost the others", lost["message"])
        assert "\n" not in lost["message"]


def test_the_timeout_of_the_group_ends_the_waiting(tmp_path: Path) -> None:
    first, second, third = run(3, tmp_path, ["a_rank_that_is_late"])
    assert first["a_rank_that_is_late"]["error"] == second["a_rank_that_is_late"]["error"] == "LostRankError"
    assert third["a_rank_that_is_late"] == {"value": None}


# One process


def test_without_torch_distributed_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="init_process_group"):
        HessianOperator(model(), CROSS_ENTROPY, x(), labels(N), distributed=True)


def test_what_is_no_group_is_named(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        for wrong in ("nccl", 3, None):
            with pytest.raises(ValueError, match=re.escape(f"distributed = {wrong!r} is not allowed")):
                HessianOperator(model(), CROSS_ENTROPY, x(), labels(N), distributed=wrong)
        network = nn.parallel.DistributedDataParallel(model())
        H = HessianOperator(network, CROSS_ENTROPY, x(), labels(N), distributed=True)
        one = HessianOperator(model(), CROSS_ENTROPY, x(), labels(N))
        vectors = rank_cases.vectors(H.shape[0])
        torch.testing.assert_close(H @ vectors, one @ vectors, rtol=0, atol=0)
        assert H.shape == (5 * 6 + 5 + CLASSES * 5 + CLASSES,) * 2
    finally:
        dist.destroy_process_group()
