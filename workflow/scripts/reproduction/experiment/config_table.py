"""The table of configuration keys in docs/configuration.md, made from the schema and config.yaml.

PYTHONPATH=workflow/scripts python -m reproduction.experiment.config_table
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from reproduction.experiment.config import SCHEMA

DEFAULTS = SCHEMA.parents[2] / "config.yaml"


def rows(schema: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(dotted key, shipped value, description) of every key of a schema, in its order."""
    definitions = schema["$defs"]

    def walk(node: Mapping[str, Any], value: Any, path: str) -> Iterator[tuple[str, str, str]]:
        target = {**definitions[node["$ref"].rsplit("/", 1)[1]], **node} if "$ref" in node else dict(node)
        children = target.get("properties", {})
        # An empty mapping shows none of the keys that it may have.
        if children and value:
            for key, child in children.items():
                yield from walk(child, value[key], f"{path}.{key}" if path else key)
        else:
            shown = json.dumps(value) if not isinstance(value, dict) else ", ".join(map(str, value)) or "{}"
            yield path, shown, str(target.get("description", "")).replace("<", "&lt;")

    yield from walk(schema, defaults, "")


def markdown() -> str:
    """The table of the shipped configuration."""
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    defaults = yaml.safe_load(Path(DEFAULTS).read_text(encoding="utf-8"))
    lines = ["| key | shipped value | meaning |", "|---|---|---|"]
    lines += [f"| `{key}` | `{value}` | {text} |" for key, value, text in rows(schema, defaults)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
