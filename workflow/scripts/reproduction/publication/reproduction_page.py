"""The numbers of paper/REPRODUCTION.md, taken from what is published; nothing between two of its marks is typed.

    <!-- value CLAIM PART PLACE --> mean over seeds with its interval <!-- / -->
    <!-- paper CLAIM PART PLACE --> the paper's value <!-- / -->
    <!-- verdict CLAIM [PART PLACE] --> of the claim, or of one part <!-- / -->
    <!-- verdicts --> all claims <!-- / -->
    <!-- runs --> scale, hours, device, versions <!-- / -->
    <!-- causes --> what paper/causes.yaml gives; <!-- cause NUMBER --> its answer for one claim <!-- / -->
    <!-- grades GROUP --> statement, paper, ours, grade; GROUP is headlines, claims or statements <!-- / -->
    <!-- grade TEST --> the grade of one primary test; <!-- measured TEST PLACE --> what it measured <!-- / -->
    <!-- tally --> how many tests have which grade; <!-- network --> whether it is the paper's network <!-- / -->
    <!-- missing --> which of the configured runs are not here <!-- / -->
    <!-- sensitivity --> figure S1 as a table; <!-- null_models --> figure S2; <!-- accuracy --> figure S3 <!-- / -->
    <!-- exchanges --> figure S4: late plateaus of v_1, of the direction that it was, of spans <!-- / -->
    <!-- layers --> figure 16 by layer <!-- / -->

PLACE is `first` or `last`: the dataset that plays MNIST, or FashionMNIST.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reproduction.claims.grades import WHOLE as ALL
from reproduction.claims.grades import markdown_table
from reproduction.claims.grading import GRADES
from reproduction.claims.primary import PrimaryTests
from reproduction.claims.report import WHOLE, markdown_row
from reproduction.claims.scoring import DIRECTION, NOT_ASSESSED, NOT_REPRODUCED, REPRODUCED, VERDICTS, ScoredClaim
from reproduction.errors import DataError
from reproduction.experiment import paper_numbers
from reproduction.latex import plain_interval, plain_number

_MARKED = re.compile(r"(<!-- (?P<what>\w+)(?P<of>(?: [\w.-]+)*) -->)(?:(?!<!--).)*(?P<end><!-- / -->)?", re.DOTALL)


@dataclass(frozen=True)
class Numbers:
    """What the page is filled from: claims table, provenance record with its hours, scale of the runs in words, by name
    (figS1) the plotted numbers of those figures that were drawn, paper/causes.yaml scored, the table of grades with
    the tests, and which of the configured runs are not there.
    """

    claims: pd.DataFrame
    record: Mapping[str, Any]
    scale: str
    plotted: Mapping[str, pd.DataFrame]
    causes: Sequence[ScoredClaim]
    grades: pd.DataFrame
    tests: PrimaryTests
    missing: str
    n_parameters: int

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
            raise DataError(f"page: mark {match[1]!r}: {error}") from error

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


def _groups(tests: PrimaryTests) -> dict[str, list[str]]:
    return {
        "headlines": [name for ids in tests.headlines.values() for name in ids],
        "claims": list(dict.fromkeys(name for ids in tests.claims.values() for name in ids)),
        "statements": list(tests.statements),
    }


def _grades(numbers: Numbers, keys: Sequence[str]) -> str:
    groups = _groups(numbers.tests)
    if len(keys) != 1 or keys[0] not in groups:
        raise DataError(f"takes one of {', '.join(groups)}")
    labels = {role: role for role in ("MNIST", "FashionMNIST")}
    return f"\n{markdown_table(numbers.grades, groups[keys[0]], labels)}\n"


def _grade(numbers: Numbers, keys: Sequence[str]) -> str:
    rows = numbers.grades[(numbers.grades["dataset"] == ALL) & numbers.grades["test"].isin(keys)]
    if len(keys) != 1 or len(rows) != 1:
        raise DataError("takes the id of a primary TEST")
    return f"*{rows['grade'].iloc[0]}*"


def _measured(numbers: Numbers, keys: Sequence[str]) -> str:
    roles = {"first": "MNIST", "last": "FashionMNIST"}
    if len(keys) != 2 or keys[1] not in roles:
        raise DataError("takes the id of a primary TEST and first or last")
    rows = numbers.grades[(numbers.grades["test"] == keys[0]) & (numbers.grades["dataset"] == roles[keys[1]])]
    if len(rows) != 1:
        raise DataError(f"no primary test {keys[0]} on {roles[keys[1]]}")
    row = rows.iloc[0]
    found = plain_interval(float(row["value"]), float(row["low"]), float(row["high"]))
    return found if math.isfinite(float(row["value"])) else "no run yet"


def _tally(numbers: Numbers, keys: Sequence[str]) -> str:
    said = []
    for group, ids in _groups(numbers.tests).items():
        own = numbers.grades[(numbers.grades["dataset"] == ALL) & numbers.grades["test"].isin(ids)]["grade"]
        counts = ", ".join(f"{(own == grade).sum()} {grade}" for grade in GRADES)
        said.append(f"- {len(own)} tests of {group}: {counts}")
    return "\n" + "\n".join(said) + "\n"


def _network(numbers: Numbers, keys: Sequence[str]) -> str:
    hidden = "-".join(map(str, numbers.record["config"]["model"].get("hidden", ["of a module"])))
    count = f"{numbers.n_parameters:,}".replace(",", " ")
    if numbers.n_parameters == paper_numbers.PARAMETERS:
        return f"These runs are of the paper's network: hidden layers {hidden}, {count} parameters."
    return (
        f"**These runs are of another network than the paper's: hidden layers {hidden}, {count} parameters, where the "
        "paper's numbers imply 89 720. The tests were fixed with these runs known, for runs that are still to come: "
        "their grades here are a rehearsal.**"
    )


def _missing(numbers: Numbers, keys: Sequence[str]) -> str:
    return "All main and sweep runs are here." if numbers.missing == "none" else f"Missing: {numbers.missing}."


def _sensitivity(numbers: Numbers, keys: Sequence[str]) -> str:
    table = numbers.plotted.get("figS1")
    if table is None:
        return _NOT_DRAWN
    variants = list(dict.fromkeys(table["variant"]))
    rows: list[list[str]] = []
    for (name, dataset), cells in table.groupby(["fingerprint", "dataset"], sort=False):
        by = cells.drop_duplicates("variant").set_index("variant")
        paper = by["paper"].iloc[0]
        row = [str(name), str(dataset), "" if math.isnan(paper) else f"{paper:g}"]
        for variant in variants:
            value, distance = float(by.loc[variant, "value"]), float(by.loc[variant, "distance"])
            off = "" if math.isnan(distance) else f" ({distance:.1f})"
            row.append("" if math.isnan(value) else f"{value:.4g}{off}")
        rows.append(row)
    return _table(("number", "dataset", "paper", *variants), rows)


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
    table = numbers.plotted.get("figS4")
    if table is None:
        return _NOT_DRAWN
    heads = {
        "late_v1": "v_1",
        "late_direction": "direction that v_1 was",
        "late_plane": "span of v_1, v_2",
        "late_span": "span of v_1 to v_3",
        "exchange": "share that is exchange",
        "decided": "decided by the solver's bounds",
    }
    rows = []
    for key, own in table.groupby(["dataset", "optimizer"], sort=False):
        first = own.iloc[0]
        cells = (tuple(float(first[f"{name}{end}"]) for end in ("", "_min", "_max")) for name in heads)
        rows.append((*key, *("--" if math.isnan(cell[0]) else plain_interval(*cell) for cell in cells)))
    return _table(("dataset", "optimizer", *heads.values()), rows)


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
    "grades": _grades,
    "grade": _grade,
    "measured": _measured,
    "tally": _tally,
    "network": _network,
    "missing": _missing,
    "null_models": _null_models,
    "accuracy": _accuracy,
    "causes": _causes,
    "cause": _cause,
    "exchanges": _exchanges,
    "layers": _layers,
}
