"""Hold a document against a JSON schema: one `ConfigError` line that names the key, its value and what is allowed."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from reproduction.errors import ConfigError, dotted, nearest, shown

SCHEMAS = Path(__file__).parents[2] / "schemas"
# So many misfits are named at once.
MAX_MISFITS = 10

# JSON Schema takes 2000.0 for an integer; here it would become a part of file names, and `range` refuses it.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
            "number": lambda _, value: isinstance(value, (int, float)) and not isinstance(value, bool),
        }
    ),
)


def read_schema(path: Path, **choices: Iterable[Any]) -> dict[str, Any]:
    """The schema of a file, with the `choices` that its definitions leave to the records: name -> allowed values."""
    schema = _schema_file(path)
    definitions = dict(schema["$defs"])
    for name, values in choices.items():
        definitions[name] = {**definitions[name], "enum": list(values)}
    return {**schema, "$defs": definitions}


@cache
def _schema_file(path: Path) -> dict[str, Any]:
    schema: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return schema


def read_document(path: str | os.PathLike[str]) -> Any:
    """The content of a YAML file, keys as text; `ConfigError` for a file that cannot be read."""
    try:
        return with_text_keys(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None


def with_text_keys(value: Any) -> Any:
    """A document with every key as text, which JSON Schema asks for and YAML does not."""
    if isinstance(value, Mapping):
        return {str(key): with_text_keys(inner) for key, inner in value.items()}
    return [with_text_keys(inner) for inner in value] if isinstance(value, list) else value


def check(document: Any, schema: Mapping[str, Any], where: str, *, example: str = "") -> None:
    """Raise the `ConfigError` of all that is wrong in a document; `where` starts it, `example` has every key."""
    form = f"; {example} shows its form" if example else ""
    found = [_message(error, document, form) for error in _causes(_Validator(schema).iter_errors(document))]
    if found:
        raise ConfigError(f"{where}: {in_one_line(found)}")


def in_one_line(misfits: Sequence[str]) -> str:
    """The first misfits, and how many more there are."""
    more = [f"{len(misfits) - MAX_MISFITS} more"] if len(misfits) > MAX_MISFITS else []
    return "; and ".join([*misfits[:MAX_MISFITS], *more])


def _causes(errors: Iterable[jsonschema.ValidationError]) -> list[jsonschema.ValidationError]:
    """One error for each place; what is wrong within a place that is wrong itself follows from that."""
    kept: dict[tuple[Any, ...], jsonschema.ValidationError] = {}
    for error in sorted(errors, key=_rank):
        path = tuple(error.absolute_path)
        within = [path[:depth] for depth in range(len(path)) if path[:depth] in kept]
        if path not in kept and all(kept[outer].validator in _OF_KEYS for outer in within):
            kept[path] = error
    return list(kept.values())


# Errors of a mapping's keys, beside which the values of other keys can be wrong too.
_OF_KEYS = ("additionalProperties", "required", "dependentRequired", "propertyNames")


def mistyped_paths(document: Any, schema: Mapping[str, Any]) -> set[tuple[Any, ...]]:
    """The paths of the values that have none of the types that a schema allows in their places."""
    errors = _Validator(schema).iter_errors(document)
    return {tuple(error.absolute_path) for error in errors if error.validator in ("type", "oneOf")}


def _rank(error: jsonschema.ValidationError) -> tuple[object, ...]:
    """The least deep error is the cause, and a misspelt key is why another one is missing."""
    return len(error.absolute_path), str(error.absolute_path), error.validator != "additionalProperties"


def _message(error: jsonschema.ValidationError, document: Any, form: str) -> str:
    path = _named_path(document, error.absolute_path)
    schema = dict(error.schema) if isinstance(error.schema, Mapping) else {}
    value = error.instance
    if error.validator == "additionalProperties":
        allowed = list(schema.get("properties", {}))
        patterns = list(schema.get("patternProperties", {}))
        unknown = next(key for key in value if key not in allowed and not any(re.search(p, key) for p in patterns))
        listed = ", ".join(allowed) or "none"
        return f"{dotted(*path, unknown)}: unknown key{nearest(unknown, allowed)} (allowed here: {listed})"
    if error.validator in ("required", "dependentRequired"):
        keys = error.validator_value
        if error.validator == "dependentRequired":
            keys = [key for given, wanted in keys.items() if given in value for key in wanted]
        return f"{dotted(*path, next(key for key in keys if key not in value))}: missing{form}"
    if error.validator == "not":
        return f"{dotted(*path)}: {shown(value)} does not go with the keys beside it; leave it out"
    # propertyNames reports the key as the instance, at the path of the mapping that holds it.
    if error.parent is None and "propertyNames" in error.absolute_schema_path:
        wanted = schema.get("description") or _wanted(error, schema, value)
        return f"{dotted(*path, value)}: the key {shown(value)} is not allowed; give {wanted}"
    return f"{dotted(*path)}: {shown(value)} is not allowed; give {_wanted(error, schema, value)}"


def _named_path(document: Any, path: Iterable[Any]) -> list[str]:
    """The path with the id of each list's entry behind its position, where it has one."""
    named = []
    for part in path:
        document = document[part]
        name = document.get("id") if isinstance(part, int) and isinstance(document, Mapping) else None
        named.append(f"{part} ({name})" if isinstance(name, str) else str(part))
    return named


_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping of keys to values",
}


def _wanted(error: jsonschema.ValidationError, schema: Mapping[str, Any], value: Any) -> str:
    limit = error.validator_value
    if error.validator == "type":
        kinds = [limit] if isinstance(limit, str) else limit
        return " or ".join(_TYPES[kind] for kind in kinds) + _number_hint(kinds[0], value)
    if error.validator == "enum":
        return f"one of {', '.join(map(str, limit))}{nearest(value, map(str, limit))}"
    words = {
        "minimum": f"a number not below {limit}",
        "maximum": f"a number not above {limit}",
        "exclusiveMinimum": f"a number above {limit}",
        "exclusiveMaximum": f"a number below {limit}",
        "minItems": f"at least {limit} entries",
        "maxItems": f"at most {limit} entries",
        "uniqueItems": "each entry once",
        "minProperties": f"at least {limit} entries",
        "maxProperties": f"at most {limit} entries",
        "minLength": f"at least {limit} characters",
        "maxLength": f"at most {limit} characters",
        "const": str(limit),
        "pattern": str(schema.get("description", f"text that matches {limit}")),
        "oneOf": str(schema.get("title", error.message)),
    }
    return words.get(str(error.validator), str(error.message))


_EXPONENT = re.compile(r"([+-]?[0-9]{1,15}(?:[.][0-9]{0,15})?)e([+-]?[0-9]{1,3})", re.IGNORECASE)


def _number_hint(wanted: str, value: Any) -> str:
    """How to write what was probably meant, for a number that YAML reads as text or as one with a fraction."""
    meant = value
    if isinstance(value, str) and (match := _EXPONENT.fullmatch(value)) is not None:
        mantissa, exponent = match.groups()
        if wanted == "number":
            point = mantissa if "." in mantissa else f"{mantissa}.0"
            return f" (YAML reads {value} as text; write {point}e{int(exponent):+d})"
        meant = float(value)
    if wanted == "integer" and isinstance(meant, float) and meant.is_integer():
        return f" (write {int(meant)})"
    return ""
