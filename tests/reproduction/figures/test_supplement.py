"""The supplementary figures, drawn by their own scripts from made-up tables."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from synthetic_tables import Synthetic, small_config

from eigendrift.sphere import overlap_quantiles
from reproduction.experiment.figure_catalogue import FIGURES, SUPPLEMENT, drawing, figure_name
from reproduction.experiment.runs import Run
from reproduction.figures.null_models import PROBABILITIES
from reproduction.figures.panels import Drawn
from reproduction.figures.sensitivity import VALUES, final_ratios, mean_alignments, plateaus
from reproduction.figures.solver_accuracy import open_range
from reproduction.figures.style import FONT_SIZE
from reproduction.files.tables import read_header

ROOT = Path(__file__).parents[3]
SENSITIVITY = {
    "variants": {
        **{f"scaling-{name}": {"scaling": name} for name in ("unit", "symmetric", "pixelwise")},
        "init-xavier_normal": {"init": "xavier_normal"},
    },
    "optimizers": ["sgd", "adam"],
    "seeds": [0, 1],
    "steps": 2000,
    "snapshots": {"every": 400, "waiting_times": [0, 100, 1000], "lags_per_decade": 3},
}
FEW_SWEEPS: dict[str, Any] = {
    "seeds": [0],
    "batch_size": {},
    "learning_rate": {},
    "snapshots": {"every": 200, "waiting_times": [0], "lags_per_decade": 1},
}
FULL = {"sensitivity": SENSITIVITY}
BROKEN = {Run("digits", "adam", "scaling-unit", 1): 0.4, Run("digits", "sgd", "main", 0): 0.0}
LAYOUTS: dict[str, dict[str, Any]] = {
    "full": {"config": small_config(**FULL)},
    "troubled": {"config": small_config(**FULL), "unconverged": 0.1, "reached": BROKEN},
    "smallest": {
        "config": small_config(
            datasets=["digits"],
            optimizers={"rmsprop": {"class": "RMSprop", "lr": 0.001}},
            training={"steps": 500, "seeds": [3]},
            snapshots={"every": 100, "waiting_times": [0], "lags_per_decade": 2},
            eigen={"dense_seed": 3, "k": 1, "dense_k": 4},
            sweeps={**FEW_SWEEPS, "seeds": [3]},
        )
    },
}


def draw(synthetic: Synthetic, name: str, output: Any) -> None:
    """Run a figure's script as Snakemake would."""
    snakemake = SimpleNamespace(
        input=SimpleNamespace(**synthetic.inputs(name)),
        params=SimpleNamespace(**synthetic.params(name)),
        output=output,
    )
    script = ROOT / "workflow" / "scripts" / "draw_figure.py"
    runpy.run_path(str(script), init_globals={"snakemake": snakemake})


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Drawn]:
    """All supplementary figures of all layouts."""
    found: dict[tuple[str, str], Drawn] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reproduction.jobs.script.start", lambda snakemake: None)
        patch.setattr(
            "reproduction.figures.save.save", lambda drawn, name, output, sources: found.update({output: drawn})
        )
        for layout, arguments in LAYOUTS.items():
            synthetic = Synthetic(tmp_path_factory.mktemp(layout), **arguments)
            for name in SUPPLEMENT:
                draw(synthetic, name, (layout, name))
    return found


def points(figure: Figure, gid: str) -> np.ndarray:
    found = [np.column_stack(line.get_data()) for ax in figure.axes for line in ax.lines if line.get_gid() == gid]
    return np.concatenate(found).astype(float) if found else np.empty((0, 2))


def note(figure: Figure) -> str:
    return figure.get_suptitle().replace("\n", " ")


# ---- S1


def test_every_run_of_every_reading_is_a_point(figures: dict[tuple[str, str], Drawn]) -> None:
    drawn = figures["full", "S1"]
    numbers = drawn.numbers
    assert len(numbers) == 2 * 5 * 2 * 2
    assert list(numbers["variant"].unique()) == [
        "main",
        "init-xavier_normal",
        "scaling-pixelwise",
        "scaling-symmetric",
        "scaling-unit",
    ]
    shown = np.sort(points(drawn.figure, "data")[:, 0])
    np.testing.assert_allclose(shown, np.sort(numbers[list(VALUES)].to_numpy().ravel()), rtol=1e-12)
    means = numbers.groupby(["dataset", "variant", "optimizer"])[list(VALUES)].mean().to_numpy()
    np.testing.assert_allclose(np.unique(points(drawn.figure, "mean")[:, 0]), np.unique(means), rtol=1e-12)
    assert (numbers["step"] == 2000).all()
    assert (numbers["waiting_time"] == 1000).all()
    # The paper's value belongs to its own network alone.
    assert len(points(drawn.figure, "paper")) == 0
    assert numbers[["paper_adam_ipr", "paper_adam_alignment"]].isna().all(axis=None)


def test_the_papers_value_stands_in_panels_of_its_network_alone(tmp_path: Path) -> None:
    network = {"hidden": [100, 100, 10]}
    config = small_config(
        datasets=["MNIST", "digits"], model=network, training={"steps": 500, "seeds": [0]}, sweeps=FEW_SWEEPS
    )
    config["snapshots"].update({"every": 100, "waiting_times": [0, 100], "lags_per_decade": 3})
    drawn: list[Drawn] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reproduction.jobs.script.start", lambda snakemake: None)
        patch.setattr("reproduction.figures.save.save", lambda figure, name, output, sources: drawn.append(figure))
        draw(Synthetic(tmp_path, config), "S1", None)
    np.testing.assert_array_equal(points(drawn[0].figure, "paper")[:, 0], [0.1, 0.1, 0.26, 0.26])
    known = drawn[0].numbers.set_index("dataset")[["paper_adam_ipr", "paper_adam_alignment"]].notna()
    assert known.all(axis=1).to_dict() == {"MNIST": True, "digits": False}


def test_an_alignment_is_the_mean_over_converged_snapshots_of_a_run() -> None:
    frame = pd.DataFrame({"seed": [0, 0, 0, 1], "gradient_alignment": [0.1, 0.3, 9.0, 0.5], "converged": [1, 1, 0, 1]})
    means = mean_alignments(frame.assign(dataset="d", optimizer="o", variant="main"))
    np.testing.assert_allclose(means["gradient_alignment"], [0.2, 0.5], rtol=1e-12)


def test_runs_that_broke_off_are_named_and_no_part_of_means(figures: dict[tuple[str, str], Drawn]) -> None:
    drawn = figures["troubled", "S1"]
    broken = drawn.numbers.query("variant == 'scaling-unit' and optimizer == 'adam' and dataset == 'digits'")
    assert broken["complete"].to_list() == [1, 0]
    assert "Adam, scaling unit, seed 1: to step 800 only" in note(drawn.figure)
    assert "SGD, seed 0: no data" in note(drawn.figure)


def test_a_final_ratio_is_the_geometric_mean_of_the_last_tenth() -> None:
    frame = pd.DataFrame({"step": [0, 890, 900, 950, 1000], "ipr": [9, 9, 0.01, 7, 0.04], "converged": [1, 1, 1, 0, 1]})
    frame = frame.assign(dataset="d", optimizer="o", variant="main", seed=0, steps=1000, n_parameters=50)
    found = final_ratios(frame).iloc[0]
    assert found["ipr"] == pytest.approx(0.02)
    assert (found["step"], found["complete"]) == (1000, 1)


def test_a_plateau_is_the_mean_of_the_last_third_at_the_late_waiting_time() -> None:
    lags = [1, 10, 100, 1000]
    rows = [(tw, lag, 0.1 * lag + tw) for tw in (0, 100, 900) for lag in lags]
    frame = pd.DataFrame(rows, columns=["waiting_time", "lag", "displacement"]).assign(
        dataset="d", optimizer="o", variant="main", seed=0, steps=1000, converged=1
    )
    other = frame[frame["waiting_time"] < 900].assign(seed=1)
    found = plateaus(pd.concat([frame, other]))
    # Waiting time 900 is not in both.
    assert found["waiting_time"].to_list() == [100, 100]
    assert found["displacement"].to_list() == pytest.approx([100 + (10 + 100) / 2] * 2)


# ---- S2


def test_curves_are_the_quantiles_of_the_overlaps(figures: dict[tuple[str, str], Drawn]) -> None:
    numbers = figures["full", "S2"].numbers
    sources = ["initialization", "permuted sgd", "permuted adam", "permuted sam", "sphere"]
    assert list(numbers["source"].unique()) == sources
    assert len(numbers) == 2 * 3 * 5 * len(PROBABILITIES)
    curve = numbers.query("dataset == 'digits' and i == 2 and source == 'sphere'")
    np.testing.assert_allclose(curve["overlap"], overlap_quantiles(PROBABILITIES, 17_610), rtol=1e-12)
    assert (numbers.query("source == 'initialization'")["pairs"] == 12 * 11 / 2).all()
    assert len(points(figures["full", "S2"].figure, "data")) == len(numbers)


# ---- S3


@pytest.mark.parametrize(("degrees", "bound"), [(10, 0.1), (80, 0.5), (3, 0.0), (0.001, 1e-5)])
def test_the_open_range_is_that_of_the_angles(degrees: float, bound: float) -> None:
    theta, beta, n = np.radians(degrees), np.arcsin(bound), 50
    low, high = open_range(2 / n * 2 * np.sin(theta / 2) ** 2, bound, n)
    assert low == pytest.approx(2 / n * (1 - np.cos(theta - beta)), rel=1e-6)
    assert high == pytest.approx(2 / n * (1 - np.cos(min(theta + beta, np.pi / 2))), rel=1e-6)


def test_a_movement_within_the_bound_may_be_none() -> None:
    low, high = open_range([2 / 8 * (1 - np.cos(0.1)), 1e-4], [np.sin(0.2), 1.0], 8)
    assert low.tolist() == [0, 0]
    assert high == pytest.approx([2 / 8 * (1 - np.cos(0.3)), 2 / 8])


def test_shares_and_spans_are_those_of_the_table(figures: dict[tuple[str, str], Drawn]) -> None:
    drawn = figures["full", "S3"]
    numbers = drawn.numbers
    assert ((numbers["within"] >= 0) & (numbers["within"] <= 1)).all()
    shares = numbers.groupby(["dataset", "optimizer", "i", "waiting_time"])["within"].mean()
    np.testing.assert_allclose(np.sort(points(drawn.figure, "share")[:, 1]), np.sort(shares), rtol=1e-12)
    shown = np.sort(points(drawn.figure, "span")[:, 1])
    spans = numbers.query("i == 3 and waiting_time in (0, 100, 1000)")["subspace_displacement"]
    np.testing.assert_allclose(shown, np.sort(spans), rtol=1e-12)


# ---- the look and the files


@pytest.mark.parametrize("name", SUPPLEMENT)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_texts_are_of_one_size_and_within_the_page(
    figures: dict[tuple[str, str], Drawn], layout: str, name: str
) -> None:
    from test_figures import check_look

    drawn = figures[layout, name]
    check_look(drawn, name)  # type: ignore[arg-type]
    assert FONT_SIZE == 8.0
    assert len(drawn.numbers) > 0
    assert list(drawn.units) == list(drawn.numbers.columns)


@pytest.mark.parametrize("name", SUPPLEMENT)
def test_redrawing_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    synthetic = Synthetic(tmp_path / "tables", small_config(**FULL))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reproduction.jobs.script.start", lambda snakemake: None)
        for folder in ("first", "second"):
            files = {kind: str(tmp_path / folder / f"fig{name}.{kind}") for kind in ("pdf", "png", "csv")}
            draw(synthetic, name, SimpleNamespace(**files))
    for kind in ("pdf", "png", "csv"):
        first, second = (tmp_path / folder / f"fig{name}.{kind}" for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    header = read_header(tmp_path / "first" / f"fig{name}.csv", kind=f"fig{name}")
    assert {key: header["identity"][key] for key in ("figure", "title")} == {
        "figure": name,
        "title": SUPPLEMENT[name]["title"],
    }


@pytest.mark.parametrize("name", SUPPLEMENT)
def test_captions_are_plain_sentences(name: str) -> None:
    caption = (ROOT / "workflow" / "report" / f"fig{name}.rst").read_text(encoding="utf-8")
    assert set(re.findall(r":(\w+):`", caption)) <= {"math"}
    assert caption.endswith(".\n")
    assert 1 <= len(re.findall(r"[.](?=\s)", caption)) <= 4


def test_names_and_titles() -> None:
    assert [figure_name(number) for number in (1, 21, "S2")] == ["fig01", "fig21", "figS2"]
    assert drawing(3, {})["title"] == FIGURES[3]["title"]
    assert drawing("S3", {})["title"] == SUPPLEMENT["S3"]["title"]
