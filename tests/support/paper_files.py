"""Small tables, figures and captions on disk, and a runner for a rule's script, for the tests of the paper's rules."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from claims_frames import ROLES, alignments, baseline, constant, history, pairs, two_times
from experiments import FIGURE_NAMES, PACKAGES, REPOSITORY, SCRIPTS

from reproduction.files.final_eigenvectors import write_final_eigenvectors
from reproduction.files.tables import WHOSE, write_table

LAYOUT = {
    "datasets": {"digits": "digits", "digits_noisy": "noisy digits"},
    "optimizers": {"sgd": "SGD", "adam": "Adam", "sam": "SAM"},
    "dense_seed": 0,
    "k": 3,
}
CONFIG: dict[str, Any] = {
    "datasets": ["digits", "digits_noisy"],
    "data": {"root": "/home/someone/data", "scaling": "standard"},
    "model": {"hidden": [100, 100], "activation": "relu", "init": "xavier_uniform", "bias_init": "zero"},
    "training": {"batch_size": 128, "steps": 100_000, "seeds": [0, 1]},
    "eigen": {"k": 3, "tolerance": 1e-3, "dense_tolerance": 1e-4},
    "optimizers": {"sgd": {"lr": 0.01}, "adam": {"lr": 0.001}, "sam": {"rho": 0.05}},
    "snapshots": {"every": 100, "waiting_times": [0, 10, 100], "lags_per_decade": 3},
    "sweeps": {"dataset": "digits", "seeds": [0], "batch_size": {}, "learning_rate": {"0.3": 2000}},
    "sensitivity": {"variants": {}, "optimizers": [], "seeds": [], "steps": 100_000},
}
# What `train` writes of the machine into every identity.
MADE_WITH = {"device": "cpu", "torch": "2.14.0+cpu", "threads": 1}

_RUNNER = """
import json, runpy, sys
from types import SimpleNamespace
class Named(dict):
    def __getattr__(self, name):
        if name in self:
            return self[name]
        raise AttributeError(name)
spec = json.load(open(sys.argv[2]))
spec = {k: Named(v) if isinstance(v, dict) else v for k, v in spec.items()}
runpy.run_path(sys.argv[1], init_globals={"snakemake": SimpleNamespace(**spec)}, run_name="__main__")
"""


def run_script(
    rule: str,
    folder: Path,
    *,
    inputs: Mapping[str, Any],
    output: Mapping[str, Any],
    params: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run workflow/scripts/<rule>.py in its own process, as Snakemake would; its log is <folder>/<rule>.log."""
    spec = {"rule": rule, "log": [str(folder / f"{rule}.log")], "input": inputs, "output": output, "params": params}
    (folder / f"{rule}.json").write_text(json.dumps(spec))
    return subprocess.run(
        [sys.executable, "-c", _RUNNER, str(SCRIPTS / f"{rule}.py"), str(folder / f"{rule}.json")],
        env={**os.environ, "PYTHONPATH": PACKAGES, "OMP_NUM_THREADS": "1", **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def _write(path: Path, frame: pd.DataFrame, kind: str) -> str:
    identity = {column: frame[column].iloc[0] for column in WHOSE if column in frame}
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in identity.items()}
    facts = {"steps": 3000, "n_parameters": 17_610, "n_train": 1437, "diverged_at": None}
    table = frame.drop(columns=[name for name in WHOSE if name in frame])
    write_table(
        path, table, kind=kind, identity={**plain, **facts, **MADE_WITH}, units=dict.fromkeys(table.columns, "1")
    )
    return str(path)


def _falling(level: float) -> Callable[[float, int], float]:
    return lambda step, i: 1e-3 * level / i


def write_results(root: Path) -> dict[str, list[str]]:
    """The tables of two datasets, three optimizers and two seeds, by the names that the rule `claims` gives them."""
    files: dict[str, list[str]] = {"interpolation": []}
    layers = [["0.weight", [3, 2]], ["0.bias", [3]], ["2.weight", [2, 3]], ["2.bias", [2]]]
    for dataset in LAYOUT["datasets"]:  # type: ignore[attr-defined]
        for position, optimizer in enumerate(ROLES):
            for seed in (0, 1):
                run: dict[str, Any] = {"dataset": dataset, "optimizer": optimizer, "seed": seed}
                level = 1.0 + position + 0.2 * seed
                tables = {
                    "history": history((2.0, 0.1 * level), 0.9 + 0.01 * level, steps=(0, 3000), **run),
                    "ipr": pairs(_falling(level), steps=(0, 1500, 3000), k=15 if seed == 0 else 3, **run),
                    "alignment": alignments(steps=(0, 1000, 2000, 3000), **run),
                    "displacement": two_times(constant(1e-5 * level), waiting_times=(0, 10, 1000), end=3000, **run),
                }
                folder = root / f"{dataset}-{optimizer}-{seed}"
                for kind, frame in tables.items():
                    files.setdefault(kind, []).append(_write(folder / f"{kind}.csv", frame, kind))
                vector = np.random.default_rng(seed).standard_normal(17)
                path = folder / "final_eigenvector.safetensors"
                vectors = np.stack([vector, vector]) / np.linalg.norm(vector)
                identity = {**run, "variant": "main"}
                write_final_eigenvectors(path, vectors, [3000, 2900], [0.1, 0.2], layers, identity)
                files.setdefault("final_eigenvector", []).append(str(path))
        null = baseline(dataset).drop(columns=["dataset", "n_parameters"])
        path = root / f"{dataset}.csv"
        identity = {"dataset": dataset, "n_parameters": 17_610}
        write_table(path, null, kind="baseline", identity=identity, units=dict.fromkeys(null.columns, "1"))
        files.setdefault("baseline", []).append(str(path))
        solutions = pd.DataFrame({"optimizer": list(ROLES), "seed": 0, "test_accuracy": [0.9, 0.8, 0.7]})
        solutions = solutions.assign(
            train_loss=0.1, test_loss=0.2, lambda_1=[1.0, 2.0, 3.0], epsilon=1e-3, sharpness=1.0
        )
        path = root / f"{dataset}.solutions.csv"
        write_table(path, solutions, kind="solutions", identity=identity, units=dict.fromkeys(solutions.columns, "1"))
        files.setdefault("solutions", []).append(str(path))
    return files


def pdf(width: float, height: float) -> bytes:
    """A PDF of one page with a diagonal, in points."""
    stream = f"0 0 m {width} {height} l S".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [ 0 0 {width} {height} ] /Contents 4 0 R /Resources << >> >>".encode(),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    content, offsets = b"%PDF-1.4\n", []
    for number, item in enumerate(objects, start=1):
        offsets.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, item)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    start = len(content)
    content += b"xref\n0 5\n0000000000 65535 f \n" + table
    return content + b"trailer\n<< /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % start


def write_figures(root: Path) -> dict[str, list[str]]:
    """All figures, the second as narrow as a column and the third higher than a page, and their captions."""
    (root / "figures").mkdir(parents=True)
    (root / "report").mkdir()
    named: dict[str, list[str]] = {"figures": [], "captions": []}
    for number, name in enumerate(FIGURE_NAMES, 1):
        size = {2: (243, 150), 3: (486, 1200)}.get(number, (486, 150 + 5 * number))
        figure, caption = root / "figures" / f"{name}.pdf", root / "report" / f"{name}.rst"
        figure.write_bytes(pdf(*size))
        caption.write_text(
            f"Caption {number}: :math:`D_1(t_w, t_w + t)` at 95% of *all* lags, IPR ≥ 1/N.\n", encoding="utf-8"
        )
        named["figures"].append(str(figure))
        named["captions"].append(str(caption))
    return named


def build_figure_set(root: Path, environment: Mapping[str, str] | None = None) -> Path:
    """Run the rules `claims` and `figure_set` on small tables; the folder figure_set/ under `root`."""
    tables, figures = write_results(root / "tables"), write_figures(root)
    claims = {name: str(root / "claims" / f"claims.{name}") for name in ("csv", "md", "html", "tex")}
    claims |= {"grades": str(root / "claims" / "grades.csv"), "grades_tex": str(root / "claims" / "grades.tex")}
    params: dict[str, Any] = {"layout": LAYOUT, "roles": ROLES, "scale": {"steps": 3000, "n_seeds": 2}}
    files = {"claims": "claims.yaml", "primary": "primary_tests.yaml"}
    inputs = {**tables, **{key: str(REPOSITORY / "paper" / name) for key, name in files.items()}}
    done = run_script("claims", root, inputs=inputs, output=claims, params=params, environment=environment)
    assert done.returncode == 0, done.stderr
    folder = root / "figure_set"
    names = {
        "figures_tex": "figures.tex",
        "numbers_tex": "numbers.tex",
        "claims_tex": "claims.tex",
        "grades_tex": "grades.tex",
        "manifest": "manifest.json",
    }
    output: dict[str, Any] = {name: str(folder / file) for name, file in names.items()}
    output["pdfs"] = [str(folder / Path(path).name) for path in figures["figures"]]
    done = run_script(
        "figure_set",
        root,
        inputs={
            **figures,
            "claims_csv": claims["csv"],
            "claims_tex": claims["tex"],
            "grades": claims["grades"],
            "grades_tex": claims["grades_tex"],
            **{name: tables[name] for name in ("history", "ipr", "baseline")},
        },
        output=output,
        params={"layout": LAYOUT, "roles": ROLES, "config": CONFIG, "scratch": str(folder / ".scratch")},
        environment=environment,
    )
    assert done.returncode == 0, done.stderr
    return folder
