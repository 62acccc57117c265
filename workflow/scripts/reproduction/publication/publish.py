"""What is kept of a finished experiment in paper/published/, and how its figures come back from it, without torch.

With src and workflow/scripts in PYTHONPATH, as `make publish` and `make published` have them:
python -m reproduction.publication.publish fill results/NAME    tables, figures, claims, provenance to paper/published/
python -m reproduction.publication.publish redraw               all of it from these tables again, compared with them
python -m reproduction.publication.publish refresh              the same, put in the place of what came out different
python -m reproduction.publication.publish draft NAME           what paper/runs/NAME gives so far, to paper/generated
"""

import argparse
import json
import os
import runpy
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pandas as pd

from reproduction.claims.definition import load_claims
from reproduction.claims.evidence import Evidence, load_evidence
from reproduction.claims.primary import load_primary_tests
from reproduction.claims.report import scale_line
from reproduction.claims.scoring import score_claims
from reproduction.errors import DataError, EigendriftError
from reproduction.experiment.config import validate
from reproduction.experiment.figure_catalogue import FIGURES, SUPPLEMENT, drawing, entry, figure_name
from reproduction.experiment.result_paths import table_paths
from reproduction.experiment.runs import Experiment
from reproduction.experiment.table_catalogue import KEPT_TABLES, RUN_TABLES, SCORED_TABLES, TABLES
from reproduction.files.tables import read_header, read_table
from reproduction.jobs.checkout import SCRIPTS, use_this_copy
from reproduction.latex import latex_integer
from reproduction.publication import machine_readable
from reproduction.publication.compile import INSTALL
from reproduction.publication.figure_set import by_stem, check_claims_tex, check_grades_tex, write_figure_set
from reproduction.publication.kept import STORE, configured
from reproduction.publication.packed import pack, unpack, write_whole
from reproduction.publication.quoted_numbers import missing_runs, numbers_of, numbers_tex
from reproduction.publication.reproduction_page import Numbers, fill_page

ROOT = SCRIPTS.parents[1]
CAPTIONS, PAPER = ROOT / "workflow" / "report", ROOT / "paper"
PUBLISHED, BUILD = PAPER / "published", PAPER / "generated" / "published"
ALL: tuple[int | str, ...] = (*FIGURES, *SUPPLEMENT)
# What a reader gets, and its long tables.
PAGES = PAGE, DETAILS = ("REPRODUCTION.md", "DETAILS.md")
CLAIMS = ("claims.csv", "claims.md", "claims.tex", "grades.csv", "grades.tex")
# What the page takes its tables from.
_PLOTTED = ("fig16", "figS1", "figS2", "figS3", "figS4")
_RESTORE = "bring it back with git checkout, or publish again"
# Tables that the numbers of the text are taken from, besides those of the figures.
_NUMBERS: dict[str, list[dict[str, str]]] = {
    "history": [{"variants": "all"}],
    "ipr": [{"variants": "all"}],
    "baseline": [{}],
}


def fill(results: Path, published: Path = PUBLISHED) -> int:
    """Put a finished results folder in the place of `published`, all of it or nothing; the number of bytes in it.

    The numbers in the `PAGES` beside it become those of these results, and the checkout's descriptions for machines
    become theirs.
    """
    manifest = results / "figure_set" / "manifest.json"
    if not manifest.is_file():
        raise DataError(f"{manifest}: no such file; let the workflow of {results} run to its end first")
    record = json.loads(manifest.read_text(encoding="utf-8"))["provenance"]
    experiment = Experiment(validate(record["config"]))
    part = published.with_name(f".{published.name}.part")
    pages = [page for page in map(published.with_name, PAGES) if page.is_file()]
    shutil.rmtree(part, ignore_errors=True)
    try:
        _gather(results, experiment, record, part)
        texts = filled_pages(pages, part)
        shutil.rmtree(published, ignore_errors=True)
        part.replace(published)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    for page, text in texts.items():
        write_whole(page, text.encode())
    if published == PUBLISHED:
        machine_readable.write()
    return sum(path.stat().st_size for path in published.rglob("*") if path.is_file())


def _gather(results: Path, experiment: Experiment, record: dict[str, Any], folder: Path) -> None:
    """All that is kept of the results."""
    drawn = [number for number in ALL if (results / f"figures/{figure_name(number)}.pdf").is_file()]
    copies = [f"figures/{figure_name(number)}.{kind}" for number in drawn for kind in ("pdf", "png")]
    for name in (*copies, *(f"claims/{name}" for name in CLAIMS)):
        _copy(results / name, folder / name)
    for name in ("numbers.tex", "manifest.json"):
        _copy(results / "figure_set" / name, folder / name)
    if (results / "paper.pdf").is_file():
        _copy(results / "paper.pdf", folder / "paper.pdf")
    packed = {path: f"tables/{path}" for path in _tables(experiment, drawn)}
    packed |= {path: f"tables/{path}" for path in _kept(experiment) if (results / path).is_file()}
    packed |= {name: name for name in (f"figures/{figure_name(number)}.csv" for number in drawn)}
    for path, name in packed.items():
        pack(folder / f"{name}.gz", (results / path).read_bytes())
    text = json.dumps({**record, "hours": hours(results / "benchmarks")}, indent=2)
    write_whole(folder / "provenance.json", f"{text}\n".encode())


def filled_pages(pages: Sequence[Path], published: Path) -> dict[Path, str]:
    """Each page with the numbers of what is published."""
    if not pages:
        return {}
    claims = str(published / "claims" / "claims.csv")
    figures = {name: published / f"figures/{name}.csv.gz" for name in _PLOTTED}
    record = _record(published)
    experiment, evidence = Experiment(validate(record["config"])), published_evidence(published)
    labels = {**experiment.layout()["datasets"], **experiment.layout()["optimizers"]}
    there = [path.parent for path in (published / "tables").rglob("history.csv.gz")]
    numbers = Numbers(
        claims=read_table(claims, kind="claims"),
        record=record,
        scale=scale_line(read_header(claims, kind="claims")["identity"]["scale"]),
        plotted={name: pd.read_csv(path, skiprows=1) for name, path in figures.items() if path.is_file()},
        causes=score_claims(load_claims(PAPER / "causes.yaml"), evidence, labels),
        grades=read_table(str(published / "claims" / "grades.csv"), kind="grades"),
        tests=load_primary_tests(PAPER / "primary_tests.yaml"),
        missing=missing_runs(record["config"], [_run_of(path) for path in there]),
        n_parameters=experiment.n_parameters(experiment.datasets()[0]),
    )
    return {page: fill_page(page.read_text(encoding="utf-8"), numbers) for page in pages}


def _run_of(folder: Path) -> dict[str, Any]:
    """Whose run a folder of tables is."""
    dataset, optimizer, variant, seed = folder.parts[-4:]
    return {"dataset": dataset, "optimizer": optimizer, "variant": variant, "seed": int(seed.removeprefix("seed"))}


def published_evidence(published: Path) -> Evidence:
    """What the claims' quantities measure, from the published tables."""
    experiment = Experiment(validate(_record(published)["config"]))
    with TemporaryDirectory() as folder:
        _unpack(published, Path(folder))
        return _evidence(experiment, Path(folder))


def _record(published: Path) -> dict[str, Any]:
    """Provenance of what is published, with its hours."""
    path = published / "provenance.json"
    if not path.is_file():
        raise DataError(f"{path}: no such file; nothing is published here yet: make publish NAME=... does it")
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); {_RESTORE}") from None
    return record


def _unpack(published: Path, folder: Path) -> None:
    """All published tables, as they were in the results."""
    for path in (published / "tables").rglob("*.gz"):
        target = folder / path.relative_to(published / "tables").with_suffix("")
        write_whole(target, unpack(path, _RESTORE))


def _evidence(experiment: Experiment, folder: Path) -> Evidence:
    """What the claims' quantities measure, from the tables in a folder, those of figure S1 included."""
    tables = {}
    for kind in SCORED_TABLES:
        wanted = [{"variants": "all"}, {"variants": "sensitivity"}] if kind in RUN_TABLES else [{}]
        paths = [folder / path for path in table_paths(experiment, kind, wanted)]
        tables[kind] = [path for path in paths if path.is_file()]
    layout = experiment.layout()
    return load_evidence(
        tables,
        datasets=list(layout["datasets"]),
        optimizer_roles=experiment.roles(),
        dense_seed=int(layout["dense_seed"]),
    )


def hours(benchmarks: Path) -> dict[str, float]:
    """Hours of one core or GPU by rule, from the files in `benchmarks`, which hold each job's last try."""
    seconds: dict[str, float] = {}
    for path in sorted(benchmarks.rglob("*.tsv")):
        rule = path.relative_to(benchmarks).parts[0].removesuffix(".tsv")
        seconds[rule] = seconds.get(rule, 0.0) + float(pd.read_csv(path, sep="\t")["s"].sum())
    return {rule: round(total / 3600, 3) for rule, total in seconds.items()}


def redraw(published: Path = PUBLISHED, build: Path = BUILD, processes: int = 1) -> list[str]:
    """Score and draw everything and write figure set and paper into `build`; names of published files that came out
    different. Without TeX the paper is omitted, with a message.
    """
    record = _record(published)
    record.pop("hours")
    shutil.rmtree(build, ignore_errors=True)
    _unpack(published, build)
    numbers = [number for number in ALL if (published / "figures" / f"{figure_name(number)}.pdf").is_file()]
    _make(Experiment(validate(record["config"])), numbers, build, record, processes)
    return list(different(published, build))


def _make(
    experiment: Experiment, numbers: Sequence[int | str], build: Path, record: dict[str, Any], processes: int
) -> None:
    """Claims, figures, figure set and paper from the tables in `build`, which may be those of some runs only."""
    use_this_copy()
    # Processes of their own, since each script sends its output to its own log.
    with get_context("spawn").Pool(processes) as pool:
        jobs = [_claims_job(experiment, build), *(_figure_job(experiment, number, build) for number in numbers)]
        pool.map(run_script, jobs, chunksize=1)
        _figure_set(experiment, build, record)
        if all(map(shutil.which, ("latexmk", "pdflatex"))):
            pool.apply(run_script, [_paper_job(build)])
        else:
            print(f"paper.pdf: left out, without latexmk and pdflatex; {INSTALL}", file=sys.stderr)


def refresh(published: Path = PUBLISHED, build: Path = BUILD, processes: int = 1) -> list[str]:
    """Put what this version of the project makes of the published tables in the place of what is published.

    All figures of the catalogue are drawn, those too that were not published before. The names of what changed.
    """
    record = _record(published)
    plain = {key: value for key, value in record.items() if key != "hours"}
    shutil.rmtree(build, ignore_errors=True)
    _unpack(published, build)
    _make(Experiment(validate(record["config"])), ALL, build, plain, processes)
    changed = []
    kinds = {f"figures/{figure_name(number)}.{kind}": kind for number in ALL for kind in ("pdf", "png", "csv")}
    copies = {name: f"{name}.gz" if kind == "csv" else name for name, kind in kinds.items()}
    copies |= {f"claims/{name}": f"claims/{name}" for name in CLAIMS}
    copies |= {f"figure_set/{name}": name for name in ("numbers.tex", "manifest.json")}
    copies |= {"paper.pdf": "paper.pdf"} if (build / "paper.pdf").is_file() else {}
    for source, name in copies.items():
        content, target = (build / source).read_bytes(), published / name
        before = target.read_bytes() if target.is_file() else None
        if name.endswith(".gz"):
            pack(target, content)
        else:
            write_whole(target, content)
        changed += [name] if target.read_bytes() != before else []
    pages = [page for page in map(published.with_name, PAGES) if page.is_file()]
    for page, text in filled_pages(pages, published).items():
        write_whole(page, text.encode())
    if published == PUBLISHED:
        machine_readable.write()
    return changed


def draft(name: str, build: Path | None = None, processes: int = 1) -> Path:
    """What the kept tables of a run that proceeds give so far: figures, grades and paper, which say what is missing.

    Needs the baselines and one run; a figure without any of its runs is empty. The folder that it is written to.
    """
    store, folder = STORE / name, build or PAPER / "generated" / f"draft-{name}"
    config = configured(name, [])
    shutil.rmtree(folder, ignore_errors=True)
    for path in (path for path in store.rglob("*") if path.suffix in (".gz", ".xz")):
        write_whole(folder / path.relative_to(store).with_suffix(""), unpack(path, _RESTORE))
    if not list(folder.rglob(TABLES["history"].path)):
        raise DataError(f"{store}: holds no run; keep one first: make keep NAME={name}")
    experiment = Experiment(config)
    numbers = [number for number in ALL if _has_tables(experiment, number, folder)]
    _make(experiment, numbers, folder, {"config": experiment.recorded()}, processes)
    return folder


def _has_tables(experiment: Experiment, number: int | str, folder: Path) -> bool:
    """Whether there is a table of each kind, but identities, that a figure is drawn from."""
    kinds = {kind: table_paths(experiment, kind, chosen) for kind, chosen in entry(number)["inputs"].items()}
    return all(any((folder / path).is_file() for path in paths) for kind, paths in kinds.items() if kind != "identity")


def different(published: Path, build: Path) -> Iterator[str]:
    """Names of published figures, claims, numbers, manifest and PDF whose redrawn file has other bytes, and of pages
    with numbers that are not those of the tables.
    """
    files = [*sorted((published / "figures").iterdir()), *sorted((published / "claims").iterdir())]
    for path in [*files, published / "numbers.tex", published / "manifest.json"]:
        name, content = path.relative_to(published), path.read_bytes()
        again = build / (name if name.parts[0] in ("figures", "claims") else Path("figure_set") / name)
        if path.suffix == ".gz":
            again, content = again.with_suffix(""), unpack(path, _RESTORE)
        if again.read_bytes() != content:
            yield str(name)
    pdf, again = published / "paper.pdf", build / "paper.pdf"
    if pdf.is_file() and again.is_file() and pdf.read_bytes() != again.read_bytes():
        yield pdf.name
    pages = [page for page in map(published.with_name, PAGES) if page.is_file()]
    for page, text in filled_pages(pages, published).items():
        if page.read_text(encoding="utf-8") != text:
            yield page.name
    if published == PUBLISHED:
        made = machine_readable.records()
        yield from (name for name, content in made.items() if (ROOT / name).read_bytes() != content)


def _tables(experiment: Experiment, numbers: Sequence[int | str]) -> list[str]:
    """Paths below the results of every table that these figures and the numbers are drawn from."""
    wanted: list[Mapping[str, Any]] = [*(entry(number)["inputs"] for number in numbers), _NUMBERS]
    found = (path for one in wanted for kind, chosen in one.items() for path in table_paths(experiment, kind, chosen))
    return list(dict.fromkeys(found))


def _kept(experiment: Experiment) -> list[str]:
    """Paths below the results of the tables that no figure is drawn from, of every run."""
    every: list[dict[str, str]] = [{"variants": "all"}, {"variants": "sensitivity"}]
    return [path for kind in KEPT_TABLES for path in table_paths(experiment, kind, every)]


def _figure_job(experiment: Experiment, number: int | str, build: Path) -> dict[str, Any]:
    """What the rule of a figure gives to its script."""
    name = figure_name(number)
    paths = {kind: table_paths(experiment, kind, chosen) for kind, chosen in entry(number)["inputs"].items()}
    return {
        "rule": name,
        "input": {kind: _present(build, listed) for kind, listed in paths.items()},
        "script": "draw_figure",
        "params": {"layout": experiment.layout(), "figure": drawing(number, experiment.settings)},
        "output": {kind: str(build / "figures" / f"{name}.{kind}") for kind in ("pdf", "png", "csv")},
        "log": [str(build / "logs" / f"{name}.log")],
    }


def _present(build: Path, paths: Sequence[str]) -> list[str]:
    """Those of the tables that there are: older results lack kinds, unfinished ones runs."""
    return [str(build / path) for path in paths if (build / path).is_file()]


def _claims_job(experiment: Experiment, build: Path) -> dict[str, Any]:
    """What the rule of the claims gives to its script."""
    tables = {kind: _present(build, table_paths(experiment, kind, [of])) for kind, of in SCORED_TABLES.items()}
    files = {"claims": str(PAPER / "claims.yaml"), "primary": str(PAPER / "primary_tests.yaml")}
    # The page is the report's; it is not published.
    names = dict(zip(("csv", "md", "tex", "grades", "grades_tex", "html"), (*CLAIMS, "claims.html"), strict=True))
    return {
        "rule": "claims",
        "input": {**tables, **files},
        "params": {"layout": experiment.layout(), "roles": experiment.roles(), "scale": experiment.scale()},
        "output": {key: str(build / "claims" / name) for key, name in names.items()},
        "log": [str(build / "logs" / "claims.log")],
    }


def _paper_job(build: Path) -> dict[str, Any]:
    """What the rule of the paper gives to its script."""
    supplement = [build / "figures" / f"{figure_name(number)}.pdf" for number in SUPPLEMENT]
    figure_set = [str(path) for path in sorted((build / "figure_set").iterdir())]
    sources = {
        "main": str(PAPER / "main.tex"),
        "references": str(PAPER / "refs.bib"),
        "figure_set": figure_set,
        "supplement": [str(path) for path in supplement if path.is_file()],
    }
    return {
        "rule": "paper",
        "input": sources,
        "params": {"build": str(build / "latex")},
        "output": {"pdf": str(build / "paper.pdf")},
        "log": [str(build / "logs" / "paper.log")],
    }


class _Named(SimpleNamespace):
    """What Snakemake gives to a script by name: attributes that can be listed too."""

    def items(self) -> Iterable[tuple[str, Any]]:
        return vars(self).items()

    def __getitem__(self, name: str) -> Any:
        return vars(self)[name]


def run_script(job: dict[str, Any]) -> None:
    """Run the script of a rule as Snakemake would, in this process, whose output then goes to the rule's log."""
    named = {key: _Named(**value) if isinstance(value, dict) else value for key, value in job.items()}
    script = SCRIPTS / f"{job.get('script', job['rule'])}.py"
    runpy.run_path(str(script), init_globals={"snakemake": SimpleNamespace(**named)})


def _figure_set(experiment: Experiment, build: Path, record: dict[str, Any]) -> None:
    paths = {kind: _present(build, table_paths(experiment, kind, chosen)) for kind, chosen in _NUMBERS.items()}
    claims = {name: str(build / "claims" / name) for name in CLAIMS}
    found, _ = numbers_of(
        claims=claims["claims.csv"],
        grades=claims["grades.csv"],
        **paths,
        layout=experiment.layout(),
        roles=experiment.roles(),
        # The record of the runs, not one of this checkout.
        provenance=lambda identities: record,
    )
    check_claims_tex(claims["claims.csv"], claims["claims.tex"])
    check_grades_tex(claims["grades.csv"], claims["grades.tex"])
    drawn = [build / "figures" / f"{figure_name(number)}.pdf" for number in FIGURES]
    figures = [str(path) for path in drawn if path.is_file()]
    target = build / "figure_set"
    texts = {
        name: f"{name.removesuffix('_tex')}.tex" for name in ("figures_tex", "numbers_tex", "claims_tex", "grades_tex")
    }
    write_figure_set(
        figures=figures,
        captions=[str(CAPTIONS / f"{name}.rst") for name in by_stem(figures, "figures")],
        claims_tex=claims["claims.tex"],
        grades_tex=claims["grades.tex"],
        numbers_tex=numbers_tex({**found, "figures": latex_integer(len(figures))}),
        provenance=record,
        pdfs=[str(target / Path(path).name) for path in figures],
        outputs={key: str(target / name) for key, name in {**texts, "manifest": "manifest.json"}.items()},
    )


def _copy(source: Path, target: Path) -> None:
    write_whole(target, source.read_bytes())


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 if a redrawn file differs from the published one."""
    parser = argparse.ArgumentParser(
        prog="python -m reproduction.publication.publish", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fill", help="fill paper/published from a finished run").add_argument("results", type=Path)
    commands.add_parser("redraw", help="draw it all again from its tables and compare")
    commands.add_parser("refresh", help="draw it all again and publish that")
    commands.add_parser("draft", help="figures and paper of the runs that are kept so far").add_argument("name")
    given = parser.parse_args(arguments)
    try:
        if given.command == "fill":
            print(f"{PUBLISHED}: {fill(given.results) / 1e6:.1f} MB")
            return 0
        if given.command == "draft":
            print(draft(given.name, processes=os.cpu_count() or 1))
            return 0
        if given.command == "refresh":
            print(f"{PUBLISHED}: {len(refresh(processes=os.cpu_count() or 1))} files changed")
            return 0
        changed = redraw(processes=os.cpu_count() or 1)
    except EigendriftError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{BUILD}: differs in {', '.join(changed)}" if changed else f"{BUILD}: every file as published, to the byte")
    return int(bool(changed))


if __name__ == "__main__":
    sys.exit(main())
