"""The documentation site: it builds without a warning, its links lead somewhere, and every public name is in it."""

import os
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from experiments import REPOSITORY

import eigendrift

HERE = "https://here/"
# What a browser fetches to show a page.
FETCHED = {"img": "src", "script": "src", "link": "href", "source": "src"}


class Page(HTMLParser):
    """What a page links to, what it has anchors for, and what a browser would fetch for it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        # A canonical address is named, not fetched.
        if FETCHED.get(tag) in found and found.get("rel") not in ("canonical", "prev", "next"):
            self.fetched.append(found[FETCHED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    found = {path.relative_to(site).as_posix(): Page(path.read_text("utf-8")) for path in site.rglob("*.html")}
    return {name.removesuffix("index.html"): page for name, page in found.items() if name != "404.html"}


def test_every_link_leads_somewhere(site: Path, pages: dict[str, Page]) -> None:
    assert len(pages) > 30
    wrong = []
    for name, page in pages.items():
        for link in [*page.links, *page.fetched]:
            target = urlsplit(urljoin(HERE + name, link))
            if target.netloc != "here":
                continue
            path = unquote(target.path.lstrip("/"))
            there = pages.get(path)
            if there is None:
                found = (site / path).is_file()
            else:
                found = not target.fragment or unquote(target.fragment) in there.anchors
            if not found:
                wrong.append((name, link))
    assert not wrong


def test_a_page_is_shown_without_a_request_to_another_site(pages: dict[str, Page]) -> None:
    assert {link for page in pages.values() for link in page.fetched if urlsplit(link).netloc} == set()


def test_every_page_of_the_repository_is_in_the_site(pages: dict[str, Page]) -> None:
    own = {f"{path.stem}/" for path in (REPOSITORY / "docs").glob("*.md")}
    assert {"", "CONTRIBUTING/", "CHANGELOG/", "paper/REPRODUCTION/", "benchmarks/", *own} <= set(pages)


def test_marks_of_what_is_made_do_not_show(site: Path) -> None:
    """Python's Markdown would take a mark at the start of a line for a paragraph of its own."""
    for page in ("paper/REPRODUCTION", "configuration"):
        assert "&lt;!--" not in (site / page / "index.html").read_text("utf-8")
    text = (site / "paper" / "REPRODUCTION" / "index.html").read_text("utf-8")
    assert "- <em>" not in text


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    head, packed = (site / "objects.inv").read_bytes().split(b"zlib.\n", 1)
    assert b"eigendrift" in head
    names = {line.split()[0] for line in zlib.decompress(packed).decode().splitlines()}
    for name in set(eigendrift.__all__) - {"metrics"}:
        value = getattr(eigendrift, name)
        assert f"{value.__module__}.{value.__qualname__}" in names
    for module in ("identity", "localization", "metrics", "scaling", "sphere", "stability", "operators", "algebra"):
        source = getattr(__import__(f"eigendrift.{module}"), module)
        own = {key for key, value in vars(source).items() if getattr(value, "__module__", "") == source.__name__}
        assert {f"eigendrift.{module}.{key}" for key in own if not key.startswith("_")} <= names


def test_examples_are_shown_as_code(site: Path) -> None:
    text = (site / "reference" / "eigenpairs" / "index.html").read_text("utf-8")
    assert '<span class="gp">&gt;&gt;&gt; </span>' in text
    assert "<p>&gt;&gt;&gt;" not in text
