"""The figure set in other people's documents: articles of one and two columns, and slides."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import IN_CI
from experiments import FIGURE_NAMES
from paper_files import build_figure_set

from reproduction.figures.style import COLUMN_WIDTH, FONT_SIZE

pytestmark = pytest.mark.skipif(shutil.which("latexmk") is None and not IN_CI, reason="needs latexmk")
# The least size of type, in points, that is printed of a figure.
LEGIBLE = 6.0
# What a document writes into its log about the width that it has.
WIDTHS = r"\typeout{WIDTH \the\linewidth}"
PACKAGES = re.compile(r"Needs the packages? ([\w, ]+)\.")
ONE = r"{\def\eigendriftonly{%s}\input{figures.tex}}"


@pytest.fixture(scope="module")
def figure_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_figure_set(tmp_path_factory.mktemp("latex"))


def packages(*files: Path) -> str:
    """What the files say that they need, and nothing else."""
    heads = ["".join(line for line in path.read_text().splitlines(keepends=True)[:3]) for path in files]
    named = [name for head in heads for found in PACKAGES.findall(head) for name in re.split(r", | and ", found)]
    return "".join(rf"\usepackage{{{name}}}" for name in dict.fromkeys(named))


def compiled(folder: Path, figure_set: Path, head: str, body: str) -> tuple[int, str]:
    """Exit status and log of a document beside the figure set."""
    for path in figure_set.iterdir():
        shutil.copyfile(path, folder / path.name)
    (folder / "main.tex").write_text(f"{head}\n\\begin{{document}}\n{WIDTHS}\n{body}\n\\end{{document}}\n")
    command = ["latexmk", "-norc", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-file-line-error", "main.tex"]
    environment = {**os.environ, "max_print_line": "1000"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    return done.returncode, (folder / "main.log").read_text(errors="replace")


def type_size(log: str) -> float:
    """The size of a figure's type in points, after what the document's width takes off."""
    (width,) = set(re.findall(r"^WIDTH ([\d.]+)pt", log, re.MULTILINE))
    return FONT_SIZE * min(1.0, float(width) / (COLUMN_WIDTH * 72.27))


@pytest.mark.parametrize("columns", ["onecolumn", "twocolumn"])
def test_an_article_takes_everything(columns: str, figure_set: Path, tmp_path: Path) -> None:
    names = [figure_set / name for name in ("figures.tex", "claims.tex", "numbers.tex", "grades.tex")]
    status, log = compiled(
        tmp_path,
        figure_set,
        rf"\documentclass[{columns}]{{article}}{packages(*names)}",
        r"\input{numbers.tex}Runs: \eigendrift{scale.runs}.\input{figures.tex}\clearpage\input{claims.tex}After.",
    )
    assert status == 0, log[-3000:]
    assert "undefined" not in log
    assert "LaTeX Error" not in log
    aux = (tmp_path / "main.aux").read_text()
    assert re.findall(r"\\newlabel\{fig:(fig\d\d)\}", aux) == FIGURE_NAMES
    assert {"tab:claims", "tab:parts"} <= set(re.findall(r"\\newlabel\{(tab:\w+)\}", aux))
    assert type_size(log) >= LEGIBLE
    # No figure is wider than its column.
    assert [float(width) for width in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\) in float", log)] == []


def test_slides_take_one_figure_a_frame(figure_set: Path, tmp_path: Path) -> None:
    frames = "\n".join(rf"\begin{{frame}}{ONE % name}\end{{frame}}" for name in FIGURE_NAMES)
    status, log = compiled(
        tmp_path, figure_set, rf"\documentclass{{beamer}}{packages(figure_set / 'figures.tex')}", frames
    )
    assert status == 0, log[-3000:]
    assert f"({len(FIGURE_NAMES)} pages" in log
    for name in FIGURE_NAMES:
        assert f"<{name}.pdf" in log, name
    assert type_size(log) >= LEGIBLE
    assert [float(width) for width in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)] == []


def test_one_figure_alone_and_a_name_that_is_none(figure_set: Path, tmp_path: Path) -> None:
    head = rf"\documentclass{{article}}{packages(figure_set / 'figures.tex')}"
    (tmp_path / "right").mkdir()
    status, _ = compiled(tmp_path / "right", figure_set, head, ONE % "fig03")
    assert status == 0
    assert re.findall(r"\\newlabel\{fig:(\w+)\}", (tmp_path / "right" / "main.aux").read_text()) == ["fig03"]
    (tmp_path / "wrong").mkdir()
    status, log = compiled(tmp_path / "wrong", figure_set, head, ONE % "fig99")
    assert status != 0
    assert "no figure named `fig99'" in log


def test_slides_refuse_tables_that_run_over_pages(figure_set: Path, tmp_path: Path) -> None:
    head = rf"\documentclass{{beamer}}{packages(figure_set / 'claims.tex')}"
    status, log = compiled(tmp_path, figure_set, head, r"\begin{frame}\input{claims.tex}\end{frame}")
    assert status != 0
    assert "claims.tex is not for beamer" in log
