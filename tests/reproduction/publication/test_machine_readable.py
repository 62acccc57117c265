"""What machines read: current, valid by the reference validators, and true of the files that it names."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from experiments import REPOSITORY, SUPPORT
from pages import read, rows

import eigendrift
from reproduction.experiment.datasets import DATASETS
from reproduction.publication.machine_readable import CITATION, CRATE, CROISSANT, PUBLISHED, citation, records

PROFILE = "workflow-run-crate"


def loaded(name: str) -> Any:
    return json.loads((REPOSITORY / name).read_text(encoding="utf-8"))


def validated(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SUPPORT / "validate_crate.py"), str(folder), PROFILE]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", sorted(records()))
def test_what_is_committed_is_what_would_be_written(name: str) -> None:
    remedy = "python -m reproduction.publication.machine_readable writes it"
    assert (REPOSITORY / name).read_bytes() == records()[name], remedy


def test_the_crate_is_a_workflow_run_crate() -> None:
    done = validated(REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_validator_finds_a_crate_without_its_workflow(tmp_path: Path) -> None:
    crate = loaded(CRATE)
    for entity in crate["@graph"]:
        if entity["@id"] == "./":
            del entity["mainEntity"]
            entity["hasPart"] = [{"@id": "README.md"}]
    crate["@graph"] = [entity for entity in crate["@graph"] if not entity["@id"].startswith(PUBLISHED)]
    (tmp_path / CRATE).write_text(json.dumps(crate))
    shutil.copyfile(REPOSITORY / "README.md", tmp_path / "README.md")
    done = validated(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Workflow" in done.stdout


def test_the_crate_names_every_published_file_with_its_checksum() -> None:
    entities = {entity["@id"]: entity for entity in loaded(CRATE)["@graph"]}
    there = {path for path in (REPOSITORY / PUBLISHED).rglob("*") if path.is_file() and path.name != CROISSANT}
    assert len(there) > 100
    for path in there:
        entity = entities[path.relative_to(REPOSITORY).as_posix()]
        assert entity["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert entity["license"] == {"@id": "https://creativecommons.org/licenses/by/4.0/"}
    defined = set(entities)
    used = {found for entity in entities.values() for found in re.findall(r'"@id": "([^"]+)"', json.dumps(entity))}
    assert {name for name in used - defined if not name.startswith("https://")} == set()


def test_croissant_is_valid() -> None:
    path = REPOSITORY / PUBLISHED / CROISSANT
    done = subprocess.run([sys.executable, "-c", _VALIDATE, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[]"


_VALIDATE = """
import sys
import mlcroissant
print(list(mlcroissant.Dataset(jsonld=sys.argv[1]).metadata.ctx.issues.errors))
"""


def test_croissant_names_every_table() -> None:
    described = {entry["contentUrl"]: entry for entry in loaded(f"{PUBLISHED}/{CROISSANT}")["distribution"]}
    folder = REPOSITORY / PUBLISHED
    assert set(described) == {path.relative_to(folder).as_posix() for path in (folder / "tables").rglob("*.csv.gz")}
    for name, entry in described.items():
        assert entry["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    entry = described["tables/runs/MNIST/adam/main/seed0/ipr.csv.gz"]
    assert "eigenvalue (loss / parameter^2)" in entry["description"]


def test_the_version_is_the_same_everywhere() -> None:
    assert citation()["version"] == eigendrift.__version__
    assert loaded("codemeta.json")["version"] == loaded(".zenodo.json")["version"] == eigendrift.__version__
    project = (REPOSITORY / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in project
    assert 'version = {attr = "eigendrift.__version__"}' in project


def test_authors_are_those_of_the_citation() -> None:
    names = [author.get("name") for author in yaml.safe_load((REPOSITORY / CITATION).read_text())["authors"]]
    assert [author["name"] for author in loaded("codemeta.json")["author"]] == names
    assert [creator["name"] for creator in loaded(".zenodo.json")["creators"]] == names


def test_licences_are_named() -> None:
    assert "Creative Commons Attribution 4.0" in (REPOSITORY / "LICENSE-CC-BY-4.0.md").read_text()
    assert "MIT License" in (REPOSITORY / "LICENSE").read_text()
    page = read("docs/reproducibility.md").partition("### Data sets")[2].partition("\n## ")[0]
    assert {name for names, *_ in rows(page) for name in re.findall(r"\b[\w]+", names)} >= set(DATASETS)
