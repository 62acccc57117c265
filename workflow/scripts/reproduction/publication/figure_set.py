"""The figure set: a folder that a LaTeX document can input as it is."""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from reproduction.errors import DamagedFileError, DataError
from reproduction.files.atomic import atomic_path
from reproduction.files.tables import read_header
from reproduction.latex import rst_to_latex

FORMAT = "eigendrift-figure-set/1"
# A figure wider than a journal's column, in PostScript points.
_COLUMN_POINTS = 3.6 * 72

PREAMBLE = r"""% Written by the rule `figure_set`: one environment a figure, figNN labelled fig:figNN.
% Needs the package graphicx. This folder has to be in \graphicspath. Figures keep their size unless they are too large.
% For articles of one and of two columns, and for beamer, where figure* is figure.
%   \input{figures.tex}                                          all figures
%   {\def\eigendriftonly{fig03}\input{figures.tex}}              one of them
% A figure with \eigendriftskip{figNN} before this file is read is left out here: the text shows it itself.
\providecommand*\eigendriftskip[1]{\expandafter\def\csname eigendrift@skip@#1\endcsname{}}
% \eigendriftnumber{N} stands before each caption: a text that wants the paper's numbers defines it.
\providecommand*\eigendriftnumber[1]{}
\providecommand*\eigendriftfigure[1]{%
  \begingroup
  \sbox0{\includegraphics{#1}}%
  \ifdim\wd0>\linewidth\setbox0\hbox{\includegraphics[width=\linewidth]{#1}}\fi
  \ifdim\ht0>0.8\textheight\setbox0\hbox{\includegraphics[height=0.8\textheight]{#1}}\fi
  \usebox0\endgroup}
\ifcsname figure*\endcsname\else\newenvironment{figure*}{\begin{figure}}{\end{figure}}\fi
\providecommand\eigendriftonly{all}
\edef\eigendriftwanted{\eigendriftonly}\def\eigendriftall{all}
\newif\ifeigendriftshown\newif\ifeigendriftany\eigendriftanyfalse
\def\eigendriftselect#1{%
  \def\eigendriftthis{#1}\eigendriftshownfalse
  \ifx\eigendriftwanted\eigendriftall
    \ifcsname eigendrift@skip@#1\endcsname\else\eigendriftshowntrue\fi\fi
  \ifx\eigendriftwanted\eigendriftthis\eigendriftshowntrue\fi
  \ifeigendriftshown\eigendriftanytrue\fi}
"""
END = r"""
\ifeigendriftany\else
  \PackageError{eigendrift}{no figure named `\eigendriftwanted'}{The names are fig01, fig02, ..., or all.}\fi
"""


def figures_tex(captions: Mapping[str, str], wide: Mapping[str, bool]) -> str:
    """The figure environments in order of their names.

    `captions` holds reStructuredText by figure name (fig01, ...), `wide` whether a figure spans both columns of a
    two-column page.
    """
    return PREAMBLE + "".join(_environment(name, captions[name], wide[name]) for name in sorted(captions)) + END


def _environment(name: str, caption: str, wide: bool) -> str:
    environment = "figure*" if wide else "figure"
    try:
        text = rst_to_latex(caption)
    except DataError as error:
        raise DataError(f"caption of {name}: {error}") from None
    if not text:
        raise DataError(f"caption of {name}: empty")
    number = re.sub("[^0-9]", "", name) or "0"
    return (
        f"\n\\eigendriftselect{{{name}}}\\ifeigendriftshown\n"
        f"\\begin{{{environment}}}[htbp]\n  \\centering\n  \\eigendriftfigure{{{name}.pdf}}\n"
        f"  \\eigendriftnumber{{{int(number)}}}\\caption{{{text}}}\n"
        f"  \\label{{fig:{name}}}\n\\end{{{environment}}}\n\\fi\n"
    )


def is_wide(pdf: Path) -> bool:
    """Whether the first page of a PDF is wider than a journal's column; `DataError` if the file is no whole PDF."""
    content = pdf.read_bytes()
    box = re.search(rb"/MediaBox\s*\[\s*([-\d.]+)\s+[-\d.]+\s+([-\d.]+)\s+[-\d.]+\s*\]", content)
    if not content.startswith(b"%PDF-") or not content.rstrip().endswith(b"%%EOF") or box is None:
        raise DataError(f"{pdf}: not a whole PDF with a plain page size; delete it and run again")
    return float(box.group(2)) - float(box.group(1)) > _COLUMN_POINTS


def check_claims_tex(claims_csv: str, claims_tex: str) -> None:
    """`DamagedFileError` if the claims in LaTeX are not those that the claims table was written with."""
    _check_tex(claims_csv, claims_tex, read_header(claims_csv, kind="claims")["identity"]["sha256"]["tex"])


def check_grades_tex(grades: str, grades_tex: str) -> None:
    """`DamagedFileError` if the grades in LaTeX are not those that the table of grades was written with."""
    _check_tex(grades, grades_tex, read_header(grades, kind="grades")["identity"]["sha256"])


def _check_tex(table: str, tex: str, expected: str) -> None:
    if hashlib.sha256(Path(tex).read_bytes()).hexdigest() != expected:
        raise DamagedFileError(f"{tex}: fails its checksum in {table}; delete both and run again")


def by_stem(paths: Sequence[str], what: str) -> dict[str, Path]:
    """File stem -> path; `DataError` where two files have the same stem."""
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        if path.stem in found:
            raise DataError(f"two {what} named {path.stem}: {found[path.stem]} and {path}")
        found[path.stem] = path
    return found


def write_figure_set(
    *,
    figures: Sequence[str],
    captions: Sequence[str],
    claims_tex: str,
    grades_tex: str,
    numbers_tex: str,
    provenance: Mapping[str, Any],
    pdfs: Sequence[str],
    outputs: Mapping[str, str],
) -> None:
    """Write figures, figures.tex, numbers.tex, claims.tex, grades.tex and manifest.json.

    `figures` and `pdfs` are the PDFs and where they go, matched by name; `captions` the .rst file of each; `claims_tex`
    and `grades_tex` the files of the rule `claims`, `numbers_tex` source text; `outputs` has figures_tex, numbers_tex,
    claims_tex, grades_tex and manifest. All lie in one folder.
    """
    sources, targets, texts = by_stem(figures, "figures"), by_stem(pdfs, "outputs"), by_stem(captions, "captions")
    for name in sorted(set(sources) | set(targets)):
        if name not in sources or name not in targets or name not in texts:
            raise DataError(f"{name}: needs a figure, an output and a caption (workflow/report/{name}.rst)")
    rst = {name: texts[name].read_text(encoding="utf-8") for name in sources}
    wide = {name: is_wide(sources[name]) for name in sources}
    written = [Path(outputs[name]) for name in ("figures_tex", "numbers_tex", "claims_tex", "grades_tex")]
    contents = (figures_tex(rst, wide), numbers_tex, _read(claims_tex), _read(grades_tex))
    for path, text in zip(written, contents, strict=True):
        _write(path, text)
    for name, source in sources.items():
        with atomic_path(targets[name]) as part:
            shutil.copyfile(source, part)
    _write(Path(outputs["manifest"]), manifest([*written, *targets.values()], provenance))


def manifest(files: Sequence[Path], provenance: Mapping[str, Any]) -> str:
    """JSON with size and sha256 of every file by name, and where the set comes from; no time, no absolute path.

    The configuration keeps its order, in which figures show data sets and optimizers.
    """
    content = {
        "files": {path.name: _described(path) for path in sorted(files, key=lambda path: path.name)},
        "format": FORMAT,
        "provenance": portable(provenance),
    }
    return json.dumps(content, indent=2, ensure_ascii=True) + "\n"


def portable(value: Any) -> Any:
    """The same value with every absolute path cut to its last part, so that it is the same on every machine."""
    if isinstance(value, Mapping):
        return {str(key): portable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [portable(item) for item in value]
    if isinstance(value, str) and (PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()):
        return f".../{PureWindowsPath(value).name}"
    return value


def _described(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as part:
        part.write_bytes(text.encode())
