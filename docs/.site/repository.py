"""Hook of MkDocs: the site holds the pages of docs/ as they are in the repository, and what they link to in it.

README.md is the start page; other pages, pictures and source files outside docs/ become files of the site at the same
path, so that no link needs the address of a repository.
"""

import os
import posixpath
import re
import subprocess
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
DOCS = "docs/"
# The extensions of what a browser shows by itself.
_SHOWN = (".png", ".svg", ".pdf", ".json")
# A link of a page; what stands in code is skipped by the first two alternatives.
_LINK = re.compile(r"(?ms)^```.*?^```$|`[^`\n]*`|(?<=\]\()(?P<target>[^()\s]+)(?=\))")
# The marks around parts of a page that are made, which Python's Markdown would take for paragraphs; code is skipped.
_MARK = re.compile(r"(?ms)^```.*?^```$|`[^`\n]*`|(?P<mark>^<!--[^>]*-->\n|<!--[^>]*-->)")
_LANGUAGES = {".py": "python", ".smk": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".tex": "latex"}


def on_files(files: Files, config: Any) -> Files:
    """Add what the pages link to, and what those pages link to in turn."""
    pending = ["README.md", *(f"{DOCS}{file.src_uri}" for file in files.documentation_pages())]
    known = set(pending)
    for page in pending:
        for match in _LINK.finditer((ROOT / page).read_text(encoding="utf-8")):
            path = _target(page, match["target"])
            if path is None or path in known or path.startswith(DOCS):
                continue
            known.add(path)
            if path.endswith(".md"):
                pending.append(path)
            else:
                files.append(_file(path, config))
    for page in pending:
        if not page.startswith(DOCS):
            text = (ROOT / page).read_text(encoding="utf-8")
            files.append(File.generated(config, _place(page), content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn the links of the repository into those of the site, and leave out its marks."""
    source = _source(page.file.src_uri)
    if source is None:
        return markdown

    def moved(match: re.Match[str]) -> str:
        target = match["target"]
        path = _target(source, target)
        if path is None:
            return match[0]
        anchor = target.partition("#")[1:]
        return posixpath.relpath(_place(path), posixpath.dirname(page.file.src_uri) or ".") + "".join(anchor)

    return _LINK.sub(moved, _MARK.sub(lambda match: "" if match["mark"] else match[0], markdown))


def _target(page: str, link: str | None) -> str | None:
    """The path in the repository that a link of a page leads to; None for another site, or the page itself."""
    if link is None or re.match(r"[a-z]+:|#", link):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link.partition("#")[0]))


def _place(path: str) -> str:
    """Where a path of the repository is in the site."""
    if path == "README.md":
        return "index.md"
    if path.startswith(DOCS):
        return path.removeprefix(DOCS)
    # Dots at the front hide a file from MkDocs, and a page's own ending becomes its folder.
    if path.endswith((".md", *_SHOWN)) and not path.startswith("."):
        return path
    return f"source/{'/'.join(part.lstrip('.') for part in path.split('/'))}.md"


def _source(place: str) -> str | None:
    """The page of the repository that is at a place of the site; None for what was made for the site alone."""
    if place == "index.md":
        return "README.md"
    if place.startswith("source/"):
        return None
    return f"{DOCS}{place}" if (ROOT / DOCS / place).is_file() else place


def _file(path: str, config: Any) -> File:
    """A picture as it is; a source file as a page that shows it; a folder as a page that lists it."""
    there, place = ROOT / path, _place(path)
    if place == path:
        return File.generated(config, place, content=there.read_bytes())
    if there.is_dir():
        listed = "\n".join(f"- `{name}`" for name in _tracked(path))
        return File.generated(config, place, content=f"# {path}/\n\nThis folder of the repository has:\n\n{listed}\n")
    language = _LANGUAGES.get(there.suffix, "text")
    shown = there.read_text(encoding="utf-8").replace("````", "```")
    content = f"---\nsearch: {{exclude: true}}\n---\n# {path}\n\n````{language}\n{shown}````\n"
    return File.generated(config, place, content=content)


def _tracked(folder: str) -> list[str]:
    """The names in a folder that are no leftovers of a run."""
    command = ["git", "-C", str(ROOT), "ls-files", "--", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    tracked = [os.path.relpath(name, folder) for name in done.stdout.splitlines()]
    names = tracked or [str(path.relative_to(ROOT / folder)) for path in (ROOT / folder).rglob("*") if path.is_file()]
    return sorted({f"{first}/" if rest else first for first, _, rest in (name.partition("/") for name in names)})
