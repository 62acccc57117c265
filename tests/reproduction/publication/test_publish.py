"""What is published of made-up results, and all figures drawn again from it in other processes, without torch."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from experiments import PACKAGES
from paper_files import run_script
from refusals import refused
from synthetic_tables import Synthetic, small_config

from reproduction.claims.definition import load_claims
from reproduction.errors import DataError
from reproduction.experiment.figure_catalogue import FIGURES, figure_name
from reproduction.experiment.table_catalogue import KEPT_TABLES
from reproduction.publication import publish
from reproduction.publication.publish import different, fill, filled_pages, hours, redraw

ROOT = Path(__file__).parents[3]
NAMES = [figure_name(number) for number in FIGURES]
SMALL: dict[str, Any] = {
    "datasets": ["digits"],
    # Not in the order of the alphabet.
    "optimizers": {"sgd": {"class": "SGD", "lr": 0.01}, "adam": {"class": "Adam", "lr": 0.001}},
    "model": {"hidden": [16], "activation": "relu", "init": "xavier_uniform", "bias_init": "zero"},
    "training": {"steps": 300, "seeds": [0, 1]},
    "snapshots": {"every": 100, "waiting_times": [0, 100], "lags_per_decade": 2},
    "sweeps": {
        "seeds": [0],
        "batch_size": {"full": 100},
        "learning_rate": {"3": 300},
        "snapshots": {"every": 100, "waiting_times": [0], "lags_per_decade": 1},
    },
}


def draw(synthetic: Synthetic, folder: Path) -> None:
    """All figures, drawn in one process that has no torch."""
    jobs = [
        {
            "rule": figure_name(number),
            "input": synthetic.inputs(number),
            "script": "draw_figure",
            "params": synthetic.params(number),
            "output": {k: str(folder / "figures" / f"{figure_name(number)}.{k}") for k in ("pdf", "png", "csv")},
            "log": [str(folder / "logs" / f"{figure_name(number)}.log")],
        }
        for number in FIGURES
    ]
    code = (
        "import json, sys; from reproduction.publication.publish import run_script; "
        "list(map(run_script, json.loads(sys.argv[1])))"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(jobs)], env=surroundings(), check=False)
    assert done.returncode == 0


def surroundings(*before: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*before, PACKAGES]), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables, figures, claims and figure set as the workflow leaves them, from made-up measurements."""
    folder = tmp_path_factory.mktemp("results")
    synthetic = Synthetic(folder, small_config(**SMALL))
    draw(synthetic, folder)
    tables = {k: synthetic.paths(k, [{"variants": "all"}]) for k in ("history", "ipr", "alignment", "displacement")}
    tables |= {kind: synthetic.paths(kind, [{}]) for kind in ("baseline", "interpolation", "solutions")}
    tables["final_eigenvector"] = synthetic.paths("final_eigenvector", [{"variants": "main"}])
    for kind in KEPT_TABLES:
        synthetic.paths(kind, [{"variants": "all"}])
    experiment = synthetic.experiment
    params: dict[str, Any] = {"layout": experiment.layout(), "roles": experiment.roles()}
    claims = {kind: str(folder / "claims" / f"claims.{kind}") for kind in ("csv", "md", "html", "tex")}
    claims |= {"grades": str(folder / "claims" / "grades.csv"), "grades_tex": str(folder / "claims" / "grades.tex")}
    files = {"claims": "claims.yaml", "primary": "primary_tests.yaml"}
    inputs: dict[str, Any] = {**tables, **{key: str(ROOT / "paper" / name) for key, name in files.items()}}
    scale = {"scale": experiment.scale()}
    done = run_script("claims", folder, inputs=inputs, output=claims, params={**params, **scale})
    assert done.returncode == 0, done.stderr
    texts = {f"{name}_tex": f"{name}.tex" for name in ("figures", "numbers", "claims", "grades")}
    output: dict[str, Any] = {key: str(folder / "figure_set" / name) for key, name in texts.items()}
    output |= {"manifest": str(folder / "figure_set" / "manifest.json")}
    output |= {"pdfs": [str(folder / "figure_set" / f"{name}.pdf") for name in NAMES]}
    inputs = {kind: tables[kind] for kind in ("history", "ipr", "baseline")}
    inputs |= {"figures": [str(folder / "figures" / f"{name}.pdf") for name in NAMES]}
    inputs |= {"captions": [str(ROOT / "workflow" / "report" / f"{name}.rst") for name in NAMES]}
    inputs |= {"claims_csv": claims["csv"], "claims_tex": claims["tex"]}
    inputs |= {name: claims[name] for name in ("grades", "grades_tex")}
    params |= {"config": experiment.config, "scratch": str(folder / "scratch")}
    done = run_script("figure_set", folder, inputs=inputs, output=output, params=params)
    assert done.returncode == 0, done.stderr
    for name in ("train/a.tsv", "train/b.tsv", "fig01.tsv"):
        (folder / "benchmarks" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "benchmarks" / name).write_text("s\th:m:s\n900.0\t0:15:00\n")
    return folder


@pytest.fixture(scope="module")
def published(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "published"
    folder.with_name("REPRODUCTION.md").write_text("Null model: <!-- verdict null-model --><!-- / -->.\n")
    size = fill(results, folder)
    assert size == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) > 10_000
    return folder


def test_what_is_published(published: Path, results: Path) -> None:
    figures = {f"{name}.{kind}" for name in NAMES for kind in ("pdf", "png", "csv.gz")}
    assert {path.name for path in (published / "figures").iterdir()} == figures
    assert {path.name for path in (published / "claims").iterdir()} == {
        "claims.csv",
        "claims.md",
        "claims.tex",
        "grades.csv",
        "grades.tex",
    }
    packed = list((published / "tables").rglob("*.gz"))
    assert len(packed) > 20
    for path in packed:
        original = results / path.relative_to(published / "tables").with_suffix("")
        assert gzip.decompress(path.read_bytes()) == original.read_bytes()
    # Those that nothing is drawn from, too.
    assert {path.name for path in packed} >= {f"{kind}.csv.gz" for kind in KEPT_TABLES}
    record = json.loads((published / "provenance.json").read_text())
    assert list(record["config"]["optimizers"]) == ["sgd", "adam"]
    assert record["hours"] == hours(results / "benchmarks") == {"fig01": 0.25, "train": 0.5}
    assert {"versions", "device", "threads", "commit"} <= set(record)


def test_filling_again_gives_the_same_bytes(published: Path, results: Path, tmp_path: Path) -> None:
    fill(results, tmp_path / "again")
    for path in published.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(published)).read_bytes(), path


def test_everything_comes_back_to_the_byte_without_torch(published: Path, tmp_path: Path) -> None:
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "torch.py").write_text("raise ImportError('no torch here')\n")
    (tmp_path / "latexmk").mkdir()
    code = (
        "import sys; from pathlib import Path; from reproduction.publication.publish import redraw\n"
        "if __name__ == '__main__':\n"
        "    print(redraw(Path(sys.argv[1]), Path(sys.argv[2])))\n"
    )
    # A file: processes that are spawned import the main module again.
    (tmp_path / "call.py").write_text(code)
    environment = {**surroundings(str(tmp_path / "absent")), "TZ": "Asia/Tokyo", "PATH": str(tmp_path)}
    build = tmp_path / "build"
    command = [sys.executable, str(tmp_path / "call.py"), str(published), str(build)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
    # This made-up PATH has no TeX.
    assert "paper.pdf: left out" in done.stderr
    assert (build / "figures" / "fig01.csv").is_file()
    (build / "figures" / "fig03.png").write_bytes(b"other")
    (build / "figure_set" / "numbers.tex").write_bytes(b"other")
    (build / "claims" / "grades.csv").write_bytes(b"other")
    assert list(different(published, build)) == ["figures/fig03.png", "claims/grades.csv", "numbers.tex"]


def test_the_page_beside_it_gets_its_numbers(published: Path, tmp_path: Path) -> None:
    page = published.with_name("REPRODUCTION.md").read_text()
    assert page == "Null model: <!-- verdict null-model -->not assessed at this scale<!-- / -->.\n"
    folder = shutil.copytree(published, tmp_path / "paper" / "published")
    folder.with_name("REPRODUCTION.md").write_text(page.replace("not assessed at this scale", "reproduced"))
    assert list(different(folder, folder_of_figures(published, tmp_path))) == ["REPRODUCTION.md"]


def test_the_page_s_layers_and_causes(published: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    one = "<!-- value displacement-saturation sgd-below-baseline first --><!-- / -->"
    marks = ("layers", "causes", "cause 9")
    page.write_text("\n".join([one, *(f"<!-- {mark} --><!-- / -->" for mark in marks)]))
    claim, *lines = filled_pages([page], published)[page].splitlines()
    experiment = json.loads((published / "provenance.json").read_text())["config"]
    rows = [line.split(" | ") for line in lines if line.startswith(f"| {experiment['datasets'][0]} | sgd | ")]
    mean = claim.split("-->")[1].split(" ")[0]
    assert float(mean) > 0
    causes = load_claims(ROOT / "paper" / "causes.yaml")
    listed = [line.replace("\\_", "_").split(" | ")[1] for line in lines if re.match(r"\| \d+ \| ", line)]
    assert listed == [cause.title for cause in causes]
    assert re.search(r"<!-- cause 9 -->\*\*(yes|in part|no|not assessed)\*\*<!-- / -->", lines[-1])
    # Two layers at least, of a unit vector.
    assert sum(map(float, rows[0][2 : 2 + (len(rows[0]) - 2) // 2])) == pytest.approx(1.0, abs=0.02)


def folder_of_figures(published: Path, tmp_path: Path) -> Path:
    """A build that is what is published."""
    build = tmp_path / "build"
    shutil.copytree(published / "figures", build / "figures")
    for path in (build / "figures").glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    shutil.copytree(published / "claims", build / "claims")
    (build / "figure_set").mkdir()
    for name in ("numbers.tex", "manifest.json"):
        shutil.copy(published / name, build / "figure_set")
    return build


def test_a_page_that_names_what_is_not_there_leaves_all_as_it_was(
    published: Path, results: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(published, tmp_path / "paper" / "published")
    page = folder.with_name("REPRODUCTION.md")
    page.write_text("<!-- verdict nothing --><!-- / -->\n")
    before = (folder / "provenance.json").stat().st_ino
    with pytest.raises(DataError, match="no claim nothing"):
        fill(results, folder)
    assert (folder / "provenance.json").stat().st_ino == before
    assert page.read_text() == "<!-- verdict nothing --><!-- / -->\n"


def test_an_unfinished_run_is_refused_and_nothing_is_removed(published: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(published, tmp_path / "published")
    with pytest.raises(DataError, match="run to its end first"):
        fill(tmp_path / "nothing", folder)
    assert (folder / "provenance.json").is_file()


def test_another_pdf_is_named(published: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(published, tmp_path / "paper" / "published")
    build = folder_of_figures(published, tmp_path)
    for place, content in ((folder, b"one"), (build, b"other")):
        (place / "paper.pdf").write_bytes(content)
    assert list(different(folder, build)) == ["paper.pdf"]


@pytest.mark.parametrize("content", [b"no archive", None], ids=["other", "cut off"])
def test_a_damaged_table_is_named(published: Path, tmp_path: Path, content: bytes | None) -> None:
    folder = shutil.copytree(published, tmp_path / "paper" / "published")
    table = next((folder / "tables").rglob("ipr.csv.gz"))
    table.write_bytes(table.read_bytes()[:100] if content is None else content)
    with refused(DataError, "ipr.csv.gz"):
        redraw(folder, tmp_path / "build")


def test_a_damaged_record_is_named(published: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(published, tmp_path / "paper" / "published")
    (folder / "provenance.json").write_text("no json")
    with refused(DataError, "provenance.json", "git checkout"):
        redraw(folder, tmp_path / "build")


@pytest.mark.parametrize(("changed", "status"), [([], 0), (["figures/fig03.png", "paper.pdf"], 1)])
def test_the_command_says_what_came_out_different(
    changed: list[str], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(publish, "redraw", lambda **options: changed)
    assert publish.main(["redraw"]) == status
    said = capsys.readouterr().out
    assert all(name in said for name in changed)
