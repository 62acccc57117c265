"""The supplementary figures, drawn by their own scripts from made-up tables."""

import math
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
from reproduction.experiment.labels import Layout
from reproduction.experiment.runs import Run
from reproduction.figures.exchanges import displacement_and_identity
from reproduction.figures.null_models import PROBABILITIES
from reproduction.figures.panels import Drawn
from reproduction.figures.sensitivity import FINGERPRINTS, Target, late_plateau
from reproduction.figures.solver_accuracy import open_range
from reproduction.files.tables import read_header, read_tables
from reproduction.statistics.exchanges import D_1, DECIDED, FOUND, IDENTITY, PLANE, late_plateaus

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


def test_every_number_of_every_variant_is_a_cell(figures: dict[tuple[str, str], Drawn]) -> None:
    numbers = figures["full", "S1"].numbers
    assert len(numbers) == len(FINGERPRINTS) * 5
    assert list(numbers["variant"].unique()) == [
        "main",
        "init-xavier_normal",
        "scaling-pixelwise",
        "scaling-symmetric",
        "scaling-unit",
    ]
    # Other data than the paper's are at no distance from it.
    assert numbers["distance"].isna().all()
    # Only the main runs have SAM.
    sam = numbers[numbers["fingerprint"].isin(["ipr_sam_over_sgd", "gain_sam"])]
    assert (sam["value"].notna() == (sam["variant"] == "main")).all()
    rest = numbers.drop(sam.index)
    assert rest["value"].notna().all()
    assert set(rest.query("fingerprint == 'ipr_adam'").groupby("variant")["n_seeds"].first()) == {2, 3}


def test_a_cell_is_measured_on_its_variant_s_own_tables(tmp_path: Path) -> None:
    network = {"hidden": [16]}
    config = small_config(
        datasets=["MNIST", "FashionMNIST"],
        model=network,
        training={"steps": 500, "seeds": [0, 1]},
        sweeps={**FEW_SWEEPS, "seeds": [0, 1]},
        sensitivity={
            **SENSITIVITY,
            "variants": {"wide": {"hidden": [20]}},
            "steps": 500,
            "snapshots": FEW_SWEEPS["snapshots"],
        },
    )
    config["snapshots"].update({"every": 100, "waiting_times": [0, 100], "lags_per_decade": 3})
    drawn: list[Drawn] = []
    synthetic = Synthetic(tmp_path, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reproduction.jobs.script.start", lambda snakemake: None)
        patch.setattr("reproduction.figures.save.save", lambda figure, name, output, sources: drawn.append(figure))
        draw(synthetic, "S1", None)
    cells = drawn[0].numbers.set_index(["fingerprint", "dataset", "variant"])
    paths = synthetic.paths("ipr", [{"variants": "sensitivity"}])
    table = read_tables([path for path in paths if "MNIST/adam/wide" in path], kind="ipr").query("dataset == 'MNIST'")
    late = table.query("i == 1 and step >= 450")["ipr"]
    assert cells.loc[("ipr_adam", "MNIST", "wide"), "value"] == pytest.approx(np.exp(np.log(late).mean()))
    assert cells.loc[("parameters", "MNIST", "wide"), "value"] == 784 * 20 + 20 + 20 * 10 + 10
    tau = read_tables([str(tmp_path / "baseline" / "wide" / "FashionMNIST.csv")], kind="baseline")
    assert cells.loc[("overlap", "FashionMNIST", "wide"), "value"] == pytest.approx(tau["mean_overlap"].iloc[0])
    measured = cells.loc[("ipr_adam", "MNIST", "wide")]
    assert measured["distance"] == pytest.approx(abs(np.log2(measured["value"] / 0.1)))


@pytest.mark.parametrize(
    ("target", "measured", "distance"),
    [
        (Target(2, 0.1), 0.025, 2.0),
        (Target(2, 0.1), 0.2, 1.0),
        (Target(0.004, 0.05, log=False), 0.058, 2.0),
        (Target(10, high=1e-3), 1e-4, 0.0),
        (Target(10, high=1e-3), 0.1, 2.0),
        (Target(0.1, low=0.0, log=False), -0.3, 3.0),
        (Target(2, 0.1), math.nan, math.nan),
        (Target(2, 0.1), -1.0, math.nan),
    ],
)
def test_distances_are_in_tolerances(target: Target, measured: float, distance: float) -> None:
    assert target.distance(measured) == pytest.approx(distance, nan_ok=True)


def test_runs_that_broke_off_are_named_and_no_part_of_means(figures: dict[tuple[str, str], Drawn]) -> None:
    drawn = figures["troubled", "S1"]
    cells = drawn.numbers.set_index(["fingerprint", "dataset", "variant"])["n_seeds"]
    assert cells["ipr_adam", "digits", "scaling-unit"] == 1
    assert cells["ipr_adam", "digits", "scaling-symmetric"] == 2
    assert "Adam, scaling unit, seed 1: to step 800 only" in note(drawn.figure)
    assert "SGD, seed 0: no data" in note(drawn.figure)


def test_a_plateau_is_the_mean_of_the_last_third_at_the_late_waiting_time() -> None:
    rows = [(tw, lag, 0.1 * lag + tw, 1) for tw in (0, 100, 900) for lag in (1, 10, 100, 1000)]
    frame = pd.DataFrame(rows, columns=["waiting_time", "lag", "displacement", "converged"])
    assert late_plateau(frame) == pytest.approx(900 + 0.1 * (100 + 1000) / 2)
    # Lags below half of 900.
    frame = frame[frame["lag"] <= 100]
    assert late_plateau(frame) == pytest.approx(100 + 0.1 * 100)
    assert math.isnan(late_plateau(frame[frame["waiting_time"] == 0]))


# ---- S2


def test_curves_are_the_quantiles_of_the_overlaps(figures: dict[tuple[str, str], Drawn]) -> None:
    numbers = figures["full", "S2"].numbers
    sources = ["initialization", "permuted sgd", "permuted adam", "permuted sam", "sphere"]
    assert list(numbers["source"].unique()) == sources
    assert len(numbers) == 2 * 3 * 5 * len(PROBABILITIES)
    curve = numbers.query("dataset == 'digits' and i == 2 and source == 'sphere'")
    np.testing.assert_allclose(curve["overlap"], overlap_quantiles(PROBABILITIES, 17_610), rtol=1e-12)
    assert (numbers.query("source == 'initialization'")["pairs"] == 12 * 11 / 2).all()
    # Drawn is i = 1; the numbers hold the others too.
    assert len(points(figures["full", "S2"].figure, "data")) == len(numbers) / 3


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


def test_shares_are_those_of_the_table(figures: dict[tuple[str, str], Drawn]) -> None:
    numbers = figures["full", "S3"].numbers
    assert ((numbers["within"] >= 0) & (numbers["within"] <= 1)).all()
    assert (numbers["displacement_low"] <= numbers["displacement"]).all()
    assert (numbers["displacement"] <= numbers["displacement_high"]).all()


# ---- S4


def exchanging(exchanged: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Displacement and identity of a run in which v_1 changes places with v_2, or turns by as much."""
    n, moved = 50, 0.03
    run = {"dataset": "d", "optimizer": "o", "variant": "main", "seed": 0, "steps": 200, "n_parameters": n}
    grid = [(tw, lag) for tw in (0, 100) for lag in (1, 10, 100)]
    displacement = pd.DataFrame(
        [(tw, lag, i) for tw, lag in grid for i in (1, 2, 3)], columns=["waiting_time", "lag", "i"]
    )
    displacement = displacement.assign(displacement=moved, subspace_displacement=0.0 if exchanged else moved / 2)
    identity = pd.DataFrame(grid, columns=["waiting_time", "lag"]).assign(i=1, displacement=moved)
    share = 0.9 if exchanged else 0.0
    identity = identity.assign(exchange_share=share, accepted=int(exchanged), certified=int(exchanged), broken=0)
    return displacement.assign(**run, converged=1), identity.assign(**run)


@pytest.mark.parametrize("exchanged", [True, False])
def test_an_exchange_of_order_is_no_motion_of_the_direction(exchanged: bool) -> None:
    displacement, identity = exchanging(exchanged)
    (row,) = late_plateaus(displacement, identity).to_dict("records")
    assert row["waiting_time"] == 100
    assert row[D_1] == pytest.approx(0.03)
    assert row[IDENTITY] == pytest.approx(0.003 if exchanged else 0.03)
    assert row[PLANE] == pytest.approx(0.0 if exchanged else 0.015)
    assert (row[FOUND], row[DECIDED]) == ((1, 1) if exchanged else (0, 0))
    baseline = pd.DataFrame({"dataset": ["d"], "i": [1], "displacement": [0.04]})
    drawn = displacement_and_identity(displacement, identity, baseline, Layout({"d": "D"}, {"o": "O"}, 0, 3))
    assert drawn.numbers["exchange"].iloc[0] == pytest.approx(0.9 if exchanged else 0.0)
    assert drawn.numbers["late_v1"].iloc[0] == pytest.approx(0.75)
    assert set(drawn.numbers["waiting_time"]) == {100}


def test_without_the_table_of_identities_the_spans_remain() -> None:
    displacement, identity = exchanging(exchanged=True)
    baseline = pd.DataFrame({"dataset": ["d"], "i": [1], "displacement": [0.04]})
    drawn = displacement_and_identity(displacement, identity.iloc[:0], baseline, Layout({"d": "D"}, {"o": "O"}, 0, 3))
    assert drawn.numbers["direction"].isna().all()
    assert drawn.numbers["exchange"].isna().all()
    assert (drawn.numbers["plane"] == 0).all()


# ---- the look and the files


@pytest.mark.parametrize("name", SUPPLEMENT)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_texts_are_of_one_size_and_within_the_page(
    figures: dict[tuple[str, str], Drawn], layout: str, name: str
) -> None:
    from test_figures import check_look

    drawn = figures[layout, name]
    check_look(drawn, name)  # type: ignore[arg-type]
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
