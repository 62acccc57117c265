"""What is published of a finished run."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TinyRun
from experiments import FIGURE_NAMES
from snakemake_process import ROOT, environment


def call(folder: Path, *arguments: str, **extra: str) -> "subprocess.CompletedProcess[str]":
    """python -m reproduction.publication.publish in a checkout, with that checkout's library."""
    paths = [str(folder / "workflow" / "scripts"), str(folder / "src")]
    paths += [extra.pop("before")] if "before" in extra else []
    surroundings = environment(PYTHONPATH=os.pathsep.join(reversed(paths)), **extra)
    return subprocess.run(
        [sys.executable, "-m", "reproduction.publication.publish", *arguments],
        cwd=folder,
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def published(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose paper/published is filled from the tiny run, and which has no results."""
    folder = shutil.copytree(tiny_run.folder, tmp_path_factory.mktemp("published") / "checkout", symlinks=True)
    done = call(folder, "fill", "results/tiny")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder / "results")
    return folder


def test_what_is_published(published: Path, tiny_run: TinyRun) -> None:
    folder = published / "paper" / "published"
    # The paper shows figure S4 too.
    names = [*FIGURE_NAMES, *(["figS4"] if tiny_run.has_paper else [])]
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{n}.{k}" for n in names for k in ("pdf", "png", "csv.gz")
    }
    claims = {f"claims.{kind}" for kind in ("csv", "md", "tex")} | {f"grades.{kind}" for kind in ("csv", "tex")}
    assert {path.name for path in (folder / "claims").iterdir()} == claims
    for path in (folder / "tables").rglob("*.gz"):
        original = tiny_run.results / path.relative_to(folder / "tables").with_suffix("")
        assert gzip.decompress(path.read_bytes()) == original.read_bytes()
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert {"config", "versions", "device", "threads", "commit", "comparable", "hours"} == set(provenance)
    assert list(provenance["config"]["optimizers"]) == ["sgd", "adam", "sam"]
    assert {"train", "eigensnapshot", "baseline", "fig01", "claims"} <= set(provenance["hours"])
    assert (folder / "paper.pdf").is_file() == tiny_run.has_paper


def test_a_set_that_cannot_be_filled_leaves_the_one_before(published: Path, tiny_run: TinyRun, tmp_path: Path) -> None:
    folder = shutil.copytree(published, tmp_path / "checkout", symlinks=True)
    before = {path: path.read_bytes() for path in (folder / "paper" / "published").rglob("*") if path.is_file()}
    results = shutil.copytree(tiny_run.results, tmp_path / "results")
    (results / "baseline" / "digits_noisy.csv").unlink()
    assert call(folder, "fill", str(results)).returncode != 0
    assert {path: path.read_bytes() for path in (folder / "paper" / "published").rglob("*") if path.is_file()} == before


def test_nothing_published_is_one_line(published: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(published, tmp_path / "checkout", symlinks=True)
    shutil.rmtree(folder / "paper" / "published")
    done = call(folder, "redraw")
    assert done.returncode == 1
    assert "provenance.json: " in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unfinished_run_is_refused_in_one_line(tmp_path: Path) -> None:
    done = call(ROOT, "fill", str(tmp_path))
    assert done.returncode == 1
    assert "run to its end first" in done.stderr
    assert len(done.stderr.splitlines()) == 1
