"""Read paper/claims.yaml and refuse, by name, whatever in it could not be measured as it stands."""

import itertools
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from reproduction.claims.evidence import DATASET_ROLES, OPTIMIZER_ROLES
from reproduction.claims.quantities import QUANTITIES, Quantity
from reproduction.errors import ConfigError, nearest, shown

COMPARISONS = ("<", ">", "between", "within", "within factor")
COMBINATIONS = ("difference", "ratio")
FIGURES = tuple(range(1, 22))
_CLAIM_KEYS = ("id", "number", "title", "statement", "figures", "datasets", "requires", "tests", "same_tests_as")
_TEST_KEYS = (
    "id",
    "quantity",
    "params",
    "each",
    "versus",
    "combine",
    "datasets",
    "comparison",
    "threshold",
    "paper",
    "tolerance",
    "unit",
    "direction",
    "requires",
)
_REQUIREMENT_KEYS = ("datasets", "steps", "seeds", "k", "initializations")
# Parameters whose values are roles of the paper, not configured names.
ROLE_PARAMETERS = {
    "optimizer": OPTIMIZER_ROLES,
    "optimizers": OPTIMIZER_ROLES,
    "dataset": DATASET_ROLES,
    "other_dataset": DATASET_ROLES,
}
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


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
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    return parse_claims(content, where=Path(path).name)


def parse_claims(content: Any, *, where: str = "claims") -> tuple[Claim, ...]:
    """`load_claims` for content that is already read."""
    document = _mapping(content, where, ("requires", "claims"), needed=("claims",))
    default = _requirement(document.get("requires", {}), f"{where}: requires", Requirement())
    entries = _sequence(document["claims"], f"{where}: claims")
    claims: dict[str, Claim] = {}
    for position, entry in enumerate(entries):
        claim = _claim(entry, f"{where}: claims.{position}", default, claims)
        if claim.id in claims or claim.number in {other.number for other in claims.values()}:
            raise ConfigError(f"{where}: claims.{position}: id {claim.id!r} or number {claim.number} is given twice")
        claims[claim.id] = claim
    return tuple(sorted(claims.values(), key=lambda claim: claim.number))


def _claim(entry: Any, where: str, default: Requirement, earlier: Mapping[str, Claim]) -> Claim:
    claim = _mapping(entry, where, _CLAIM_KEYS, needed=("id", "number", "title", "statement", "figures", "datasets"))
    where = f"{where} ({claim['id']})"
    requires = _requirement(claim.get("requires", {}), f"{where}.requires", default)
    datasets = _roles(claim["datasets"], f"{where}.datasets", DATASET_ROLES)
    given = _sequence(claim.get("tests", []), f"{where}.tests")
    tests = [_test(test, f"{where}.tests.{position}", datasets, requires) for position, test in enumerate(given)]
    for name in _sequence(claim.get("same_tests_as", []), f"{where}.same_tests_as"):
        if name not in earlier:
            raise ConfigError(f"{where}.same_tests_as: {shown(name)} is no earlier claim{nearest(name, earlier)}")
        tests += [_moved(test, datasets) for test in earlier[name].tests]
    names = [name for test in tests for name, _ in test.expanded()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not tests or twice:
        raise ConfigError(f"{where}: {'no test' if not tests else f'part {twice[0]!r} is given twice'}")
    figures = tuple(_choice(figure, f"{where}.figures", FIGURES) for figure in _sequence(claim["figures"], where))
    number = _typed(claim["number"], int, f"{where}.number")
    texts = {key: " ".join(_typed(claim[key], str, f"{where}.{key}").split()) for key in ("title", "statement")}
    return Claim(_name(claim["id"], f"{where}.id"), number, texts["title"], texts["statement"], figures, tuple(tests))


def _moved(test: OperationalTest, datasets: tuple[str, ...]) -> OperationalTest:
    """The same test on other datasets; a paper's value belongs to its dataset and stays behind."""
    paper = {role: value for role, value in test.paper.items() if role in datasets}
    return replace(test, datasets=datasets, paper=paper)


def _test(entry: Any, where: str, datasets: tuple[str, ...], default: Requirement) -> OperationalTest:
    test = _mapping(entry, where, _TEST_KEYS, needed=("id", "quantity", "comparison", "unit"))
    name = _name(test["id"], f"{where}.id")
    where = f"{where} ({name})"
    quantity = QUANTITIES[_choice(test["quantity"], f"{where}.quantity", tuple(QUANTITIES))]
    chosen = _roles(test["datasets"], f"{where}.datasets", DATASET_ROLES) if "datasets" in test else datasets
    params = _parameters(test.get("params", {}), f"{where}.params", quantity)
    each = {
        key: tuple(
            _parameters({key: v}, f"{where}.each", quantity)[key] for v in _sequence(listed, f"{where}.each.{key}")
        )
        for key, listed in _mapping(test.get("each", {}), f"{where}.each", tuple(quantity.parameters)).items()
    }
    missing = [p for p, s in quantity.parameters.items() if s.default is s.empty and p not in params and p not in each]
    if missing:
        raise ConfigError(f"{where}.params: {quantity.name} needs {missing[0]!r}")
    versus, combine = _versus(test, where, quantity)
    unit = _unit(test["unit"], where, quantity, combine)
    paper = _paper(test.get("paper", {}), f"{where}.paper", chosen)
    strict = _condition(test, where, paper, chosen)
    direction = None
    if "direction" in test:
        keys = ("comparison", "threshold", "tolerance")
        weaker = _mapping(test["direction"], f"{where}.direction", keys, needed=("comparison",))
        direction = _condition(weaker, f"{where}.direction", paper, chosen)
    requires = _requirement(test.get("requires", {}), f"{where}.requires", default)
    return OperationalTest(
        name, quantity.name, chosen, unit, strict, direction, requires, params, each, versus, combine, paper
    )


def _versus(test: Mapping[str, Any], where: str, quantity: Quantity) -> tuple[dict[str, Any], str]:
    if ("versus" in test) != ("combine" in test):
        raise ConfigError(f"{where}: versus and combine come together")
    if "versus" not in test:
        return {}, ""
    given = dict(_mapping(test["versus"], f"{where}.versus", ("dataset", *quantity.parameters)))
    other = (
        {"dataset": _choice(given.pop("dataset"), f"{where}.versus.dataset", DATASET_ROLES)}
        if "dataset" in given
        else {}
    )
    versus = {**other, **_parameters(given, f"{where}.versus", quantity)}
    if not versus:
        raise ConfigError(f"{where}.versus: empty; give the parameters that differ")
    return versus, _choice(test["combine"], f"{where}.combine", COMBINATIONS)


def _unit(value: Any, where: str, quantity: Quantity, combine: str) -> str:
    expected = "1" if combine == "ratio" else quantity.unit
    if str(value) != expected:
        raise ConfigError(f"{where}.unit: {shown(value)}, but {quantity.name} is in {expected!r}")
    return expected


def _paper(value: Any, where: str, datasets: tuple[str, ...]) -> dict[str, float]:
    if not isinstance(value, Mapping):
        return dict.fromkeys(datasets, _number(value, where))
    return {role: _number(number, f"{where}.{role}") for role, number in _mapping(value, where, DATASET_ROLES).items()}


def _condition(
    given: Mapping[str, Any], where: str, paper: Mapping[str, float], datasets: tuple[str, ...]
) -> Condition:
    comparison = _choice(given["comparison"], f"{where}.comparison", COMPARISONS)
    needed, unused = ("tolerance", "threshold") if comparison.startswith("within") else ("threshold", "tolerance")
    if needed not in given or unused in given:
        raise ConfigError(f"{where}: comparison {comparison!r} takes {needed!r} and no {unused!r}")
    if comparison == "between":
        bounds = [_number(bound, f"{where}.threshold") for bound in _sequence(given["threshold"], f"{where}.threshold")]
        if len(bounds) != 2 or bounds[0] >= bounds[1]:
            raise ConfigError(f"{where}.threshold: {shown(given['threshold'])}; give [low, high]")
        return Condition(comparison, bounds=(bounds[0], bounds[1]))
    number = _number(given[needed], f"{where}.{needed}")
    if needed == "threshold":
        return Condition(comparison, threshold=number)
    absent = [role for role in datasets if role not in paper]
    if absent:
        raise ConfigError(f"{where}: comparison {comparison!r} needs the paper's value for {absent[0]}")
    if number <= (1.0 if comparison == "within factor" else 0.0):
        raise ConfigError(f"{where}.tolerance: {shown(number)} allows nothing")
    return Condition(comparison, tolerance=number)


def _requirement(given: Any, where: str, default: Requirement) -> Requirement:
    needs = dict(_mapping(given, where, _REQUIREMENT_KEYS))
    if "datasets" in needs:
        needs["datasets"] = _roles(needs["datasets"], f"{where}.datasets", DATASET_ROLES) if needs["datasets"] else ()
    for key in set(needs) - {"datasets"}:
        if _typed(needs[key], int, f"{where}.{key}") < 0:
            raise ConfigError(f"{where}.{key}: {needs[key]}; give 0 or more")
    return Requirement(**{**{key: getattr(default, key) for key in _REQUIREMENT_KEYS}, **needs})


def _parameters(given: Any, where: str, quantity: Quantity) -> dict[str, Any]:
    known = quantity.parameters
    hints = typing.get_type_hints(quantity.measure)
    checked = {}
    for key, value in _mapping(given, where, tuple(known)).items():
        at = f"{where}.{key}"
        if key in ROLE_PARAMETERS:
            choose = _roles if key.endswith("s") else _choice
            checked[key] = choose(value, at, ROLE_PARAMETERS[key])
        elif typing.get_origin(hints[key]) is typing.Literal:
            checked[key] = _choice(value, at, typing.get_args(hints[key]))
        else:
            checked[key] = _number(value, at) if hints[key] is float else _typed(value, hints[key], at)
    return checked


def _mapping(value: Any, where: str, allowed: Sequence[str], needed: Sequence[str] = ()) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: {shown(value)}; expected keys and values")
    for key in value:
        if key not in allowed:
            listed = ", ".join(allowed) or "none"
            raise ConfigError(f"{where}: unknown key {shown(key)}{nearest(key, allowed)} (allowed: {listed})")
    for key in needed:
        if key not in value:
            raise ConfigError(f"{where}: key {key!r} is missing")
    return value


def _sequence(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigError(f"{where}: {shown(value)}; expected a list")
    return value


def _choice(value: Any, where: str, allowed: Sequence[Any]) -> Any:
    if isinstance(value, bool) or value not in allowed:
        names = [str(choice) for choice in allowed]
        raise ConfigError(f"{where}: {shown(value)} is not known{nearest(value, names)} (allowed: {', '.join(names)})")
    return value


def _roles(value: Any, where: str, allowed: Sequence[str]) -> tuple[str, ...]:
    roles = tuple(_choice(role, where, allowed) for role in _sequence(value, where))
    if not roles or len(set(roles)) < len(roles):
        raise ConfigError(f"{where}: {shown(value)}; give each of {', '.join(allowed)} at most once")
    return roles


def _typed(value: Any, kind: type | types.UnionType, where: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, kind):
        raise ConfigError(f"{where}: {shown(value)}; expected {getattr(kind, '__name__', kind)}")
    return value


def _number(value: Any, where: str) -> float:
    return float(_typed(value, int | float, where))


def _name(value: Any, where: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ConfigError(f"{where}: {shown(value)}; use small letters, digits and single hyphens")
    return value
