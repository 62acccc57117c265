"""What has to be installed: pyproject.toml, the lock file, the conda environments and the imports agree."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from experiments import REPOSITORY, SCRIPTS
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from reproduction.experiment.datasets import loader_modules
from reproduction.experiment.figure_catalogue import FIGURES, SUPPLEMENT, drawn_by
from reproduction.jobs.checkout import ROOTS
from reproduction.jobs.dependencies import loaded_files

PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
ENVIRONMENTS = sorted((REPOSITORY / "envs").glob("*.yaml"))
LOCK = REPOSITORY / "requirements.lock"
# Where conda, pip and Python call a package by different names.
CONDA_TO_PIP = {"pytorch": "torch"}
MODULE_TO_PIP = {"sklearn": "scikit-learn", "yaml": "pyyaml"}
NOT_OF_PYTHON = {"python", "texlive-core", "latexmk"}


def requirements(lines: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


PINS = requirements(PROJECT["dependencies"])
EXTRAS = {name: requirements(lines) for name, lines in PROJECT["optional-dependencies"].items()}
# What the scripts of the workflow import: the library's, those of the reproduction, and what makes training faster.
SCRIPTS_NEED = PINS | EXTRAS["reproduction"] | EXTRAS["fast"]


def environment(path: Path) -> dict[str, Requirement]:
    """The packages of a conda environment, by their names on PyPI where they have one."""
    loaded = yaml.safe_load(path.read_text())
    assert set(loaded) == {"channels", "dependencies"}
    assert loaded["channels"] == ["conda-forge", "nodefaults"]
    found = requirements(loaded["dependencies"])
    return {CONDA_TO_PIP.get(name, name): requirement for name, requirement in found.items()}


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_conda_environments_have_the_pins_of_the_package(path: Path) -> None:
    packages = environment(path)
    assert packages["python"].specifier == SpecifierSet(PROJECT["requires-python"])
    versions = locked()
    for name, requirement in packages.items():
        if name not in NOT_OF_PYTHON:
            # From the oldest version that is supported to the end of the major version that is tested.
            bound = f"<{versions[name].major + 1}"
            assert requirement.specifier == SCRIPTS_NEED[name].specifier & SpecifierSet(bound), name
            assert requirement.url is None


def test_there_is_an_environment_for_each_kind_of_rule() -> None:
    assert [path.stem for path in ENVIRONMENTS] == ["analysis", "latex", "torch"]
    assert not {"torch", "torchvision"} & set(environment(REPOSITORY / "envs" / "analysis.yaml"))
    assert "texlive-core" in environment(REPOSITORY / "envs" / "latex.yaml")


def rules() -> dict[str, str]:
    """script -> conda environment, as the rules say."""
    found = {}
    for path in sorted((REPOSITORY / "workflow" / "rules").glob("*.smk")):
        pattern = r'conda:\s+"\.\./\.\./envs/(\w+)\.yaml"(?:(?!conda:).)*?"\.\./scripts/([^"]+)\.py"'
        for environment_name, script in re.findall(pattern, path.read_text(), re.DOTALL):
            found[script] = environment_name
    return found


RULES = rules()


def test_every_script_belongs_to_a_rule() -> None:
    assert set(RULES) == {path.stem for path in SCRIPTS.glob("*.py")}


def third_party(script: str) -> set[str]:
    """Packages from elsewhere that a script imports, itself or through ours, for running it."""
    by_name = {
        "draw_figure": sorted(set(map(drawn_by, (*FIGURES, *SUPPLEMENT)))),
        "prepare_data": loader_modules(),
    }
    path = SCRIPTS / f"{script}.py"
    return imported([path, *loaded_files(path, *by_name.get(script, []))])


def imported(files: Iterable[str | Path]) -> set[str]:
    """Packages from elsewhere that files import."""
    found: set[str] = set()
    for file in files:
        tree = ast.parse(Path(file).read_text())
        typing_only = [
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        ]
        for node in ast.walk(tree):
            if node in typing_only:
                continue
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").split(".")[0])
    return {
        MODULE_TO_PIP.get(name, name)
        for name in found - set(sys.stdlib_module_names) - {"eigendrift", "reproduction", ""}
    }


@pytest.mark.parametrize("script", sorted(RULES))
def test_a_rules_environment_has_what_its_script_imports(script: str) -> None:
    packages = environment(REPOSITORY / "envs" / f"{RULES[script]}.yaml")
    missing = third_party(script) - set(packages)
    assert not missing
    if script in ("train", "draw_figure"):
        assert third_party(script) >= {"numpy", "pandas"}


def test_the_package_declares_what_its_modules_import() -> None:
    optional = EXTRAS["tracking"] | EXTRAS["integrations"]
    assert imported(ROOTS["eigendrift"].rglob("*.py")) == set(PINS | optional)
    # Snakemake starts the scripts, and is no part of their environments.
    assert imported(ROOTS["reproduction"].rglob("*.py")) - {"snakemake"} == set(SCRIPTS_NEED)


def test_a_wheel_holds_the_library_and_nothing_else() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings == {
        "packages": {"find": {"where": ["src"]}},
        "dynamic": {"version": {"attr": "eigendrift.__version__"}},
        "package-data": {"eigendrift": ["py.typed"]},
    }
    packages = {path.parent.relative_to(REPOSITORY / "src").parts[0] for path in (REPOSITORY / "src").rglob("*.py")}
    assert packages == {"eigendrift"}
    # Every folder with modules is a package, which setuptools would leave out otherwise.
    assert all((path.parent / "__init__.py").is_file() for path in ROOTS["eigendrift"].rglob("*.py"))


# The lock file


def locked() -> dict[str, Version]:
    found: dict[str, Version] = {}
    for line in LOCK.read_text().splitlines():
        name, _, pinned = line.partition("==")
        assert canonicalize_name(name) not in found, f"{name} twice"
        found[canonicalize_name(name)] = Version(pinned)
    return found


def test_the_lock_file_holds_names_and_versions_and_nothing_else() -> None:
    lines = LOCK.read_text().splitlines()
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.+!]*", line), line
    assert len(locked()) == len(lines) > 50


def test_no_locked_version_belongs_to_one_machine() -> None:
    assert not [name for name, pinned in locked().items() if pinned.local is not None]


# The libraries that the benchmark compares with are no part of the environment; make benchmark adds them.
LOCKED = ["dependencies", *sorted(set(EXTRAS) - {"benchmark"})]


@pytest.mark.parametrize("group", LOCKED)
def test_locked_versions_satisfy_the_pins(group: str) -> None:
    wanted, versions = PINS if group == "dependencies" else EXTRAS[group], locked()
    for name, requirement in wanted.items():
        if name != "eigendrift":
            assert requirement.specifier.contains(versions[name], prereleases=True), name


def test_the_lock_file_does_not_install_the_package_itself() -> None:
    assert "eigendrift" not in locked()
    assert "pip" not in locked()


def test_make_refuses_an_old_python_before_it_makes_anything(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    old = tmp_path / "python3.9"
    # As an old Python, or none, answers the question whether it is new enough.
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.18\n[ "$1" = --version ]\n')
    old.chmod(0o755)
    # Under `make test` a make that it starts would say which folder it enters.
    command = ["make", "--no-print-directory", "demo", f"PYTHON={old}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stdout.splitlines()
    assert "3.9.18" in line
    assert SpecifierSet(PROJECT["requires-python"]) == SpecifierSet(
        f">={re.search(r'Python ([0-9.]+) or later', line)[1]}"
    )  # type: ignore[index]
    assert not (tmp_path / ".venv").exists()
