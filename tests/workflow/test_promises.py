"""The page of promises: each has a test behind it that is there."""

import re

import pytest
from pages import ROOT, marked, read

PAGE = marked(read("docs/reliability.md"), "promises")
PROMISES = [" ".join(item.split()) for item in re.split(r"^- ", PAGE, flags=re.MULTILINE)[1:]]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda text: text[:40])
def test_a_promise_names_the_tests_that_hold_it(promise: str) -> None:
    named = re.findall(r"\[(\w+\.py)\]\(\.\./(tests/[\w/]+\.py)\)", promise)
    assert named
    for shown, path in named:
        assert path.endswith(f"/{shown}")
        assert "def test_" in (ROOT / path).read_text(encoding="utf-8")


def test_the_page_is_there() -> None:
    assert len(PROMISES) >= 15
