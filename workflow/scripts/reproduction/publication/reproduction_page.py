"""The numbers of paper/REPRODUCTION.md, taken from what is published; nothing between two of its marks is typed.

    <!-- value CLAIM PART PLACE --> mean over seeds with its interval <!-- / -->
    <!-- paper CLAIM PART PLACE --> the paper's value <!-- / -->
    <!-- verdict CLAIM [PART PLACE] --> of the claim, or of one part <!-- / -->
    <!-- verdicts --> all claims <!-- / -->
    <!-- runs --> scale, hours, device, versions <!-- / -->
    <!-- causes --> what paper/causes.yaml gives; <!-- cause NUMBER --> its answer for one claim <!-- / -->
    <!-- sensitivity --> figure S1 as a table; <!-- null_models --> figure S2; <!-- accuracy --> figure S3 <!-- / -->
    <!-- reading PLACE SCALING INIT OPTIMIZER STATISTIC --> one number of that table <!-- / -->
    <!-- exchanges --> late plateaus of v_1 and of the spans it lies in; <!-- layers --> figure 16 by layer <!-- / -->

PLACE is `first` or `last`: the dataset that plays MNIST, or FashionMNIST. OPTIMIZER may be `adam-over-sgd`: the ratio
of the two, seed by seed.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reproduction.claims.report import WHOLE, markdown_row
from reproduction.claims.scoring import DIRECTION, NOT_ASSESSED, NOT_REPRODUCED, REPRODUCED, VERDICTS, ScoredClaim
from reproduction.errors import DataError
from reproduction.experiment.labels import MAIN
from reproduction.latex import plain_interval, plain_number
from reproduction.statistics.exchanges import D_1, PLANE, SPAN, late_plateaus

_MARKED = re.compile(r"(<!-- (?P<what>\w+)(?P<of>(?: [\w.-]+)*) -->)(?:(?!<!--).)*(?P<end><!-- / -->)?", re.DOTALL)


@dataclass(frozen=True)
class Numbers:
    """What the page is filled from: claims table, provenance record with its hours, scale of the runs in words, by name
    (figS1) the plotted numbers of those figures that were drawn, paper/causes.yaml scored, and the evidence's table of
    displacements.
    """

    claims: pd.DataFrame
    record: Mapping[str, Any]
    scale: str
    plotted: Mapping[str, pd.DataFrame]
    causes: Sequence[ScoredClaim]
    displacement: pd.DataFrame

    def part(self, keys: Sequence[str]) -> "pd.Series[Any]":
        """The row of one part: CLAIM PART PLACE."""
        if len(keys) != 3:
            raise DataError("takes CLAIM PART PLACE")
        (claim, part, place), table = keys, self.claims
        found = table[(table["claim"] == claim) & (table["part"] == part) & (table["dataset"] == self.dataset(place))]
        if len(found) != 1:
            raise DataError(f"no part {part} of claim {claim} on the {place} dataset")
        return found.iloc[0]

    def dataset(self, place: str) -> str | None:
        """The name of the dataset in a PLACE."""
        datasets = self.record["config"]["datasets"]
        return {"first": str(datasets[0]), "last": str(datasets[-1])}.get(place)

    def whole(self) -> pd.DataFrame:
        """One row a claim."""
        return self.claims[self.claims["part"] == WHOLE]


def fill_page(page: str, numbers: Numbers) -> str:
    """The page with all marked values replaced. A mark that names an unknown value raises `DataError`."""

    def write(match: re.Match[str]) -> str:
        writer, keys = _WRITERS.get(match["what"]), match["of"].split()
        try:
            if writer is None:
                raise DataError(f"unknown; known are {', '.join(_WRITERS)}")
            if match["end"] is None:
                # What is between would be all that is written after it.
                raise DataError("not closed; write <!-- / --> after it")
            return match[1] + writer(numbers, keys) + match["end"]
        except DataError as error:
            raise DataError(f"REPRODUCTION.md: mark {match[1]!r}: {error}") from error

    return _MARKED.sub(write, page)


def _value(numbers: Numbers, keys: Sequence[str]) -> str:
    row = numbers.part(keys)
    return plain_interval(float(row["value"]), float(row["low"]), float(row["high"]))


def _paper(numbers: Numbers, keys: Sequence[str]) -> str:
    return f"{float(numbers.part(keys)['paper_value']):.5g}"


def _verdict(numbers: Numbers, keys: Sequence[str]) -> str:
    if len(keys) != 1:
        return str(numbers.part(keys)["verdict"])
    whole = numbers.whole()
    found = whole[whole["claim"] == keys[0]]["verdict"]
    if len(found) != 1:
        raise DataError(f"no claim {keys[0]}")
    return str(found.iloc[0])


def _verdicts(numbers: Numbers, keys: Sequence[str]) -> str:
    whole = numbers.whole()
    parts = numbers.claims[numbers.claims["part"] != WHOLE]
    claims, tests = (
        ", ".join(f"{(table['verdict'] == verdict).sum()} {verdict}" for verdict in VERDICTS)
        for table in (whole, parts)
    )
    counts = f"{len(whole)} claims: {claims}. Their {len(parts)} parts: {tests}"
    rows = ((row["number"], row["title"], row["verdict"], row["note"]) for row in whole.to_dict("records"))
    return f"\n{counts}.\n{_table(('#', 'claim', 'verdict', 'its parts'), rows)}"


def _runs(numbers: Numbers, keys: Sequence[str]) -> str:
    record = numbers.record
    hours: Mapping[str, float] = record["hours"]
    longest = sorted(hours.items(), key=lambda item: -item[1])[:4]
    lines = [
        f"- {numbers.scale}",
        f"- {sum(hours.values()):.1f} hours of one {'core' if record['device'] == 'cpu' else 'GPU'}: "
        + ", ".join(f"{rule} {spent:.1f}" for rule, spent in longest),
        f"- device {record['device']}, torch {record['versions']['torch']}, commit `{record['commit'][:12]}`",
    ]
    return "\n".join(["", *lines, ""])


_READING = {
    "ipr": "final IPR of v_1",
    "plateau": "plateau of D_1 / tau_1",
    "gradient_alignment": "gradient alignment of v_1",
}


def _readings(numbers: Numbers) -> pd.DataFrame | None:
    """One row a run of figure S1, in the configuration's order of datasets."""
    table = numbers.plotted.get("figS1")
    if table is None:
        return None
    table = table[table["complete"] == 1].assign(plateau=lambda rows: rows["displacement"] / rows["tau"])
    datasets = numbers.record["config"]["datasets"]
    return table.sort_values("dataset", key=lambda names: names.map(datasets.index), kind="stable")


def _sensitivity(numbers: Numbers, keys: Sequence[str]) -> str:
    table = _readings(numbers)
    if table is None:
        return _NOT_DRAWN
    rows = []
    for key, runs in table.groupby(["dataset", "optimizer", "scaling", "init"], sort=False):
        rows.append((*key, len(runs), *(_range(runs[value]) for value in _READING)))
    heads = ("dataset", "optimizer", "scaling", "initialization", "seeds", *_READING.values())
    return _table(heads, rows)


def _reading(numbers: Numbers, keys: Sequence[str]) -> str:
    if len(keys) != 5 or keys[4] not in _READING:
        raise DataError(f"takes PLACE SCALING INIT OPTIMIZER and one of {', '.join(_READING)}")
    place, scaling, init, optimizers, statistic = keys
    table = _readings(numbers)
    if table is None:
        return "not drawn"
    own = table[(table["dataset"] == numbers.dataset(place)) & (table["scaling"] == scaling) & (table["init"] == init)]
    over, *under = (own[own["optimizer"] == name].set_index("seed")[statistic] for name in optimizers.split("-over-"))
    found = over / under[0] if under else over
    return _range(found) if found.notna().any() else "not drawn"


def _null_models(numbers: Numbers, keys: Sequence[str]) -> str:
    table = numbers.plotted.get("figS2")
    if table is None:
        return _NOT_DRAWN
    means = table.groupby(["dataset", "source", "i"], sort=False)["mean_overlap"].first().unstack("i")
    rows = [(*key, *map(plain_number, row)) for key, row in zip(means.index, means.to_numpy(), strict=True)]
    return _table(("dataset", "null model", *(f"mean overlap, i = {i}" for i in means.columns)), rows)


def _accuracy(numbers: Numbers, keys: Sequence[str]) -> str:
    table = numbers.plotted.get("figS3")
    if table is None:
        return _NOT_DRAWN
    table = table[table["lag"] > 0]
    share = table.groupby(["dataset", "optimizer", "i"], sort=False)["within"].mean().unstack("i")
    rows = [(*key, *map("{:.3f}".format, row)) for key, row in zip(share.index, share.to_numpy(), strict=True)]
    return _table(("dataset", "optimizer", *(f"share, i = {i}" for i in share.columns)), rows)


def _causes(numbers: Numbers, keys: Sequence[str]) -> str:
    rows: list[tuple[object, ...]] = []
    for cause in numbers.causes:
        # What is said of the cause stands in the first row of its parts.
        named = (str(cause.claim.number), cause.claim.title)
        for part in cause.parts:
            found = plain_interval(part.estimate.value, part.estimate.low, part.estimate.high)
            rows.append((*named, part.dataset, part.quantity, found, part.test, _ANSWERS[part.verdict]))
            named = ("", "")
    return _table(("claim", "cause", "dataset", "measured", "value", "test", "is it so?"), rows)


def _cause(numbers: Numbers, keys: Sequence[str]) -> str:
    found = [cause.verdict for cause in numbers.causes if [str(cause.claim.number)] == list(keys)]
    if not found:
        raise DataError("takes the NUMBER of a claim with a cause")
    return f"**{_ANSWERS[found[0]]}**"


def _exchanges(numbers: Numbers, keys: Sequence[str]) -> str:
    displacement = numbers.displacement
    plateaus = late_plateaus(displacement[displacement["variant"] == MAIN])
    claims = numbers.claims
    tau_1 = claims[(claims["claim"] == "null-model") & (claims["part"] == "displacement")]
    tau = {str(row["dataset"]): float(row["value"]) for row in tau_1.to_dict("records")}
    rows = []
    config = numbers.record["config"]
    for dataset, optimizer in itertools.product(config["datasets"], config["optimizers"]):
        runs = plateaus[(plateaus["dataset"] == dataset) & (plateaus["optimizer"] == optimizer)]
        unit = tau.get(str(dataset), math.nan)
        if len(runs):
            rows.append((dataset, optimizer, *(_range(runs[column] / unit) for column in (D_1, PLANE, SPAN))))
    return _table(("dataset", "optimizer", D_1, PLANE, SPAN), rows)


def _layers(numbers: Numbers, keys: Sequence[str]) -> str:
    table = numbers.plotted.get("fig16")
    if table is None:
        return _NOT_DRAWN
    squares = table["entry"] ** 2
    parts = table.assign(mass=squares, ipr=squares**2).groupby(["dataset", "optimizer", "layer"], sort=False)
    sums = parts[["mass", "ipr"]].sum()
    rows = []
    for key, layers in sums.groupby(["dataset", "optimizer"], sort=False):
        rows.append((*key, *map("{:.2f}".format, layers["mass"]), *map(plain_number, layers["ipr"])))
    count = sums.index.get_level_values("layer").nunique()
    heads = (f"{what}, layer {j + 1}" for what in ("share of squares", "part of the IPR") for j in range(count))
    return _table(("dataset", "optimizer", *heads), rows)


_ANSWERS = {REPRODUCED: "yes", DIRECTION: "in part", NOT_REPRODUCED: "no", NOT_ASSESSED: "not assessed"}
_NOT_DRAWN = "\nNot drawn from these runs.\n"


def _range(values: "pd.Series[float]") -> str:
    """Mean over seeds, with their range."""
    return plain_interval(float(values.mean()), float(values.min()), float(values.max()))


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [markdown_row(heads), "|" + "---|" * len(heads), *(markdown_row([*map(str, row)]) for row in rows)]
    return "\n".join(["", *lines, ""])


_WRITERS: Mapping[str, Callable[[Numbers, Sequence[str]], str]] = {
    "value": _value,
    "paper": _paper,
    "verdict": _verdict,
    "verdicts": _verdicts,
    "runs": _runs,
    "sensitivity": _sensitivity,
    "reading": _reading,
    "null_models": _null_models,
    "accuracy": _accuracy,
    "causes": _causes,
    "cause": _cause,
    "exchanges": _exchanges,
    "layers": _layers,
}
