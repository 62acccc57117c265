"""Read paper/claims.yaml; refuse, by name, what could not be measured."""

import itertools
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reproduction.claims.evidence import DATASET_ROLES, OPTIMIZER_ROLES
from reproduction.claims.quantities import QUANTITIES, Quantity
from reproduction.errors import ConfigError, nearest, shown
from reproduction.schema import SCHEMAS, check, read_document, read_schema

SCHEMA = SCHEMAS / "claims.schema.yaml"
# Parameters whose values are roles of the paper, not configured names.
ROLE_PARAMETERS = {
    "optimizer": OPTIMIZER_ROLES,
    "optimizers": OPTIMIZER_ROLES,
    "dataset": DATASET_ROLES,
    "other_dataset": DATASET_ROLES,
}


@dataclass(frozen=True)
class Condition:
    """A comparison of a value with a threshold, an interval or the paper's value.

    `<`, `>`: `threshold`. `between`: `bounds`. `within`: at most `tolerance` times the paper's value away from it.
    `within factor`: quotient with the paper's value between 1/`tolerance` and `tolerance`.
    """

    comparison: str
    threshold: float = 0.0
    bounds: tuple[float, float] = (0.0, 0.0)
    tolerance: float = 0.0


@dataclass(frozen=True)
class Requirement:
    """The smallest scale at which a test says something about the paper."""

    datasets: tuple[str, ...] = ()
    steps: int = 0
    seeds: int = 0
    k: int = 0
    initializations: int = 0


@dataclass(frozen=True)
class OperationalTest:
    """One test: a quantity with its parameters for each part, what to compare with what, and when it counts."""

    id: str
    quantity: str
    datasets: tuple[str, ...]
    unit: str
    strict: Condition
    direction: Condition | None
    requires: Requirement
    params: Mapping[str, Any] = field(default_factory=dict)
    each: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    versus: Mapping[str, Any] = field(default_factory=dict)
    combine: str = ""
    paper: Mapping[str, float] = field(default_factory=dict)

    def expanded(self) -> list[tuple[str, dict[str, Any]]]:
        """(name of the part, parameters) for every combination of the values in `each`."""
        parts = []
        for choice in itertools.product(*self.each.values()):
            suffix = [str(value).replace("_", "-").replace(" ", "-").lower() for value in choice]
            parts.append(("-".join([self.id, *suffix]), {**self.params, **dict(zip(self.each, choice, strict=True))}))
        return parts


@dataclass(frozen=True)
class Claim:
    """One claim of the paper with its tests."""

    id: str
    number: int
    title: str
    statement: str
    figures: tuple[int, ...]
    tests: tuple[OperationalTest, ...]


def load_claims(path: str | os.PathLike[str]) -> tuple[Claim, ...]:
    """The claims of a YAML file by number; `ConfigError` names the key, its value and what is allowed."""
    return parse_claims(read_document(path), where=Path(path).name)


def parse_claims(content: Any, *, where: str = "claims") -> tuple[Claim, ...]:
    """`load_claims` for content that is already read."""
    check(content, claims_schema(), where, example="paper/claims.yaml")
    claims: dict[str, Claim] = {}
    for position, entry in enumerate(content["claims"]):
        at = f"{where}: claims.{position} ({entry['id']})"
        claim = _claim(entry, at, content.get("requires", {}), claims)
        if claim.id in claims or claim.number in {other.number for other in claims.values()}:
            raise ConfigError(f"{at}: id {claim.id!r} or number {claim.number} is given twice")
        claims[claim.id] = claim
    return tuple(sorted(claims.values(), key=lambda claim: claim.number))


def claims_schema() -> dict[str, Any]:
    """The schema with the choices that the file leaves to the records, and the parameters of each quantity."""
    schema = read_schema(SCHEMA, dataset=DATASET_ROLES, quantity=sorted(QUANTITIES))
    by_quantity = [
        {
            "if": {"required": ["quantity"], "properties": {"quantity": {"const": quantity.name}}},
            "then": {"properties": _parameters_of(quantity)},
        }
        for quantity in QUANTITIES.values()
    ]
    schema["$defs"]["test"] = {**schema["$defs"]["test"], "allOf": by_quantity}
    return schema


def _parameters_of(quantity: Quantity) -> dict[str, Any]:
    """What a test may hold in params, each and versus: the arguments of the quantity's function, by their types."""
    hints = typing.get_type_hints(quantity.measure)
    one = {name: _parameter(name, hints[name]) for name in quantity.parameters}
    several = {name: {"type": "array", "items": value} for name, value in one.items()}
    other = {"dataset": {"$ref": "#/$defs/dataset"}, **one}
    return {
        key: {"additionalProperties": False, "properties": properties}
        for key, properties in {"params": one, "each": several, "versus": other}.items()
    }


def _parameter(name: str, hint: Any) -> dict[str, Any]:
    if (roles := ROLE_PARAMETERS.get(name)) is not None:
        # A plural takes several of them.
        several = {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"enum": list(roles)}}
        return several if name.endswith("s") else {"enum": list(roles)}
    if typing.get_origin(hint) is typing.Literal:
        return {"enum": list(typing.get_args(hint))}
    return {"type": {int: "integer", float: "number", str: "string"}[hint]}


def _claim(entry: Mapping[str, Any], where: str, default: Mapping[str, Any], earlier: Mapping[str, Claim]) -> Claim:
    requires = {**default, **entry.get("requires", {})}
    datasets = tuple(entry["datasets"])
    tests = [
        _test(test, f"{where}.tests.{position} ({test['id']})", datasets, requires)
        for position, test in enumerate(entry.get("tests", []))
    ]
    for name in entry.get("same_tests_as", []):
        if name not in earlier:
            raise ConfigError(f"{where}.same_tests_as: {shown(name)} is no earlier claim{nearest(name, earlier)}")
        tests += [_moved(test, datasets) for test in earlier[name].tests]
    names = [name for test in tests for name, _ in test.expanded()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not tests or twice:
        raise ConfigError(f"{where}: {'no test' if not tests else f'part {twice[0]!r} is given twice'}")
    title, statement = (" ".join(entry[key].split()) for key in ("title", "statement"))
    return Claim(entry["id"], entry["number"], title, statement, tuple(entry["figures"]), tuple(tests))


def _moved(test: OperationalTest, datasets: tuple[str, ...]) -> OperationalTest:
    """The same test on other datasets; a paper's value belongs to its dataset and is left out."""
    paper = {role: value for role, value in test.paper.items() if role in datasets}
    return replace(test, datasets=datasets, paper=paper)


def _test(
    test: Mapping[str, Any], where: str, of_claim: tuple[str, ...], default: Mapping[str, Any]
) -> OperationalTest:
    quantity = QUANTITIES[test["quantity"]]
    datasets = tuple(test.get("datasets", of_claim))
    params, each = _frozen(test.get("params", {})), _frozen(test.get("each", {}))
    missing = [p for p, s in quantity.parameters.items() if s.default is s.empty and p not in params and p not in each]
    if missing:
        raise ConfigError(f"{where}.params.{missing[0]}: missing; {quantity.name} takes it")
    combine = test.get("combine", "")
    unit = "1" if combine == "ratio" else quantity.unit
    if test["unit"] != unit:
        raise ConfigError(f"{where}.unit: {shown(test['unit'])}, but {quantity.name} is in {unit!r}")
    paper = test.get("paper", {})
    paper = {
        role: float(v) for role, v in (paper if isinstance(paper, dict) else dict.fromkeys(datasets, paper)).items()
    }
    direction = test.get("direction")
    return OperationalTest(
        id=test["id"],
        quantity=quantity.name,
        datasets=datasets,
        unit=unit,
        strict=_condition(test, where, paper, datasets),
        direction=None if direction is None else _condition(direction, f"{where}.direction", paper, datasets),
        requires=Requirement(**_frozen({**default, **test.get("requires", {})})),
        params=params,
        each=each,
        versus=_frozen(test.get("versus", {})),
        combine=combine,
        paper=paper,
    )


def _frozen(value: Any) -> Any:
    """A value with tuples in place of lists, at every depth."""
    if isinstance(value, Mapping):
        return {key: _frozen(inner) for key, inner in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _condition(
    given: Mapping[str, Any], where: str, paper: Mapping[str, float], datasets: tuple[str, ...]
) -> Condition:
    comparison = given["comparison"]
    if comparison == "between":
        low, high = map(float, given["threshold"])
        if low >= high:
            raise ConfigError(f"{where}.threshold: {shown(given['threshold'])} is not allowed; give [low, high]")
        return Condition(comparison, bounds=(low, high))
    if "threshold" in given:
        return Condition(comparison, threshold=float(given["threshold"]))
    if absent := [role for role in datasets if role not in paper]:
        raise ConfigError(f"{where}.paper.{absent[0]}: missing; comparison {comparison!r} is with the paper's value")
    return Condition(comparison, tolerance=float(given["tolerance"]))
