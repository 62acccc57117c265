"""Compile the paper with latexmk, so that the same sources give the same bytes."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from reproduction.errors import EigendriftError
from reproduction.files.atomic import atomic_path

INSTALL = (
    "install it (Debian, Ubuntu: apt-get install latexmk texlive-latex-extra texlive-fonts-recommended; "
    "conda: envs/latex.yaml, which --sdm conda uses; elsewhere: TeX Live with latexmk)"
)
# No user's latexmkrc, no shell escape; the first error ends the run.
_COMMAND = ("latexmk", "-norc", "-pdf", "-bibtex", "-interaction=nonstopmode", "-halt-on-error", "-file-line-error")
# pdfTeX writes times, and \today, from these instead of the clock; long log lines keep messages in one piece.
_ENVIRONMENT = {
    "SOURCE_DATE_EPOCH": "0",
    "FORCE_SOURCE_DATE": "1",
    "TZ": "UTC",
    "LC_ALL": "C",
    "max_print_line": "1000",
}


class PaperError(EigendriftError):
    """The paper cannot be compiled: TeX is missing, or the source has an error."""


def compile_paper(main: Path, references: Path, figure_set: Sequence[Path], build: Path, pdf: Path) -> None:
    r"""Compile `main` with the files of a figure set into `pdf`.

    Everything is copied into the folder `build`, which is emptied first: main.tex, refs.bib and figure_set/, where
    main.tex finds it by its macro \FigureSet. `PaperError` says what to install, or which line is wrong; an undefined
    reference, citation or number is an error.
    """
    if shutil.which("latexmk") is None or shutil.which("pdflatex") is None:
        missing = "latexmk" if shutil.which("latexmk") is None else "pdflatex"
        raise PaperError(f"{missing} is missing: {INSTALL}")
    shutil.rmtree(build, ignore_errors=True)
    (build / "figure_set").mkdir(parents=True)
    shutil.copyfile(main, build / "main.tex")
    shutil.copyfile(references, build / "refs.bib")
    for path in figure_set:
        shutil.copyfile(path, build / "figure_set" / path.name)
    finished = subprocess.run([*_COMMAND, "main.tex"], cwd=build, env={**os.environ, **_ENVIRONMENT}, check=False)
    log = build / "main.log"
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    problem = next(problems(text), None)
    if problem or finished.returncode:
        raise PaperError(f"{problem or 'latexmk failed'} (LaTeX's own log: {log})")
    with atomic_path(pdf) as part:
        shutil.copyfile(build / "main.pdf", part)


def problems(log: str) -> Iterator[str]:
    """What a LaTeX log reports as wrong, worst first, one line each; a missing file says what to install."""
    for match in re.finditer(r"File `([^']+)' not found", log):
        name = match.group(1)
        is_package = name.endswith((".sty", ".cls", ".def", ".fd"))
        yield f"LaTeX lacks {name}: {INSTALL}" if is_package else f"main.tex asks for {name}, which is not there"
    for match in re.finditer(r"^(?:! |[^\s:]+:\d+: )(.+)$", log, re.MULTILINE):
        yield match.group(0)
    for match in re.finditer(r"LaTeX Warning: ((?:Reference|Citation) `[^']+').* undefined", log):
        yield f"{match.group(1)} is undefined"
    for match in re.finditer(r"Citation [`']([^']+)' .*undefined", log):
        yield f"Citation `{match.group(1)}' is undefined"
