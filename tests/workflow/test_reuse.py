"""The workflow outside its checkout: in another folder, as a module, from git; as docs/reuse.md shows it."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from experiments import REPOSITORY
from pages import marked, read
from snakemake_process import copy_checkout, run_snakemake

PAGE = read("docs/reuse.md")


def example(name: str) -> str:
    """The code of an example of the page."""
    return marked(PAGE, name).strip().removeprefix("```python").removeprefix("```yaml").removesuffix("```")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout somewhere, committed to git."""
    folder = copy_checkout(tmp_path_factory.mktemp("source") / "eigendrift")
    for command in (
        ["init", "--quiet"],
        ["add", "--all"],
        ["-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "-m", "All"],
        ["tag", "v0.1.0"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@pytest.fixture
def study(tmp_path: Path, source: Path) -> Path:
    """An empty folder of a user; what is done there leaves the checkout as it is."""
    folder = tmp_path / "study"
    folder.mkdir()
    return folder


def unchanged(source: Path) -> bool:
    found = subprocess.run(["git", "status", "--porcelain"], cwd=source, capture_output=True, text=True, check=True)
    return not found.stdout and not (source / ".snakemake").exists()


def planned(output: str) -> set[str]:
    """The rules of a dry run's table of jobs."""
    return set(re.findall(r"^(\w+) +\d+$", output, re.MULTILINE)) - {"total"}


def test_a_folder_of_ones_own_with_an_overlay(study: Path, source: Path) -> None:
    (study / "mine.yaml").write_text(example("overlay"))
    done = run_snakemake(study, "-s", f"{source}/Snakefile", "-n", "fig03", "--configfile", "mine.yaml")
    assert "results/mine/figures/fig03.pdf" in done.output
    assert {"prepare_data", "train", "eigensnapshot", "ipr", "fig03"} == planned(done.output)
    # Without a target it is everything, though the root's Snakefile only includes the workflow's.
    done = run_snakemake(study, "-s", f"{source}/Snakefile", "-n", "--configfile", "mine.yaml")
    assert {"train", "fig01", "fig21", "claims", "figure_set", "all"} <= planned(done.output)
    assert unchanged(source)


def test_a_configuration_in_the_working_directory_comes_in_place_of_the_demos(study: Path, source: Path) -> None:
    config = yaml.safe_load((source / "config.yaml").read_text())
    (study / "config.yaml").write_text(yaml.safe_dump({**config, "name": "own"}))
    done = run_snakemake(source, "--directory", str(study), "-n", "fig04")
    assert "results/own/figures/fig04.pdf" in done.output
    (study / "config.yaml").write_text("name: own\n")
    done = run_snakemake(source, "--directory", str(study), "-n", "fig04", check=False)
    assert done.status != 0
    assert "datasets: missing" in done.output


def test_a_module_with_a_configuration_of_its_own(study: Path, source: Path) -> None:
    (study / "Snakefile").write_text(example("module").replace("/path/to/eigendrift", str(source)))
    (study / "mine.yaml").write_text(example("overlay"))
    done = run_snakemake(study, "-n", "--cores", "1")
    assert "results/mine/figure_set/figures.tex" in done.output
    assert {"train", "fig01", "fig21", "claims", "figure_set", "all"} <= planned(done.output)
    assert unchanged(source)


def test_two_modules_side_by_side(study: Path, source: Path) -> None:
    (study / "Snakefile").write_text(example("two modules").replace("/path/to/eigendrift", str(source)))
    done = run_snakemake(study, "-n", "--cores", "1")
    assert {"shallow_train", "deep_train", "shallow_figure_set", "deep_figure_set", "both"} <= planned(done.output)
    assert "results/deep/figures/fig01.pdf" in done.output


def test_a_module_from_git_runs(study: Path, source: Path, tmp_path: Path) -> None:
    """What snakedeploy writes, with a host that git finds on this machine; two jobs of the tiny experiment are run."""
    (tmp_path / "gitconfig").write_text(
        f'[url "file://{source}"]\n  insteadOf = https://github.com/owner/eigendrift\n'
        '[safe]\n  directory = *\n[protocol "file"]\n  allow = always\n'
    )
    elsewhere = {"GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    (study / "config").mkdir()
    (study / "config" / "config.yaml").write_text((source / "config" / "config.yaml").read_text())
    (study / "Snakefile").write_text(example("from git"))
    made = "results/tiny/runs/digits/sgd/main/seed0/history.csv"
    tiny = str(source / "tests" / "tiny.yaml")
    run_snakemake(study, "--cores", "1", "--configfile", tiny, "--", made, **elsewhere)
    assert (study / made).is_file()
    # No other copy of the reproduction is on the way of these processes, so the scripts found this one.
    (clone,) = (study / ".snakemake" / "eigendrift").iterdir()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=source, capture_output=True, text=True, check=True)
    assert clone.name == head.stdout.strip()
    assert unchanged(source)


def test_the_catalogue_finds_what_it_looks_for() -> None:
    described = yaml.safe_load(read(".snakemake-workflow-catalog.yml"))
    assert set(described) == {"usage"}
    assert described["usage"]["software-stack-deployment"]["conda"] is True
    for name in ("workflow/Snakefile", "config/README.md", "config/config.yaml", "README.md", "LICENSE"):
        assert (REPOSITORY / name).is_file(), name
    assert (REPOSITORY / "config" / "config.yaml").read_bytes() == (REPOSITORY / "config.yaml").read_bytes()


def test_the_oldest_snakemake_is_the_one_that_is_required() -> None:
    (wanted,) = re.findall(r'^min_version\("([\d.]+)"\)$', read("workflow/Snakefile"), re.MULTILINE)
    assert f'"snakemake>={wanted}"' in read("pyproject.toml")
