"""The benchmark suite on its tiny problem: it runs, its tables have their columns, and what they say is correct."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pages import marked, read, rows

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.double_backward import DoubleBackward  # noqa: E402
from benchmarks.problem import QUICK, load, network, schedule_weights  # noqa: E402
from benchmarks.reference import Reference, tight_pairs  # noqa: E402
from benchmarks.report import GPU_TABLES, TABLES, TIMES, fill, requirements, times  # noqa: E402
from benchmarks.solver_tables import mean_over_schedule, summary  # noqa: E402
from benchmarks.timing import Timing, interleaved  # noqa: E402
from eigendrift.eigensolver.lanczos import PROBE_MATVECS  # noqa: E402
from reproduction.experiment.architecture import FullyConnected  # noqa: E402

COLUMNS = {
    "snapshots": ["optimizer", "step", "train_loss", "test_loss", "train_accuracy", "test_accuracy"],
    "product": ["task", "needed_GFLOP", "seconds", "noise", "GFLOP_per_second", "of_machine_rate"],
    "product_error": ["product", "relative_error"],
    "training": ["optimizer", "loop", "ms_per_step", "of_matrix_products"],
    "training_parts": ["optimizer", "part", "microseconds", "of_matrix_products"],
    "side_by_side": ["optimizer", "alone_seconds", "pair_seconds", "scaling"],
    "tracking": ["steps_between_snapshots", "ms_per_step", "added_ms_per_step", "added_share", "noise"],
    "memory": ["needed_MB", "used_MB", "ratio", "solves", "products", "growth_MB"],
    "general": ["method", "seconds", "products", "ratio_to_ours", "worst_true_residual", "worst_overlap", "error"],
    "scaling": ["axis", "value", "seconds", "products", "floor_seconds", "products_at_machine_rate_seconds"],
    "clusters": [
        "optimizer",
        "step",
        "i",
        "relative_gap",
        "cluster",
        "reported",
        "overlap",
        "angle_bound",
        "span_bound",
    ],
    "dense": ["type", "method", "asked", "seconds", "products", "worst_true_residual", "speed_up", "comparison"],
    "solvers_runs": ["optimizer", "step", "method", "seconds", "products", "ratio_to_ours", "error"],
    "solvers_pairs": ["method", "i", "eigenvalue", "true_residual", "stated_residual", "overlap", "relative_gap"],
    "solvers": ["method", "mean_seconds", "ratio_of_means", "worst_ratio", "worst_true_residual", "worst_overlap"],
    "requirements": ["requirement", "measured", "wanted", "met"],
    "any_module": ["network", "stage", "method", "seconds", "products", "cpu_ratio_to_ours", "worst_true_residual"],
}
OURS = "eigendrift"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = ["--quick", "--threads", "1", "--output", str(folder / "results"), "--cache", str(folder / "cache")]
    # The second is no part of `make benchmark`.
    for module in ("benchmarks.run", "benchmarks.any_module"):
        command = [sys.executable, "-m", module, *options]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder / "results"


def table(results: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(results / f"{name}.csv")


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_every_table_has_its_columns_and_rows(results: Path, name: str) -> None:
    frame = table(results, name)
    assert set(COLUMNS[name]) <= set(frame.columns)
    assert len(frame) > 0
    text = (results / f"{name}.md").read_text(encoding="utf-8").splitlines()
    assert len(text) == len(frame) + 2
    assert len({line.count("|") for line in text}) == 1


def test_our_pairs_are_right_and_so_are_those_of_eigsh(results: Path) -> None:
    pairs = table(results, "solvers_pairs")
    ours = pairs[pairs["method"] == OURS]
    assert len(ours) == 3 * 3 * len({*QUICK.snapshots, *QUICK.compared})
    assert ours["true_residual"].max() <= 1e-3
    # What is stated is what is found when the products are taken anew, to the rounding of float32.
    np.testing.assert_allclose(ours["stated_residual"], ours["true_residual"], atol=2e-6, rtol=1e-2)
    judged = pairs[pairs["method"].isin([OURS, "eigsh, double backward", "eigsh, double backward, graph kept"])]
    judged = judged[judged["step"].isin(QUICK.compared)]
    assert len(judged) == 3 * 3 * 3 * len(QUICK.compared)
    assert judged["overlap"].min() >= 0.9999
    assert judged["tight_residual"].max() <= 1e-8
    np.testing.assert_allclose(judged["eigenvalue"], judged["tight_eigenvalue"], rtol=1e-4)


def test_our_solver_takes_fewer_products_than_eigsh_but_for_its_bound(results: Path) -> None:
    """With so few samples there is no surrogate that could be probed, and eigsh bounds nothing."""
    solvers = table(results, "solvers").set_index("method")
    assert solvers.loc[OURS, "mean_products"] < solvers.loc["eigsh, double backward", "mean_products"] + PROBE_MATVECS
    assert solvers.loc[OURS, "pairs_within_tolerance"] == 1


def test_every_library_is_a_row_with_a_result_or_a_reason(results: Path) -> None:
    runs = table(results, "solvers_runs")
    assert runs["method"].nunique() == 6
    assert bool((runs["seconds"].notna() | runs["error"].notna()).all())


def test_the_convolutional_network_and_fifteen_pairs(results: Path) -> None:
    general = table(results, "general").set_index("method")
    assert general.loc[OURS, "worst_true_residual"] <= 1e-3
    assert general.loc[OURS, "worst_overlap"] >= 0.9999
    clusters = table(results, "clusters")
    assert clusters["overlap"].min() > 0.999
    assert clusters[clusters["cluster"] > 1]["reported"].eq(1).all()
    dense = table(results, "dense")
    assert dense[dense["type"] == "float64"]["worst_true_residual"].max() <= 1e-6
    assert set(dense["comparison"]) == {"the opponent", "same tolerance", "equal residuals"}


def test_products_agree_with_double_backward_in_float64(results: Path) -> None:
    assert table(results, "product_error")["relative_error"].max() < 1e-5


def test_limits_are_what_they_should_be(results: Path) -> None:
    scaling = table(results, "scaling")
    assert bool((scaling["floor_seconds"] <= scaling["products_at_machine_rate_seconds"]).all())
    assert set(scaling["axis"]) == {"samples", "width", "k"}
    memory = table(results, "memory").iloc[0]
    # 3 pairs take at least 3 products.
    assert memory["products"] >= 3 * memory["solves"]


def test_plots_and_machine_facts_name_no_place(results: Path) -> None:
    for name in ("solvers", "scaling", "product", "training"):
        assert (results / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (results / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    facts = json.loads((results / "machine.json").read_text(encoding="utf-8"))
    assert {"processor", "cores", "threads", "memory_GiB", "versions", "seconds", "total_minutes"} <= set(facts)
    for path in results.glob("*.[cmj]*"):
        text = path.read_text(encoding="utf-8")
        assert str(ROOT) not in text
        assert os.uname().nodename not in text


def test_the_page_has_a_place_for_every_table() -> None:
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    marked = set(re.findall(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", page, re.DOTALL))
    assert marked == (set(TABLES) - {"solvers_runs"}) | {"machine"} | {*GPU_TABLES, "gpu_machine"}
    filled = fill(page, {"memory": "| a |\n"})
    assert "<!-- memory -->\n| a |\n<!-- /memory -->" in filled
    assert fill(filled, {"memory": "| a |\n"}) == filled


def test_requirements_tell_met_from_missed(results: Path) -> None:
    tables = {name: table(results, name) for name in (*TABLES, "solvers_pairs") if name != "requirements"}
    tables["solvers"].loc[tables["solvers"]["method"] == "eigsh, double backward", "ratio_of_means"] = 8.0
    tables["solvers"].loc[tables["solvers"]["method"] == OURS, "worst_true_residual"] = 2e-3
    found = requirements(tables)
    assert found["met"].isin(["yes", "no", "", "not measured"]).all()
    assert found["met"].iloc[0] == "yes"
    assert found[found["requirement"].str.startswith("largest true")]["met"].item() == "no"


def test_reference_finds_clusters_and_judges_their_span() -> None:
    values = torch.cat([torch.tensor([5.0, 4.999, 3.0]).double(), torch.linspace(1.0, -1.0, 57).double()])
    q, _ = torch.linalg.qr(torch.randn(60, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    matrix = (q * values) @ q.T
    found = tight_pairs(lambda v: matrix @ v, 60, 3, seed=1)
    torch.testing.assert_close(found.values[:3], values[:3], rtol=1e-9, atol=0)
    assert [found.cluster(i) for i in range(3)] == [[0, 1], [0, 1], [2]]
    turned = (q[:, 0] + q[:, 1]) / 2**0.5
    assert found.overlap(0, turned) == pytest.approx(1.0)
    assert found.overlap(2, turned) == pytest.approx(0.0, abs=1e-7)
    assert found.relative_gaps(3)[0] == pytest.approx(0.001 / 5.0, rel=1e-3)


def test_a_cluster_beyond_the_last_pair_is_converged_to_its_end() -> None:
    values = torch.cat([torch.tensor([5.0, 4.0, 3.99]), torch.linspace(1.0, -1.0, 57)]).double()
    matrix = torch.diag(values)
    found = tight_pairs(lambda v: matrix @ v, 60, 2, seed=1)
    assert found.cluster(1) == [1, 2]
    assert float(found.vectors[2, 2].abs()) == pytest.approx(1.0)
    mixed = torch.zeros(60)
    mixed[1] = mixed[2] = 2**-0.5
    assert found.overlap(1, mixed) == pytest.approx(1.0)


def test_a_reference_that_does_not_converge_is_an_error() -> None:
    matrix = torch.diag(torch.linspace(1.0, 0.0, 200, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="did not reach"):
        tight_pairs(lambda v: matrix @ v, 200, 3, seed=0, limit=8)


def test_double_backward_is_the_hessian_in_chunks_and_with_a_kept_graph() -> None:
    inputs, targets = (part[:50] for part in load("digits").tensors())
    model = network(load("digits"), (5,)).double()
    shapes = [p.shape for p in model.parameters()]
    sizes = [p.numel() for p in model.parameters()]

    def loss(point: torch.Tensor) -> torch.Tensor:
        parts = [part.view(shape) for part, shape in zip(point.split(sizes), shapes, strict=True)]
        named = dict(zip(dict(model.named_parameters()), parts, strict=True))
        outputs = torch.func.functional_call(model, named, (inputs.double(),))
        return torch.nn.functional.cross_entropy(outputs, targets)

    point = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    v = torch.randn(len(point), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.autograd.functional.hvp(loss, point, v)[1]
    for chunk, keep_graph in ((None, False), (16, False), (16, True)):
        product = DoubleBackward(model, inputs, targets, chunk, keep_graph)
        for _ in range(2):
            torch.testing.assert_close(product(v), expected, rtol=1e-10, atol=1e-12)
        assert product.products == 2


def test_flops_of_the_papers_product() -> None:
    assert FullyConnected(784, [100, 100], 10).product_flops(60_000) == pytest.approx(26.7e9, rel=2e-3)


def test_weights_share_out_the_schedule() -> None:
    weights = schedule_weights([0, 100, 1000], 1000)
    assert weights.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(weights, [0.05, 0.5, 0.45])
    frame = pd.DataFrame({"optimizer": "sgd", "step": [1000, 0, 100], "seconds": [3.0, 1.0, 2.0]})
    assert mean_over_schedule(frame, "seconds", 1000) == pytest.approx(0.05 * 1 + 0.5 * 2 + 0.45 * 3)


def test_summary_compares_at_the_same_snapshots_only() -> None:
    runs = pd.DataFrame(
        [
            {"optimizer": "sgd", "step": 0, "method": OURS, "seconds": 100.0, "products": 5, "error": ""},
            {"optimizer": "sgd", "step": 10, "method": OURS, "seconds": 1.0, "products": 5, "error": ""},
            {"optimizer": "sgd", "step": 10, "method": "other", "seconds": 4.0, "products": 9, "error": ""},
            {"optimizer": "sgd", "step": 10, "method": "broken", "seconds": np.nan, "products": np.nan, "error": "why"},
        ]
    )
    pairs = pd.DataFrame(
        {"method": [OURS, "other"], "true_residual": [1e-4, 1e-2], "overlap": [1.0, 0.5], "cluster": [1, 2]}
    )
    found = summary(runs, pairs, 10, 1e-3).set_index("method")
    assert found.loc["other", "ratio_of_means"] == pytest.approx(4.0)
    assert found.loc["other", "pairs_within_tolerance"] == 0
    assert found.loc["other", "clustered_pairs"] == 1
    assert found.loc["broken", "note"] == "why"
    assert found.loc["broken", "snapshots"] == 0


def test_timing_interleaves_and_leaves_out_the_warm_up() -> None:
    calls: list[str] = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2)
    assert calls[2:] == ["a", "b", "b", "a"]
    assert {len(each.seconds) for each in times.values()} == {2}
    assert Timing((1.0, 2.0, 3.0)).median == 2.0
    assert Timing((1.0, 2.0, 3.0)).noise == pytest.approx(1.0)


def test_unused_reference_vectors_do_not_count() -> None:
    reference = Reference(torch.tensor([3.0, 1.0]).double(), torch.eye(4, 2).double(), 0.0)
    assert reference.overlap(0, torch.tensor([0.0, 1.0, 0.0, 0.0])) == 0.0


def test_the_page_on_scale_shows_what_was_measured_on_nodes() -> None:
    shown = rows(marked(read("docs/scale.md"), "nodes"))
    measured = pd.read_csv(ROOT / "benchmarks" / "results" / "nodes.csv").itertuples()
    assert shown == [
        [f"{row.nodes}", f"{row.wall_seconds:.0f}", f"{row.times_as_fast:.3g}", f"{row.seconds_of_jobs:.0f}"]
        for row in measured
    ]


def test_the_page_on_performance_has_the_times_that_were_measured() -> None:
    measured = ROOT / "benchmarks" / "results"
    expected = times(table(measured, "product"), table(measured, "solvers_runs"))
    assert marked(TIMES.read_text(encoding="utf-8"), "times") == expected
    assert len(rows(expected)) == 2
    assert "nan" not in expected
