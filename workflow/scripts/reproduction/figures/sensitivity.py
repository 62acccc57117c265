"""Which reading of what the paper leaves open is its own: variants against the numbers that it gives (figure S1)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from reproduction.experiment import paper_numbers
from reproduction.experiment.labels import Layout
from reproduction.figures.axes import no_data
from reproduction.figures.panels import Drawn, add_notes, bottom_legend, drawn, new_figure
from reproduction.figures.style import COLUMN_WIDTH, styled
from reproduction.figures.summaries import in_order, incomplete_note, unconverged_note
from reproduction.files.final_eigenvectors import FinalEigenvectors
from reproduction.statistics.localization import final_ipr, tail
from reproduction.statistics.two_time import curves, final_step, last_third, late_waiting_time

Settings = Mapping[str, Mapping[str, Any]]
FIRST, LAST = "first", "last"
# Colours of cells: within the tolerance of the paper's number, and up to these multiples of it.
SHADES = ((1.0, "#A6DBC8"), (2.0, "#FDEBC8"), (4.0, "#FBC58A"), (math.inf, "#E8836B"))
ABSENT = "#FFFFFF"
# Inches of a row and of the names of columns.
ROW, HEADS = 0.235, 0.62


@dataclass(frozen=True)
class Target:
    """What the paper says of a number: `value` within `tolerance`, or a bound that it keeps.

    On a logarithmic scale the tolerance is a factor. Without a value the number lies between `low` and `high`, and the
    tolerance is the unit in which it is measured how far outside it is.
    """

    tolerance: float
    value: float = math.nan
    low: float = -math.inf
    high: float = math.inf
    log: bool = True

    def distance(self, measured: float) -> float:
        """How far a number is off, in tolerances; 0 inside bounds, NaN for no number."""
        if math.isnan(measured) or (self.log and measured <= 0):
            return math.nan
        if not math.isnan(self.value):
            return self._between(measured, self.value)
        nearest = min(max(measured, self.low), self.high)
        return 0.0 if nearest == measured else self._between(measured, nearest)

    def _between(self, first: float, second: float) -> float:
        if self.log:
            return abs(math.log(first / second)) / math.log(self.tolerance)
        return abs(first - second) / self.tolerance

    @property
    def said(self) -> str:
        """The paper's number in a few characters."""
        if not math.isnan(self.value):
            return short(self.value, 5 if self.value > 1e4 else 3)
        return f">{short(self.low)}" if math.isinf(self.high) else f"<{short(self.high)}"


@dataclass(frozen=True)
class Fingerprint:
    """A number that the paper gives: of which dataset, how it is measured run by run, what the paper has."""

    key: str
    label: str
    place: str
    measure: Callable[["Runs", str, str], Mapping[int, float]]
    target: Target
    # How the seeds' values become one: the mean on the target's scale, or the smallest.
    smallest: bool = False
    digits: int = 2


@dataclass(frozen=True)
class Runs:
    """The tables of all variants' runs; of the baselines those of each variant, "" for the main runs'."""

    ipr: pd.DataFrame
    displacement: pd.DataFrame
    alignment: pd.DataFrame
    history: pd.DataFrame
    vectors: Sequence[FinalEigenvectors]
    baseline: pd.DataFrame

    def seeds(self, frame: pd.DataFrame, dataset: str, variant: str, optimizer: str) -> dict[int, pd.DataFrame]:
        """seed -> the rows of its run, of runs that reached their last step."""
        own = frame[(frame["dataset"] == dataset) & (frame["variant"] == variant) & (frame["optimizer"] == optimizer)]
        found = {int(str(seed)): run for seed, run in own.groupby("seed", observed=True)}
        return {seed: run for seed, run in found.items() if _reach(run) >= run["steps"].max()}

    def initializations(self, dataset: str, variant: str) -> pd.DataFrame:
        """The row of v_1 of the baseline that a variant's runs have."""
        of = self.baseline["variant"].fillna("") if "variant" in self.baseline else pd.Series("", self.baseline.index)
        own = self.baseline[(self.baseline["dataset"] == dataset) & (self.baseline["i"] == 1)]
        mine = own[of[own.index] == variant]
        # A reference has the settings of the main runs.
        return mine if len(mine) or variant not in ("main", "reference") else own[of[own.index] == ""]


def _reach(run: pd.DataFrame) -> float:
    return float(final_step(run)) if "lag" in run else float(run["step"].max())


def _ipr(optimizer: str) -> Callable[[Runs, str, str], Mapping[int, float]]:
    def measure(runs: Runs, dataset: str, variant: str) -> Mapping[int, float]:
        found = runs.seeds(runs.ipr, dataset, variant, optimizer)
        return {seed: final_ipr(run[(run["converged"] == 1) & (run["i"] == 1)]) for seed, run in found.items()}

    return measure


def _sam_over_sgd(runs: Runs, dataset: str, variant: str) -> Mapping[int, float]:
    sam, sgd = (_ipr(optimizer)(runs, dataset, variant) for optimizer in ("sam", "sgd"))
    return {seed: sam[seed] / sgd[seed] for seed in sam if sgd.get(seed, 0.0) > 0}


def _aligned(column: str) -> Callable[[Runs, str, str], Mapping[int, float]]:
    def measure(runs: Runs, dataset: str, variant: str) -> Mapping[int, float]:
        found = runs.seeds(runs.alignment, dataset, variant, "adam")
        return {s: float(run.loc[(run["converged"] == 1) & (run["i"] == 1), column].mean()) for s, run in found.items()}

    return measure


def _plateau(runs: Runs, dataset: str, variant: str) -> Mapping[int, float]:
    tau = runs.initializations(dataset, variant)["displacement"]
    if tau.empty:
        return {}
    found = runs.seeds(runs.displacement[runs.displacement["i"] == 1], dataset, variant, "adam")
    return {seed: late_plateau(run) / float(tau.iloc[0]) for seed, run in found.items()}


def late_plateau(run: pd.DataFrame) -> float:
    """The plateau of D_1 of the claims, of pairs that converged: the mean over the last third of log lag."""
    found = curves(run[run["converged"] == 1])
    late = late_waiting_time(found)
    return math.nan if math.isnan(late) else float(found[late][1][last_third(found[late][0])].mean())


def _gap(runs: Runs, dataset: str, variant: str) -> Mapping[int, float]:
    found = {}
    for seed, run in runs.seeds(runs.ipr, dataset, variant, "adam").items():
        table = run[run["i"] <= 2].pivot_table(index="step", columns="i", values="eigenvalue")
        if {1, 2} <= set(table.columns):
            found[seed] = float((table[1] - table[2]).min())
    return found


def _overlap(runs: Runs, dataset: str, variant: str) -> Mapping[int, float]:
    return dict(enumerate(runs.initializations(dataset, variant)["mean_overlap"].astype(float)))


def _parameters(runs: Runs, dataset: str, variant: str) -> Mapping[int, float]:
    own = runs.ipr[(runs.ipr["dataset"] == dataset) & (runs.ipr["variant"] == variant)]
    return {0: float(own["n_parameters"].iloc[0])} if len(own) else {}


def _colour_range(runs: Runs, dataset: str, variant: str) -> Mapping[int, float]:
    spans: dict[str, dict[int, float]] = {"adam": {}, "sgd": {}}
    for vector in runs.vectors:
        run = vector.identity
        if run["dataset"] == dataset and run["variant"] == variant and run["optimizer"] in spans and vector.last.size:
            spans[run["optimizer"]][int(run["seed"])] = float(np.ptp(vector.last))
    return {seed: span / spans["sgd"][seed] for seed, span in spans["adam"].items() if seed in spans["sgd"]}


def _gain(optimizer: str) -> Callable[[Runs, str, str], Mapping[int, float]]:
    def measure(runs: Runs, dataset: str, variant: str) -> Mapping[int, float]:
        late = [
            {seed: 100 * float(tail(run)["test_accuracy"].mean()) for seed, run in found.items()}
            for found in (runs.seeds(runs.history, dataset, variant, name) for name in (optimizer, "sgd"))
        ]
        return {seed: value - late[1][seed] for seed, value in late[0].items() if seed in late[1]}

    return measure


_ORDER = math.sqrt(10.0)
_TENTH = Target(tolerance=0.1, low=0.0, log=False)
FINGERPRINTS: tuple[Fingerprint, ...] = (
    Fingerprint("ipr_adam", "IPR Adam", FIRST, _ipr("adam"), Target(2, paper_numbers.FINAL_IPR["adam"])),
    Fingerprint("ipr_adam", "IPR Adam", LAST, _ipr("adam"), Target(2, paper_numbers.FINAL_IPR["adam"])),
    Fingerprint("ipr_sgd", "IPR SGD", FIRST, _ipr("sgd"), Target(_ORDER, paper_numbers.FINAL_IPR["sgd"])),
    Fingerprint("ipr_sgd", "IPR SGD", LAST, _ipr("sgd"), Target(_ORDER, paper_numbers.FINAL_IPR["sgd"])),
    Fingerprint("ipr_sam_over_sgd", "IPR SAM/S", FIRST, _sam_over_sgd, Target(2, low=1)),
    Fingerprint("ipr_sam_over_sgd", "IPR SAM/S", LAST, _sam_over_sgd, Target(2, low=1)),
    Fingerprint(
        "gradient_adam",
        "$a_g$ Adam",
        FIRST,
        _aligned("gradient_alignment"),
        Target(1.2, paper_numbers.GRADIENT_ALIGNMENT["MNIST", "adam"]),
    ),
    *(
        Fingerprint("update_adam", "$a_u$ Adam", place, _aligned("update_alignment"), Target(1.5, value))
        for place, value in ((FIRST, 0.05), (LAST, 0.05))
    ),
    Fingerprint("plateau_adam", "$D_1$ Adam", FIRST, _plateau, Target(2, low=0.5)),
    Fingerprint("plateau_adam", "$D_1$ Adam", LAST, _plateau, Target(2, low=0.5)),
    *(
        Fingerprint(
            "overlap", "$\\tau$", place, _overlap, Target(0.004, paper_numbers.OVERLAP[name], log=False), digits=3
        )
        for place, name in ((FIRST, "MNIST"), (LAST, "FashionMNIST"))
    ),
    Fingerprint("parameters", "$N$", FIRST, _parameters, Target(10, paper_numbers.PARAMETERS, log=False), digits=5),
    Fingerprint("gap", "gap Adam", FIRST, _gap, Target(_ORDER, high=paper_numbers.SMALL_GAP), smallest=True),
    Fingerprint("gap", "gap Adam", LAST, _gap, Target(_ORDER, low=paper_numbers.SMALL_GAP), smallest=True),
    Fingerprint("colour_range", "range A/S", FIRST, _colour_range, Target(1.5, paper_numbers.COLOUR_RANGE_RATIO)),
    Fingerprint("gain_adam", "acc. A-S", FIRST, _gain("adam"), _TENTH),
    Fingerprint("gain_adam", "acc. A-S", LAST, _gain("adam"), _TENTH),
    Fingerprint("gain_sam", "acc. SAM-S", LAST, _gain("sam"), _TENTH),
)


@styled
def sensitivity(
    ipr: pd.DataFrame,
    displacement: pd.DataFrame,
    alignment: pd.DataFrame,
    history: pd.DataFrame,
    final_eigenvector: Sequence[FinalEigenvectors],
    baseline: pd.DataFrame,
    layout: Layout,
    settings: Settings,
) -> Drawn:
    """Figure S1: each number that the paper gives (rows) under each variant (columns): what was measured, its distance.

    `settings` is variant -> {scaling, ...}, with the keys of `model`, from left to right; the tables are those of
    its runs, and the baselines those of each variant.
    """
    ipr, displacement = in_order(ipr, layout), in_order(displacement, layout)
    runs = Runs(ipr, displacement, in_order(alignment, layout), in_order(history, layout), final_eigenvector, baseline)
    places = {FIRST: next(iter(layout.datasets)), LAST: list(layout.datasets)[-1]}
    numbers = pd.DataFrame(_cells(runs, places, list(settings)), columns=list(_UNITS))
    shown = [f for f in FINGERPRINTS if f.place == FIRST or len(layout.datasets) > 1]
    figure = new_figure(COLUMN_WIDTH, ROW * (len(shown) + 1) + HEADS + 0.1)
    ax = figure.add_subplot()
    if numbers["value"].notna().sum() == 0:
        no_data(ax)
    _table(ax, numbers, shown, places, layout, settings)
    labels = ["within the tolerance", "to 2", "to 4", "above 4 tolerances"]
    handles: list[Artist] = [
        Patch(facecolor=color, edgecolor="#888888", linewidth=0.4, label=label)
        for (_, color), label in zip(SHADES, labels, strict=True)
    ]
    bottom_legend(figure, handles)
    final = runs.ipr[runs.ipr["i"].isna() | (runs.ipr["i"] == 1)]
    add_notes(figure, unconverged_note(final, "left out") + incomplete_note(final, layout))
    return drawn(figure, numbers)


_UNITS = {
    **dict.fromkeys(("fingerprint", "dataset", "variant"), "name"),
    **dict.fromkeys(("value", "low", "high", "n_seeds", "paper", "distance"), "1"),
}


def _cells(runs: Runs, places: Mapping[str, str], variants: Sequence[str]) -> list[tuple[Any, ...]]:
    """One row a number and variant: mean over seeds, their range and count, the paper's value, the distance."""
    rows = []
    for fingerprint in FINGERPRINTS:
        dataset = places[fingerprint.place]
        target, compared = fingerprint.target, paper_numbers.is_the_papers(dataset)
        for variant in variants:
            values = [v for v in fingerprint.measure(runs, dataset, variant).values() if math.isfinite(v)]
            value = _joined(values, fingerprint)
            ends = (min(values), max(values)) if values else (math.nan, math.nan)
            distance = target.distance(value) if compared else math.nan
            theirs = target.value if compared else math.nan
            rows.append((fingerprint.key, dataset, variant, value, *ends, len(values), theirs, distance))
    return rows


def _joined(values: Sequence[float], fingerprint: Fingerprint) -> float:
    if not values:
        return math.nan
    if fingerprint.smallest:
        return min(values)
    if fingerprint.target.log and min(values) > 0:
        return float(np.exp(np.mean(np.log(values))))
    return float(np.mean(values))


def _table(
    ax: Axes,
    numbers: pd.DataFrame,
    shown: Sequence[Fingerprint],
    places: Mapping[str, str],
    layout: Layout,
    settings: Settings,
) -> None:
    variants = list(settings)
    keys = ["fingerprint", "dataset", "variant"]
    cells = {tuple(row[key] for key in keys): row for row in numbers.to_dict("records")}
    for row, fingerprint in enumerate(shown):
        dataset = places[fingerprint.place]
        said = fingerprint.target.said if paper_numbers.is_the_papers(dataset) else ""
        ax.text(0, row, said, ha="center", va="center", gid="paper")
        for column, variant in enumerate(variants, start=1):
            cell = cells[fingerprint.key, dataset, variant]
            color = ABSENT if math.isnan(cell["distance"]) else shade_of(float(cell["distance"]))
            ax.add_patch(_rectangle(column, row, color))
            if not math.isnan(cell["value"]):
                off = "" if math.isnan(cell["distance"]) else f"\n{cell['distance']:.1f}"
                text = f"{short(float(cell['value']), fingerprint.digits)}{off}"
                ax.text(column, row, text, ha="center", va="center", linespacing=0.9, gid="data")
    last = len(shown)
    for column, variant in enumerate(variants, start=1):
        own = numbers[(numbers["variant"] == variant) & numbers["distance"].notna()]
        if len(own):
            ax.text(column, last, f"{int((own['distance'] <= 1).sum())}/{len(own)}", ha="center", va="center")
    short_names = {FIRST: "M", LAST: "F"} if all(map(paper_numbers.is_the_papers, places.values())) else {}
    labels = [f"{f.label} {short_names.get(f.place, f.place)}" for f in shown]
    ax.set_yticks(range(last + 1), [*labels, "within"])
    ax.set_xticks(range(len(variants) + 1), ["paper", *variant_labels(settings)], rotation=90)
    ax.tick_params(axis="x", labeltop=True, labelbottom=False, length=0)
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(-0.5, len(variants) + 0.5)
    ax.set_ylim(last + 0.5, -0.5)
    ax.grid(visible=False)
    ax.set_xlabel("variant; in a cell the value, and below it its distance")
    ax.set_ylabel("number, dataset")


def _rectangle(column: int, row: int, color: str) -> Patch:
    return Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=color, edgecolor="white", linewidth=0.8, zorder=0)


def shade_of(distance: float) -> str:
    """The colour of a cell whose number is this many tolerances from the paper's."""
    return next(color for end, color in SHADES if distance <= end)


def short(number: float, digits: int = 2) -> str:
    """A number in as few characters as a cell has room for: 0.016, 3.7e-4, 89720."""
    if number != 0 and not 1e-2 <= abs(number) < 1e6:
        mantissa, _, exponent = f"{number:.{digits - 1}e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
    return f"{number:.{digits}g}"


def variant_labels(settings: Settings) -> list[str]:
    """Of each variant what it does not share with the first, which is `main`."""
    first = next(iter(settings.values()))
    labels = []
    for own in settings.values():
        if "module" in own:
            changed = own["args"] if own["args"] != first["args"] else {}
            named = [own["scaling"]] if own["scaling"] != first["scaling"] else []
            labels.append("\n".join([*named, *(f"{key} {value}" for key, value in changed.items())]) or "main runs")
            continue
        parts = [own["scaling"]] if own["scaling"] != first["scaling"] else []
        if own["init"] != first["init"]:
            parts.append(own["init"].replace("_", " "))
        if own["bias_init"] != first["bias_init"]:
            parts.append(f"{own['bias_init']} biases")
        if own["activation"] != first["activation"]:
            parts.append(own["activation"])
        if own["hidden"] != first["hidden"]:
            parts.append("-".join(map(str, own["hidden"])) or "no hidden layer")
        labels.append("\n".join(parts) or "main runs")
    return labels
