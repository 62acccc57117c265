"""What the tests of the whole workflow share. They work in copies: nobody's results are touched."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from snakemake_process import ROOT, TINY, Finished, copy_checkout, run_snakemake

# A test that cannot do its work is skipped on a user's machine; in CI it fails.
IN_CI = bool(os.environ.get("CI"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of torch: for small tensors, threads that wait for each other are slower on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training by torch's operators alone, as on a GPU, on several threads, or without numba."""
    from reproduction.training import batches, mlp_gradient, optimizers

    for module in (batches, mlp_gradient, optimizers):
        monkeypatch.setattr(module, "compiled", lambda like: None)


@pytest.fixture(params=["loops", "operators"])
def either_way(request: pytest.FixtureRequest, one_thread: None) -> str:
    """Training by the compiled loops, and by torch's operators alone."""
    if request.param == "operators":
        request.getfixturevalue("no_loops")
    return str(request.param)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="module")
def clean_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository without results, for tests that only plan."""
    return copy_checkout(tmp_path_factory.mktemp("clean") / "checkout")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the repository without results, for tests that change it."""
    return copy_checkout(tmp_path / "checkout")


@dataclass(frozen=True)
class TinyRun:
    """The tiny workflow, run from end to end: where, what Snakemake said, whether TeX was there."""

    folder: Path
    finished: Finished
    has_paper: bool

    @property
    def results(self) -> Path:
        """Its results/tiny."""
        return self.folder / "results" / "tiny"


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """The whole tiny workflow, made once in a copy of the repository; tests leave it as it is."""
    has_tex = all(map(shutil.which, ("latexmk", "pdflatex")))
    if IN_CI and not has_tex:
        pytest.fail("latexmk or pdflatex is missing")
    # Processes that run tests side by side share one run: the first that asks makes it, the others wait.
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, record = base / "tiny" / "checkout", base / "tiny.json"
    with FileLock(base / "tiny.lock"):
        if not record.exists():
            copy_checkout(folder)
            made = run_snakemake(folder, "--cores", "2", *TINY, "--", "all", *(["paper"] if has_tex else []))
            record.write_text(json.dumps(dataclasses.asdict(made)), encoding="utf-8")
    return TinyRun(folder, Finished(**json.loads(record.read_text(encoding="utf-8"))), has_tex)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first, so that processes that share the files end together."""
    items.sort(key=lambda item: "system" not in item.path.parts)


@pytest.fixture
def finished_checkout(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """A copy of the repository with the finished tiny run, times included, for tests that change it."""
    return shutil.copytree(tiny_run.folder, tmp_path / "checkout", symlinks=True)


@pytest.fixture
def overlay(tmp_path: Path) -> Callable[[str], str]:
    """Write an overlay of the configuration and give its path."""

    def write(text: str) -> str:
        path = tmp_path / f"overlay{len(list(tmp_path.glob('overlay*')))}.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write
