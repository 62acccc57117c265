"""Nothing is unpickled: a file can hold wrong numbers, and never code that runs when it is read."""

import ast
import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments import REPOSITORY, SCRIPTS

from reproduction.errors import DamagedFileError
from reproduction.files.arrays import ArrayFile
from reproduction.files.checkpoint import Scratch
from reproduction.files.tables import read_table

UNPICKLING = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
READERS = {"read_pickle", "unsafe_load", "full_load", "UnsafeLoader", "FullLoader", "unsafe_load_all"}
SOURCES = sorted([*SCRIPTS.rglob("*.py"), *(REPOSITORY / "benchmarks").rglob("*.py")])


def offences(tree: ast.AST) -> Iterator[str]:
    """What in a module can unpickle, or build objects from YAML."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in UNPICKLING)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in UNPICKLING:
            yield str(node.module)
        elif isinstance(node, ast.Attribute) and node.attr in READERS:
            yield node.attr
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            options = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if options.get("allow_pickle", "False") != "False":
                yield f"{called}(allow_pickle)"
            if called == "torch.load" and options.get("weights_only") != "True":
                yield "torch.load without weights_only=True"
            if called == "yaml.load":
                yield called


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_module_can_unpickle(path: Path) -> None:
    assert list(offences(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "import pandas as pd\npd.read_pickle('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "import yaml\nyaml.load('x', yaml.Loader)",
    ],
)
def test_one_that_could_is_found(code: str) -> None:
    assert list(offences(ast.parse(code)))


class Bomb:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (Path.touch, (Path(Bomb.mark),))  # type: ignore[return-value]

    mark = ""


def test_a_pickle_in_the_place_of_each_file_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bomb, "mark", str(tmp_path / "exploded"))
    numpys, torchs, bare = io.BytesIO(), io.BytesIO(), pickle.dumps(Bomb())
    np.save(numpys, np.array([Bomb()], dtype=object), allow_pickle=True)
    torch.save(Bomb(), torchs)
    for content in (bare, numpys.getvalue(), torchs.getvalue()):
        path = tmp_path / "file"
        path.write_bytes(content)
        with pytest.raises(DamagedFileError):
            ArrayFile(path, kind="trajectory")
        with pytest.raises(DamagedFileError):
            read_table(path, kind="ipr")
        scratch = Scratch(tmp_path, "job", {})
        scratch.path("rows.npy").write_bytes(content)
        scratch.path("checkpoint.pt").write_bytes(content)
        assert not scratch.array("rows", (2, 2)).any()
        assert scratch.read("checkpoint.pt") is None
    assert not (tmp_path / "exploded").exists()
    # The bomb is one.
    pickle.loads(bare)
    assert (tmp_path / "exploded").exists()
