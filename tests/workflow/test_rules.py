"""The form of the workflow: style, what every rule declares, the drawn graph of rules."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from experiments import FIGURE_NAMES, RUN_RULES, SUPPLEMENT_NAMES, SUPPORT, script_of
from snakemake_process import environment, run_snakemake

from reproduction.experiment.figure_catalogue import FIGURES, SUPPLEMENT, entry, figure_name
from reproduction.jobs.checkout import ROOTS
from reproduction.jobs.dependencies import is_plumbing

TARGETS = {"all", "supplement"}
COMPUTING = ["prepare_data", *RUN_RULES, "baseline", "variant_baseline", "interpolation", "permuted"]
ENDS = ["claims", "figure_set", "paper", "plan"]
USES_GPU = {"train", "eigensnapshot", "baseline", "variant_baseline", "interpolation", "permuted"}
IMPORTS_TORCH = {*USES_GPU, "prepare_data", "plan"}
ORDER = ["name", "input", "output", "log", "priority", "conda", "threads", "resources", "params", "script"]


@pytest.fixture(scope="module")
def rules(clean_checkout: Path) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "describe_rules.py")],
        cwd=clean_checkout,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    described: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return described


def test_lint_finds_nothing(clean_checkout: Path) -> None:
    finished = run_snakemake(clean_checkout, "--lint")
    assert "your workflow is in a good condition" in finished.output


def test_snakefmt_would_change_nothing(root: Path) -> None:
    snakefmt = shutil.which("snakefmt", path=f"{Path(sys.executable).parent}:{environment()['PATH']}")
    assert snakefmt, "snakefmt is not installed"
    done = subprocess.run(
        [snakefmt, "--check", "Snakefile", "workflow"], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_the_rules_are_those_of_the_design(rules: dict[str, dict[str, Any]]) -> None:
    assert sorted(rules) == sorted([*COMPUTING, *FIGURE_NAMES, *SUPPLEMENT_NAMES, *ENDS, *TARGETS])


def test_every_rule_says_what_it_makes(rules: dict[str, dict[str, Any]]) -> None:
    said = {name: rule["docstring"] for name, rule in rules.items()}
    assert all(said.values()), said
    assert len(set(said.values())) == len(said)
    for number in (*FIGURES, *SUPPLEMENT):
        assert entry(number)["title"] in said[figure_name(number)]


def test_every_rule_is_a_script_of_its_own_name_with_environment_and_log(
    rules: dict[str, dict[str, Any]], root: Path
) -> None:
    for name, rule in rules.items():
        if name in TARGETS:
            continue
        script = script_of(name).stem
        assert rule["script"] == f"../scripts/{script}.py", name
        assert (root / "workflow" / "scripts" / f"{script}.py").is_file(), name
        assert rule["shell"] is None, name
        assert len(rule["log"]) == 1, name
        assert re.fullmatch(rf"results/demo/logs/{name}(/.*)?\.log", rule["log"][0]), f"{name}: {rule['log'][0]}"
        environment_file = root / "workflow" / "rules" / rule["conda_env"]
        assert environment_file.resolve().is_relative_to(root / "envs"), name
        assert environment_file.is_file(), name
        assert ("torch" in environment_file.name) == (name in IMPORTS_TORCH), name


def test_every_rule_declares_memory_and_time_and_only_torch_rules_a_gpu(rules: dict[str, dict[str, Any]]) -> None:
    for name, rule in rules.items():
        if name not in TARGETS:
            assert {"mem_mb", "runtime"} <= set(rule["resources"]), name
        assert ("gpu" in rule["resources"]) == (name in USES_GPU), name


def test_every_rule_depends_on_the_library_files_that_its_script_loads(
    rules: dict[str, dict[str, Any]], clean_checkout: Path
) -> None:
    # What a script loads is asked from Python itself, apart from the reader of source files that the rules use.
    program = (
        "import ast, runpy, sys\n"
        "sys.path[:0] = ['src', 'workflow/scripts']\n"
        "tree = ast.parse(open(sys.argv[1]).read())\n"
        "for node in tree.body:\n"
        "    if isinstance(node, (ast.Import, ast.ImportFrom)):\n"
        "        exec(compile(ast.Module([node], []), sys.argv[1], 'exec'))\n"
        "for name, module in sorted(sys.modules.items()):\n"
        "    if name.startswith(('eigendrift.', 'reproduction.')) and 'def ' in open(module.__file__).read():\n"
        "        print(module.__file__)\n"
    )
    for name in ("train", "permuted", "displacement", "fig12", "figS1", "claims", "figure_set"):
        script = f"workflow/scripts/{script_of(name).name}"
        done = subprocess.run(
            [sys.executable, "-c", program, script],
            cwd=clean_checkout,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        found = [Path(line).relative_to(clean_checkout) for line in done.stdout.splitlines()]
        loaded = {str(path) for path in found if not is_plumbing(ROOTS["reproduction"].parents[2] / path)}
        assert loaded, name
        assert loaded <= set(rules[name]["modules"]), name
        assert all(not Path(path).is_absolute() for path in rules[name]["modules"]), name


def test_scripts_that_are_not_given_torch_do_not_import_it(rules: dict[str, dict[str, Any]], root: Path) -> None:
    for name in set(rules) - IMPORTS_TORCH - TARGETS:
        for path in (f"workflow/scripts/{script_of(name).name}", *rules[name]["modules"]):
            source = (root / path).read_text(encoding="utf-8")
            assert not re.search(r"^\s*(import|from) torch\b", source, re.MULTILINE), f"{name}: {path}"


def test_directives_stand_in_one_order(root: Path) -> None:
    for path in sorted((root / "workflow" / "rules").glob("*.smk")):
        text = path.read_text(encoding="utf-8")
        for block in re.split(r"^ *rule\b.*\n", text, flags=re.MULTILINE)[1:]:
            # A directive is indented once more than its rule, which itself may stand in a loop.
            depth = min(len(found) for found in re.findall(r"^( +)\w+:", block, re.MULTILINE))
            directives = re.findall(rf"^ {{{depth}}}(\w+):", block, re.MULTILINE)
            assert directives == sorted(directives, key=ORDER.index), f"{path.name}: {directives}"
            optional = {"name", "params", "priority", *(["output"] if path.name == "plan.smk" else [])}
            assert set(ORDER) - optional <= set(directives), f"{path.name}: {directives}"


def test_rule_files_say_what_they_need_and_leave(root: Path) -> None:
    for path in (root / "workflow" / "rules").glob("*.smk"):
        if path.name != "common.smk":
            text = path.read_text(encoding="utf-8")
            assert text.startswith("# "), path.name


def edges(dot: str) -> set[tuple[str, str]]:
    """Edges of a graph in DOT by the labels of their ends: numbers, colours and order differ from call to call."""
    labels = dict(re.findall(r'^\s*(\d+)\[label = "(\w+)"', dot, re.MULTILINE))
    return {(labels[a], labels[b]) for a, b in re.findall(r"^\s*(\d+) -> (\d+)", dot, re.MULTILINE)}


def test_the_drawn_graph_of_rules_is_the_workflows(clean_checkout: Path, root: Path) -> None:
    now = edges(run_snakemake(clean_checkout, "--rulegraph").stdout)
    assert ("train", "eigensnapshot") in now
    assert edges((root / "docs" / "rulegraph.dot").read_text(encoding="utf-8")) == now
    drawn = (root / "docs" / "rulegraph.svg").read_text(encoding="utf-8")
    assert set(re.findall(r"<text[^>]*>(\w+)</text>", drawn)) == {end for edge in now for end in edge}
