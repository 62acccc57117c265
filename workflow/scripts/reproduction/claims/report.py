"""The scored claims as a table (CSV), as Markdown, as a page of HTML and as LaTeX."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape as html_escape
from typing import Any

import numpy as np
import pandas as pd

from reproduction.claims.scoring import DIRECTION, NOT_REPRODUCED, REPRODUCED, VERDICTS, Part, ScoredClaim
from reproduction.latex import escape, latex_given, latex_interval, plain_interval

CLAIMS_UNITS = {
    "claim": "1",
    "part": "1",
    "number": "1",
    "title": "1",
    "dataset": "1",
    "quantity": "1",
    "value": "see unit",
    "low": "see unit",
    "high": "see unit",
    "n_seeds": "1",
    "paper_value": "see unit",
    "unit": "1",
    "test": "1",
    "verdict": "1",
    "note": "1",
}
# The row that holds a claim's own verdict.
WHOLE = "claim"
_COLOURS = {REPRODUCED: "good", DIRECTION: "partly", NOT_REPRODUCED: "bad"}
_SHORT = {verdict: verdict.partition(" at ")[0] for verdict in VERDICTS}


def claims_table(scored: Sequence[ScoredClaim]) -> pd.DataFrame:
    """One row a claim (part `claim`: verdict, with the tally of its parts as the note) and one row a part."""
    rows = []
    for item in scored:
        head = {"claim": item.claim.id, "number": item.claim.number, "title": item.claim.title}
        rows.append({**head, "part": WHOLE, "n_seeds": 0, "verdict": item.verdict, "note": item.tally})
        rows += [{**head, **_part_row(part)} for part in item.parts]
    return pd.DataFrame(rows, columns=list(CLAIMS_UNITS))


def _part_row(part: Part) -> dict[str, Any]:
    return {
        "part": part.name,
        "dataset": part.dataset,
        "quantity": part.quantity,
        "value": part.estimate.value,
        "low": part.estimate.low,
        "high": part.estimate.high,
        "n_seeds": part.estimate.n_seeds,
        "paper_value": part.paper,
        "unit": part.unit,
        "test": part.test,
        "verdict": part.verdict,
        "note": "; ".join(part.notes),
    }


def scale_line(scale: Mapping[str, Any]) -> str:
    """The scale of the runs in words, e.g. `steps 3000, seeds 3`."""
    return ", ".join(f"{str(key).removeprefix('n_').replace('_', ' ')} {value}" for key, value in scale.items())


def markdown(scored: Sequence[ScoredClaim], labels: Mapping[str, str], scale: Mapping[str, Any]) -> str:
    """A summary of all claims, then the parts of each."""
    lines = [
        "# Claims of the paper, scored",
        "",
        f"Scale of these runs: {scale_line(scale)}.",
        "",
        "Values are means over seeds with a 95% bootstrap interval; the tests stand in paper/claims.yaml.",
        "",
        "| # | claim | figures | verdict | parts |",
        "|---|---|---|---|---|",
        *(_markdown_summary(item) for item in scored),
    ]
    for item in scored:
        lines += ["", f"## {item.claim.number}. {item.claim.title}", "", item.claim.statement, ""]
        lines += ["| part | dataset | quantity | ours | paper | unit | test | verdict | note |", "|" + "---|" * 9]
        lines += [_markdown_part(part, labels) for part in item.parts]
    return "\n".join(lines) + "\n"


def _markdown_summary(item: ScoredClaim) -> str:
    figures = ", ".join(map(str, item.claim.figures))
    return markdown_row([str(item.claim.number), item.claim.title, figures, item.verdict, item.tally])


def _markdown_part(part: Part, labels: Mapping[str, str]) -> str:
    ours = plain_interval(part.estimate.value, part.estimate.low, part.estimate.high)
    paper = f"{part.paper:.5g}" if np.isfinite(part.paper) else ""
    dataset = labels.get(part.dataset, part.dataset)
    return markdown_row(
        [part.name, dataset, part.quantity, ours, paper, part.unit, part.test, part.verdict, "; ".join(part.notes)]
    )


def markdown_row(cells: Sequence[str]) -> str:
    """One row of a table, its text as it is."""
    return "| " + " | ".join(_markdown_text(cell) for cell in cells) + " |"


def _markdown_text(text: str) -> str:
    return "".join(f"\\{character}" if character in "\\|<>*_" else character for character in text)


# Only what lies in the element .claims: Snakemake's report shows the page within its own start page too.
_STYLE = """<style>
.claims { font: 16px/1.5 system-ui, sans-serif; color: #1d1d1f; background: #fff; max-width: 60rem; }
.claims .scroll { overflow-x: auto; }
.claims table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; width: 100%; }
.claims th, .claims td { padding: 0.3rem 0.5rem; text-align: left; vertical-align: top; }
.claims tr { border-bottom: 1px solid #ddd; }
.claims details { border-bottom: 1px solid #ddd; padding: 0.4rem 0; } .claims summary { cursor: pointer; }
.claims .verdict { white-space: nowrap; border-radius: 0.3rem; padding: 0.05rem 0.4rem; background: #e8e8ed; }
.claims .good { background: #d3f2d9; } .claims .partly { background: #fdf0c4; }
.claims .bad { background: #fadbd8; }
</style>"""


def page(scored: Sequence[ScoredClaim], labels: Mapping[str, str], scale: Mapping[str, Any]) -> str:
    """The claims with their verdicts and the parts of each, as a page that fits a narrow window too."""
    counts = Counter(item.verdict for item in scored)
    tally = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts)
    lines = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>The paper\'s claims</title>',
        f'{_STYLE}\n</head>\n<body>\n<div class="claims">',
        f"<p>Of the paper's {len(scored)} claims: <strong>{html_escape(tally)}</strong>. "
        f"Scale of these runs: {html_escape(scale_line(scale))}. A claim has the worst verdict of its parts. Values "
        "are means over seeds with a 95% bootstrap interval; the tests stand in paper/claims.yaml. Open a claim to see "
        "its parts.</p>",
    ]
    for item in scored:
        figures = ", ".join(map(str, item.claim.figures))
        lines += [
            f"<details><summary>{item.claim.number}. {_html(item.claim.title)} {_badge(item.verdict)}</summary>",
            f"<p>{_html(item.claim.statement)} (Figure {figures}; parts: {_html(item.tally)}.)</p>",
            '<div class="scroll"><table><thead>',
            _html_row(("dataset", "quantity", "ours", "paper", "unit", "test", "verdict", "note"), "th"),
            "</thead><tbody>",
            *(_html_part(part, labels) for part in item.parts),
            "</tbody></table></div></details>",
        ]
    return "\n".join([*lines, "</div>\n</body>\n</html>"]) + "\n"


def _html_part(part: Part, labels: Mapping[str, str]) -> str:
    ours = plain_interval(part.estimate.value, part.estimate.low, part.estimate.high)
    paper = f"{part.paper:.5g}" if np.isfinite(part.paper) else ""
    texts = [labels.get(part.dataset, part.dataset), part.quantity, ours, paper, part.unit, part.test]
    return _html_row([*map(_html, texts), _badge(part.verdict), _html("; ".join(part.notes))])


def _html_row(cells: Iterable[str], kind: str = "td") -> str:
    return f"<tr>{''.join(f'<{kind}>{cell}</{kind}>' for cell in cells)}</tr>"


def _html(text: str) -> str:
    """Plain text, indices such as that of v_1 below the line."""
    return re.sub(r"\b(v|D|t|tau|lambda)_(\w+)\b", r"\1<sub>\2</sub>", html_escape(text))


def _badge(verdict: str) -> str:
    return f'<span class="verdict {_COLOURS.get(verdict, "")}">{html_escape(verdict)}</span>'


def latex(scored: Sequence[ScoredClaim], labels: Mapping[str, str], scale: Mapping[str, Any]) -> str:
    """Two longtables, `tab:claims` (verdicts) and `tab:parts` (values); need longtable, booktabs and array."""
    return "\n".join(
        [
            "% Written by the rule `claims`. Needs the packages longtable, booktabs and array.",
            "% In two columns the tables get pages of one column; beamer has no tables that run over pages.",
            *_BEFORE,
            *_longtable(
                columns=(r"r", _column(0.46), _column(0.11), _column(0.17), _column(0.15)),
                heads=("", "claim", "figures", "verdict", "parts"),
                caption=f"The paper's claims and their verdicts. Scale of these runs: {escape(scale_line(scale))}.",
                label="tab:claims",
                body=[_latex_row(_summary_cells(item)) for item in scored],
            ),
            "",
            *_longtable(
                columns=(_column(0.13), _column(0.26), _column(0.18), r"l", _column(0.17), _column(0.1)),
                heads=("dataset", "quantity", "ours", "paper", "test", "verdict"),
                caption="Every part of every claim: mean over seeds with its 95\\% interval, in units of the power of "
                "ten that follows the brackets; units and remarks stand in claims.csv.",
                label="tab:parts",
                body=_parts_body(scored, labels),
            ),
            r"\eigendriftcolumns",
            "",
        ]
    )


# longtable refuses two columns.
_BEFORE = (
    r"\makeatletter",
    r"\@ifclassloaded{beamer}{\PackageError{eigendrift}{claims.tex is not for beamer}{Input it in an article.}}{}",
    r"\if@twocolumn\onecolumn\let\eigendriftcolumns\twocolumn\else\let\eigendriftcolumns\relax\fi",
    r"\makeatother",
)


def _column(share: float) -> str:
    return rf">{{\raggedright\arraybackslash}}p{{{share:g}\linewidth}}"


def _longtable(
    columns: Sequence[str], heads: Sequence[str], caption: str, label: str, body: Sequence[str]
) -> list[str]:
    head = _latex_row(heads)
    return [
        r"\begingroup\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\begin{{longtable}}{{@{{}}{''.join(columns)}@{{}}}}",
        rf"\caption{{{caption}}}\label{{{label}}}\\",
        rf"\toprule {head} \midrule\endfirsthead",
        rf"\toprule {head} \midrule\endhead",
        r"\bottomrule\endfoot",
        *body,
        r"\end{longtable}",
        r"\endgroup",
    ]


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _summary_cells(item: ScoredClaim) -> list[str]:
    found = [part.verdict for part in item.parts]
    tally = ", ".join(f"{found.count(verdict)} {_SHORT[verdict]}" for verdict in VERDICTS if verdict in found)
    figures = ", ".join(map(str, item.claim.figures))
    return [str(item.claim.number), with_symbols(item.claim.statement), figures, escape(item.verdict), escape(tally)]


def _parts_body(scored: Sequence[ScoredClaim], labels: Mapping[str, str]) -> list[str]:
    body = []
    for position, item in enumerate(scored):
        title = rf"\textbf{{{item.claim.number}. {with_symbols(item.claim.title)}: {escape(item.verdict)}}}"
        space = r"\addlinespace " if position else ""
        # A heading must not stand alone at the foot of a page.
        body.append(rf"{space}\multicolumn{{6}}{{@{{}}p{{\linewidth}}@{{}}}}{{\raggedright {title}}}\\*")
        body += [_latex_row(_part_cells(part, labels)) for part in item.parts]
    return body


def _part_cells(part: Part, labels: Mapping[str, str]) -> list[str]:
    ours = latex_interval(part.estimate.value, part.estimate.low, part.estimate.high)
    dataset = escape(labels.get(part.dataset, part.dataset))
    return [
        dataset,
        with_symbols(part.quantity),
        ours,
        latex_given(part.paper),
        with_symbols(part.test),
        escape(_SHORT[part.verdict]),
    ]


_SYMBOL = re.compile(r"\b(v|D|t|tau|lambda)_(\w+)\b|\b(\d+(?:\.\d+)?e[-+]?\d+)\b")
_GREEK = {"lambda": r"\lambda", "tau": r"\tau"}


def with_symbols(text: str) -> str:
    """Plain text as LaTeX, with symbols (v_1, D_1, tau_1, lambda_1, t_w) and powers of ten (1e-4) as mathematics."""
    pieces, position = [], 0
    for match in _SYMBOL.finditer(text):
        name, index, number = match.groups()
        symbol = latex_given(float(number)) if number else rf"${_GREEK.get(name, name)}_{{{index}}}$"
        pieces += [escape(text[position : match.start()]), symbol]
        position = match.end()
    return "".join([*pieces, escape(text[position:])])
