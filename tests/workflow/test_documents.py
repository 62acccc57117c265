"""What the pages show and link to is there, what they list is what the code has, and their examples run."""

import re
from pathlib import Path
from typing import Any

import docutils.core
import jinja2
import pytest
import torch
from experiments import overlaid
from pages import ROOT, anchors, links, marked, pages, python_blocks, read, rows
from torch import nn
from torch.func import functional_call, hessian

from reproduction.experiment.figure_catalogue import FIGURES, SUPPLEMENT, entry, figure_name
from reproduction.experiment.table_catalogue import RUN_TABLES, TABLES

PAPER = ROOT / "workflow" / "scripts" / "reproduction"


@pytest.mark.parametrize("page", pages(), ids=str)
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    for target in links(read(page)):
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), target


def test_links_and_anchors_are_found() -> None:
    page = (
        "# On a GPU\n[a](b.md#c) `[no](code)`\n```\n[no](block)\n# no\n```\n![d](e.png)\n[x](https://y)\n## On a GPU\n"
    )
    assert links(page) == ["b.md#c", "e.png"]
    assert anchors(page) == {"on-a-gpu", "on-a-gpu-1"}


def test_the_readme_is_short_and_links_to_every_page() -> None:
    text = read("README.md")
    assert len(text.splitlines()) <= 130
    targets = {target.partition("#")[0] for target in links(text)}
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= targets


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
)
def test_every_make_target_is_one(page: str) -> None:
    targets = set(re.findall(r"^([a-z ]+):", read("Makefile"), re.MULTILINE))
    known = {name for line in targets for name in line.split()}
    text = read(page)
    assert set(re.findall(r"(?:^    |`)make ([a-z]+)", text, re.MULTILINE)) <= known


def test_the_readmes_example_gives_the_largest_eigenvalues(
    one_thread: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = python_blocks(read("README.md"))
    lines = [line for line in example.splitlines() if line]
    assert len(lines) <= 10
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    inputs, targets = torch.randn(40, 6), torch.randint(3, (40,))
    names: dict[str, Any] = {"__name__": "example", "model": model, "inputs": inputs, "targets": targets}
    exec(example, names)

    def loss(vector: torch.Tensor) -> torch.Tensor:
        parts = vector.split([p.numel() for p in model.parameters()])
        named = {n: part.view_as(p) for (n, p), part in zip(model.named_parameters(), parts, strict=True)}
        return nn.functional.cross_entropy(functional_call(model, named, inputs.double()), targets)

    point = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).double()
    expected = torch.linalg.eigvalsh(hessian(loss)(point)).flip(0)[:3]
    torch.testing.assert_close(names["pairs"].values, expected, rtol=1e-3, atol=0.0)
    assert "EigenPairs(k=3, N=53)" in capsys.readouterr().out


def test_the_librarys_tutorial_runs(
    one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "tutorial"}
    for block in python_blocks(read("docs/library.md")):
        exec(block, names)
    assert names["H"].shape == (387, 387)
    assert names["first_layer"].shape == (336, 336)
    by_scipy = torch.from_numpy(names["by_scipy"].astype("float64")[::-1].copy())
    torch.testing.assert_close(names["values"], by_scipy, rtol=1e-3, atol=0.0)
    torch.testing.assert_close(names["again"].values, names["pairs"].values, rtol=0, atol=0)
    said = capsys.readouterr().out
    assert "call model.eval()" in said
    assert "call refresh()" in said


def test_the_tutorial_of_the_tracker_runs(
    one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "tutorial"}
    for block in python_blocks(read("docs/tracking.md")):
        exec(block, names)
    assert names["track"].steps.tolist() == [0, 20, 40, 60, 80, 100]
    assert names["track"].converged.all()
    assert [step for step, _ in names["seen"]] == [0, 10, 20]
    assert (tmp_path / "runs/mine/report.html").is_file()
    assert "6 snapshots" in capsys.readouterr().out


def test_the_page_of_figures_is_the_catalogue() -> None:
    text = read("docs/figures.md")
    shown: dict[int | str, set[str]] = {}
    for numbers, _, targets, kinds in rows(marked(text, "figures")):
        of_the_row = [int(number) for number in numbers.split(", ")]
        assert targets.split(", ") == [figure_name(number) for number in of_the_row]
        shown |= {number: set(kinds.split(", ")) for number in of_the_row}
    assert shown == {number: set(entry(number)["inputs"]) for number in FIGURES}
    supplement = {number: target for number, _, target in rows(marked(text, "supplement"))}
    assert supplement == {number: figure_name(number) for number in SUPPLEMENT}


def test_the_page_of_figures_has_every_table_of_a_run() -> None:
    shown = rows(marked(read("docs/figures.md"), "tables"))
    expected = {kind: TABLES[kind] for kind in RUN_TABLES if kind != "final_eigenvector"}
    assert [tuple(row) for row in shown] == [(kind, t.rule, t.row, t.content) for kind, t in expected.items()]


def tree() -> list[Path]:
    """The paths that the tree of docs/architecture.md names."""
    found: list[Path] = []
    folder = Path()
    folders: dict[int, Path] = {0: Path()}
    for line in marked(read("docs/architecture.md"), "tree").splitlines():
        if line.startswith("```"):
            continue
        name = line.split()[0]
        depth = len(line) - len(line.lstrip())
        folder = folders[depth]
        found.append(folder / name)
        if name.endswith("/"):
            folders[depth + 2] = folder / name
    return found


def test_the_tree_is_the_one_that_is_there() -> None:
    shown = tree()
    assert not [path for path in shown if not (ROOT / path).exists()]
    library = {path.relative_to(ROOT) for path in (ROOT / "src" / "eigendrift").rglob("*.py") if path.stat().st_size}
    assert {path for path in library if path.name != "__init__.py"} <= set(shown)
    parts = {path.relative_to(ROOT) for path in PAPER.iterdir() if any(path.glob("*.py"))}
    assert parts <= set(shown)


@pytest.mark.parametrize("part", ["dataset", "architecture", "optimizer", "statistic", "claim"])
def test_what_extending_touches_is_there(part: str) -> None:
    """Each file of the list is there, and each name beside it stands in one of the files of its step."""
    text = marked(read("docs/extending.md"), part)
    steps = re.split(r"^\d+\. ", text, flags=re.MULTILINE)[1:]
    assert len(steps) >= 3
    for step in steps:
        quoted = re.findall(r"`([^`]+)`", step)
        named = [name for name in quoted if "/" in name]
        assert named, step
        files = [next((base / name for base in (PAPER, ROOT) if (base / name).exists()), None) for name in named]
        assert None not in files, step
        inside = [each for path in files if path is not None for each in (path, *path.glob("*.py")) if each.is_file()]
        content = "\n".join(path.read_text(encoding="utf-8") for path in inside)
        for name in set(quoted) - set(named):
            assert re.search(rf"\b{re.escape(name.lstrip('@').partition('(')[0])}\b", content), f"{name}: {step}"


def test_terms_stand_once_in_the_glossary() -> None:
    found = [row for part in read("docs/glossary.md").split("\n## ")[1:] for row in rows(part)]
    terms = [term for term, _ in found]
    assert len(terms) == len(set(terms)) >= 60


@pytest.mark.parametrize(
    ("change", "title", "said"),
    [
        ({}, "arXiv:2606.30226 reproduced", "hidden layers of 100, 100, 10 units"),
        ({"name": "mine", "model": {"module": "net.py:build"}}, "training: mine", "the network net.py:build"),
        ({"name": "own", "datasets": [{"name": "a", "file": "a.npz"}]}, "training: own", "a (a.npz)"),
        (
            {"name": "loop", "trajectories": {"a": {"folder": "runs/a"}, "b": {"folder": "runs/b"}}},
            "training: loop",
            "of runs that were recorded elsewhere: a (runs/a), b (runs/b).",
        ),
    ],
    ids=["the paper's", "network", "data", "recorded"],
)
def test_the_report_s_first_page_says_what_was_run(change: dict[str, Any], title: str, said: str) -> None:
    config = overlaid(change)
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(read("workflow/report/start.rst"))
    text = template.render(snakemake={"config": config}, files=[])
    shown = docutils.core.publish_parts(text, writer="html5", settings_overrides={"halt_level": 2, "raw_enabled": True})
    assert title in shown["title"]
    (paragraph,) = re.findall(r"<p>These are the results.*?</p>", shown["body"], re.DOTALL)
    words = re.sub(r"<.*?>", " ", paragraph)
    assert said in " ".join(words.split())
    assert ("steps" in words) == ("trajectories" not in change)
    assert "{" not in words
