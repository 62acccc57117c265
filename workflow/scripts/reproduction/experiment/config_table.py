"""The table of configuration keys on two pages, made from the schema and config.yaml.

PYTHONPATH=workflow/scripts python -m reproduction.experiment.config_table writes it there.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from reproduction.experiment.config import SCHEMA

ROOT = SCHEMA.parents[2]
DEFAULTS = ROOT / "config.yaml"
# The second is what catalogues of workflows show.
PAGES = (ROOT / "docs" / "configuration.md", ROOT / "config" / "README.md")


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


def main() -> None:
    """Put the table between the marks of each page."""
    for page in PAGES:
        before, _, rest = page.read_text(encoding="utf-8").partition("<!-- configuration -->\n")
        after = rest.partition("<!-- /configuration -->")[2]
        text = f"{before}<!-- configuration -->\n{markdown()}<!-- /configuration -->{after}"
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
