"""The figure set: environments, numbers, manifest, and the scripts that write them."""

import hashlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from claims_frames import ROLES, baseline, history, pairs, stack
from experiments import CLAIM_NUMBERS, FIGURE_NAMES
from paper_files import CONFIG, LAYOUT, build_figure_set, pdf, write_figures
from refusals import refused

from reproduction.claims.grades import GRADES_UNITS
from reproduction.errors import DamagedFileError, DataError
from reproduction.experiment.runs import Experiment
from reproduction.files.tables import read_table
from reproduction.latex import latex_integer
from reproduction.publication.figure_set import (
    by_stem,
    check_claims_tex,
    figures_tex,
    is_wide,
    portable,
    write_figure_set,
)
from reproduction.publication.quoted_numbers import PAPER, collect_numbers, missing_runs, numbers_tex

MAIN_TEX = Path(__file__).parents[3] / "paper" / "main.tex"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_figure_set(tmp_path_factory.mktemp("set"))


def _numbers(folder: Path) -> dict[str, str]:
    text = (folder / "numbers.tex").read_text(encoding="utf-8")
    return dict(re.findall(r"^\\eigendriftset\{([^}]+)\}\{(.*)\}$", text, re.MULTILINE))


# --- the whole set, by the scripts ---


def test_set_is_complete(folder: Path) -> None:
    texts = ["claims.tex", "figures.tex", "grades.tex", "manifest.json", "numbers.tex"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*texts, *(f"{name}.pdf" for name in FIGURE_NAMES)])


def test_figures_tex_has_an_environment_for_each_figure_in_order(folder: Path) -> None:
    text = (folder / "figures.tex").read_text(encoding="utf-8")
    environments = re.findall(
        r"^\\begin\{(figure\*?)\}.*?\\label\{(.*?)\}\n\\end\{\1\}", text, re.DOTALL | re.MULTILINE
    )
    assert [label for _, label in environments] == [f"fig:{name}" for name in FIGURE_NAMES]
    assert [number for number, (kind, _) in enumerate(environments, start=1) if kind == "figure"] == [2]
    assert re.findall(r"\\eigendriftfigure\{(fig\d\d)\.pdf\}", text) == FIGURE_NAMES
    assert r"\caption{Caption 5: $D_1(t_w, t_w + t)$ at 95\% of \emph{all} lags, IPR \ensuremath{\geq} 1/N.}" in text


def test_manifest_names_every_file_with_its_checksum(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    others = sorted(path for path in folder.iterdir() if path.name != "manifest.json")
    assert sorted(manifest["files"]) == [path.name for path in others]
    for path in others:
        content = path.read_bytes()
        described = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        assert manifest["files"][path.name] == described
    provenance = manifest["provenance"]
    assert provenance["config"] == {**CONFIG, "data": {"root": ".../data", "scaling": "standard"}}
    assert (provenance["versions"]["torch"], provenance["device"]) == ("2.14.0+cpu", "cpu")
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", provenance["commit"])
    assert list(manifest) == sorted(manifest)


def test_set_is_the_same_bytes_elsewhere(folder: Path, tmp_path: Path) -> None:
    environment = {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "LC_ALL": "C", "HOME": str(tmp_path)}
    again = build_figure_set(tmp_path / "elsewhere", environment)
    for path in sorted(folder.iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name
    assert (folder.parent / "claims" / "claims.csv").read_bytes() == (
        again.parent / "claims" / "claims.csv"
    ).read_bytes()


def test_nothing_says_where_it_was_made(folder: Path) -> None:
    for path in folder.iterdir():
        content = path.read_bytes()
        assert b"/home/" not in content
        assert str(folder.parent).encode() not in content


def test_numbers_are_those_of_the_tables(folder: Path) -> None:
    numbers = _numbers(folder)
    assert numbers["first.label"] == "digits"
    assert numbers["datasets"] == "digits and noisy digits"
    assert numbers["scale.runs"] == r"\ensuremath{12}"
    assert numbers["scale.pairs"] == r"\ensuremath{324}"  # 6 runs of 3 x 15 pairs, 6 of 3 x 3 pairs
    assert numbers["first.sgd.accuracy"] == r"\ensuremath{91.1} \ensuremath{[91.0, 91.2]}"
    assert numbers["last.sam.ipr"] == r"\ensuremath{0.00310} \ensuremath{[0.00300, 0.00320]}"
    assert numbers["first.tau"] == r"\ensuremath{0.0523} \ensuremath{[0.0513, 0.0543]}"
    assert numbers["first.parameters"] == r"\ensuremath{17\,610}"
    assert numbers["verdicts.claims"] == latex_integer(len(CLAIM_NUMBERS))
    assert numbers["figures"] == latex_integer(len(FIGURE_NAMES))
    assert numbers["config.model.hidden"] == r"\ensuremath{100}, \ensuremath{100}"
    assert numbers["config.model.init"] == r"xavier\_uniform"
    assert numbers["config.data.root"] == ".../data"
    assert numbers["versions.torch"] == "2.14.0+cpu"
    assert numbers["paper.snapshots"] == r"\ensuremath{1584}"


def test_every_claim_has_its_numbers(folder: Path) -> None:
    numbers = _numbers(folder)
    table = read_table(folder.parent / "claims" / "claims.csv", kind="claims")
    for row in table.itertuples():
        if row.part == "claim":
            assert numbers[f"claim.{row.claim}.verdict"] == row.verdict
        else:
            place = {"digits": "first", "digits_noisy": "last"}[str(row.dataset)]
            assert {f"claim.{row.claim}.{row.part}.{place}{end}" for end in ("", ".paper", ".verdict")} <= set(numbers)
    counted = [numbers[f"verdicts.{name}"] for name in ("reproduced", "directiononly", "notreproduced", "notassessed")]
    assert sum(int(re.sub(r"\D", "", text)) for text in counted) == len(CLAIM_NUMBERS)


def test_the_text_quotes_known_numbers_only(folder: Path) -> None:
    text = re.sub(r"(?<!\\)%.*", "", MAIN_TEX.read_text(encoding="utf-8"))
    quoted = set(re.findall(r"\\eigendrift\{([^}]+)\}", text))
    assert len(quoted) > 60
    assert quoted <= set(_numbers(folder))


def test_the_text_types_no_number() -> None:
    """Digits stand in formulas, dimensions and references only; what is left has none."""
    text = MAIN_TEX.read_text(encoding="utf-8")
    body = re.sub(r"(?<!\\)%.*", "", text[text.index(r"\begin{document}") :])
    body = re.sub(r"\\eigendrift(?:Or)?\{[^}]+\}(?:\{[^}]*\})?", "", body)
    body = re.sub(r"\\(?:label|ref|eqref|citep|texttt|hypersetup|eigendrift\w+|shown|supplemented)\{[^}]*\}", "", body)
    # The number of a figure closes its macro; the paper is named by its own.
    body = re.sub(r"\}\{\d+\}", "", body).replace("arXiv:2606.30226", "")
    body = re.sub(r"\$[^$]*\$|\\begin\{equation\}.*?\\end\{equation\}", "", body, flags=re.DOTALL)
    body = re.sub(r"[LY]?\{[\d.]+\\linewidth\}|\{\d+pt\}", "", body)
    assert re.findall(r"\d+", body) == []


# --- figures ---


@pytest.mark.parametrize(("width", "wide"), [(243, False), (259, False), (260, True), (486, True)])
def test_width_decides_the_environment(tmp_path: Path, width: int, wide: bool) -> None:
    path = tmp_path / "fig01.pdf"
    path.write_bytes(pdf(width, 100))
    assert is_wide(path) is wide


@pytest.mark.parametrize("content", [b"", b"%PDF-1.4 without a page", b"/MediaBox [ 0 0 10 10 ]", pdf(100, 100)[:-9]])
def test_what_is_no_pdf_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fig01.pdf"
    path.write_bytes(content)
    with refused(DataError, "fig01.pdf"):
        is_wide(path)


def test_claims_in_latex_that_are_not_those_of_the_table_are_refused(folder: Path, tmp_path: Path) -> None:
    table, text = (folder.parent / "claims" / f"claims.{kind}" for kind in ("csv", "tex"))
    check_claims_tex(str(table), str(text))
    changed = tmp_path / "claims.tex"
    changed.write_bytes(text.read_bytes()[:-1])
    with refused(DamagedFileError, "claims.tex", "claims.csv"):
        check_claims_tex(str(table), str(changed))


@pytest.mark.parametrize(
    ("caption", "message"), [("", "caption of fig01: empty"), (":ref:`a`", "caption of fig01: .*role")]
)
def test_captions_that_cannot_be_set_are_named(caption: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        figures_tex({"fig01": caption}, {"fig01": True})


@pytest.mark.parametrize("lacking", ["figures", "captions", "pdfs"])
def test_a_figure_without_its_parts_is_named(tmp_path: Path, lacking: str) -> None:
    named = write_figures(tmp_path)
    named["pdfs"] = [str(tmp_path / "set" / Path(path).name) for path in named["figures"]]
    named[lacking] = named[lacking][:-1]
    (tmp_path / "claims.tex").write_text("")
    names = ("figures_tex", "numbers_tex", "claims_tex", "grades_tex", "manifest")
    with pytest.raises(DataError, match="fig21: needs"):
        write_figure_set(
            figures=named["figures"],
            captions=named["captions"],
            pdfs=named["pdfs"],
            claims_tex=str(tmp_path / "claims.tex"),
            grades_tex=str(tmp_path / "claims.tex"),
            numbers_tex="",
            provenance={},
            outputs={name: str(tmp_path / name) for name in names},
        )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/home/a/data", ".../data"),
        ("C:\\Users\\a\\data", ".../data"),
        ("data", "data"),
        ({"b": ["/x/y", 1], "a": None}, {"b": [".../y", 1], "a": None}),
        (("a", 2.5), ["a", 2.5]),
    ],
)
def test_paths_are_cut(value: Any, expected: Any) -> None:
    assert portable(value) == expected


# --- numbers ---


def test_keys_that_latex_could_not_look_up_are_refused() -> None:
    with pytest.raises(DataError, match="'a#b'"):
        numbers_tex({"a#b": "1"})


def test_numbers_tex_is_sorted_and_braced() -> None:
    lines = [line for line in numbers_tex({"b": "2", "a": r"\ensuremath{1}"}).splitlines() if "set{" in line]
    assert lines == [r"\eigendriftset{a}{\ensuremath{1}}", r"\eigendriftset{b}{2}"]


def _collected(**changes: Any) -> dict[str, str]:
    runs: list[dict[str, Any]] = [
        {"dataset": "digits", "optimizer": o, "seed": s} for o in ("sgd", "adam") for s in (0, 1)
    ]
    facts = {
        "variant": "main",
        "steps": 100_000,
        "n_parameters": 17_610,
        "n_train": 1437,
        "batch_size": 128,
        "learning_rate": 0.01,
    }
    given: dict[str, Any] = {
        "claims": pd.DataFrame(columns=["claim", "part", "verdict", "dataset", "value", "low", "high", "paper_value"]),
        "grades": pd.DataFrame(columns=list(GRADES_UNITS)).astype({"decides": str}),
        "history": stack(history(**run) for run in runs),
        "ipr": stack(pairs(**run) for run in runs),
        "baseline": baseline("digits"),
        "identities": [{**run, **facts} for run in runs],
        "layout": {**LAYOUT, "datasets": {"digits": "a_b"}},
        "roles": ROLES,
        "provenance": {},
    }
    return collect_numbers(**{**given, **changes})


def test_one_dataset_plays_both_parts() -> None:
    numbers = _collected()
    assert numbers["first.label"] == numbers["last.label"] == numbers["datasets"] == r"a\_b"


def test_an_optimizer_that_is_not_there_is_a_dash() -> None:
    numbers = _collected(roles={"sgd": "sgd", "adam": "adam"})
    assert (numbers["first.sam.accuracy"], numbers["first.sam.learningrate"], numbers["label.sam"]) == (
        "--",
        "--",
        "sam",
    )


def test_unconverged_pairs_are_counted_and_not_read() -> None:
    frame = pairs(lambda step, i: 1.0 if step == 100_000 else 1e-3, dataset="digits")
    frame.loc[frame["step"] == 100_000, ["converged", "residual"]] = [0, 9.0]
    numbers = _collected(ipr=frame)
    assert (numbers["scale.pairs"], numbers["scale.unconverged"]) == (r"\ensuremath{12}", r"\ensuremath{3}")
    assert numbers["scale.residual"] == r"\ensuremath{5.0\times 10^{-4}}"
    assert numbers["first.sgd.ipr.mean"] == r"\ensuremath{0.00100}"


def test_diverged_runs_are_counted_and_not_read() -> None:
    facts = {"steps": 100_000, "n_parameters": 17_610, "n_train": 1437, "batch_size": 128, "learning_rate": 0.01}
    run = {"dataset": "digits", "optimizer": "sgd", "variant": "main", **facts}
    numbers = _collected(
        history=stack([history(dataset="digits", test_accuracy=a, seed=s) for s, a in enumerate((0.9, 0.1))]),
        identities=[{**run, "seed": 0, "diverged_at": None}, {**run, "seed": 1, "diverged_at": 7}],
    )
    assert numbers["first.sgd.accuracy"] == r"\ensuremath{90.0}"
    assert numbers["scale.diverged"] == r"\ensuremath{1}"


def test_the_papers_numbers_are_the_specification() -> None:
    widths = [784, *PAPER["hidden"], 10]  # type: ignore[misc]
    count = sum(a * b + b for a, b in itertools.pairwise(widths))
    assert PAPER["parameters"] == count


def test_two_files_of_one_name_are_refused() -> None:
    with refused(DataError, "a/fig01.pdf", "b/fig01.pdf"):
        by_stem(["a/fig01.pdf", "b/fig01.pdf"], "figures")


def test_missing_runs_are_counted() -> None:
    runs = [run for run in Experiment(CONFIG).select() if run.optimizer != "sam"]
    there = [{"dataset": r.dataset, "optimizer": r.optimizer, "variant": r.variant, "seed": r.seed} for r in runs]
    assert missing_runs(CONFIG, there) == "4 of 12 main runs and 3 of 3 sweep runs"
    every = [vars(run) for run in Experiment(CONFIG)]
    assert missing_runs(CONFIG, every) == "none"
