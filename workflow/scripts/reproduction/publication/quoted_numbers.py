r"""Every number that the paper's text quotes, by key: `\eigendrift{first.sgd.accuracy}` in LaTeX.

Keys speak of roles, not of configured names, so that one text serves every configuration: `first` and `last` are the
datasets that play MNIST and FashionMNIST; sgd, adam and sam are the optimizers. What a configuration lacks is a dash;
a key that does not exist stops LaTeX.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from reproduction.claims.evidence import OPTIMIZER_ROLES
from reproduction.claims.grades import OTHER_DATA
from reproduction.claims.grades import WHOLE as WHOLE_TEST
from reproduction.claims.grading import GRADES
from reproduction.claims.report import WHOLE
from reproduction.claims.scoring import VERDICTS
from reproduction.claims.statistics import Measurement, estimate
from reproduction.errors import DataError
from reproduction.experiment import paper_numbers
from reproduction.experiment.labels import MAIN
from reproduction.experiment.runs import Experiment
from reproduction.files.tables import RUN_KEY, read_header, read_table, read_tables
from reproduction.latex import escape, latex_given, latex_integer, latex_interval, latex_number
from reproduction.statistics.localization import final_ipr
from reproduction.statistics.rows import by_seed

# The experiment of arXiv:2606.30226, sections 3 and B, for the text to quote beside ours.
PAPER: Mapping[str, int | float | list[int]] = {
    "samples": 60_000,
    "hidden": [100, 100, 10],
    "parameters": paper_numbers.PARAMETERS,
    "steps": 100_000,
    "batchsize": 128,
    "seeds": 5,
    "snapshots": 1584,
    "k": 3,
    "densek": 15,
    "tolerance": 1e-3,
    "initializations": 100,
    "sgd.learningrate": 1e-2,
    "adam.learningrate": 1e-3,
    "sam.learningrate": 1e-2,
    "sam.rho": 0.05,
}
_KEY = re.compile(r"[A-Za-z0-9._-]+")

PREAMBLE = r"""% Written by the rule `figure_set`: every number that a text quotes. Needs no package.
%   \eigendrift{key}           the number; an unknown key is an error
%   \eigendriftOr{key}{text}   the number, or the text for an unknown key
\providecommand*\eigendrift[1]{%
  \ifcsname eigendrift@#1\endcsname\csname eigendrift@#1\endcsname
  \else\PackageError{eigendrift}{no number named `#1'}{The keys stand in numbers.tex.}\fi}
\providecommand*\eigendriftOr[2]{\ifcsname eigendrift@#1\endcsname\csname eigendrift@#1\endcsname\else#2\fi}
\providecommand*\eigendriftset[2]{\expandafter\def\csname eigendrift@#1\endcsname{#2}}
"""


def numbers_tex(numbers: Mapping[str, str]) -> str:
    """The numbers, LaTeX source by key, as a file that defines the lookup macros; sorted by key."""
    wrong = [key for key in numbers if not _KEY.fullmatch(key)]
    if wrong:
        raise DataError(f"numbers: key {wrong[0]!r} may hold letters, digits, points, hyphens and underscores only")
    return PREAMBLE + "".join(f"\\eigendriftset{{{key}}}{{{numbers[key]}}}\n" for key in sorted(numbers))


def collect_numbers(
    *,
    claims: pd.DataFrame,
    grades: pd.DataFrame,
    history: pd.DataFrame,
    ipr: pd.DataFrame,
    baseline: pd.DataFrame,
    identities: Sequence[Mapping[str, Any]],
    layout: Mapping[str, Any],
    roles: Mapping[str, str],
    provenance: Mapping[str, Any],
) -> dict[str, str]:
    """All numbers by key.

    `claims` is the claims table, `grades` that of the primary tests; `history` and `ipr` hold all runs, `baseline` all
    datasets; `identities` are those of the history tables, one a run; `layout` and `roles` are the parameters of the
    rule `claims`.
    """
    datasets = list(layout["datasets"])
    diverged = [identity for identity in identities if identity.get("diverged_at") is not None]
    finished, leading = _without(history, diverged), _without(ipr[(ipr["i"] == 1) & (ipr["converged"] == 1)], diverged)
    places = {"first": datasets[0], "last": datasets[-1]}
    numbers = {**_scale(history, ipr, identities), **_datasets(layout["datasets"]), **_flat("", provenance)}
    numbers |= {f"paper.{key}": _text(value) for key, value in PAPER.items()}
    numbers |= _claims(claims, places)
    numbers |= _grades(grades)
    numbers["network.note"] = _network_note(numbers, int(baseline["n_parameters"].iloc[0]))
    for place, dataset in places.items():
        numbers |= {f"{place}.{key}": text for key, text in _dataset(dataset, layout, baseline, identities).items()}
        for role in OPTIMIZER_ROLES:
            run = _optimizer(dataset, roles.get(role, ""), finished, leading, identities)
            numbers |= {f"{place}.{role}.{key}": text for key, text in run.items()}
    for role in OPTIMIZER_ROLES:
        numbers[f"label.{role}"] = escape(layout["optimizers"].get(roles.get(role, ""), role))
    return numbers


def numbers_of(
    *,
    claims: str,
    grades: str,
    history: Sequence[str],
    ipr: Sequence[str],
    baseline: Sequence[str],
    layout: Mapping[str, Any],
    roles: Mapping[str, str],
    provenance: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]],
) -> tuple[dict[str, str], dict[str, Any]]:
    """All numbers by key, from the tables at these paths, and the record of `provenance` of the runs' identities."""
    paths = sorted(history)
    identities = [read_header(path, kind="history")["identity"] for path in paths]
    record = provenance(identities)
    numbers = collect_numbers(
        claims=read_table(claims, kind="claims"),
        grades=read_table(grades, kind="grades"),
        history=read_tables(paths, kind="history"),
        ipr=read_tables(sorted(ipr), kind="ipr"),
        baseline=read_tables(sorted(baseline), kind="baseline"),
        identities=identities,
        layout=layout,
        roles=roles,
        provenance=record,
    )
    numbers["missing"] = escape(missing_runs(record["config"], identities))
    return numbers, record


def _grades(grades: pd.DataFrame) -> dict[str, str]:
    """Counts of grades among headlines (H) and claims, and of each test its grade and what it measured."""
    whole = grades[grades["dataset"] == WHOLE_TEST]
    numbers = {}
    for group, prefix in (("headlines", "H"), ("claims", "claim ")):
        own = whole[whole["decides"].str.contains(f"(?:^|, ){prefix}", regex=True)]
        numbers[f"grades.{group}.all"] = latex_integer(len(own))
        for grade in (*GRADES, OTHER_DATA):
            name = grade.partition(",")[0].replace(" ", "")
            numbers[f"grades.{group}.{name}"] = latex_integer(int((own["grade"] == grade).sum()))
    for row in grades.to_dict("records"):
        if row["dataset"] == WHOLE_TEST:
            numbers[f"grade.{row['test']}"] = escape(str(row["grade"]))
            continue
        place = {"MNIST": "first", "FashionMNIST": "last"}[row["dataset"]]
        key = f"grade.{row['test']}.{place}"
        numbers[key] = latex_interval(float(row["value"]), float(row["low"]), float(row["high"]))
        numbers[f"{key}.grade"] = escape(str(row["grade"]))
    return numbers


def _network_note(numbers: Mapping[str, str], n_parameters: int) -> str:
    """What a reader must know of runs of another network than the paper's; empty for the paper's."""
    if n_parameters == PAPER["parameters"]:
        return ""
    return (
        f"The runs of this document are of a network of {latex_integer(n_parameters)} parameters, not of the paper's "
        f"{numbers['paper.parameters']}: their grades are a rehearsal."
    )


def missing_runs(config: Mapping[str, Any], identities: Sequence[Mapping[str, Any]]) -> str:
    """Which of the configured runs have no table here, in words; "none" if all are there."""
    if config.get("trajectories"):
        # Recorded runs are never drawn in part.
        return "none"
    experiment = Experiment(config)
    there = {tuple(identity[key] for key in RUN_KEY) for identity in identities}
    said = []
    for name, runs in (("main", experiment.select()), ("sweep", [r for r in experiment if r.variant != MAIN])):
        gone = sum((run.dataset, run.optimizer, run.variant, run.seed) not in there for run in runs)
        said += [f"{gone} of {len(runs)} {name} runs"] if gone else []
    return " and ".join(said) or "none"


def _scale(history: pd.DataFrame, ipr: pd.DataFrame, identities: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    main = history[history["variant"] == MAIN]
    lengths = main.groupby(["dataset", "optimizer", "seed"]).size()
    converged = ipr[ipr["converged"] == 1]
    mains = [identity for identity in identities if identity["variant"] == MAIN]
    counts = {
        "runs": len(identities),
        "diverged": sum(identity.get("diverged_at") is not None for identity in identities),
        "mainruns": len(mains),
        "sweepruns": len(identities) - len(mains),
        "seeds": len({identity["seed"] for identity in mains}),
        "steps": max(int(identity["steps"]) for identity in mains),
        "snapshots": int(lengths.max()),
        "pairs": len(ipr),
        "unconverged": len(ipr) - len(converged),
        "matvecs": int(ipr.drop_duplicates(["dataset", "optimizer", "variant", "seed", "step"])["matvecs"].sum()),
        "densek": int(ipr["i"].max()),
    }
    numbers = {f"scale.{key}": latex_integer(count) for key, count in counts.items()}
    return {**numbers, "scale.residual": latex_number(converged["residual"].max() if len(converged) else math.nan, 2)}


def _datasets(labels: Mapping[str, str]) -> dict[str, str]:
    names = [escape(label) for label in labels.values()]
    joined = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return {"datasets": joined}


def _dataset(
    dataset: str, layout: Mapping[str, Any], baseline: pd.DataFrame, identities: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    own = [identity for identity in identities if identity["dataset"] == dataset]
    rows = baseline[(baseline["dataset"] == dataset) & (baseline["i"] == 1)]
    if rows.empty:
        raise DataError(f"numbers: no baseline of the dataset {dataset!r}")
    row = rows.iloc[0]
    return {
        "label": escape(layout["datasets"][dataset]),
        "parameters": latex_integer(int(row["n_parameters"])),
        # Of a dataset without a run yet nothing says it.
        "samples": _text(own[0].get("n_train")) if own else "--",
        "uniform": latex_number(1.0 / int(row["n_parameters"])),
        "tau": latex_interval(row["mean_overlap"], row["overlap_low"], row["overlap_high"]),
        "tauone": latex_interval(row["displacement"], row["displacement_low"], row["displacement_high"]),
        "initializations": latex_integer(int(row["n_initializations"])),
    }


def _optimizer(
    dataset: str, optimizer: str, history: pd.DataFrame, ipr: pd.DataFrame, identities: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    wanted = {"dataset": dataset, "optimizer": optimizer, "variant": MAIN}
    own = [identity for identity in identities if all(identity[key] == value for key, value in wanted.items())]
    ends = _last_rows(_rows(history, wanted))
    first = _rows(ipr, wanted)
    leading = _last_rows(first)
    values = {
        "accuracy": 100.0 * ends["test_accuracy"],
        "trainloss": ends["train_loss"],
        "testloss": ends["test_loss"],
        "lambda": leading["eigenvalue"],
        "ipr": pd.Series(by_seed(first, final_ipr), dtype=float),
    }
    numbers = {}
    for key, series in values.items():
        result = estimate(Measurement(by_seed={int(str(seed)): float(value) for seed, value in series.items()}))
        numbers[key] = latex_interval(result.value, result.low, result.high)
        numbers[f"{key}.mean"] = latex_number(result.value)
    # A recorded run says neither its batch size nor, without an optimizer of torch, a learning rate.
    rate = own[0]["learning_rate"] if own else None
    numbers["learningrate"] = latex_given(math.nan if rate is None else rate)
    numbers["batchsize"] = _text(own[0].get("batch_size") if own else None)
    return numbers


def _without(frame: pd.DataFrame, runs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    keys = {tuple(run[name] for name in RUN_KEY) for run in runs}
    return frame[[key not in keys for key in zip(*(frame[name] for name in RUN_KEY), strict=True)]] if keys else frame


def _rows(frame: pd.DataFrame, wanted: Mapping[str, str]) -> pd.DataFrame:
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def _last_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The last snapshot of each seed, by seed."""
    return frame.sort_values(["seed", "step"]).drop_duplicates("seed", keep="last").set_index("seed")


def _claims(claims: pd.DataFrame, places: Mapping[str, str]) -> dict[str, str]:
    whole = claims[claims["part"] == WHOLE]
    numbers = {"verdicts.claims": latex_integer(len(whole)), "verdicts.parts": latex_integer(len(claims) - len(whole))}
    for verdict in VERDICTS:
        name = verdict.partition(" at ")[0].replace(" ", "")
        numbers[f"verdicts.{name}"] = latex_integer(int((whole["verdict"] == verdict).sum()))
    for row in whole.to_dict("records"):
        numbers[f"claim.{row['claim']}.verdict"] = escape(str(row["verdict"]))
    for row in claims[claims["part"] != WHOLE].to_dict("records"):
        for place in (place for place, dataset in places.items() if dataset == row["dataset"]):
            key = f"claim.{row['claim']}.{row['part']}.{place}"
            numbers[key] = latex_interval(float(row["value"]), float(row["low"]), float(row["high"]))
            numbers[f"{key}.paper"] = latex_given(float(row["paper_value"]))
            numbers[f"{key}.verdict"] = escape(str(row["verdict"]))
    return numbers


def _flat(prefix: str, value: Any) -> dict[str, str]:
    """Nested values as `a.b.c` -> LaTeX; keys with characters that a number's key may not have are omitted."""
    if isinstance(value, Mapping):
        found: dict[str, str] = {}
        for key, item in value.items():
            if _KEY.fullmatch(str(key)):
                found |= _flat(f"{prefix}.{key}" if prefix else str(key), item)
        return found
    return {prefix: _text(value)}


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "--"}[value]
    if isinstance(value, int):
        return latex_integer(value)
    return latex_given(value) if isinstance(value, float) else escape(str(value))
