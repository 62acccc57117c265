"""Measure every part of every claim and give it one of four verdicts.

A part's verdict. Below the scale that its test requires, without a value, or without an optimizer to play a role: not
assessed at this scale (the value is still given where there is one). Else, if the strict condition holds for the mean
and for both ends of the interval: reproduced. `within` and `within factor` are judged by the mean alone, because their
tolerance already stands for the uncertainty of the paper's single number. Else, if the strict condition holds for the
mean only, or the weaker condition of the test holds for the mean: direction only. Else: not reproduced.

A claim's verdict is that of its weakest part: one part that is not reproduced refutes the claim, whatever the others
say; failing that, one that is not assessed leaves it open; then direction only; then reproduced.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from reproduction.claims.definition import ROLE_PARAMETERS, Claim, Condition, OperationalTest, Requirement
from reproduction.claims.evidence import DATASET_ROLES, DIVERGED, OPTIMIZER_ROLES, UNCONVERGED, Evidence
from reproduction.claims.quantities import QUANTITIES, Quantity
from reproduction.claims.statistics import Estimate, Measurement, estimate, paired
from reproduction.experiment.labels import MAIN

REPRODUCED = "reproduced"
DIRECTION = "direction only"
NOT_REPRODUCED = "not reproduced"
NOT_ASSESSED = "not assessed at this scale"
VERDICTS = (REPRODUCED, DIRECTION, NOT_REPRODUCED, NOT_ASSESSED)
_WEAKEST_FIRST = (NOT_REPRODUCED, NOT_ASSESSED, DIRECTION, REPRODUCED)
# The last snapshot may fall short of the last step by this share.
_STEPS_SHARE = 0.99


@dataclass(frozen=True)
class Part:
    """One test on one dataset with one choice of parameters, measured and judged."""

    name: str
    role: str
    dataset: str
    quantity: str
    unit: str
    test: str
    paper: float
    estimate: Estimate
    verdict: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ScoredClaim:
    """A claim with its parts and the verdict of the weakest of them."""

    claim: Claim
    parts: tuple[Part, ...]
    verdict: str

    @property
    def tally(self) -> str:
        """How many parts have each verdict, e.g. `5 reproduced, 1 direction only`."""
        found = [part.verdict for part in self.parts]
        return ", ".join(f"{found.count(verdict)} {verdict}" for verdict in VERDICTS if verdict in found)


@dataclass(frozen=True)
class _Inputs:
    """What a part reads: configured datasets and optimizers, and the roles without one."""

    datasets: tuple[str, ...]
    dataset_roles: tuple[str, ...]
    optimizers: tuple[str, ...]
    missing: tuple[str, ...]


def score_claims(claims: Iterable[Claim], evidence: Evidence, labels: Mapping[str, str]) -> tuple[ScoredClaim, ...]:
    """Score all claims; `labels` gives the shown names of configured datasets and optimizers."""
    scored = []
    for claim in claims:
        parts = tuple(
            _score(test, name, parameters, role, evidence, labels)
            for test in claim.tests
            for name, parameters in test.expanded()
            for role in test.datasets
        )
        verdict = min((part.verdict for part in parts), key=_WEAKEST_FIRST.index)
        scored.append(ScoredClaim(claim, parts, verdict))
    return tuple(scored)


def _score(
    test: OperationalTest,
    name: str,
    parameters: Mapping[str, Any],
    role: str,
    evidence: Evidence,
    labels: Mapping[str, str],
) -> Part:
    quantity = QUANTITIES[test.quantity]
    inputs = _inputs_of(test, parameters, role, evidence)
    notes: list[str] = [f"no optimizer plays {missing}" for missing in inputs.missing]
    measured = Measurement(by_seed={}) if inputs.missing else _measure(test, quantity, parameters, role, evidence)
    result = estimate(measured)
    paper = test.paper.get(role, float("nan"))
    lacking = [*notes, *_shortfalls(test.requires, quantity, inputs, result, evidence)]
    if not np.isfinite(result.value) and not inputs.missing:
        lacking.append("no value")
    verdict, reason = (NOT_ASSESSED, "") if lacking else judge(test, result, paper)
    remarks = [*lacking, reason, *_left_out(quantity, parameters, inputs, evidence), *result.notes]
    return Part(
        name=name,
        role=role,
        dataset=evidence.dataset_of[role],
        quantity=_described(test, quantity, parameters, evidence, labels),
        unit=test.unit,
        test=_test_text(test),
        paper=paper,
        estimate=result,
        verdict=verdict,
        notes=tuple(remark for remark in remarks if remark),
    )


def judge(test: OperationalTest, result: Estimate, paper: float) -> tuple[str, str]:
    """Verdict of an estimate at sufficient scale, and the reason where it is not plain from the numbers."""
    if holds(test.strict, result.value, paper):
        ends = (
            [result.low, result.high] if result.has_interval and not test.strict.comparison.startswith("within") else []
        )
        if all(holds(test.strict, end, paper) for end in ends):
            return REPRODUCED, ""
        return DIRECTION, "the mean passes, the interval does not"
    if test.direction is not None and holds(test.direction, result.value, paper):
        return DIRECTION, ""
    return NOT_REPRODUCED, ""


def holds(condition: Condition, value: float, paper: float) -> bool:
    """Whether a value meets a condition; `paper` is the paper's value, for `within` and `within factor`."""
    if condition.comparison == "<":
        return value < condition.threshold
    if condition.comparison == ">":
        return value > condition.threshold
    if condition.comparison == "between":
        return condition.bounds[0] <= value <= condition.bounds[1]
    if condition.comparison == "within":
        return abs(value - paper) <= condition.tolerance * abs(paper)
    return value * paper > 0 and 1.0 / condition.tolerance <= value / paper <= condition.tolerance


def _measure(
    test: OperationalTest, quantity: Quantity, parameters: Mapping[str, Any], role: str, evidence: Evidence
) -> Measurement:
    first = quantity.measure(evidence, evidence.dataset_of[role], **_configured(parameters, evidence))
    if not test.versus:
        return first
    other = {**parameters, **test.versus}
    other_role = other.pop("dataset", role)
    second = quantity.measure(evidence, evidence.dataset_of[other_role], **_configured(other, evidence))
    return paired(first, second, ratio=test.combine == "ratio")


def _configured(parameters: Mapping[str, Any], evidence: Evidence) -> dict[str, Any]:
    """Parameters with the paper's roles replaced by configured names."""
    names = {**evidence.optimizer_of, **evidence.dataset_of}
    return _with_names(parameters, names)


def _with_names(parameters: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Parameters with every role replaced by its name; a role that has none stays."""
    replaced = dict(parameters)
    for key in set(parameters) & set(ROLE_PARAMETERS):
        value = parameters[key]
        replaced[key] = names.get(value, value) if isinstance(value, str) else tuple(names.get(v, v) for v in value)
    return replaced


def _inputs_of(test: OperationalTest, parameters: Mapping[str, Any], role: str, evidence: Evidence) -> _Inputs:
    roles = {role: None}
    for given in (parameters, test.versus):
        for key in sorted(set(given) & set(ROLE_PARAMETERS)):
            roles.update(dict.fromkeys([given[key]] if isinstance(given[key], str) else given[key]))
    optimizers = [name for name in OPTIMIZER_ROLES if name in roles]
    if not optimizers and QUANTITIES[test.quantity].tables not in ((), ("baseline",), ("solutions",)):
        optimizers = list(OPTIMIZER_ROLES)
    datasets = [name for name in DATASET_ROLES if name in roles]
    return _Inputs(
        datasets=tuple(evidence.dataset_of[name] for name in datasets),
        dataset_roles=tuple(datasets),
        optimizers=tuple(evidence.optimizer_of[name] for name in optimizers if name in evidence.optimizer_of),
        missing=tuple(name for name in optimizers if name not in evidence.optimizer_of),
    )


def _shortfalls(
    required: Requirement, quantity: Quantity, inputs: _Inputs, result: Estimate, evidence: Evidence
) -> list[str]:
    lacking = [
        f"{evidence.dataset_of[role]} plays {role}"
        for role in inputs.dataset_roles
        if role in required.datasets and evidence.dataset_of[role] != role
    ]
    if evidence.main_steps() < _STEPS_SHARE * required.steps:
        lacking.append(f"{evidence.main_steps()} of {required.steps} steps")
    if result.n_seeds < required.seeds and not inputs.missing:
        lacking.append(f"{result.n_seeds} of {required.seeds} seeds")
    if required.k and (pairs := _pairs_available(inputs, evidence)) < required.k:
        lacking.append(f"{pairs} of {required.k} eigenpairs")
    if required.initializations and (count := _initializations(inputs, evidence)) < required.initializations:
        lacking.append(f"{count} of {required.initializations} initializations")
    return lacking


def _pairs_available(inputs: _Inputs, evidence: Evidence) -> int:
    frame = evidence.ipr
    if frame.empty:
        return 0
    main = frame[
        (frame["variant"] == MAIN) & (frame["seed"] == evidence.dense_seed) & frame["dataset"].isin(inputs.datasets)
    ]
    counts = main[main["optimizer"].isin(inputs.optimizers)].groupby(["dataset", "optimizer"])["i"].max()
    return int(counts.min()) if len(counts) else 0


def _initializations(inputs: _Inputs, evidence: Evidence) -> int:
    frame = evidence.baseline
    if frame.empty:
        return 0
    counts = frame.loc[frame["dataset"].isin(inputs.datasets), "n_initializations"]
    return int(counts.min()) if len(counts) else 0


def _left_out(quantity: Quantity, parameters: Mapping[str, Any], inputs: _Inputs, evidence: Evidence) -> list[str]:
    """How much of what the part would read was taken out, in words."""
    frame = evidence.left_out
    frame = frame[frame["table"].isin(quantity.tables) & frame["dataset"].isin(inputs.datasets)]
    frame = frame[frame["optimizer"].isin(inputs.optimizers)]
    if not quantity.sweeps:
        frame = frame[frame["variant"] == MAIN]
    pairs = (parameters["i"],) if "i" in parameters else quantity.pairs
    tables = frame.loc[frame["reason"] == DIVERGED, ["table", "rows"]].groupby("table")["rows"].sum()
    # The same runs are left out of every table.
    runs = int(tables.max()) if len(tables) else 0
    lost = frame.loc[(frame["reason"] == UNCONVERGED) & frame["i"].isin(pairs), "rows"].sum()
    counted = ((runs, "diverged run(s)"), (lost, "row(s) of unconverged eigenpairs"))
    return [f"left out: {count} {what}" for count, what in counted if count]


def _described(
    test: OperationalTest,
    quantity: Quantity,
    parameters: Mapping[str, Any],
    evidence: Evidence,
    labels: Mapping[str, str],
) -> str:
    configured = {**evidence.optimizer_of, **evidence.dataset_of}
    names = {role: labels.get(name, name) for role, name in configured.items()}
    text = quantity.described(_with_names(parameters, names))
    if not test.versus:
        return text
    against = ", ".join(str(value) for value in _with_names(test.versus, names).values())
    return f"{text} {'over' if test.combine == 'ratio' else 'minus'} that of {against}"


def _test_text(test: OperationalTest) -> str:
    weaker = f"; direction: {_condition_text(test.direction)}" if test.direction is not None else ""
    return _condition_text(test.strict) + weaker


def _condition_text(condition: Condition) -> str:
    if condition.comparison in ("<", ">"):
        return f"{condition.comparison} {condition.threshold:g}"
    if condition.comparison == "between":
        return f"between {condition.bounds[0]:g} and {condition.bounds[1]:g}"
    if condition.comparison == "within":
        return f"within {100 * condition.tolerance:g}% of the paper"
    return f"within a factor {condition.tolerance:.3g} of the paper"
