"""The project's Markdown pages: their links and anchors, the parts between two marks, and the code that they show."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Where pages are; what is made from them, or by a run, is not looked at.
_FOLDERS = ("docs", "benchmarks", "paper", "src", "tests", "workflow", "config", "profiles")
_MADE = ("paper/generated/", "benchmarks/.cache/")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")


def pages() -> list[Path]:
    """Every page of the repository, relative to it."""
    found = [*ROOT.glob("*.md"), *(path for folder in _FOLDERS for path in (ROOT / folder).rglob("*.md"))]
    relative = sorted(path.relative_to(ROOT) for path in found)
    return [path for path in relative if not path.as_posix().startswith(_MADE)]


def read(page: Path | str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def links(text: str) -> list[str]:
    """Targets of a page's links that lead into the repository, in order; code is not looked at."""
    prose = re.sub(r"`[^`\n]*`", lambda code: "_" * len(code[0]), _FENCED.sub("", text))
    return [target for target in _LINK.findall(prose) if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", _FENCED.sub("", text), re.MULTILINE):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        again = sum(other == name or re.fullmatch(rf"{re.escape(name)}-\d+", other) is not None for other in found)
        found.add(f"{name}-{again}" if again else name)
    return found


def marked(text: str, name: str) -> str:
    """What is between <!-- name --> and <!-- /name -->."""
    found = re.findall(rf"<!-- {re.escape(name)} -->\n?(.*?)<!-- /{re.escape(name)} -->", text, re.DOTALL)
    assert len(found) == 1, f"{len(found)} parts are marked {name!r}"
    return str(found[0])


def rows(table: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def python_blocks(text: str) -> list[str]:
    """The Python examples of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str, program: str) -> Iterator[str]:
    """The lines of a page's indented code that start with a program."""
    yield from re.findall(rf"^    ({program}\b.*)$", text, re.MULTILINE)
