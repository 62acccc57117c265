"""Which files a script depends on, against the modules that Python really loads for it."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest
from experiments import SCRIPTS, python

from reproduction.experiment.figure_catalogue import FIGURES, SUPPLEMENT, drawn_by
from reproduction.jobs.checkout import ROOTS
from reproduction.jobs.dependencies import PLUMBING, is_plumbing, library_files, loaded_files

DRAWING = {"draw_figure": sorted(set(map(drawn_by, (*FIGURES, *SUPPLEMENT))))}
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py"))

# One process imports what all scripts share, then forks for each: starting torch forty times would take minutes.
LOADED = """
import ast, json, os, sys, warnings
warnings.simplefilter("ignore")
import numpy, pandas, scipy.ndimage, scipy.optimize, matplotlib.figure, safetensors.numpy
if "--torch" in sys.argv:
    import torch
found = {}
for script in [argument for argument in sys.argv[1:] if argument != "--torch"]:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        tree = ast.parse(open(script).read())
        body = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        exec(compile(ast.Module(body, []), script, "exec"), {})
        if script.endswith("draw_figure.py"):
            from importlib import import_module
            list(map(import_module, json.loads(os.environ["DRAWING"])))
        modules = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
        with os.fdopen(writer, "w") as pipe:
            json.dump(modules, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        found[script] = json.load(pipe)
    os.waitpid(child, 0)
print(json.dumps(found))
"""


@cache
def loaded() -> dict[str, dict[str, str | None]]:
    """script name -> modules that importing what it imports loads, with their files."""
    found: dict[str, dict[str, str | None]] = {}
    others = [name for name in NAMES if name not in DRAWING]
    for names, options in ((list(DRAWING), ()), (others, ("--torch",))):
        paths = [SCRIPTS / f"{name}.py" for name in names]
        done = python(LOADED, *options, *paths, DRAWING=json.dumps(DRAWING["draw_figure"]))
        assert done.returncode == 0, done.stderr
        found |= {Path(script).stem: modules for script, modules in json.loads(done.stdout).items()}
    return found


def own(name: str) -> set[str]:
    modules = loaded()[name]
    files = [file for module, file in modules.items() if module.split(".")[0] in ROOTS and file is not None]
    kept = {file for file in files if has_statements(file) and not is_plumbing(Path(file))}
    return kept - {str(ROOTS["eigendrift"] / "__init__.py")}


def files_of(name: str) -> list[str]:
    """What a rule has of a script among its inputs."""
    return library_files(SCRIPTS / f"{name}.py", *DRAWING.get(name, ()))


def has_statements(file: str) -> bool:
    """Whether there is more in a file than a docstring."""
    return any(not isinstance(node, ast.Expr) for node in ast.parse(Path(file).read_text()).body)


def test_there_is_a_script_for_every_rule() -> None:
    assert {"train", "eigensnapshot", "displacement", "ipr", "alignment", "baseline", "claims", "figure_set"} <= set(
        NAMES
    )
    assert len(DRAWING["draw_figure"]) > 8


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_a_script_loads_is_listed(name: str) -> None:
    listed = set(files_of(name))
    assert not own(name) - listed
    # What is listed and not loaded at once is imported within a function, or for type checkers.
    assert listed - own(name) <= lazily(name)


def lazily(name: str) -> set[str]:
    """Files that the modules of a script import elsewhere than at their top level, and what those import."""
    found: set[str] = set()
    for file in map(str, loaded_files(SCRIPTS / f"{name}.py", *DRAWING.get(name, ()))):
        tree = ast.parse(Path(file).read_text())
        nested = [
            node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)) and node not in tree.body
        ]
        for node in nested:
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                # A name may be a module of the package.
                names = [node.module or "", *(f"{node.module}.{name}" for name in names)]
            for module in names:
                package, *parts = module.split(".")
                path = ROOTS[package].joinpath(*parts).with_suffix(".py") if package in ROOTS and parts else Path()
                if path.is_file():
                    found |= {str(path), *library_files(path)}
    return found


@pytest.mark.parametrize("name", DRAWING)
def test_figures_never_import_torch(name: str) -> None:
    assert "torch" not in loaded()[name]
    assert "reproduction.figures.save" in loaded()[name]
    assert not {"mlp.py", "operator.py", "loop.py", "model.py"} & {Path(file).name for file in files_of(name)}


@pytest.mark.parametrize("name", ["displacement", "ipr", "alignment", "claims", "figure_set", "paper"])
def test_rules_that_read_tables_do_not_import_torch(name: str) -> None:
    """Their environment has none; here torch is loaded beforehand, so what counts is what their modules say."""
    for file in [SCRIPTS / f"{name}.py", *map(Path, library_files(SCRIPTS / f"{name}.py"))]:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert "torch" not in {module.split(".")[0] for module in names}, file


# The forms that an import can take


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import numpy, os\nfrom pathlib import Path\n", []),
        ("import eigendrift\n", []),
        ("import reproduction.seeds\n", ["seeds.py"]),
        ("import reproduction.seeds as e, os\n", ["seeds.py"]),
        ("from reproduction.seeds import stream_seed\n", ["seeds.py"]),
        ("from reproduction import latex, seeds as s\n", ["latex.py", "seeds.py"]),
        # What cannot change a number.
        ("from reproduction.errors import DataError\nfrom reproduction.jobs.lock import hold\n", []),
        ("def later():\n    from reproduction.experiment.schedule import lag_grid\n", ["schedule.py"]),
        ("if True:\n    import reproduction.experiment.schedule\n", ["schedule.py"]),
        ("if True: import reproduction.experiment.schedule\n", ["schedule.py"]),
        ("x = 1; import reproduction.seeds\n", ["seeds.py"]),
        ("import os; import reproduction.seeds\n", ["seeds.py"]),
        ("import os, \\\n    reproduction.seeds\n", ["seeds.py"]),
        ("from reproduction import \\\n    seeds\n", ["seeds.py"]),
        ("from reproduction import (\n    latex,  # of words (and more)\n    seeds,\n)\n", ["latex.py", "seeds.py"]),
        ("from reproduction import(seeds)\n", ["seeds.py"]),
        ("from reproduction import seeds  # import of words\n", ["seeds.py"]),
        # Words in texts and in names are no statements.
        ('"""To import it:\n\n>>> import reproduction.seeds\n"""\nimportlib = "import reproduction.latex"\n', []),
        ("# import reproduction.seeds\n", []),
        ("from reproduction.files.arrays import ArrayFile\n", ["arrays.py", "header.py"]),
        ("from reproduction.files.tables import read_table\n", ["header.py", "tables.py"]),
        ("from .errors import x\nfrom eigendrifting import errors\n", []),
    ],
)
def test_forms_of_imports(tmp_path: Path, source: str, expected: list[str]) -> None:
    script = tmp_path / "script.py"
    script.write_text(source)
    files = library_files(script)
    assert sorted(Path(file).name for file in files) == sorted(expected)
    assert all(Path(file).is_file() for file in files)


def test_a_subpackage_brings_its_init(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from reproduction.claims.quantities.registry import quantity\n")
    listed = library_files(script)
    assert listed == sorted(listed)
    root = ROOTS["reproduction"]
    files = [Path(file).relative_to(root).as_posix() for file in listed if Path(file).is_relative_to(root)]
    # One that has nothing but text brings nothing.
    assert "claims/quantities/__init__.py" in files
    assert "claims/__init__.py" not in files


def test_the_library_imports_itself_by_its_full_name() -> None:
    """Relative imports, and names that the package looks up itself, would be overlooked."""
    public = {"HessianOperator", "top_eigenpairs", "EigenPairs"}
    for file in [*ROOTS["eigendrift"].rglob("*.py"), *SCRIPTS.rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, file
                assert node.module != "eigendrift" or not public & {alias.name for alias in node.names}, file


def test_a_figure_depends_on_the_module_that_draws_it_and_on_no_other_figures() -> None:
    modules = {drawn_by(number) for number in (*FIGURES, *SUPPLEMENT)}
    drawing = {str(ROOTS["reproduction"].joinpath(*module.split(".")[1:]).with_suffix(".py")) for module in modules}
    assert not drawing & set(library_files(SCRIPTS / "draw_figure.py"))
    for number in (3, 5, "S2"):
        own = library_files(SCRIPTS / "draw_figure.py", drawn_by(number))
        assert [Path(file).stem for file in own if file in drawing] == [drawn_by(number).rpartition(".")[2]]
        assert not [file for file in own if file.endswith("figure_catalogue.py")]


def test_plumbing_is_there_and_computes_nothing() -> None:
    for name in PLUMBING:
        path = ROOTS["reproduction"] / name
        assert path.exists(), name
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            assert is_plumbing(file)
            assert not re.search(
                r"^\s*(import|from) (numpy|torch|pandas|scipy|eigendrift)\b", file.read_text(), re.M
            ), file
    assert not is_plumbing(ROOTS["eigendrift"] / "metrics.py")
    assert not is_plumbing(ROOTS["reproduction"] / "files" / "tables.py")
