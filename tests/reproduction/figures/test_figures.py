"""The figures, drawn by their own scripts from made-up tables."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from experiments import PACKAGES, SUPPORT
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from synthetic_tables import Synthetic, small_config

from reproduction.experiment.figure_catalogue import FIGURES
from reproduction.experiment.labels import Layout
from reproduction.experiment.runs import Run
from reproduction.figures.eigenvector_map import mapped_optimizers, typical
from reproduction.figures.panels import Drawn
from reproduction.figures.spectrum import convergence
from reproduction.figures.style import COLUMN_WIDTH, FONT_SIZE, optimizer_colors, style
from reproduction.figures.summaries import incomplete_note, on_grid, summarize, summarize_runs
from reproduction.figures.two_time import shared_ages, some_waiting_times
from reproduction.files.final_eigenvectors import FinalEigenvectors
from reproduction.files.tables import read_header, read_tables

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "workflow" / "scripts"
NUMBERS = sorted(FIGURES)
# Figures whose values come from eigenpairs, so that pairs which did not converge are marked in them.
FROM_PAIRS = [number for number in NUMBERS if number not in (4, 5, 8, 10, 16)]
SIX = {
    "sgd": {"class": "SGD", "lr": 0.01},
    "momentum": {"class": "SGD", "lr": 0.01, "momentum": 0.9},
    "adam": {"class": "Adam", "lr": 0.001},
    "sam": {"class": "SAM", "base": "SGD", "lr": 0.01, "rho": 0.05},
    "adamw": {"class": "AdamW", "lr": 0.001},
    "rmsprop": {"class": "RMSprop", "lr": 0.001},
}
ONE_SWEEP = {
    "seeds": [3],
    "batch_size": {},
    "learning_rate": {},
    "snapshots": {"every": 200, "waiting_times": [0], "lags_per_decade": 1},
}


class Studio:
    """Runs the figures' scripts on synthetic tables and keeps what they draw instead of saving it."""

    def __init__(self, synthetic: Synthetic) -> None:
        self.synthetic = synthetic
        self._drawn: dict[int, Drawn] = {}

    @property
    def layout(self) -> Layout:
        return Layout(**self.synthetic.experiment.layout())

    def __getitem__(self, number: int) -> Drawn:
        if number not in self._drawn:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("reproduction.jobs.script.start", lambda snakemake: None)
                patch.setattr(
                    "reproduction.figures.save.save", lambda drawn, *rest: self._drawn.update({number: drawn})
                )
                snakemake = SimpleNamespace(
                    input=SimpleNamespace(**self.synthetic.inputs(number)),
                    params=SimpleNamespace(**self.synthetic.params(number)),
                    output=None,
                )
                runpy.run_path(str(SCRIPTS / "draw_figure.py"), init_globals={"snakemake": snakemake})
        return self._drawn[number]

    def table(self, number: int, kind: str) -> pd.DataFrame:
        return read_tables(self.synthetic.inputs(number)[kind], kind=kind, keep_empty=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """The paper's layout: two datasets, three optimizers, three seeds."""
    return Studio(Synthetic(tmp_path_factory.mktemp("plain"), small_config()))


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Some pairs did not converge, some gradients are zero, some runs diverged."""
    reached = {
        Run("digits", "adam", "main", 0): 0.0,
        Run("digits", "sgd", "main", 2): 0.4,
        Run("digits_noisy", "adam", "main", 0): 0.3,
        **{Run("digits", "sgd", "learning_rate-3", seed): 0.0 for seed in range(3)},
    }
    synthetic = Synthetic(tmp_path_factory.mktemp("troubled"), small_config(), 0.03, 0.1, reached)
    return Studio(synthetic)


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """One dataset, one optimizer that is not the paper's, one seed, one pair, no sweep values."""
    config = small_config(
        datasets=["digits"],
        optimizers={"rmsprop": {"class": "RMSprop", "lr": 0.001}},
        training={"steps": 500, "seeds": [3]},
        snapshots={"every": 100, "waiting_times": [0], "lags_per_decade": 2},
        eigen={"dense_seed": 3, "k": 1, "dense_k": 4},
        sweeps=ONE_SWEEP,
    )
    return Studio(Synthetic(tmp_path_factory.mktemp("smallest"), config))


@pytest.fixture(scope="module")
def largest(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Three datasets and six optimizers."""
    config = small_config(
        datasets=["digits", "digits_noisy", "MNIST"],
        optimizers=SIX,
        training={"steps": 500, "seeds": [0, 1]},
        snapshots={"every": 100, "waiting_times": [0, 100], "lags_per_decade": 2},
        sweeps={**ONE_SWEEP, "seeds": [0, 1], "batch_size": {"16": 500, "32": 500, "full": 100}},
    )
    return Studio(Synthetic(tmp_path_factory.mktemp("largest"), config))


def axes_of(drawn: Drawn) -> list[Axes]:
    return list(drawn.figure.axes)


def lines(drawn: Drawn, gid: str = "data") -> np.ndarray:
    """All points (x, y) of the lines with this mark, sorted."""
    found = [np.column_stack(line.get_data()) for ax in axes_of(drawn) for line in ax.lines if line.get_gid() == gid]
    points = np.concatenate(found).astype(float) if found else np.empty((0, 2))
    points = points[~np.isnan(points).any(axis=1)]
    return in_order(points)


def in_order(points: np.ndarray) -> np.ndarray:
    ordered: np.ndarray = points[np.lexsort(points.T[::-1])]
    return ordered


def rows(drawn: Drawn, x: str, *ys: str) -> np.ndarray:
    """All points (x, y) of the table, sorted."""
    points = np.concatenate([drawn.numbers[[x, y]].to_numpy(float) for y in ys])
    return in_order(points[~np.isnan(points).any(axis=1)])


def texts(figure: Figure) -> list[Text]:
    """The texts that are drawn: not those of ticks outside an axis's range."""
    outside = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high:
                    outside |= {tick.label1, tick.label2}
    found = figure.findobj(Text)
    return [text for text in found if text.get_visible() and text.get_text().strip() and text not in outside]


def note(drawn: Drawn) -> str:
    return " ".join(text.get_text() for text in texts(drawn.figure) if text.get_gid() == "notes").replace("\n", " ")


# ---- what is drawn is what the table says


@pytest.mark.parametrize(
    ("number", "x", "ys"),
    [
        (1, "lag", ["displacement"]),
        (2, "update_alignment", ["gradient_alignment"]),
        (3, "step", ["ipr"]),
        (4, "step", ["train_loss"]),
        (6, "step", ["eigenvalue", "gap"]),
        (7, "step", ["convergence"]),
        (9, "lag", ["displacement"]),
        (10, "lag", ["weight_displacement"]),
        (11, "lag", ["update_alignment"]),
        (15, "step", ["ipr"]),
        (18, "step", ["ipr"]),
        (19, "step", ["ipr"]),
        (20, "lag", ["displacement"]),
        (21, "lag", ["displacement"]),
    ],
)
@pytest.mark.parametrize("studio", ["plain", "troubled"])
def test_lines_show_the_table(number: int, x: str, ys: list[str], studio: str, request: pytest.FixtureRequest) -> None:
    drawn = request.getfixturevalue(studio)[number]
    assert len(drawn.numbers) > 8
    np.testing.assert_allclose(lines(drawn), rows(drawn, x, *ys), rtol=1e-12)


@pytest.mark.parametrize(("number", "value"), [(3, "ipr"), (4, "train_loss"), (18, "ipr"), (19, "ipr")])
def test_bands_show_the_range_over_seeds(plain: Studio, number: int, value: str) -> None:
    drawn = plain[number]
    bands = [band for ax in axes_of(drawn) for band in ax.collections if isinstance(band, PolyCollection)]
    heights = np.concatenate([path.vertices[:, 1] for band in bands for path in band.get_paths()])  # type: ignore[index]
    low, high = drawn.numbers[f"{value}_min"], drawn.numbers[f"{value}_max"]
    np.testing.assert_allclose(np.unique(heights), np.unique(np.concatenate([low, high])), rtol=1e-12)
    assert (low <= drawn.numbers[value]).all()
    assert (drawn.numbers[value] <= high).all()
    assert (low < high).any()


def test_accuracies_stand_in_their_optimizers_column(plain: Studio) -> None:
    drawn = plain[5]
    numbers = drawn.numbers
    points = lines(drawn)
    np.testing.assert_allclose(np.sort(points[:, 1]), np.sort(numbers["test_accuracy"]))
    order = list(plain.layout.optimizers)
    for position, optimizer in enumerate(order):
        column = points[np.abs(points[:, 0] - position) < 0.3]
        np.testing.assert_allclose(
            np.sort(column[:, 1]), np.sort(numbers.loc[numbers["optimizer"] == optimizer, "test_accuracy"])
        )
    late = plain.table(5, "history").query("step >= 1800 and step % 100 == 0")
    means = 100 * late.groupby(["dataset", "optimizer", "seed"])["test_accuracy"].mean()
    means = means.groupby(["dataset", "optimizer"]).mean()
    np.testing.assert_allclose(np.unique(lines(drawn, "mean")[:, 1]), np.unique(means), rtol=1e-12)
    assert (numbers["test_accuracy_min"] <= numbers["test_accuracy"]).all()


@pytest.mark.parametrize("number", [13, 14])
def test_alignments_stand_near_their_index(plain: Studio, number: int) -> None:
    drawn = plain[number]
    points = lines(drawn)
    near = np.column_stack([np.round(points[:, 0]), points[:, 1]])
    expected = rows(drawn, "i", "gradient_alignment", "update_alignment")
    np.testing.assert_allclose(in_order(near), expected, rtol=1e-12)
    assert drawn.numbers["i"].max() == {13: 3, 14: 15}[number]


def test_a_point_of_figure_2_is_the_mean_over_seeds_of_run_means(plain: Studio) -> None:
    table = plain.table(2, "alignment").query("dataset == 'digits' and optimizer == 'sam' and i == 2")
    runs = table.groupby("seed")["gradient_alignment"].mean()
    row = plain[2].numbers.query("dataset == 'digits' and optimizer == 'sam' and i == 2").iloc[0]
    assert row["gradient_alignment"] == pytest.approx(runs.mean())
    assert row["gradient_alignment_error"] == pytest.approx(runs.std(ddof=1) / np.sqrt(3))
    assert len(plain[2].numbers) == 2 * 3 * 3


def test_a_curve_of_figure_1_is_the_median_over_seeds(plain: Studio) -> None:
    row = plain[1].numbers.query("optimizer == 'adam' and waiting_time == 100").iloc[2]
    table = plain.table(1, "displacement").query("optimizer == 'adam' and i == 1 and waiting_time == 100")
    seeds = table.loc[table["lag"] == row["lag"], "displacement"]
    assert len(seeds) == row["n"] == 3
    assert row["displacement"] == pytest.approx(np.median(seeds))
    assert row["displacement_max"] == pytest.approx(seeds.max())


def test_the_waiting_times_that_are_shown() -> None:
    every = [0, 10, 20, 30, 100, 300, 1000, 3000, 10000, 50000]
    assert some_waiting_times(every) == [0, 100, 1000, 10000, 50000]
    assert some_waiting_times([0, 10, np.nan, 100]) == [0, 10, 100]
    assert some_waiting_times([]) == []


def test_sweeps_are_compared_at_waiting_times_that_values_share() -> None:
    times = {"a": [0, 10, 100, 1000, 10000], "b": [0, 10, 100, 1000, 10000], "full": [0, 10, 100]}
    rows = pd.DataFrame([(v, tw) for v, listed in times.items() for tw in listed], columns=["variant", "waiting_time"])
    ages = shared_ages(rows)
    assert 100 in ages
    assert 10000 in ages
    assert len(ages) == 3


def test_the_grid_is_what_lies_at_equal_intervals() -> None:
    steps = [0, 1, 3, 10, 31, 100, 200, 231, 300, 400, 500]
    frame = pd.DataFrame({"dataset": "d", "optimizer": "o", "variant": "main", "seed": 0, "step": steps})
    assert on_grid(frame)["step"].to_list() == [0, 100, 200, 300, 400, 500]
    broken = frame[frame["step"] <= 231]
    assert on_grid(broken)["step"].to_list() == [0, 100, 200, 231]


def test_figure_7_begins_before_the_grid() -> None:
    run = {"dataset": "digits", "optimizer": "sgd", "variant": "main", "seed": 0, "steps": 500, "i": 1, "converged": 1}
    alignment = pd.DataFrame({"step": [0, 100, 500], "convergence": [0.1, 0.5, 1.0]}).assign(**run)
    two_times = pd.DataFrame({"waiting_time": [0, 30, 30, 100], "lag": [500, 10, 470, 400], "overlap": [9, 9, 0.3, 9]})
    layout = Layout({"digits": "digits"}, {"sgd": "SGD"}, 0, 3)
    numbers = convergence(alignment, two_times.assign(**run), layout).numbers
    assert numbers.set_index("step")["convergence"].to_dict() == {0: 0.1, 30: 0.3, 100: 0.5, 500: 1.0}


def test_a_gap_is_that_of_one_snapshot(plain: Studio) -> None:
    table = plain.table(6, "ipr").query("dataset == 'digits' and optimizer == 'adam' and step == 300")
    gaps = [
        run.set_index("i")["eigenvalue"][1] - run.set_index("i")["eigenvalue"][2] for _, run in table.groupby("seed")
    ]
    row = plain[6].numbers.query("dataset == 'digits' and optimizer == 'adam' and step == 300 and i == 1").iloc[0]
    assert row["gap"] == pytest.approx(np.median(gaps))
    assert row["gap_min"] == pytest.approx(min(gaps))


def test_figure_12_shows_snapshots_and_the_means_of_tenths(plain: Studio) -> None:
    drawn = plain[12]
    first = drawn.numbers.query("i == 1")
    np.testing.assert_allclose(
        lines(drawn), rows(drawn._replace(numbers=first), "step", "gradient_alignment", "update_alignment")
    )
    part = drawn.numbers.query("optimizer == 'sgd' and i == 2 and part == 3")
    assert part["step"].between(600, 799).all()
    assert part["update_alignment_mean"].iloc[0] == pytest.approx(part["update_alignment"].mean())


def test_every_index_of_figure_15_has_the_same_snapshots(plain: Studio) -> None:
    steps = plain[15].numbers.groupby(["dataset", "optimizer", "i"])["step"].apply(tuple)
    assert steps.nunique() == 1


def test_the_median_run_is_shown() -> None:
    vectors = [one_run(seed, spread) for seed, spread in enumerate([50, 4, 9, 20])]
    chosen = typical(vectors)
    assert chosen is not None
    assert chosen.identity["seed"] == 3
    assert typical([]) is None


def one_run(seed: int, spread: int) -> FinalEigenvectors:
    """A run whose typical vector is spread over so many entries evenly, and whose last one lies on one."""
    last, usual = np.zeros(100), np.zeros(100)
    last[0], usual[:spread] = 1.0, spread**-0.5
    layers = (("0.weight", (10, 9)), ("0.bias", (10,)))
    return FinalEigenvectors(np.stack([last, usual]), (7, 6), (1.0, 1 / spread), layers, {"seed": seed})


def test_interpolation_shows_losses_and_solutions(plain: Studio) -> None:
    drawn = plain[8]
    np.testing.assert_allclose(lines(drawn), rows(drawn, "alpha", "loss"), rtol=1e-12)
    for value in ("lambda_1", "sharpness"):
        np.testing.assert_allclose(np.unique(lines(drawn, value)[:, 1]), np.unique(drawn.numbers[value].dropna()))
    # The ends are named: theta_A, the first of a pair, at 1.
    first, pair = axes_of(drawn)[0], drawn.numbers.iloc[0]
    named = dict(zip(first.get_xticks(), (label.get_text() for label in first.get_xticklabels()), strict=True))
    assert named == {0.0: plain.layout.optimizers[pair["second"]], 1.0: plain.layout.optimizers[pair["first"]]}


def test_the_map_shows_every_entry_where_it_belongs(plain: Studio) -> None:
    drawn = plain[16]
    images = [image for ax in axes_of(drawn) for image in ax.images if image.get_gid() == "data"]
    shown = [np.asarray(image.get_array()) for image in images]
    by = drawn.numbers.groupby(["optimizer", "layer"], sort=False)
    weights = [group.query("input >= 0").pivot(index="output", columns="input", values="entry") for _, group in by]
    biases = [group.query("input < 0").set_index("output")["entry"] for _, group in by]
    assert [array.shape for array in shown[:6]] == [(100, 64), (100, 1), (100, 100), (100, 1), (10, 100), (10, 1)]
    for array, table in zip(shown[::2], weights, strict=True):
        np.testing.assert_array_equal(array, table)
    for array, bias in zip(shown[1::2], biases, strict=True):
        np.testing.assert_array_equal(array[:, 0], bias)
    # The entries of one optimizer are its unit vector, and the colours of a layer reach its largest entry.
    for half, optimizer in enumerate(mapped_optimizers(plain.layout.optimizers)):
        own = drawn.numbers[drawn.numbers["optimizer"] == optimizer]
        assert len(own) == 17610
        assert own["seed"].nunique() == 1
        assert np.square(own["entry"]).sum() == pytest.approx(1.0, abs=1e-5)
        for layer in range(3):
            largest = own.loc[own["layer"] == layer + 1, "entry"].abs().max()
            assert images[6 * half + 2 * layer].get_clim() == pytest.approx((-largest, largest))


# ---- the numbers are those of the tables that were read


def test_the_median_over_seeds_is_one(plain: Studio) -> None:
    table = plain.table(3, "ipr")
    row = plain[3].numbers.query("dataset == 'digits_noisy' and optimizer == 'adam' and step == 300").iloc[0]
    values = [
        value
        for d, o, s, i, value in table[["dataset", "optimizer", "step", "i", "ipr"]].itertuples(index=False)
        if (d, o, s, i) == ("digits_noisy", "adam", 300, 1)
    ]
    assert len(values) == row["n"] == 3
    assert row["ipr"] == pytest.approx(sorted(values)[1])
    assert (row["ipr_min"], row["ipr_max"]) == pytest.approx((min(values), max(values)))
    assert row["even_spread"] == pytest.approx(1 / 17610)


def test_sweep_means_average_runs_before_seeds(plain: Studio) -> None:
    table = plain.table(17, "alignment").query("optimizer == 'sam' and variant == 'batch_size-full' and i == 2")
    runs = [np.mean(run["update_alignment"]) for _, run in table.groupby("seed")]
    row = plain[17].numbers.query("optimizer == 'sam' and variant == 'batch_size-full' and i == 2").iloc[0]
    assert row["update_alignment"] == pytest.approx(np.mean(runs))
    assert (row["update_alignment_min"], row["update_alignment_max"]) == pytest.approx((min(runs), max(runs)))
    assert row["batch_size"] == 1438
    assert row["n"] == 3


def test_many_eigenvectors_are_averaged_over_the_same_snapshots(plain: Studio) -> None:
    counts = plain[14].numbers.groupby(["dataset", "optimizer"])["n"].nunique()
    assert (counts == 1).all()
    assert plain[14].numbers["i"].max() == 15
    assert set(plain[14].numbers["seed"]) == {plain.layout.dense_seed}


def test_summaries_leave_missing_values_out_and_count_them() -> None:
    frame = pd.DataFrame(
        {
            "optimizer": ["a"] * 5,
            "seed": [0, 0, 1, 1, 1],
            "step": [0, 1, 0, 1, np.nan],
            "value": [1.0, np.nan, 3.0, 5.0, 7.0],
            "converged": [1, 0, 0, 1, 1],
        }
    )
    both = summarize(frame, ["optimizer", "step"], ["value"], spread=True)
    assert both["value"].to_list() == [2.0, 5.0]
    assert both["value_min"].to_list() == [1.0, 5.0]
    assert both["n"].to_list() == [2, 1]
    assert both["n_nan"].to_list() == [0, 1]
    # The pair of the missing value did not converge either, but is not drawn.
    assert both["n_unconverged"].to_list() == [1, 0]
    runs = summarize_runs(frame.dropna(subset=["step"]), ["optimizer"], ["value"])
    assert runs.loc[0, "value"] == pytest.approx((1 + 4) / 2)
    assert runs[["n", "n_unconverged", "n_nan"]].to_numpy().tolist() == [[2, 1, 1]]


# ---- trouble is said, not hidden


@pytest.mark.parametrize("number", FROM_PAIRS)
def test_pairs_that_did_not_converge_are_marked(number: int, plain: Studio, troubled: Studio) -> None:
    assert len(lines(plain[number], "unconverged")) == 0
    assert "converge" not in note(plain[number])
    drawn = troubled[number]
    marked = {tuple(point) for point in np.round(lines(drawn, "unconverged"), 12)}
    assert marked
    assert marked <= {tuple(point) for point in np.round(lines(drawn), 12)}
    hit = drawn.numbers["n_unconverged"] > 0
    if number == 12:
        # Single snapshots are those of i = 1.
        hit &= drawn.numbers["i"] == 1
    # These show each row twice: as gradient and update alignment, as eigenvalue and, but for the last, as gap.
    twice = hit.sum() * (2 if number in (12, 13, 14, 17) else 1)
    if number == 6:
        twice += (hit & drawn.numbers["gap"].notna()).sum()
    assert len(lines(drawn, "unconverged")) == twice
    stated = re.search(r"(\d+) of (\d+) values", note(drawn))
    assert stated
    assert 0 < int(stated[1]) < int(stated[2])


def test_the_note_counts_the_pairs_that_are_drawn(troubled: Studio) -> None:
    table = troubled.table(3, "ipr").query("i == 1")
    assert note(troubled[3]).startswith(f"{(table['converged'] == 0).sum()} of {len(table)} values")


def test_a_gradient_without_direction_is_counted(troubled: Studio) -> None:
    table = troubled.table(2, "alignment").query("i <= 3")
    missing = int(table["gradient_alignment"].isna().sum())
    assert missing > 20
    assert troubled[2].numbers["n_nan"].sum() == missing
    assert troubled[2].numbers["gradient_alignment"].notna().all()


@pytest.mark.parametrize("number", NUMBERS)
def test_runs_that_diverged_are_named(number: int, plain: Studio, troubled: Studio) -> None:
    assert note(plain[number]) == ""
    said = note(troubled[number])
    if number == 8:
        return
    names = {9: "Adam, seed 0: to step", 12: "Adam, seed 0: to step 600", 16: "Adam, seed 0: no eigenvector"}
    names |= {14: "digits, Adam, seed 0: no data", 15: "digits, Adam, seed 0: no data"}
    names |= dict.fromkeys((17, 19, 21), "SGD, learning rate 3, seed 0: no data")
    names |= dict.fromkeys((1, 18, 20), "SGD, seed 2: to step")
    assert names.get(number, "digits, SGD, seed 2: to step") in said


def test_only_three_incomplete_runs_are_named() -> None:
    frame = pd.DataFrame(
        {"dataset": "d", "optimizer": "o", "variant": "main", "seed": range(5), "step": 3.0, "steps": 9}
    )
    said = incomplete_note(frame, Layout({"d": "D"}, {"o": "O"}, 0, 3))
    assert said == [
        "Incomplete runs: O, seed 0: to step 3 only; O, seed 1: to step 3 only; O, seed 2: to step 3 only; and 2 more."
    ]


def test_an_accuracy_of_a_broken_run_is_hollow_and_not_in_the_mean(troubled: Studio) -> None:
    drawn = troubled[5]
    broken = drawn.numbers.query("dataset == 'digits' and optimizer == 'sgd'")
    assert broken["complete"].to_list() == [1, 1, 0]
    assert broken["late_test_accuracy_mean"].iloc[0] == pytest.approx(broken["late_test_accuracy"].iloc[:2].mean())
    assert broken["test_accuracy"].iloc[2] in lines(drawn, "unconverged")[:, 1]


# ---- the look


def overlap(a: Bbox, b: Bbox) -> bool:
    """Whether two boxes have an area in common."""
    return bool(min(a.x1, b.x1) > max(a.x0, b.x0) and min(a.y1, b.y1) > max(a.y0, b.y0))


def check_look(drawn: Drawn, number: int) -> None:
    figure = drawn.figure
    with style():
        figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    for text in texts(figure):
        assert text.get_fontsize() == FONT_SIZE, text
        box = text.get_window_extent(renderer)
        where = f"figure {number}: {text.get_text()!r}"
        assert box.x0 >= -1, where
        assert box.y0 >= -1, where
        assert box.x1 <= figure.bbox.x1 + 1, where
        assert box.y1 <= figure.bbox.y1 + 1, where
    legends = [*figure.legends, *(legend for ax in figure.axes if (legend := ax.get_legend()))]
    for legend in legends:
        for ax in figure.axes:
            assert not overlap(legend.get_window_extent(renderer), ax.get_window_extent(renderer)), f"figure {number}"
    titles = [ax.title.get_window_extent(renderer) for ax in figure.axes if ax.get_title()]
    for position, title in enumerate(titles):
        assert not any(overlap(title, other) for other in titles[:position]), f"figure {number}: titles"
    # As wide as a column of a two-column page.
    assert figure.get_figwidth() == COLUMN_WIDTH
    assert any(ax.get_xlabel() for ax in figure.axes)
    assert any(ax.get_ylabel() for ax in figure.axes)


@pytest.mark.parametrize("number", NUMBERS)
def test_nothing_is_clipped_or_hidden(number: int, plain: Studio) -> None:
    check_look(plain[number], number)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_smallest_layout(number: int, smallest: Studio) -> None:
    drawn = smallest[number]
    check_look(drawn, number)
    assert len(drawn.numbers) > 0
    assert set(drawn.numbers["optimizer"].dropna()) == {"rmsprop"}


@pytest.mark.parametrize("number", [1, 5, 8, 16, 20])
def test_the_largest_layout(number: int, largest: Studio) -> None:
    drawn = largest[number]
    shown = set(drawn.numbers["optimizer"].dropna())
    assert shown == ({"adam", "sgd"} if number == 16 else set(SIX))
    assert drawn.figure.get_figheight() < 11.0
    check_look(drawn, number)


@pytest.mark.parametrize("number", [1, 9, 20, 21])
def test_displacement_panels_share_axes_from_zero_and_show_waiting_time_zero(number: int, plain: Studio) -> None:
    figure = plain[number].figure
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    limits = {(ax.get_xlim(), ax.get_ylim()) for ax in panels}
    assert len(limits) == 1
    (_, (bottom, top)) = limits.pop()
    assert bottom == 0
    assert top > plain[number].numbers[["displacement_max", "tau_high"]].to_numpy().max()
    assert all(ax.get_xscale() == "log" for ax in panels)
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    if number in (1, 9):
        assert "0" in named[0]
        assert len(named) == plain[number].numbers["waiting_time"].nunique() + 1


def test_every_optimizer_keeps_its_colour() -> None:
    three, six = optimizer_colors(["sgd", "adam", "sam"]), optimizer_colors(list(SIX))
    assert len(set(six.values())) == 6
    assert {name: six[name] for name in three} == three
    more = optimizer_colors([*SIX, "nadam"])
    assert {name: more[name] for name in six} == six


def test_the_full_batch_stands_apart(plain: Studio) -> None:
    drawn = plain[17]
    full = drawn.numbers.query("variant == 'batch_size-full'")
    joined = [line for ax in axes_of(drawn) for line in ax.lines if line.get_linestyle() != "None"]
    shown = {float(value) for line in joined for value in np.asarray(line.get_ydata(), float)}
    assert not shown & set(full["update_alignment"])
    assert set(full["update_alignment"]) <= set(lines(drawn)[:, 1])
    assert any("full (1438)" in text.get_text() for text in texts(plain[18].figure))


@pytest.mark.parametrize("number", [20, 21])
def test_a_row_of_panels_is_one_waiting_time(plain: Studio, number: int) -> None:
    drawn = plain[number]
    for ax in axes_of(drawn):
        shown = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines if line.get_gid() == "data"])
        once = drawn.numbers[~drawn.numbers["displacement"].duplicated(keep=False)]
        times = once.loc[once["displacement"].isin(shown), "waiting_time"]
        assert times.nunique() == 1
    shared = drawn.numbers.groupby("waiting_time")["variant"].nunique()
    assert shared.max() == drawn.numbers["variant"].nunique()


# ---- files


# A small layout: each figure is drawn and saved twice.
TWICE: dict[str, Any] = {
    "datasets": ["digits"],
    "optimizers": {name: SIX[name] for name in ("sgd", "adamw")},
    "model": {"hidden": [10], "activation": "relu", "init": "xavier_uniform", "bias_init": "zero"},
    "training": {"steps": 500, "seeds": [0, 1]},
    "snapshots": {"every": 100, "waiting_times": [0, 100], "lags_per_decade": 2},
    "sweeps": {**ONE_SWEEP, "seeds": [0, 1], "batch_size": {"full": 100}, "learning_rate": {"3": 500}},
}
HOSTILE = (
    "font.size: 17\nfont.family: serif\nlines.linewidth: 9\npdf.fonttype: 3\naxes.facecolor: red\ntext.usetex: True\n"
)


def draw_all(folder: Path) -> None:
    """Run the figures' script as Snakemake would, on tables under `folder`."""
    synthetic = Synthetic(folder / "tables", small_config(**TWICE), 0.05)
    for number in NUMBERS:
        name = f"fig{number:02d}"
        snakemake = SimpleNamespace(
            rule=name,
            input=SimpleNamespace(**synthetic.inputs(number)),
            params=SimpleNamespace(**synthetic.params(number)),
            output=SimpleNamespace(**{kind: str(folder / f"{name}.{kind}") for kind in ("pdf", "png", "csv")}),
            log=[str(folder / "logs" / f"{name}.log")],
        )
        runpy.run_path(str(SCRIPTS / "draw_figure.py"), init_globals={"snakemake": snakemake})


@pytest.fixture(scope="module")
def drawn_twice(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of all figures drawn here, and in another process in other surroundings, from tables of their own."""
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    settings = there / "settings"
    settings.mkdir()
    (settings / "matplotlibrc").write_text(HOSTILE)
    for fonts in Path(matplotlib.get_cachedir()).glob("fontlist*.json"):
        shutil.copy(fonts, settings)
    surroundings = {
        "PYTHONHASHSEED": "2",
        "LC_ALL": "de_DE.UTF-8",
        "TZ": "Asia/Tokyo",
        "MPLBACKEND": "svg",
        "MPLCONFIGDIR": str(settings),
        "SOURCE_DATE_EPOCH": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([PACKAGES, str(SUPPORT), str(Path(__file__).parent)]),
    }
    code = (
        "import sys, pathlib, test_figures; test_figures.draw_all(pathlib.Path(sys.argv[1])); "
        "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules), 'a figure imports torch or pyplot'"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(there)], env={**os.environ, **surroundings}, cwd=there, stderr=subprocess.PIPE
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reproduction.jobs.script.start", lambda snakemake: None)
        draw_all(here)
    said = other.communicate()[1].decode()
    logs = "".join(path.read_text() for path in sorted(there.glob("logs/*.log")))
    assert other.returncode == 0, said + logs[-2000:]
    return [here, there]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("kind", ["pdf", "png", "csv"])
def test_redrawing_gives_the_same_bytes(drawn_twice: list[Path], number: int, kind: str) -> None:
    first, second = (out / f"fig{number:02d}.{kind}" for out in drawn_twice)
    assert first.stat().st_size > 150
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("number", NUMBERS)
def test_files_hold_no_type_3_font_no_date_and_no_version(drawn_twice: list[Path], number: int) -> None:
    pdf = (drawn_twice[1] / f"fig{number:02d}.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
    assert b"matplotlib" not in pdf.lower()
    png = (drawn_twice[1] / f"fig{number:02d}.png").read_bytes()
    assert b"Software" not in png[:4096]


def test_a_type_3_font_would_be_found(tmp_path: Path) -> None:
    figure = Figure()
    figure.text(0.5, 0.5, "text")
    figure.savefig(tmp_path / "default.pdf")
    assert b"/Type3" in (tmp_path / "default.pdf").read_bytes()


@pytest.mark.parametrize("number", NUMBERS)
def test_the_table_says_what_it_is(drawn_twice: list[Path], number: int) -> None:
    header = read_header(drawn_twice[0] / f"fig{number:02d}.csv", kind=f"fig{number:02d}")
    assert {key: header["identity"][key] for key in ("figure", "title")} == {
        "figure": number,
        "title": FIGURES[number]["title"],
    }
    assert header["rows"] > 0
    for column, unit in {"step": "training steps", "lag": "training steps", "batch_size": "samples"}.items():
        assert header["units"].get(column, unit) == unit


def test_the_table_of_figures_imports_nothing_heavy() -> None:
    code = (
        "import sys, reproduction.experiment.figure_catalogue; "
        "sys.exit(str([m for m in ('matplotlib', 'pandas', 'numpy', 'scipy', 'torch') if m in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PACKAGES}, capture_output=True)
    assert done.stderr.decode().strip() == ""


@pytest.mark.parametrize("number", NUMBERS)
def test_every_figure_has_a_caption_of_plain_sentences(number: int) -> None:
    caption = (ROOT / "workflow" / "report" / f"fig{number:02d}.rst").read_text(encoding="utf-8")
    assert set(re.findall(r":(\w+):`", caption)) <= {"math"}
    assert caption.endswith(".\n")
    assert 1 <= len(re.findall(r"[.](?=\s)", caption)) <= 4
    assert not re.search(r"[%&#*|]", re.sub(r":math:`[^`]*`", "", caption))


def test_the_mapped_optimizers() -> None:
    assert mapped_optimizers(["sgd", "sam", "adam"]) == ["adam", "sgd"]
    assert mapped_optimizers(["rmsprop", "sgd", "adamw"]) == ["rmsprop", "sgd"]
    assert mapped_optimizers(["rmsprop"]) == ["rmsprop"]
