"""What was asked for beside what was measured, and the page that shows it."""

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from benchmarks.problem import HOME
from benchmarks.results import arguments, markdown, read, write

Tables = dict[str, pd.DataFrame]
TIMES = HOME.parent / "docs" / "performance.md"
NAMES = {"adam": "Adam", "sgd": "SGD", "sam": "SAM"}
BASE, CURVLINOPS, OURS = "eigsh, double backward", "curvlinops, eigsh", "eigendrift"


def _of(table: pd.DataFrame, column: str, **where: str) -> float:
    for name, value in where.items():
        table = table[table[name] == value]
    return float(table[column].iloc[0]) if len(table) and column in table else float("nan")


def _least(table: pd.DataFrame, column: str, **where: str) -> float:
    for name, value in where.items():
        table = table[table[name] == value]
    return float(table[column].min())


def _isolated(tables: Tables) -> pd.DataFrame:
    pairs = tables["solvers_pairs"]
    return pairs[(pairs["method"] == OURS) & (pairs["cluster"] == 1)]


def _clustered(tables: Tables) -> pd.DataFrame:
    pairs = tables["clusters"]
    return pairs[pairs["cluster"] > 1]


def _worst_step(tables: Tables) -> float:
    table = tables["training"]
    return float(table[table["loop"] == OURS]["of_matrix_products"].max())


def _block(tables: Tables) -> float:
    table = tables["product"].dropna(subset=["seconds_of_single_ones"])
    blocks = table[table["task"] != "H V, b = 1"]
    return float((blocks["seconds"] / blocks["seconds_of_single_ones"]).max())


# Requirement, table, what to take from it, comparison, target.
REQUIREMENTS: tuple[tuple[str, str, Callable[[Tables], float], str, float], ...] = (
    ("mean time of eigsh on double backward / ours", "solvers",
     lambda t: _of(t["solvers"], "ratio_of_means", method=BASE), ">=", 8),
    ("the same with the graph of the gradient kept", "solvers",
     lambda t: _of(t["solvers"], "ratio_of_means", method=f"{BASE}, graph kept"), ">=", float("nan")),
    ("mean time of curvlinops with eigsh / ours", "solvers",
     lambda t: _of(t["solvers"], "ratio_of_means", method=CURVLINOPS), ">=", 10),
    ("smallest such ratio at any snapshot, eigsh on double backward", "solvers",
     lambda t: _of(t["solvers"], "worst_ratio", method=BASE), ">=", 1),
    ("smallest such ratio at any snapshot, curvlinops", "solvers",
     lambda t: _of(t["solvers"], "worst_ratio", method=CURVLINOPS), ">=", 1),
    ("largest true relative residual of ours", "solvers",
     lambda t: _of(t["solvers"], "worst_true_residual", method=OURS), "<=", 1e-3),
    ("smallest overlap with the tight solve, pairs on their own", "solvers_pairs",
     lambda t: float(_isolated(t)["overlap"].min()), ">=", 0.9999),
    ("smallest overlap with the tight span, pairs of a cluster, k = 15", "clusters",
     lambda t: float(_clustered(t)["overlap"].min()), ">=", 0.9999),
    ("share of these pairs that are reported to be in a cluster", "clusters",
     lambda t: float(_clustered(t)["reported"].mean()), ">=", 1),
    ("one product, share of the machine's matrix-product rate, operations that are taken", "product",
     lambda t: _of(t["product"], "of_machine_rate", task="H V, b = 1"), ">=", 0.85),
    ("the same, counting all 26.7 GFLOP of the dense inputs", "product",
     lambda t: _of(t["product"], "of_dense_rate", task="H V, b = 1"), ">=", 0.85),
    ("largest cost of a block over that of single products", "product", _block, "<", 1),
    ("peak memory / (data + kept activations)", "memory", lambda t: _of(t["memory"], "ratio"), "<=", 1.5),
    ("the same where the caller keeps the inputs for itself", "memory",
     lambda t: _of(t["memory"], "ratio_beside_inputs"), "<=", float("nan")),
    ("growth of memory per solve, in vectors of N numbers", "memory",
     lambda t: _of(t["memory"], "growth_vectors_per_solve"), "<=", 0.01),
    ("k = 15 to 1e-6: smallest speed-up over eigsh at equal residuals", "dense",
     lambda t: _least(t["dense"], "speed_up", comparison="equal residuals"), ">=", 2),
    ("the same, both asked for 1e-6", "dense",
     lambda t: _least(t["dense"], "speed_up", comparison="same tolerance"), ">=", 2),
    ("training step / its own matrix products, worst optimizer", "training", _worst_step, "<=", 1.2),
    ("two training runs at once over one, worst optimizer", "side_by_side",
     lambda t: float(t["side_by_side"]["scaling"].min()), ">=", 1.8),
)  # fmt: skip

TABLES = (
    "requirements",
    "solvers",
    "solvers_runs",
    "product",
    "product_error",
    "dense",
    "clusters",
    "training",
    "training_parts",
    "side_by_side",
    "scaling",
    "general",
    "any_module",
    "memory",
    "snapshots",
)


# Of gpu.py, which runs where there is a GPU and by itself.
GPU_TABLES = (
    "gpu_correctness", "gpu_summary", "gpu_runs", "gpu_solves", "gpu_products", "gpu_matrices", "gpu_steps",
    "gpu_launches", "gpu_sharing", "gpu_whole", "gpu_workflow",
)  # fmt: skip


def requirements(tables: Tables) -> pd.DataFrame:
    """One row a requirement whose table is there."""
    rows = []
    for what, table, measure, comparison, target in REQUIREMENTS:
        if table not in tables:
            continue
        value = measure(tables)
        if value != value:
            met = "not measured"
        elif target != target:
            met = ""
        else:
            met = "yes" if {">=": value >= target, "<=": value <= target, "<": value < target}[comparison] else "no"
        wanted = "" if target != target else f"{comparison} {target:g}"
        rows.append({"requirement": what, "measured": value, "wanted": wanted, "met": met})
    return pd.DataFrame(rows)


def machine_lines(path: Path) -> str:
    """The machine's facts as a list."""
    if not path.exists():
        return "not recorded\n"
    facts = json.loads(path.read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {number}" for name, number in facts.pop("versions").items())
    lines = [f"- {name.replace('_', ' ')}: {value}" for name, value in facts.items()]
    return "\n".join([*lines, f"- versions: {versions}"]) + "\n"


def fill(page: str, parts: dict[str, str]) -> str:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->` of each part."""
    for name, text in parts.items():
        marked = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
        page = marked.sub(partial(_between, text), page)
    return page


def times(product: pd.DataFrame, runs: pd.DataFrame) -> str:
    """What docs/performance.md shows of these tables."""
    seconds = {b: _of(product, "seconds", task=f"H V, b = {b}") / b for b in (1, 3, 4)}
    late = runs[(runs["method"] == OURS) & (runs["step"] == runs["step"].max())]
    pairs = [f"{_of(late, 'seconds', optimizer=name):.1f} s under {shown}" for name, shown in NAMES.items()]
    return (
        "| what | two cores |\n|---|---|\n"
        "| one Hessian product on all 60 000 images of MNIST | "
        f"{seconds[1]:.2f} s; in blocks of three {seconds[3]:.2f} s each, of four {seconds[4]:.2f} s |\n"
        f"| three certified eigenpairs there, after 10^5 steps | {', '.join(pairs)} |\n"
    )


def libraries(solvers: pd.DataFrame, others: pd.DataFrame) -> str:
    """The other libraries' times over ours, of docs/performance.md: of the fully connected network, and of others."""
    table = solvers[["method", "ratio_of_means"]].rename(columns={"ratio_of_means": "fully connected, mean"})
    for (network, stage), rows in others.groupby(["network", "stage"], sort=False):
        ratios = rows[["method", "cpu_ratio_to_ours"]].rename(columns={"cpu_ratio_to_ours": f"{network}, {stage}"})
        table = table.merge(ratios, how="outer", on="method", sort=False)
    known = [OURS, f"{OURS}, no surrogate", CURVLINOPS, "hessian-eigenthings", "PyHessian", BASE, f"{BASE}, graph kept"]
    table = table.set_index("method").reindex([name for name in known if name in set(table["method"])])
    return markdown(table.reset_index())


def _between(text: str, match: re.Match[str]) -> str:
    return f"{match[1]}{text}{match[2]}"


def main(argv: Sequence[str] | None = None) -> None:
    """Write the requirements, and fill the page's tables if these are the results that it shows."""
    given = arguments(__doc__, argv)
    wanted = (*TABLES, "solvers_pairs", *GPU_TABLES)
    tables = {name: table for name in wanted if (table := read(given.output, name)) is not None}
    table = requirements(tables)
    write(given.output, "requirements", table)
    parts = {name: markdown(each) for name, each in {**tables, "requirements": table}.items()}
    parts["machine"] = machine_lines(given.output / "machine.json")
    if (given.output / "gpu_machine.json").exists():
        parts["gpu_machine"] = machine_lines(given.output / "gpu_machine.json")
    page = HOME / "README.md"
    if given.output.resolve() == (HOME / "results").resolve() and not given.quick:
        page.write_text(fill(page.read_text(encoding="utf-8"), parts), encoding="utf-8")
        if {"product", "solvers_runs"} <= tables.keys():
            shown = times(tables["product"], tables["solvers_runs"])
            TIMES.write_text(fill(TIMES.read_text(encoding="utf-8"), {"times": shown}), encoding="utf-8")
        if {"solvers", "any_module"} <= tables.keys():
            beside = libraries(tables["solvers"], tables["any_module"])
            TIMES.write_text(fill(TIMES.read_text(encoding="utf-8"), {"libraries": beside}), encoding="utf-8")


if __name__ == "__main__":
    main()
