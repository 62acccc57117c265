"""The Dockerfile and the Apptainer definition do the same, from files that are there; nothing here can build them."""

import re
import tomllib

import pytest
from experiments import REPOSITORY
from packaging.specifiers import SpecifierSet
from pages import read

RECIPES = {"Dockerfile": read("Dockerfile"), "eigendrift.def": read("eigendrift.def")}


def commands(name: str) -> list[str]:
    """What a recipe runs in the image, one command each, without continued lines and && between them."""
    text = re.sub(r"\\\n\s*", " ", RECIPES[name])
    if name == "Dockerfile":
        lines = [line.removeprefix("RUN ") for line in text.splitlines() if line.startswith("RUN ")]
    else:
        lines = text.partition("%post\n")[2].partition("\n\n")[0].splitlines()
    return [re.sub(r"\s+", " ", part).strip() for line in lines for part in line.split("&&")]


def base(name: str) -> str:
    return re.findall(r"^(?:FROM|From:) +(\S+)$", RECIPES[name], re.MULTILINE)[0]


def test_both_run_the_same_commands_on_the_same_base() -> None:
    assert commands("Dockerfile") == commands("eigendrift.def")
    assert len(commands("Dockerfile")) >= 6
    assert base("Dockerfile") == base("eigendrift.def")
    assert re.findall(r"XDG_CACHE_HOME=.*", RECIPES["Dockerfile"]) == re.findall(
        r"XDG_CACHE_HOME=.*", RECIPES["eigendrift.def"]
    )


@pytest.mark.parametrize("name", RECIPES)
def test_python_and_packages_are_those_of_the_project(name: str) -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    (version,) = re.findall(r"^python:([\d.]+)-", base(name))
    assert SpecifierSet(project["requires-python"]).contains(version)
    (installed,) = [line for line in commands(name) if "apt-get install" in line]
    packages = set(installed.partition("--no-install-recommends")[2].split()) - {"git"}
    in_ci = re.findall(r"packages=\((.*?)\)", read(".ci/run"), re.DOTALL)[0].split()
    assert {package for package in in_ci if "tex" in package or package == "lmodern"} == packages
    assert any(line.endswith("-r /opt/eigendrift/requirements.lock") for line in commands(name))


def test_what_is_copied_is_there_and_what_a_run_leaves_is_not_copied() -> None:
    for source in re.findall(r"^COPY (\S+) ", RECIPES["Dockerfile"], re.MULTILINE):
        assert (REPOSITORY / source).exists(), source
    left_out = {line.strip("/") for line in read(".dockerignore").splitlines()}
    assert {"results", "data", ".venv", "paper/generated"} <= left_out & {
        line.strip("/") for line in read(".gitignore").splitlines()
    }
