"""What a result was made with: the commit of the checkout, versions, and where each run was trained."""

import json
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

from reproduction.jobs import provenance


def git(folder: Path, *arguments: str) -> str:
    identity = {f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env={**os.environ, **identity},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in which the module's file is committed."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "provenance.py").write_text("")
    git(folder, "init", "--quiet")
    git(folder, "add", "provenance.py")
    git(folder, "commit", "--quiet", "--message", "first")
    monkeypatch.setattr(provenance, "__file__", str(folder / "provenance.py"))
    return folder


def test_the_commit_of_a_clean_checkout(checkout: Path) -> None:
    assert provenance.commit() == git(checkout, "rev-parse", "HEAD")
    assert len(provenance.commit()) == 40
    # Results and other files that git does not track are no change of the code.
    (checkout / "results").write_text("")
    assert provenance.commit() == git(checkout, "rev-parse", "HEAD")


def test_a_change_makes_it_dirty(checkout: Path) -> None:
    (checkout / "provenance.py").write_text("changed")
    assert provenance.commit() == git(checkout, "rev-parse", "HEAD") + "-dirty"
    git(checkout, "add", "provenance.py")
    assert provenance.commit().endswith("-dirty")


def test_outside_a_checkout_it_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert provenance.commit() == "unknown"


def test_an_installed_copy_does_not_take_the_commit_of_what_it_lies_in(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = checkout / "site-packages" / "eigendrift" / "provenance.py"
    copy.parent.mkdir(parents=True)
    copy.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(copy))
    assert provenance.commit() == "unknown"


def test_without_git_it_is_unknown(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("git") is None
    assert provenance.commit() == "unknown"


def test_versions_are_those_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = provenance.package_versions()
    assert found["python"] == platform.python_version()
    for name in ("numpy", "scipy", "pandas", "matplotlib", "safetensors", "scikit-learn"):
        assert found[name] == version(name)
    assert set(found) <= {"python", *provenance.PACKAGES}

    def missing(name: str) -> str:
        if name == "snakemake":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(provenance, "version", missing)
    assert provenance.package_versions()["numpy"] == "1.0"
    assert "snakemake" not in provenance.package_versions()


def test_a_record_says_where_every_run_was_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "commit", lambda: "abc")
    identities: list[dict[str, Any]] = [
        {"seed": 0, "device": "cpu", "torch": "2.12", "numba": "0.68", "threads": 1},
        {"seed": 1, "device": "NVIDIA H200", "torch": "2.12", "threads": 2},
        {"seed": 2, "device": "cpu", "torch": "2.11", "threads": 1},
        {"seed": 3},
    ]
    config = {"name": "demo", "optimizers": {"sgd": {"lr": 0.1}}}
    record = provenance.provenance(config, iter(identities))
    assert record["config"] == config
    assert record["device"] == "NVIDIA H200, cpu, unknown"
    assert record["threads"] == "1, 2, unknown"
    assert record["commit"] == "abc"
    assert record["comparable"]["bytes"] == "results of the same config, commit, versions, device and threads"
    assert {"history", "ipr", "alignment", "displacement"} == set(record["comparable"]["tables"]["tolerances"])
    assert record["versions"] == {
        **provenance.package_versions(),
        "torch": "2.11, 2.12, unknown",
        "numba": "0.68, unknown",
    }
    assert json.loads(json.dumps(record)) == record
    # The same runs in another order make the same record.
    assert provenance.provenance(config, reversed(identities)) == record
