"""The grades of the primary tests on one set of tables: a table, and the pages and LaTeX that show it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from reproduction.claims.evidence import Evidence
from reproduction.claims.grading import (
    CONFIRMED,
    CONTRADICTED,
    INCONCLUSIVE,
    SIZE_NOT,
    Region,
    after_holm,
    combined,
    holm,
)
from reproduction.claims.primary import PrimaryTest, PrimaryTests, grades_of, measured, p_value
from reproduction.claims.report import markdown_row, with_symbols
from reproduction.latex import escape, latex_interval, plain_interval

GRADES_UNITS = {
    **dict.fromkeys(("test", "decides", "dataset", "statement", "quantity", "unit", "region", "grade", "reason"), "1"),
    **dict.fromkeys(("value", "low", "high", "paper"), "see unit"),
    **dict.fromkeys(("n", "n_planned", "holm_p"), "1"),
}
# The row that holds the grade of a whole test, over its datasets and after Holm's method.
WHOLE = "all"
OTHER_DATA = "not assessed"
_MARKS = {CONFIRMED: "green!45!black", SIZE_NOT: "olive", INCONCLUSIVE: "gray", CONTRADICTED: "red!70!black"}


def grades_table(tests: PrimaryTests, evidence: Evidence) -> pd.DataFrame:
    """One row a test and dataset, and one a test (dataset WHOLE) with its grade after Holm's method.

    On other data than the paper's nothing is graded: what was measured is shown.
    """
    papers = all(role == name for role, name in evidence.dataset_of.items())
    adjusted = holm({name: p_value(tests.tests[name], evidence) for name in tests.holm}) if papers else {}
    rows = []
    for name, test in tests.tests.items():
        found = grades_of(test, evidence)
        if not papers:
            found = dict.fromkeys(found, (OTHER_DATA, "other data than the paper's"))
        head = {"test": name, "decides": _decides(tests, name), "statement": test.statement, "unit": test.unit}
        for role, (grade, reason) in found.items():
            result = measured(test, evidence, role)
            rows.append(
                {
                    **head,
                    "dataset": role,
                    "quantity": test.quantity,
                    "value": result.value + _paper_offset(test, role),
                    "low": result.low + _paper_offset(test, role),
                    "high": result.high + _paper_offset(test, role),
                    "n": result.n_seeds,
                    "n_planned": test.units,
                    "paper": test.paper.get(role, math.nan),
                    "region": region_text(_shifted(test, role)),
                    "grade": grade,
                    "reason": reason,
                }
            )
        whole = OTHER_DATA if not papers else combined(grade for grade, _ in found.values())
        reason = ""
        if name in adjusted:
            whole, reason = after_holm(whole, adjusted[name], tests.level)
        rows.append(
            {**head, "dataset": WHOLE, "grade": whole, "reason": reason, "holm_p": adjusted.get(name, math.nan)}
        )
    frame = pd.DataFrame(rows, columns=list(GRADES_UNITS))
    return frame.astype({"n": "Int64", "n_planned": "Int64"})


def _decides(tests: PrimaryTests, name: str) -> str:
    """What a test decides: H1, claim 4, statement; several are joined."""
    found = [headline for headline, ids in tests.headlines.items() if name in ids]
    found += [f"claim {number}" for number, ids in tests.claims.items() if name in ids]
    return ", ".join([*found, *(["statement"] if name in tests.statements else [])])


def _is_difference(test: PrimaryTest) -> bool:
    return test.measure == "baseline_overlap"


def _paper_offset(test: PrimaryTest, role: str) -> float:
    """What a difference to the paper's value is shown with, so that it is the quantity itself."""
    return test.paper[role] if _is_difference(test) else 0.0


def _shifted(test: PrimaryTest, role: str) -> Region:
    region, offset = test.regions[role], _paper_offset(test, role)
    return Region(region.above + offset, region.below + offset) if offset else region


def region_text(region: Region) -> str:
    """The values that a test allows: "> 2", "0.05 to 0.2"."""
    if math.isinf(region.below):
        return f"> {region.above:.6g}"
    return f"< {region.below:.6g}" if math.isinf(region.above) else f"{region.above:.6g} to {region.below:.6g}"


def grade_of_several(table: pd.DataFrame, names: Sequence[str]) -> str:
    """The grade of what several tests decide together."""
    found = table[(table["dataset"] == WHOLE) & table["test"].isin(names)]["grade"]
    return OTHER_DATA if OTHER_DATA in set(found) else combined(found)


def rows_of(table: pd.DataFrame, ids: Iterable[str]) -> list[dict[str, Any]]:
    """Of each test what a reader is shown: statement, the paper's and our values by dataset, grade, and the reason."""
    rows = []
    for name in ids:
        own = table[table["test"] == name]
        whole = own[own["dataset"] == WHOLE].iloc[0]
        parts = own[own["dataset"] != WHOLE]
        rows.append(
            {
                "test": name,
                "statement": str(whole["statement"]),
                "parts": parts.to_dict("records"),
                "grade": str(whole["grade"]),
                "reason": "; ".join(dict.fromkeys(text for text in own["reason"].dropna() if text)),
            }
        )
    return rows


def markdown_table(table: pd.DataFrame, ids: Iterable[str], labels: Mapping[str, str], first: str = "statement") -> str:
    """statement | paper | ours | grade, a row a test."""
    lines = [markdown_row([first, "paper", "ours, mean [95% interval]", "grade"]), "|---|---|---|---|"]
    for row in rows_of(table, ids):
        cells = [row["statement"], _lines(row, labels, _paper), _lines(row, labels, _ours), _graded(row)]
        # Lines within a cell, which the escape of a table's text would take apart.
        lines.append(markdown_row(cells).replace("&&", "<br>"))
    return "\n".join(lines)


def _graded(row: Mapping[str, Any]) -> str:
    several = {part["grade"] for part in row["parts"]}
    if several == {row["grade"]}:
        return str(row["grade"])
    if len(several) == 1:
        return f"{row['grade']} ({row['reason']})"
    return f"{row['grade']} ({'; '.join(part['dataset'] + ': ' + part['grade'] for part in row['parts'])})"


def _lines(row: Mapping[str, Any], labels: Mapping[str, str], text: Any) -> str:
    parts = row["parts"]
    said = [text(part) for part in parts]
    if len(parts) == 1 or len(set(said)) == 1:
        return str(said[0])
    return "&&".join(
        f"{labels.get(part['dataset'], part['dataset'])}: {one}" for part, one in zip(parts, said, strict=True)
    )


def _paper(part: Mapping[str, Any]) -> str:
    value = float(part["paper"])
    asked = f"asked: {part['region']}"
    return asked if math.isnan(value) else f"{value:.5g} ({asked})"


def _ours(part: Mapping[str, Any]) -> str:
    value, low, high = (float(part[key]) for key in ("value", "low", "high"))
    if math.isnan(value):
        return "no run yet"
    missing = int(part["n_planned"]) - int(part["n"]) if pd.notna(part["n"]) and int(part["n"]) > 0 else 0
    short = f", {int(part['n'])} of {int(part['n_planned'])}" if missing > 0 else ""
    return f"{plain_interval(value, low, high)}{short}"


def latex_tables(table: pd.DataFrame, tests: PrimaryTests) -> str:
    r"""Macros \eigendriftgrades{headlines|claims|statements}: the body of a table of statement, asked, ours, grade."""
    groups = {
        "headlines": [name for ids in tests.headlines.values() for name in ids],
        "claims": list(dict.fromkeys(name for ids in tests.claims.values() for name in ids)),
        "statements": list(tests.statements),
    }
    lines = [
        "% Written by the rule `claims`: rows of statement & dataset & asked & ours & grade.",
        r"\providecommand*\eigendriftgrades[1]{\csname eigendrift@grades@#1\endcsname}",
    ]
    for group, ids in groups.items():
        body = "\n".join(_latex_rows(row) for row in rows_of(table, ids))
        lines.append(rf"\expandafter\def\csname eigendrift@grades@{group}\endcsname{{{body}}}")
    return "\n".join(lines) + "\n"


def _latex_rows(row: Mapping[str, Any]) -> str:
    rows = []
    for position, part in enumerate(row["parts"]):
        statement = with_symbols(row["statement"]) if position == 0 else ""
        ours = latex_interval(*(float(part[key]) for key in ("value", "low", "high")))
        grade = rf"\textcolor{{{_MARKS.get(part['grade'], 'gray')}}}{{{escape(part['grade'])}}}"
        cells = [statement, escape(part["dataset"]), escape(part["region"]), ours, grade]
        rows.append(" & ".join(cells) + r" \\")
    return "\n".join([*rows, r"\addlinespace"])
