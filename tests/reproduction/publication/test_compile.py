"""The paper compiles from a figure set, says plainly what is missing, and is the same bytes each time."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from experiments import FIGURE_NAMES
from paper_files import REPOSITORY, build_figure_set, run_script

from reproduction.publication.compile import PaperError, compile_paper, problems

# A continuous-integration machine must have TeX: there the tests fail rather than skip.
needs_latex = pytest.mark.skipif(
    shutil.which("latexmk") is None and not os.environ.get("CI"),
    reason="needs latexmk: see the message of test_missing_tex",
)
SOURCE = r"\documentclass{article}\begin{document}\input{figure_set/a.tex}%s\end{document}"


@pytest.fixture(scope="module")
def figure_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_figure_set(tmp_path_factory.mktemp("paper"))


def _inputs(figure_set: Path) -> dict[str, object]:
    return {
        "main": str(REPOSITORY / "paper" / "main.tex"),
        "references": str(REPOSITORY / "paper" / "refs.bib"),
        "figure_set": sorted(str(path) for path in figure_set.iterdir()),
        "supplement": [],
    }


@needs_latex
def test_paper_compiles_with_every_figure(figure_set: Path, tmp_path: Path) -> None:
    pdfs = []
    for name in ("here", "there"):
        folder = tmp_path / name
        folder.mkdir()
        output, build = folder / "paper.pdf", folder / "build"
        done = run_script(
            "paper", folder, inputs=_inputs(figure_set), output={"pdf": str(output)}, params={"build": str(build)}
        )
        assert done.returncode == 0, done.stderr
        pdfs.append(output.read_bytes())
    assert pdfs[0] == pdfs[1]
    log = (build / "main.log").read_text(errors="replace")
    for name in FIGURE_NAMES:
        assert f"figure_set/{name}.pdf" in log.replace("\n", ""), name
    assert list(problems(log)) == []
    assert [float(width) for width in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log) if float(width) > 2] == []
    assert "Overfull \\vbox" not in log
    aux = (build / "main.aux").read_text(errors="replace")
    labels = [(name, str(number)) for number, name in enumerate(FIGURE_NAMES, 1)]
    assert sorted(re.findall(r"\\newlabel\{fig:(fig\d\d)\}\{\{(\d+)\}", aux)) == labels
    cited = set(re.findall(r"\\bibcite\{([^}]+)\}", aux))
    assert cited == set(re.findall(r"^@\w+\{([^,]+),", (REPOSITORY / "paper" / "refs.bib").read_text(), re.MULTILINE))


@needs_latex
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (r"\ref{nowhere}", "Reference `nowhere' is undefined"),
        (r"\cite{nobody}", "Citation `nobody' is undefined"),
        (r"\nosuchcommand", "Undefined control sequence"),
        (r"\eigendrift{no.such.number}", "no number named `no.such.number'"),
        (r"\input{figure_set/missing}", "missing.tex, which is not there"),
        (r"\RequirePackage{nosuchpackage}", r"lacks nosuchpackage.sty: install it \(Debian"),
    ],
)
def test_errors_of_the_source_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    main, references, numbers = tmp_path / "main.tex", tmp_path / "refs.bib", tmp_path / "a.tex"
    package = text.startswith(r"\Req")
    source = SOURCE % ("x" if package else text)
    main.write_text(source.replace(r"\begin{document}", text + r"\begin{document}") if package else source)
    references.write_text("")
    from reproduction.publication.quoted_numbers import numbers_tex

    numbers.write_text(numbers_tex({"a": "1"}))
    with pytest.raises(PaperError, match=message) as caught:
        compile_paper(main, references, [numbers], tmp_path / "build", tmp_path / "paper.pdf")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "paper.pdf").exists()


@needs_latex
def test_numbers_can_be_looked_up_or_replaced(tmp_path: Path) -> None:
    from reproduction.publication.quoted_numbers import numbers_tex

    (tmp_path / "a.tex").write_text(numbers_tex({"a.b_c-1": r"\ensuremath{2.1\times 10^{-5}}", "t": r"50\%"}))
    (tmp_path / "main.tex").write_text(
        SOURCE % r"\eigendrift{a.b_c-1} $\eigendrift{a.b_c-1}$ \eigendriftOr{t}{no} \eigendriftOr{u}{yes}"
    )
    (tmp_path / "refs.bib").write_text("")
    compile_paper(
        tmp_path / "main.tex", tmp_path / "refs.bib", [tmp_path / "a.tex"], tmp_path / "build", tmp_path / "paper.pdf"
    )
    if shutil.which("pdftotext"):
        text = subprocess.run(
            ["pdftotext", tmp_path / "paper.pdf", "-"], capture_output=True, text=True, check=True
        ).stdout
        assert re.search(r"50%\s+yes", text)


def test_missing_tex_says_what_to_install(figure_set: Path, tmp_path: Path) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    done = run_script(
        "paper",
        tmp_path,
        inputs=_inputs(figure_set),
        output={"pdf": str(tmp_path / "paper.pdf")},
        params={"build": str(tmp_path / "build")},
        environment={"PATH": str(empty)},
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(
        "paper: latexmk is missing: install it (Debian, Ubuntu: apt-get install latexmk texlive-latex-extra"
    )
    assert "conda: envs/latex.yaml" in line
    assert not (tmp_path / "paper.pdf").exists()


def test_log_lines_become_problems() -> None:
    log = (
        "x\n! LaTeX Error: File `booktabs.sty' not found.\n"
        "./main.tex:12: Undefined control sequence.\n"
        "LaTeX Warning: Reference `fig:a' on page 1 undefined on input line 3.\n"
        "Package natbib Warning: Citation `b' on page 1 undefined on input line 4.\n"
    )
    found = list(problems(log))
    assert found[0].startswith("LaTeX lacks booktabs.sty: install it")
    assert "./main.tex:12: Undefined control sequence." in found
    assert found[-2:] == ["Reference `fig:a' is undefined", "Citation `b' is undefined"]
    assert list(problems("Overfull \\hbox (1.0pt too wide)\nOutput written on main.pdf")) == []
